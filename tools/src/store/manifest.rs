//! Manifests: which blobs make a model. The JSON is that of OCI image manifests with the layer types that Ollama's
//! store uses, so that layers of other kinds (template, system text, parameters, adapters) find their place.

use serde::{Deserialize, Serialize};

use super::Digest;

/// Media types of what this program writes. Layers of other types are kept and ignored.
pub mod media {
    /// A manifest.
    pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// The configuration: a [`super::Config`].
    pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A GGUF file.
    pub const MODEL: &str = "application/vnd.ollama.image.model";
    /// A template in Go's language.
    pub const TEMPLATE: &str = "application/vnd.ollama.image.template";
    /// A system text.
    pub const SYSTEM: &str = "application/vnd.ollama.image.system";
    /// Parameters, a JSON object.
    pub const PARAMS: &str = "application/vnd.ollama.image.params";
    /// Messages, a JSON array.
    pub const MESSAGES: &str = "application/vnd.ollama.image.messages";
    /// A low-rank adapter.
    pub const ADAPTER: &str = "application/vnd.ollama.image.adapter";
    /// A licence text.
    pub const LICENSE: &str = "application/vnd.ollama.image.license";
}

/// One blob of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// What the blob is.
    pub media_type: String,
    /// Its name in the store.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// The blobs of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    media_type: String,
    /// The blob of the [`Config`].
    pub config: Layer,
    /// All other blobs.
    pub layers: Vec<Layer>,
}

impl Manifest {
    /// A manifest of these blobs.
    pub fn new(config: Layer, layers: Vec<Layer>) -> Manifest {
        Manifest { schema_version: 2, media_type: media::MANIFEST.into(), config, layers }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse(text: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if manifest.schema_version != 2 {
            return Err(format!("schemaVersion is {}, expected 2", manifest.schema_version));
        }
        Ok(manifest)
    }

    /// The layer of the model file.
    pub fn model(&self) -> Option<&Layer> {
        self.layers.iter().find(|l| l.media_type == media::MODEL)
    }

    /// Every blob, the configuration first.
    pub fn blobs(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        self.blobs().fold(0, |sum, l| sum.saturating_add(l.size))
    }
}

/// What is known of a model beside its blobs. Fields that other programs write are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Always `gguf`.
    pub model_format: String,
    /// Where the model came from, in words.
    pub source: String,
    /// What it is made for.
    pub kind: Option<Kind>,
    /// The model that it was made from, where it was made by `create`.
    pub parent: String,
}

/// What a model was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Answers messages.
    Chat,
    /// Continues text.
    Base,
    /// Makes vectors of texts.
    Embedding,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let layer = |t: &str| Layer { media_type: t.into(), digest: Digest::of(t.as_bytes()), size: 3 };
        let manifest =
            Manifest::new(layer(media::CONFIG), vec![layer(media::LICENSE), layer(media::MODEL), layer("other")]);
        let text = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        assert_eq!(manifest.model().unwrap().digest, Digest::of(media::MODEL.as_bytes()));
        assert_eq!((manifest.size(), manifest.blobs().count()), (12, 4));
        let text = String::from_utf8(text).unwrap();
        assert!(Manifest::parse(text.replace("sha256:", "sha256:../").as_bytes()).unwrap_err().contains("no digest"));
        assert!(
            Manifest::parse(text.replace("\"schemaVersion\":2", "\"schemaVersion\":1").as_bytes())
                .unwrap_err()
                .contains("expected 2")
        );
        assert!(Manifest::parse(text.replace("\"size\":3", "\"size\":-3").as_bytes()).is_err());
        assert!(Manifest::parse(b"").is_err());
    }
}
