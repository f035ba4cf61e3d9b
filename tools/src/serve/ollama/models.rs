//! What models there are, what is inside them, and which are in memory.

use std::time::{Duration, SystemTime};

use axum::response::Response;
use serde_json::{Map, Value as Json, json};

use super::super::app::blocking;
use super::super::call::Call;
use super::super::facts::Facts;
use super::super::fault::Result;
use super::super::prompt::{mentions_thinking, mentions_tools};
use super::super::reply;
use super::super::shelf::{Pack, Shelf};
use super::{model, stamp};

/// `/api/version`.
pub async fn version(_: Call) -> Result<Response> {
    Ok(reply::json(&json!({"version": env!("CARGO_PKG_VERSION")})))
}

/// `/api/tags`.
pub async fn tags(call: Call) -> Result<Response> {
    let shelf = call.app.shelf().clone();
    let models = blocking(move || {
        let packs = shelf.list()?;
        Ok(packs.iter().map(|p| tag(&shelf, p)).collect::<Vec<Json>>())
    });
    Ok(reply::json(&json!({"models": models.await?})))
}

fn tag(shelf: &Shelf, pack: &Pack) -> Json {
    // A file that cannot be read is listed all the same, so that it can be removed.
    let facts = shelf.facts(pack).unwrap_or_default();
    json!({
        "name": pack.name,
        "model": pack.name,
        "modified_at": stamp(pack.modified),
        "size": pack.size,
        "digest": pack.digest,
        "details": facts.details(&pack.parent),
        "capabilities": capabilities(pack, &facts),
    })
}

/// What a model can do.
pub fn capabilities(pack: &Pack, facts: &Facts) -> Vec<&'static str> {
    let template = pack.template.as_ref().or(facts.template.as_ref());
    let has = |test: fn(&str) -> bool| template.is_some_and(|t| test(t));
    let table = [
        ("completion", true),
        ("tools", has(mentions_tools)),
        ("insert", facts.insert),
        ("thinking", has(mentions_thinking)),
        ("embedding", true),
    ];
    table.into_iter().filter(|row| row.1).map(|row| row.0).collect()
}

/// `/api/ps`.
pub async fn ps(call: Call) -> Result<Response> {
    let app = call.app.clone();
    let models = blocking(move || {
        let running = app.manager.running();
        let row = |r: &super::super::loaded::Running| {
            let (pack, engine) = (&r.loaded.pack, &r.loaded.engine);
            let facts = app.shelf().facts(pack).unwrap_or_default();
            let forever = || SystemTime::now() + Duration::from_secs(100 * 365 * 86_400);
            let busy = engine.busy().unwrap_or_default();
            json!({
                "name": pack.name,
                "model": pack.name,
                "size": engine.memory().total(),
                "digest": pack.digest,
                "details": facts.details(&pack.parent),
                "expires_at": stamp(r.expires.unwrap_or_else(forever)),
                "size_vram": engine.memory().device.total(),
                "context_length": engine.ctx(),
                "slots": {"total": engine.sequences(), "running": busy.running, "waiting": busy.waiting},
            })
        };
        Ok(running.iter().map(row).collect::<Vec<Json>>())
    });
    Ok(reply::json(&json!({"models": models.await?})))
}

/// `/api/show`.
pub async fn show(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let name = model(&mut fields)?;
    let verbose = fields.flag("verbose")?.unwrap_or(false);
    let system = fields.text("system")?;
    let unknown = fields.unknown(&["options", "template"]);
    let shelf = call.app.shelf().clone();
    let answer = blocking(move || {
        let mut pack = shelf.find(&name)?;
        if let Some(system) = system {
            pack.system = Some(system);
        }
        let facts = shelf.facts(&pack)?;
        let mut answer = describe(&pack, &facts);
        if verbose {
            answer["tensors"] = json!(facts.tensors);
        }
        if !unknown.is_empty() {
            answer["warnings"] =
                unknown.iter().map(|f| json!(format!("field {f} is not known and has no effect"))).collect();
        }
        Ok(answer)
    });
    Ok(reply::json(&answer.await?))
}

fn describe(pack: &Pack, facts: &Facts) -> Json {
    let mut info: Map<String, Json> = facts.keys.clone();
    info.insert("general.parameter_count".into(), json!(facts.parameters));
    let mut answer = json!({
        "modelfile": modelfile(pack),
        "parameters": parameters(&pack.parameters),
        "template": pack.template.as_ref().or(facts.template.as_ref()).cloned().unwrap_or_default(),
        "details": facts.details(&pack.parent),
        "messages": pack.messages,
        "model_info": info,
        "tensors": [],
        "capabilities": capabilities(pack, facts),
        "modified_at": stamp(pack.modified),
    });
    if let Some(system) = &pack.system {
        answer["system"] = json!(system);
    }
    if !pack.licenses.is_empty() {
        answer["license"] = json!(pack.licenses.join("\n\n"));
    }
    answer
}

/// Parameters in columns, a line for each value of a list.
fn parameters(parameters: &Map<String, Json>) -> String {
    let mut lines = Vec::new();
    for (name, value) in parameters {
        match value {
            Json::Array(values) => lines.extend(values.iter().map(|v| format!("{name:<30} {v}"))),
            value => lines.push(format!("{name:<30} {value}")),
        }
    }
    lines.join("\n")
}

/// A Modelfile that makes the same model from its parent's file.
fn modelfile(pack: &Pack) -> String {
    let mut text = format!("# Modelfile of {}\nFROM {}\n", pack.name, pack.name);
    let quoted = |word: &str, value: &str| format!("{word} \"\"\"{value}\"\"\"\n");
    if let Some(template) = &pack.template {
        text += &quoted("TEMPLATE", template);
    }
    if let Some(system) = &pack.system {
        text += &quoted("SYSTEM", system);
    }
    for (name, value) in &pack.parameters {
        match value {
            Json::Array(values) => {
                text += &values.iter().map(|v| format!("PARAMETER {name} {v}\n")).collect::<String>()
            }
            value => text += &format!("PARAMETER {name} {value}\n"),
        }
    }
    for message in &pack.messages {
        text += &format!("MESSAGE {} {}\n", message.role, message.content);
    }
    for license in &pack.licenses {
        text += &quoted("LICENSE", license);
    }
    text
}
