//! A model of a registry that speaks as Ollama's does (OCI distribution, schema 2): Ollama's own, Hugging Face, or a
//! registry of one's own.
//!
//! Every blob is checked against the digest that the manifest names before it gets its name in the store. Nothing of
//! what the server sends becomes part of a path.

use std::fs;
use std::net::IpAddr;

use super::http::{Client, Request, Settings};
use super::{Job, Reach, Source};
use crate::error::{Error, Result};
use crate::store::{Config, Expected, Layer, Manifest, media};

/// The registry of names that give no host.
const OLLAMA: &str = "registry.ollama.ai";
/// Longest manifest.
const MANIFEST: u64 = 1 << 20;
/// Other names of hosts.
const HOSTS: [(&str, &str); 2] = [("hf.co", "huggingface.co"), ("ollama.com", OLLAMA)];

/// A model of a registry.
pub struct Registry {
    base: String,
    name: String,
    tag: String,
    reach: Reach,
}

/// Whether text can be a part of an address: the grammar of names in the store, with capital letters kept.
fn plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !part.is_empty()
        && part.len() <= 128
        && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && part.chars().all(allowed)
}

impl Registry {
    /// The model that `[HOST/][NAMESPACE/]MODEL[:TAG]` stands for. `insecure` speaks without TLS, as is done with this
    /// machine in any case.
    ///
    /// # Errors
    /// The text is no such name.
    pub fn new(text: &str, insecure: bool) -> Result<Registry> {
        let wrong = |why| Error::Name { found: text.to_string(), why };
        let (path, last) = text.rsplit_once('/').map_or((None, text), |(path, last)| (Some(path), last));
        let (model, tag) = last.split_once(':').unwrap_or((last, "latest"));
        let (host, namespace) = match path {
            None => (OLLAMA, "library"),
            Some(path) => path.split_once('/').unwrap_or((OLLAMA, path)),
        };
        let host = HOSTS.iter().find(|h| h.0 == host).map_or(host, |h| h.1);
        let (bare, port) = host.split_once(':').map_or((host, None), |(bare, port)| (bare, Some(port)));
        let sound = plain(bare) && port.is_none_or(|p| p.parse::<u16>().is_ok());
        if !sound || ![namespace, model, tag].into_iter().all(plain) {
            return Err(wrong("expected [HOST/][NAMESPACE/]MODEL[:TAG] of letters, digits, '_', '-' and '.'"));
        }
        let local = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let scheme = if insecure || local { "http" } else { "https" };
        let (base, name) = (format!("{scheme}://{host}"), format!("{namespace}/{model}"));
        Ok(Registry { base, name, tag: tag.to_string(), reach: Reach::All })
    }

    /// The same, from nowhere else than there.
    pub fn within(self, reach: Reach) -> Registry {
        Registry { reach, ..self }
    }

    fn fetch_layer(&self, client: &Client, job: &Job, layer: &Layer) -> Result<()> {
        let store = job.writer.store();
        if store.has(layer) {
            return Ok(());
        }
        let what = format!("pulling {}", &layer.digest.hex()[..12]);
        let target = job.folder.join(layer.digest.file_name());
        let url = format!("{}/v2/{}/blobs/{}", self.base, self.name, layer.digest);
        let request = Request { url: &url, target: &target, size: Some(layer.size), checked: true };
        client.download_as(&request, job, &what)?;
        let expected = Expected { digest: Some(layer.digest), size: Some(layer.size) };
        let bar = job.ui.bar("verifying sha256 digest", Some(layer.size), 0);
        let adopted = job.writer.adopt(&target, &layer.media_type, &expected, &url, &bar);
        if adopted.is_err() {
            // Wrong bytes are not gone on from.
            let _ = fs::remove_file(&target);
        }
        adopted.map(|_| ())
    }
}

impl Source for Registry {
    fn describe(&self) -> String {
        format!("{}/{}:{}", self.base, self.name, self.tag)
    }

    fn expected(&self) -> Expected {
        Expected::default()
    }

    fn may_change(&self) -> bool {
        true
    }

    fn fetch(&self, job: &Job) -> Result<Manifest> {
        job.ui.say("pulling manifest");
        let client = Client::new(&Settings { reach: self.reach, ..Settings::of_environment() })?;
        let url = format!("{}/v2/{}/manifests/{}", self.base, self.name, self.tag);
        let kinds = format!("{}, application/vnd.oci.image.manifest.v1+json", media::MANIFEST);
        let text = client.get(&url, &kinds, MANIFEST)?;
        let wrong =
            |why: String| Error::Network { url: url.clone(), why: format!("the manifest cannot be used: {why}") };
        let mut manifest = Manifest::parse(&text).map_err(wrong)?;
        let model = manifest.model().ok_or_else(|| wrong(format!("it has no layer of type {}", media::MODEL)))?;
        job.room(&self.describe(), manifest.size())?;
        self.fetch_layer(&client, job, model)?;
        for layer in &manifest.layers {
            self.fetch_layer(&client, job, layer)?;
        }
        // The store's own configuration: where the model came from, so that it is known when it is asked for again.
        let config = Config { model_format: "gguf".into(), source: self.describe(), ..Config::default() };
        let json = serde_json::to_vec(&config).expect("a configuration is plain data");
        manifest.config = job.writer.add_bytes(&json, media::CONFIG)?;
        job.ui.say("writing manifest");
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_addresses() {
        let address = |text: &str| Registry::new(text, false).unwrap().describe();
        assert_eq!(address("llama3"), "https://registry.ollama.ai/library/llama3:latest");
        assert_eq!(address("hf.co/User/Repo-GGUF:Q4_K_M"), "https://huggingface.co/User/Repo-GGUF:Q4_K_M");
        assert_eq!(address("localhost:5000/a/b:c"), "http://localhost:5000/a/b:c");
        for text in ["", "../x", "a//b", "h/../b", "x:y:z", "h:port/a/b", "a b", "a/b/c/d", "-x", "x?y", "u@h/a/b"] {
            assert!(Registry::new(text, false).is_err(), "{text}");
        }
    }
}
