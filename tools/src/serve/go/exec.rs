//! Tree to text.

use serde_json::{Value as Json, json};

use super::parse::{Expr, Node};

/// Most nodes and expressions of one rendering.
const STEPS: u64 = 2_000_000;
/// Most bytes of one rendering, and of all values that it makes on the way.
const BYTES: usize = 64 << 20;

/// The text of a template.
///
/// # Errors
/// It does something impossible or too much.
pub fn render(nodes: &[Node], data: &Json) -> Result<String, String> {
    let mut machine = Machine { vars: vec![("$".into(), data.clone())], out: String::new(), steps: 0, made: 0 };
    match machine.run(nodes, data) {
        Ok(()) => Ok(machine.out),
        Err(Stop::Fault(why)) => Err(format!("the template cannot be rendered: {why}")),
        Err(Stop::Break | Stop::Continue) => Ok(machine.out),
    }
}

enum Stop {
    Break,
    Continue,
    Fault(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Fault(why)
    }
}

struct Machine {
    vars: Vec<(String, Json)>,
    out: String,
    steps: u64,
    made: usize,
}

impl Machine {
    fn step(&mut self) -> Result<(), Stop> {
        self.steps += 1;
        match self.steps > STEPS {
            true => Err(Stop::Fault(format!("it takes more than {STEPS} steps"))),
            false => Ok(()),
        }
    }

    fn run(&mut self, nodes: &[Node], dot: &Json) -> Result<(), Stop> {
        let scope = self.vars.len();
        let result = nodes.iter().try_for_each(|node| self.node(node, dot));
        self.vars.truncate(scope);
        result
    }

    /// As [`Machine::run`] with a variable of its own.
    fn run_with(&mut self, names: [(&Option<String>, Json); 2], nodes: &[Node], dot: &Json) -> Result<(), Stop> {
        let scope = self.vars.len();
        for (name, value) in names {
            if let Some(name) = name {
                self.vars.push((name.clone(), value));
            }
        }
        let result = self.run(nodes, dot);
        self.vars.truncate(scope);
        result
    }

    fn node(&mut self, node: &Node, dot: &Json) -> Result<(), Stop> {
        self.step()?;
        match node {
            Node::Text(text) => self.write(text),
            Node::Write(expr) => {
                let value = self.value(expr, dot)?;
                self.write(&text(&value))
            }
            Node::Set { name, value, declare } => {
                let value = self.value(value, dot)?;
                match self.vars.iter_mut().rev().find(|v| v.0 == *name).filter(|_| !declare) {
                    Some(var) => var.1 = value,
                    None => self.vars.push((name.clone(), value)),
                }
                Ok(())
            }
            Node::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if truth(&self.value(condition, dot)?) {
                        return self.run(body, dot);
                    }
                }
                self.run(otherwise, dot)
            }
            Node::With { name, value, body, otherwise } => {
                let value = self.value(value, dot)?;
                match truth(&value) {
                    true => self.run_with([(name, value.clone()), (&None, Json::Null)], body, &value),
                    false => self.run(otherwise, dot),
                }
            }
            Node::Range { key, value, over, body, otherwise } => {
                let over = self.value(over, dot)?;
                self.range((key, value), &over, (body, otherwise), dot)
            }
            Node::Break => Err(Stop::Break),
            Node::Continue => Err(Stop::Continue),
        }
    }

    fn range(
        &mut self,
        (key, value): (&Option<String>, &Option<String>),
        over: &Json,
        (body, otherwise): (&[Node], &[Node]),
        dot: &Json,
    ) -> Result<(), Stop> {
        let mut items: Vec<(Json, &Json)> = match over {
            Json::Null => Vec::new(),
            Json::Array(items) => items.iter().enumerate().map(|(i, v)| (json!(i), v)).collect(),
            Json::Object(map) => map.iter().map(|(k, v)| (json!(k), v)).collect(),
            _ => return Err(Stop::Fault("range takes a list or a map".into())),
        };
        if over.is_object() {
            // Go walks maps in order of their keys.
            items.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
        }
        if items.is_empty() {
            return self.run(otherwise, dot);
        }
        for (index, item) in items {
            self.step()?;
            match self.run_with([(key, index), (value, item.clone())], body, item) {
                Ok(()) | Err(Stop::Continue) => {}
                Err(Stop::Break) => break,
                fault => return fault,
            }
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), Stop> {
        if self.out.len() + text.len() > BYTES {
            return Err(Stop::Fault(format!("it writes more than {BYTES} bytes")));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn value(&mut self, expr: &Expr, dot: &Json) -> Result<Json, Stop> {
        self.step()?;
        let value = match expr {
            Expr::Literal(value) => value.clone(),
            Expr::Dot(path) => fields(dot, path)?,
            Expr::Variable(name, path) => match self.vars.iter().rev().find(|v| v.0 == *name) {
                Some((_, value)) => fields(value, path)?,
                None => Json::Null,
            },
            Expr::Fields(inner, path) => {
                let inner = self.value(inner, dot)?;
                fields(&inner, path)?
            }
            Expr::Call(function, arguments) => {
                let values = arguments.iter().map(|a| self.value(a, dot)).collect::<Result<Vec<_>, _>>()?;
                function.call(&values)?
            }
        };
        // Copies of lists are what costs memory.
        self.made += match &value {
            Json::Array(items) => items.len() * 64,
            Json::Object(map) => map.len() * 64,
            Json::String(s) => s.len(),
            _ => 0,
        };
        match self.made > 16 * BYTES {
            true => Err(Stop::Fault("it copies too much".into())),
            false => Ok(value),
        }
    }
}

/// A field of a field. `.ToolCalls` is `tool_calls`; keys of a map are as they are.
fn fields(value: &Json, path: &[String]) -> Result<Json, Stop> {
    let mut at = value;
    for name in path {
        at = match at {
            Json::Object(map) => map.get(name).or_else(|| map.get(&snake(name))).unwrap_or(&Json::Null),
            Json::Null => &Json::Null,
            _ => return Err(Stop::Fault(format!("there is no field {name} in a value that has none"))),
        };
    }
    Ok(at.clone())
}

/// `ToolCalls` becomes `tool_calls`, `ID` becomes `id`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_ascii_lowercase();
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Whether Go takes a value for true: everything but nothing, zero and what is empty.
pub fn truth(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(b) => *b,
        Json::Number(n) => n.as_f64() != Some(0.0),
        Json::String(s) => !s.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(map) => !map.is_empty(),
    }
}

/// A value as it is written.
pub fn text(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(s) => s.clone(),
        other => other.to_string(),
    }
}
