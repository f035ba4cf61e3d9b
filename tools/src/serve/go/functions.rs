//! What a template may call.

use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::exec::{text, truth};
use crate::ui::format::rfc3339;

/// A function: its name, how many arguments it takes, what it does.
#[derive(Clone, Copy)]
pub struct Function {
    name: &'static str,
    least: usize,
    most: usize,
    call: fn(&[Json]) -> Result<Json, String>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const MANY: usize = 64;

const fn function(
    name: &'static str,
    least: usize,
    most: usize,
    call: fn(&[Json]) -> Result<Json, String>,
) -> Function {
    Function { name, least, most, call }
}

/// THE list of functions.
const FUNCTIONS: [Function; 19] = [
    function("and", 1, MANY, |a| Ok(a.iter().find(|v| !truth(v)).or(a.last()).cloned().unwrap_or_default())),
    function("or", 1, MANY, |a| Ok(a.iter().find(|v| truth(v)).or(a.last()).cloned().unwrap_or_default())),
    function("not", 1, 1, |a| Ok(json!(!truth(&a[0])))),
    function("eq", 2, MANY, |a| Ok(json!(a[1..].iter().any(|b| same(&a[0], b))))),
    function("ne", 2, 2, |a| Ok(json!(!same(&a[0], &a[1])))),
    function("lt", 2, 2, |a| order(a).map(|o| json!(o.is_lt()))),
    function("le", 2, 2, |a| order(a).map(|o| json!(o.is_le()))),
    function("gt", 2, 2, |a| order(a).map(|o| json!(o.is_gt()))),
    function("ge", 2, 2, |a| order(a).map(|o| json!(o.is_ge()))),
    function("len", 1, 1, |a| length(&a[0]).map(|n| json!(n))),
    function("index", 2, 2, |a| element(&a[0], &a[1])),
    function("slice", 2, 3, slice),
    function("print", 0, MANY, |a| Ok(json!(a.iter().map(text).collect::<String>()))),
    function("printf", 1, MANY, printf),
    function("json", 1, 1, |a| Ok(json!(a[0].to_string()))),
    function("currentDate", 0, 0, |_| Ok(json!(date(SystemTime::now())))),
    function("yesterdayDate", 0, 0, |_| Ok(json!(date(SystemTime::now() - Duration::from_secs(86_400))))),
    function("toTypeScriptType", 1, 1, |a| Ok(json!(typescript(&a[0], 0)))),
    function("add", 2, 2, |a| match (a[0].as_i64(), a[1].as_i64()) {
        (Some(x), Some(y)) => Ok(json!(x.saturating_add(y))),
        _ => Err("add takes integers".into()),
    }),
];

/// The function of a name.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<Function, String> {
    let known = || FUNCTIONS.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
    let found = FUNCTIONS.iter().find(|f| f.name == name).copied();
    found.ok_or_else(|| format!("function {} is not known; known are {}", crate::ui::format::printable(name), known()))
}

impl Function {
    /// Whether it takes so many arguments.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, n: usize) -> Result<(), String> {
        match (self.least..=self.most).contains(&n) {
            true => Ok(()),
            false => Err(format!("{} has {n} arguments, expected {} to {}", self.name, self.least, self.most)),
        }
    }

    /// Its value.
    ///
    /// # Errors
    /// It cannot be worked out of these arguments.
    pub fn call(&self, arguments: &[Json]) -> Result<Json, String> {
        (self.call)(arguments).map_err(|e| format!("{}: {e}", self.name))
    }
}

fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

fn order(a: &[Json]) -> Result<std::cmp::Ordering, String> {
    match (&a[0], &a[1]) {
        (Json::String(x), Json::String(y)) => Ok(x.cmp(y)),
        (x, y) => match (x.as_f64(), y.as_f64()) {
            (Some(x), Some(y)) => x.partial_cmp(&y).ok_or_else(|| "numbers cannot be compared".into()),
            _ => Err("only two numbers or two strings can be compared".into()),
        },
    }
}

fn length(value: &Json) -> Result<usize, String> {
    match value {
        Json::Null => Ok(0),
        Json::String(s) => Ok(s.len()),
        Json::Array(items) => Ok(items.len()),
        Json::Object(map) => Ok(map.len()),
        _ => Err("only strings, lists and maps have a length".into()),
    }
}

fn element(list: &Json, at: &Json) -> Result<Json, String> {
    match (list, at) {
        (Json::Array(items), Json::Number(n)) => {
            let index = n.as_u64().and_then(|n| usize::try_from(n).ok());
            index.and_then(|i| items.get(i)).cloned().ok_or_else(|| format!("there is no element {n}"))
        }
        (Json::Object(map), Json::String(key)) => Ok(map.get(key).cloned().unwrap_or_default()),
        _ => Err("takes a list and a number, or a map and a string".into()),
    }
}

fn slice(a: &[Json]) -> Result<Json, String> {
    let index =
        |v: &Json| v.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("bounds must be numbers of at least 0");
    let n = length(&a[0])?;
    let (start, end) = (index(&a[1])?, a.get(2).map_or(Ok(n), index)?);
    if start > end || end > n {
        return Err(format!("bounds {start} to {end} of {n}"));
    }
    match &a[0] {
        Json::String(s) => s.get(start..end).map(|s| json!(s)).ok_or_else(|| "bounds lie inside a character".into()),
        Json::Array(items) => Ok(json!(items[start..end])),
        Json::Null => Ok(Json::Null),
        _ => Err("only strings and lists can be sliced".into()),
    }
}

fn printf(a: &[Json]) -> Result<Json, String> {
    let format = a[0].as_str().ok_or("the format must be a string")?;
    let (mut out, mut arguments, mut chars) = (String::new(), a[1..].iter(), format.chars());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some('s' | 'v' | 'd') => out += &text(arguments.next().ok_or("too few arguments")?),
            Some('q') => out += &json!(text(arguments.next().ok_or("too few arguments")?)).to_string(),
            other => return Err(format!("verb %{} is not supported", other.unwrap_or(' '))),
        }
    }
    Ok(json!(out))
}

fn date(time: SystemTime) -> String {
    rfc3339(time).split('T').next().unwrap_or_default().to_string()
}

/// A JSON schema's type as TypeScript writes it.
fn typescript(schema: &Json, depth: usize) -> String {
    let one = |name: &str| match name {
        "string" => "string".to_string(),
        "integer" | "number" => "number".into(),
        "boolean" => "boolean".into(),
        "array" => match schema.get("items").filter(|_| depth < 8) {
            Some(items) => format!("{}[]", typescript(items, depth + 1)),
            None => "any[]".into(),
        },
        "object" => "Record<string, any>".into(),
        "null" => "null".into(),
        _ => "any".into(),
    };
    match schema.get("type") {
        Some(Json::String(name)) => one(name),
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).map(one).collect::<Vec<_>>().join(" | "),
        _ => "any".into(),
    }
}
