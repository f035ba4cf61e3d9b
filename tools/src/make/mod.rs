//! Models made of other models: a Modelfile, or the same as JSON, becomes blobs and a manifest.

mod modelfile;

use std::path::{Path, PathBuf};

use engine::file::ModelFile;
use engine::tokenizer::{Encode, Tokenizer};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::serve::go::GoTemplate;
use crate::serve::options::Settings;
use crate::serve::shelf::{Pack, Shelf};
use crate::store::{Config, Digest, Expected, Layer, Manifest, Name, Writer, media};
use crate::ui::Ui;

pub use modelfile::parse;

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// A model that there is.
    Model(String),
    /// A GGUF file of this machine.
    File(PathBuf),
    /// A blob that was uploaded.
    Blob(Digest),
}

/// What a model is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipe {
    /// Where the weights come from.
    pub from: Option<From>,
    /// A template in Go's language.
    pub template: Option<String>,
    /// A system text.
    pub system: Option<String>,
    /// Options.
    pub parameters: Map<String, Json>,
    /// Messages: role and content.
    pub messages: Vec<(String, String)>,
    /// Licence texts.
    pub licenses: Vec<String>,
    /// Files of low-rank adapters; none leaves those of the parent.
    pub adapters: Vec<PathBuf>,
    /// Text files whose contents follow the system text.
    pub files: Vec<PathBuf>,
    /// What was said and has no effect, in words.
    pub notes: Vec<String>,
}

/// Makes a model under a name; what the parent has and the recipe does not say stays.
///
/// # Errors
/// There is no such parent, the recipe holds what cannot be used, or the store cannot be written.
pub fn make(shelf: &Shelf, name: &Name, recipe: &Recipe, ui: Ui) -> Result<()> {
    let mut settings = Settings::default();
    settings.set_all(&recipe.parameters).map_err(|f| Error::Usage(f.message.replace("options.", "PARAMETER ")))?;
    if let Some(template) = &recipe.template {
        GoTemplate::parse(template).map_err(|e| Error::Usage(format!("TEMPLATE: {e}")))?;
    }
    settings.warnings.iter().chain(&recipe.notes).for_each(|w| ui.say(w));
    let store = shelf.store();
    let writer = Writer::open(store, ui)?;
    let from = recipe.from.as_ref().ok_or_else(|| Error::Usage("neither 'from' or 'files' was specified".into()))?;
    let (model, parent, source) = weights(shelf, &writer, from, ui)?;
    let parent = parent.as_ref();
    let system = system(recipe, parent, &store.blob(&model.digest), ui)?;
    let mut layers = vec![model];
    layers.extend(adapters(shelf, &writer, recipe, parent, ui)?);
    let mut add = |text: Option<String>, kind: &str| -> Result<()> {
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            ui.say("creating new layer");
            layers.push(writer.add_bytes(text.as_bytes(), kind)?);
        }
        Ok(())
    };
    add(recipe.template.clone().or_else(|| parent?.template.clone()), media::TEMPLATE)?;
    add(system, media::SYSTEM)?;
    add(parameters(recipe, parent), media::PARAMS)?;
    add(messages(recipe, parent), media::MESSAGES)?;
    let inherited = parent.map(|p| p.licenses.clone()).unwrap_or_default();
    for text in if recipe.licenses.is_empty() { inherited } else { recipe.licenses.clone() } {
        add(Some(text), media::LICENSE)?;
    }
    let config = Config {
        model_format: "gguf".into(),
        source,
        kind: None,
        parent: parent.map(|p| p.name.clone()).unwrap_or_default(),
    };
    let json = serde_json::to_vec(&config).expect("a configuration is plain data");
    let config = writer.add_bytes(&json, media::CONFIG)?;
    ui.say("writing manifest");
    writer.publish(name, &Manifest::new(config, layers))
}

/// The layer of the weights, the model they are of, and where they came from in words.
fn weights(shelf: &Shelf, writer: &Writer, from: &From, ui: Ui) -> Result<(Layer, Option<Pack>, String)> {
    match from {
        From::Model(name) => {
            let pack = shelf.find(name).map_err(|f| Error::Usage(f.message))?;
            let size = std::fs::metadata(&pack.path).map_err(Error::io("cannot read", &pack.path))?.len();
            let layer = pack.blob.map(|digest| Layer { media_type: media::MODEL.into(), digest, size });
            let layer = match layer.filter(|l| writer.store().has(l)) {
                Some(layer) => layer,
                // It lies in another folder: this store needs a copy of its own.
                None => copy(writer, &pack.path, media::MODEL, pack.blob, ui)?,
            };
            let source = format!("created from {}", pack.name);
            Ok((layer, Some(pack), source))
        }
        From::File(path) => {
            let layer = copy(writer, path, media::MODEL, None, ui)?;
            Ok((layer, None, format!("created from the file {}", path.display())))
        }
        From::Blob(digest) => {
            let there = writer.store().blob(digest);
            let upload = writer.store().upload(digest);
            let path = if there.is_file() { &there } else { &upload };
            let size =
                std::fs::metadata(path).map_err(|_| Error::Usage(format!("the blob {digest} was not uploaded")))?.len();
            check(path)?;
            let layer = match there.is_file() {
                true => Layer { media_type: media::MODEL.into(), digest: *digest, size },
                false => {
                    let expected = Expected { digest: Some(*digest), size: Some(size) };
                    let bar = ui.bar("verifying sha256 digest", Some(size), 0);
                    writer.adopt(path, media::MODEL, &expected, "the uploaded blob", &bar)?
                }
            };
            Ok((layer, None, "created from an uploaded file".into()))
        }
    }
}

/// Refuses what is no GGUF.
fn check(path: &Path) -> Result<()> {
    ModelFile::open(path).and_then(|f| f.parse().map(|_| ())).map_err(Error::Engine)
}

fn copy(writer: &Writer, path: &Path, media_type: &str, digest: Option<Digest>, ui: Ui) -> Result<Layer> {
    check(path)?;
    let mut file = std::fs::File::open(path).map_err(Error::io("cannot read", path))?;
    let size = file.metadata().map_err(Error::io("cannot read", path))?.len();
    let mut blob = writer.blob(Expected { digest, size: Some(size) }, "the model file")?;
    let bar = ui.bar("copying file", Some(size), 0);
    blob.copy(&mut file, &bar, Error::io("cannot read", path))?;
    blob.finish(media_type)
}

/// The layers of the adapters: the recipe's, else the parent's.
fn adapters(shelf: &Shelf, writer: &Writer, recipe: &Recipe, parent: Option<&Pack>, ui: Ui) -> Result<Vec<Layer>> {
    let inherited = parent.filter(|_| recipe.adapters.is_empty()).map(|p| p.adapters.as_slice()).unwrap_or_default();
    let own = |path: &PathBuf| copy(writer, path, media::ADAPTER, None, ui);
    let kept = |(layer, path): &(Layer, PathBuf)| match shelf.store().has(layer) {
        true => Ok(layer.clone()),
        false => copy(writer, path, media::ADAPTER, Some(layer.digest), ui),
    };
    recipe.adapters.iter().map(own).chain(inherited.iter().map(kept)).collect()
}

/// The system text with the files of the recipe.
fn system(recipe: &Recipe, parent: Option<&Pack>, model: &Path, ui: Ui) -> Result<Option<String>> {
    let mut system = recipe.system.clone().or_else(|| parent?.system.clone());
    for path in &recipe.files {
        let bytes = std::fs::read(path).map_err(Error::io("cannot read", path))?;
        if bytes.starts_with(b"%PDF") {
            return Err(Error::Usage(format!("FILE {}: PDF is not supported; convert it to text", path.display())));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::Usage(format!("FILE {}: the file is no text (UTF-8)", path.display())))?;
        let before = system.take().map(|s| s + "\n\n").unwrap_or_default();
        system = Some(before + &text);
    }
    if let (false, Some(system)) = (recipe.files.is_empty(), &system) {
        let file = ModelFile::open(model)?;
        let gguf = file.parse()?;
        let tokenizer = Tokenizer::from_meta(gguf.meta()).map_err(engine::Error::from)?;
        let n = tokenizer.encode(system, Encode { add_special: false, parse_special: false }).len();
        let train = engine::spec::Spec::from_meta(gguf.meta())?.n_ctx_train;
        if n >= train {
            return Err(Error::Usage(format!("SYSTEM and FILE have {n} tokens, the model's context {train}")));
        }
        ui.say(&format!("SYSTEM and FILE have {n} tokens of every request's context"));
    }
    Ok(system)
}

fn parameters(recipe: &Recipe, parent: Option<&Pack>) -> Option<String> {
    let mut all = parent.map(|p| p.parameters.clone()).unwrap_or_default();
    all.extend(recipe.parameters.clone());
    (!all.is_empty()).then(|| Json::Object(all).to_string())
}

fn messages(recipe: &Recipe, parent: Option<&Pack>) -> Option<String> {
    if recipe.messages.is_empty() {
        let inherited = parent.map(|p| &p.messages).filter(|m| !m.is_empty())?;
        return serde_json::to_string(inherited).ok();
    }
    let one = |(role, content): &(String, String)| serde_json::json!({"role": role, "content": content});
    Some(Json::Array(recipe.messages.iter().map(one).collect()).to_string())
}
