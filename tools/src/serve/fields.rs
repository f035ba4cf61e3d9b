//! The fields of a JSON object, taken one by one with their types checked; what is left over at the end was not
//! understood, and its sender hears of it.

use std::ops::RangeInclusive;

use serde_json::{Map, Value as Json};

use super::fault::{Fault, Result};

/// An object that is being read. A field that is null counts as absent.
#[derive(Debug, Default)]
pub struct Fields {
    map: Map<String, Json>,
    /// Put before names in errors.
    path: String,
}

/// The kind of a value, in words.
fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

impl Fields {
    /// Reads a request's body.
    ///
    /// # Errors
    /// It is empty, no JSON (also: nested deeper than 128, or not UTF-8) or no object.
    pub fn parse(body: &[u8]) -> Result<Fields> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Fault::bad("missing request body"));
        }
        let json: Json = serde_json::from_slice(body).map_err(|e| Fault::bad(format!("the body is no JSON: {e}")))?;
        Fields::of(json, "")
    }

    /// The fields of a value that should be an object.
    ///
    /// # Errors
    /// It is none.
    pub fn of(json: Json, path: &str) -> Result<Fields> {
        match json {
            Json::Object(map) => {
                Ok(Fields { map, path: if path.is_empty() { String::new() } else { format!("{path}.") } })
            }
            other if path.is_empty() => Err(Fault::bad(format!("the body is {}, expected an object", kind(&other)))),
            other => Err(wrong(path, "an object", &other)),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// The error of a field.
    pub fn fault(&self, name: &str, why: impl std::fmt::Display) -> Fault {
        let full = self.full(name);
        Fault::field(&full, format!("{full} {why}"))
    }

    /// A field as it is.
    pub fn take(&mut self, name: &str) -> Option<Json> {
        self.map.shift_remove(name).filter(|v| !v.is_null())
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|v| !v.is_null())
    }

    /// A string.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.full(name), "a string", &other)),
        }
    }

    /// A boolean.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(&self.full(name), "a boolean", &other)),
        }
    }

    /// An integer in a range. Clients in untyped languages write integers as `1.0` too.
    pub fn int(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        int(&self.full(name), &value, range).map(Some)
    }

    /// An integer in a range of sizes.
    pub fn size(&mut self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let bound = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let found = self.int(name, bound(*range.start())..=bound(*range.end()))?;
        Ok(found.map(|n| usize::try_from(n).unwrap_or_default()))
    }

    /// An array.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Json>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong(&self.full(name), "an array", &other)),
        }
    }

    /// An object.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>> {
        let full = self.full(name);
        self.take(name).map(|json| Fields::of(json, &full)).transpose()
    }

    /// A string or a list of strings.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let full = self.full(name);
        self.take(name).map(|json| texts(&full, json)).transpose()
    }

    /// Names that nobody has taken, without those that change nothing.
    pub fn unknown(&self, harmless: &[&str]) -> Vec<String> {
        let left = self.map.iter().filter(|(name, value)| !value.is_null() && !harmless.contains(&name.as_str()));
        left.map(|(name, _)| self.full(name)).collect()
    }

    /// What is left.
    pub fn into_map(self) -> Map<String, Json> {
        self.map
    }
}

/// The error of a field of the wrong type.
pub fn wrong(name: &str, expected: &str, found: &Json) -> Fault {
    Fault::field(name, format!("{name} must be {expected}, found {}", kind(found)))
}

/// An integer in a range.
pub fn int(name: &str, value: &Json, range: RangeInclusive<i64>) -> Result<i64> {
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64);
    let found = match value {
        // Above i64 saturates: the range says no.
        Json::Number(n) => n.as_i64().or(n.as_u64().map(|_| i64::MAX)).or_else(|| n.as_f64().and_then(whole)),
        other => return Err(wrong(name, "an integer", other)),
    };
    match found {
        Some(n) if range.contains(&n) => Ok(n),
        _ => Err(Fault::field(
            name,
            format!("{name} is {value}, allowed are integers from {} to {}", range.start(), range.end()),
        )),
    }
}

/// A number in a range.
pub fn number(name: &str, value: &Json, range: RangeInclusive<f64>) -> Result<f64> {
    let found = match value {
        Json::Number(n) => n.as_f64(),
        other => return Err(wrong(name, "a number", other)),
    };
    match found {
        Some(n) if range.contains(&n) => Ok(n),
        _ => Err(Fault::field(
            name,
            format!("{name} is {value}, allowed are numbers from {} to {}", range.start(), range.end()),
        )),
    }
}

/// A string or a list of strings.
pub fn texts(name: &str, value: Json) -> Result<Vec<String>> {
    match value {
        Json::String(text) => Ok(vec![text]),
        Json::Array(items) => {
            let text = |item| match item {
                Json::String(text) => Ok(text),
                other => Err(wrong(name, "a string or an array of strings", &other)),
            };
            items.into_iter().map(text).collect()
        }
        other => Err(wrong(name, "a string or an array of strings", &other)),
    }
}
