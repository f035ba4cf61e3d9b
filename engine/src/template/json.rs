//! JSON to values, and values to JSON as Python's `json.dumps` writes it without escaping beyond ASCII.

use serde_json::Value as Json;

use super::ast::Str;
use super::budget::Budget;
use super::error::{Eval, fault};
use super::text::float;
use super::value::Value;

/// Widest indent that is accepted, in spaces: real ones are 2 and 4.
pub(super) const MAX_INDENT: usize = 32;

/// A value of JSON.
pub(super) fn from_json(json: &Json, budget: &Budget) -> Eval<Value> {
    let _level = budget.descend()?;
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => {
            let int = n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
            int.map(Value::Int).unwrap_or(Value::Float(n.as_f64().unwrap_or(f64::NAN)))
        }
        Json::String(s) => Value::text(budget, s)?,
        Json::Array(items) => {
            let items = items.iter().map(|i| from_json(i, budget)).collect::<Eval<_>>()?;
            Value::list(budget, items)?
        }
        Json::Object(map) => {
            let entry = |(key, value): (&String, &Json)| Ok((Value::text(budget, key)?, from_json(value, budget)?));
            Value::dict(budget, map.iter().map(entry).collect::<Eval<_>>()?)?
        }
    })
}

/// How JSON is laid out.
#[derive(Debug)]
pub(super) struct Layout {
    /// What a level is indented by; without it everything stands in one line.
    pub(super) indent: Option<String>,
    /// Between items.
    pub(super) comma: String,
    /// Between key and value.
    pub(super) colon: String,
    pub(super) sort_keys: bool,
    /// Characters beyond ASCII are escaped.
    pub(super) ascii: bool,
}

/// A value as JSON, counted.
pub(super) fn to_json(value: &Value, layout: &Layout, budget: &Budget) -> Eval<String> {
    let mut writer = Writer { out: String::new(), layout, budget };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    layout: &'a Layout,
    budget: &'a Budget,
}

impl Writer<'_> {
    fn push(&mut self, text: &str) -> Eval<()> {
        self.budget.build(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Eval<()> {
        let _level = self.budget.descend()?;
        self.budget.step()?;
        match value {
            Value::None => self.push("null"),
            Value::Bool(b) => self.push(if *b { "true" } else { "false" }),
            Value::Int(n) => self.push(&n.to_string()),
            Value::Float(x) if x.is_nan() => self.push("NaN"),
            Value::Float(x) if x.is_infinite() => self.push(if *x > 0.0 { "Infinity" } else { "-Infinity" }),
            Value::Float(x) => self.push(&float(*x)),
            Value::Str(s) => self.string(s),
            Value::List(s) | Value::Tuple(s) => {
                self.push("[")?;
                for (i, item) in s.items.iter().enumerate() {
                    self.separate(i, depth + 1)?;
                    self.value(item, depth + 1)?;
                }
                self.close(s.items.len(), depth, "]")
            }
            Value::Dict(d) => {
                let mut entries: Vec<_> = d.entries.iter().map(|(k, v)| (key_text(k), v)).collect();
                if self.layout.sort_keys {
                    self.budget.read(entries.len().saturating_mul(16))?;
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.push("{")?;
                for (i, (key, value)) in entries.iter().enumerate() {
                    self.separate(i, depth + 1)?;
                    match key {
                        Some(key) => self.string(key)?,
                        None => return fault("key of a dict that is no string, number, boolean or none"),
                    }
                    self.push(&self.layout.colon)?;
                    self.value(value, depth + 1)?;
                }
                self.close(entries.len(), depth, "}")
            }
            Value::Undefined(name) => fault(format!("{name} is not there, so it cannot be written as JSON")),
            other => fault(format!("{} cannot be written as JSON", other.kind())),
        }
    }

    /// What stands before item `i` of a list.
    fn separate(&mut self, i: usize, depth: usize) -> Eval<()> {
        if i > 0 {
            self.push(&self.layout.comma)?;
        }
        self.line(depth)
    }

    /// What stands after the last item.
    fn close(&mut self, items: usize, depth: usize, bracket: &str) -> Eval<()> {
        if items > 0 {
            self.line(depth)?;
        }
        self.push(bracket)
    }

    /// A new line with the indent of a level.
    fn line(&mut self, depth: usize) -> Eval<()> {
        let Some(indent) = &self.layout.indent else {
            return Ok(());
        };
        self.budget.build(1 + indent.len() * depth)?;
        self.out.push('\n');
        (0..depth).for_each(|_| self.out.push_str(indent));
        Ok(())
    }

    fn string(&mut self, text: &str) -> Eval<()> {
        // An escaped control character takes six bytes, an escaped pair of surrogates twelve for four.
        self.budget.build(2 + text.len())?;
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.layout.ascii && !c.is_ascii()) => {
                    self.budget.build(6 * c.len_utf16())?;
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
        Ok(())
    }
}

/// A key as JSON writes it.
fn key_text(key: &Value) -> Option<Str> {
    Some(match key {
        Value::Str(s) => s.clone(),
        Value::None => Str::from("null"),
        Value::Bool(true) => Str::from("true"),
        Value::Bool(false) => Str::from("false"),
        Value::Int(n) => Str::from(n.to_string()),
        Value::Float(x) => Str::from(float(*x)),
        _ => return None,
    })
}
