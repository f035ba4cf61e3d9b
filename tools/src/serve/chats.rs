//! Messages and tools, as both dialects have them.

use std::hash::{BuildHasher, Hasher};

use serde_json::{Map, Value as Json, json};

use super::fault::{Fault, Result};
use super::fields::{Fields, wrong};

/// Roles that a message can have.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
/// Most tools of a request.
const MOST_TOOLS: usize = 128;

/// The role of a message. `developer` is another word for `system`.
///
/// # Errors
/// There is none, or another one.
pub fn role(fields: &mut Fields) -> Result<String> {
    match fields.text("role")?.as_deref() {
        Some("developer") => Ok("system".into()),
        Some(role) if ROLES.contains(&role) => Ok(role.into()),
        Some(other) => {
            let shown = crate::ui::format::printable(other);
            Err(fields.fault("role", format!("is \"{shown}\", expected one of {}", ROLES.join(", "))))
        }
        None => Err(fields.fault("role", "is missing")),
    }
}

/// The tools of a request, checked.
///
/// # Errors
/// One that is no function with a name, or too many of them.
pub fn tools(list: Vec<Json>) -> Result<Vec<Json>> {
    if list.len() > MOST_TOOLS {
        return Err(Fault::field("tools", format!("there are {} tools, at most {MOST_TOOLS} are allowed", list.len())));
    }
    for (at, tool) in list.iter().enumerate() {
        let name = format!("tools[{at}]");
        if tool.get("type").is_some_and(|t| t != "function") {
            return Err(Fault::field(&name, format!("{name}.type must be \"function\"")));
        }
        let function = tool.get("function").filter(|f| f.is_object());
        let function = function.ok_or_else(|| Fault::field(&name, format!("{name}.function must be an object")))?;
        if function.get("name").and_then(Json::as_str).is_none_or(str::is_empty) {
            return Err(Fault::field(&name, format!("{name}.function.name must be a string")));
        }
        if function.get("parameters").is_some_and(|p| !p.is_object() && !p.is_null()) {
            return Err(Fault::field(&name, format!("{name}.function.parameters must be an object")));
        }
    }
    Ok(list)
}

/// Calls that a conversation brings from earlier: arguments as objects, which is what templates expect.
///
/// # Errors
/// One that is no call.
pub fn past_calls(list: Vec<Json>) -> Result<Json> {
    let one = |(at, call): (usize, Json)| {
        let name = format!("tool_calls[{at}]");
        let mut fields = Fields::of(call, &name)?;
        let id = fields.text("id")?;
        let mut function = fields.object("function")?.ok_or_else(|| fields.fault("function", "is missing"))?;
        let called = function.text("name")?.ok_or_else(|| function.fault("name", "is missing"))?;
        let arguments = match function.take("arguments") {
            None => json!({}),
            Some(Json::String(text)) if text.trim().is_empty() => json!({}),
            Some(Json::String(text)) => serde_json::from_str::<Map<String, Json>>(&text)
                .map(Json::Object)
                .map_err(|_| function.fault("arguments", "is no JSON object"))?,
            Some(object @ Json::Object(_)) => object,
            Some(other) => return Err(wrong(&format!("{name}.function.arguments"), "an object", &other)),
        };
        Ok(json!({"id": id, "type": "function", "function": {"name": called, "arguments": arguments}}))
    };
    list.into_iter().enumerate().map(one).collect::<Result<Vec<_>>>().map(Json::Array)
}

/// Letters and digits that are not used twice.
pub fn token(length: usize) -> String {
    const SIGNS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
        for _ in 0..8.min(length - text.len()) {
            text.push(char::from(SIGNS[(bits % SIGNS.len() as u64) as usize]));
            bits /= SIGNS.len() as u64;
        }
    }
    text
}

/// The identity of a call.
pub fn call_id() -> String {
    format!("call_{}", token(8))
}
