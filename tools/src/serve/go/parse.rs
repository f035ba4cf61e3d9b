//! Source to tree.

use serde_json::{Value as Json, json};

use super::functions::{self, Function};

/// Deepest nesting of blocks and of parentheses.
const DEEPEST: usize = 64;

/// A piece of a template.
#[derive(Clone, Debug)]
pub enum Node {
    /// Text as it is.
    Text(String),
    /// The value of an expression is written.
    Write(Expr),
    /// A variable is made or changed.
    Set { name: String, value: Expr, declare: bool },
    /// The first branch whose condition is true.
    If { branches: Vec<(Expr, Vec<Node>)>, otherwise: Vec<Node> },
    /// The body for each element; `.` is the element.
    Range { key: Option<String>, value: Option<String>, over: Expr, body: Vec<Node>, otherwise: Vec<Node> },
    /// The body with `.` as the value, if it is true.
    With { name: Option<String>, value: Expr, body: Vec<Node>, otherwise: Vec<Node> },
    /// Ends the loop.
    Break,
    /// Ends this turn of the loop.
    Continue,
}

/// Something that has a value.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A constant.
    Literal(Json),
    /// `.` and fields of it.
    Dot(Vec<String>),
    /// A variable (`$` is what the template was given) and fields of it.
    Variable(String, Vec<String>),
    /// A call; a pipeline's value is its last argument.
    Call(Function, Vec<Expr>),
    /// Fields of an expression in parentheses.
    Fields(Box<Expr>, Vec<String>),
}

/// Whether a field of `.` or `$` is mentioned by this name.
pub fn mentions(nodes: &[Node], field: &str) -> bool {
    format!("{nodes:?}").contains(&format!("[\"{field}\""))
}

/// Reads a template.
///
/// # Errors
/// What is wrong, and in which line.
pub fn parse(source: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser { items: split(source)?.into_iter().peekable(), scopes: vec![vec!["$".into()]], loops: 0 };
    let (nodes, end) = parser.block(0)?;
    match end {
        None => Ok(nodes),
        Some((line, words)) => Err(format!("line {line}: {{{{ {} }}}} without a beginning", words.join(" "))),
    }
}

/// Text, or the words of an action.
enum Item {
    Text(String),
    Action(usize, Vec<String>),
}

/// Cuts a source at its actions, trimming where they say so.
fn split(source: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut rest = source;
    let mut trim = false;
    let line = |rest: &str| source[..source.len() - rest.len()].matches('\n').count() + 1;
    loop {
        let Some(at) = rest.find("{{") else {
            items.push(Item::Text(if trim { rest.trim_start() } else { rest }.to_string()));
            return Ok(items);
        };
        let mut text = if trim { rest[..at].trim_start() } else { &rest[..at] };
        let number = line(&rest[at..]);
        let mut inner = &rest[at + 2..];
        if let Some(after) = inner.strip_prefix("- ").or_else(|| inner.strip_prefix("-\n")) {
            text = text.trim_end();
            inner = after;
        }
        items.push(Item::Text(text.to_string()));
        let comment = inner.trim_start().starts_with("/*");
        let end = if comment { inner.find("*/").map(|e| e + 2) } else { end_of_action(inner) };
        let Some(end) = end else { return Err(format!("line {number}: an action has no }}}}")) };
        let after = &inner[end..];
        let close = after.find("}}").ok_or_else(|| format!("line {number}: an action has no }}}}"))?;
        let body = if comment { "" } else { &inner[..end + close] };
        trim = inner[..end + close].ends_with('-') && inner[..end + close - 1].ends_with([' ', '\n', '/', '\t']);
        rest = &inner[end + close + 2..];
        let body = if trim { body.strip_suffix('-').unwrap_or(body) } else { body };
        if !comment {
            items.push(Item::Action(number, words(body).map_err(|e| format!("line {number}: {e}"))?));
        }
    }
}

/// Where the `}}` of an action begins, which may not be inside a string.
fn end_of_action(inner: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if inner[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// The words of an action. A string keeps its opening quote as a mark.
fn words(body: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = body.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => {
                let end = closing(rest).ok_or("a string has no end")?;
                let text: String = serde_json::from_str(&rest[..end]).map_err(|_| "a string has an unknown escape")?;
                words.push(format!("\"{text}"));
                rest = rest[end..].trim_start();
                continue;
            }
            '`' => {
                let end = rest[1..].find('`').ok_or("a string has no end")? + 1;
                words.push(format!("\"{}", &rest[1..end]));
                rest = rest[end + 1..].trim_start();
                continue;
            }
            '(' | ')' | '|' | ',' => 1,
            ':' if rest.starts_with(":=") => 2,
            '=' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "()|,=:\"`".contains(c)).unwrap_or(rest.len()),
        };
        if end == 0 {
            return Err(format!("{first:?} is not understood"));
        }
        // `).Field` belongs to the parenthesis before it.
        words.push(rest[..end].to_string());
        rest = rest[end..].trim_start();
    }
    Ok(words)
}

fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

struct Parser {
    items: std::iter::Peekable<std::vec::IntoIter<Item>>,
    /// Names of variables, by block.
    scopes: Vec<Vec<String>>,
    loops: usize,
}

/// The action that ended a block: its line and words.
type End = Option<(usize, Vec<String>)>;

impl Parser {
    /// Nodes up to an `end` or `else` of the enclosing block, or to the end of the source.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, End), String> {
        let mut nodes = Vec::new();
        while let Some(item) = self.items.next() {
            match item {
                Item::Text(text) if text.is_empty() => {}
                Item::Text(text) => nodes.push(Node::Text(text)),
                Item::Action(line, words) => {
                    let first = words.first().map(String::as_str).unwrap_or_default();
                    if matches!(first, "end" | "else") {
                        return Ok((nodes, Some((line, words))));
                    }
                    let node = self.action(line, &words, depth).map_err(|e| match e.starts_with("line ") {
                        true => e,
                        false => format!("line {line}: {e}"),
                    })?;
                    nodes.push(node);
                }
            }
        }
        Ok((nodes, None))
    }

    fn scoped(&mut self, names: Vec<String>, depth: usize) -> Result<(Vec<Node>, End), String> {
        if depth >= DEEPEST {
            return Err(format!("blocks are nested more than {DEEPEST} deep"));
        }
        self.scopes.push(names);
        let result = self.block(depth + 1);
        self.scopes.pop();
        result
    }

    fn action(&mut self, line: usize, words: &[String], depth: usize) -> Result<Node, String> {
        match words.first().map(String::as_str) {
            None => Err("an action is empty".into()),
            Some("if") => self.conditional(line, &words[1..], depth),
            Some("range") => {
                let (names, over) = self.assigned(&words[1..])?;
                self.loops += 1;
                let body = self.scoped(names.clone(), depth);
                self.loops -= 1;
                let (body, end) = body?;
                let otherwise = self.otherwise(line, end, depth)?;
                let (key, value) = match &names[..] {
                    [] => (None, None),
                    [value] => (None, Some(value.clone())),
                    [key, value] => (Some(key.clone()), Some(value.clone())),
                    _ => return Err("range gives at most two variables".into()),
                };
                Ok(Node::Range { key, value, over, body, otherwise })
            }
            Some("with") => {
                let (names, value) = self.assigned(&words[1..])?;
                let (body, end) = self.scoped(names.clone(), depth)?;
                let otherwise = self.otherwise(line, end, depth)?;
                Ok(Node::With { name: names.into_iter().next(), value, body, otherwise })
            }
            Some("break") if self.loops > 0 && words.len() == 1 => Ok(Node::Break),
            Some("continue") if self.loops > 0 && words.len() == 1 => Ok(Node::Continue),
            Some(word @ ("template" | "define" | "block" | "break" | "continue")) => {
                Err(format!("{{{{ {word} }}}} is not supported here"))
            }
            Some(name) if name.starts_with('$') && words.get(1).is_some_and(|w| w == ":=" || w == "=") => {
                let declare = words[1] == ":=";
                let value = self.pipeline(&words[2..])?;
                if declare {
                    self.scopes.last_mut().expect("a scope").push(name.to_string());
                } else {
                    self.known(name)?;
                }
                Ok(Node::Set { name: name.to_string(), value, declare })
            }
            Some(_) => Ok(Node::Write(self.pipeline(words)?)),
        }
    }

    /// `$a, $b := PIPELINE`, or a pipeline alone.
    fn assigned(&mut self, words: &[String]) -> Result<(Vec<String>, Expr), String> {
        let Some(at) = words.iter().position(|w| w == ":=") else { return Ok((Vec::new(), self.pipeline(words)?)) };
        let names: Vec<String> = words[..at].iter().filter(|w| *w != ",").cloned().collect();
        if names.is_empty() || names.iter().any(|n| !n.starts_with('$')) {
            return Err("only variables can stand before :=".into());
        }
        Ok((names, self.pipeline(&words[at + 1..])?))
    }

    fn conditional(&mut self, line: usize, words: &[String], depth: usize) -> Result<Node, String> {
        let mut branches = Vec::new();
        let mut condition = self.pipeline(words)?;
        loop {
            let (body, end) = self.scoped(Vec::new(), depth)?;
            branches.push((condition, body));
            match end {
                Some((_, words)) if words == ["end"] => return Ok(Node::If { branches, otherwise: Vec::new() }),
                Some((_, words)) if words == ["else"] => {
                    return match self.scoped(Vec::new(), depth)? {
                        (otherwise, Some((_, words))) if words == ["end"] => Ok(Node::If { branches, otherwise }),
                        _ => Err(format!("line {line}: this if has no end")),
                    };
                }
                Some((at, words)) => {
                    if words.get(1).is_none_or(|w| w != "if") {
                        return Err(format!("line {at}: {{{{ {} }}}} is not understood", words.join(" ")));
                    }
                    condition = self.pipeline(&words[2..])?;
                }
                None => return Err(format!("line {line}: this if has no end")),
            }
        }
    }

    fn otherwise(&mut self, line: usize, end: End, depth: usize) -> Result<Vec<Node>, String> {
        let missing = || format!("line {line}: this block has no end");
        match end.ok_or_else(missing)? {
            (_, words) if words == ["end"] => Ok(Vec::new()),
            (_, words) if words == ["else"] => match self.scoped(Vec::new(), depth)? {
                (nodes, Some((_, words))) if words == ["end"] => Ok(nodes),
                _ => Err(missing()),
            },
            (at, words) => Err(format!("line {at}: {{{{ {} }}}} is not understood here", words.join(" "))),
        }
    }

    fn known(&self, name: &str) -> Result<(), String> {
        match self.scopes.iter().flatten().any(|n| n == name) {
            true => Ok(()),
            false => Err(format!("variable {name} is not declared")),
        }
    }

    fn pipeline(&self, words: &[String]) -> Result<Expr, String> {
        let mut at = 0;
        let expr = self.pipe(words, &mut at, 0)?;
        match words.get(at) {
            None => Ok(expr),
            Some(word) => Err(format!("{} is not expected here", shown(word))),
        }
    }

    /// Commands joined by `|`, up to a closing parenthesis or the end.
    fn pipe(&self, words: &[String], at: &mut usize, depth: usize) -> Result<Expr, String> {
        if depth > DEEPEST {
            return Err(format!("parentheses are nested more than {DEEPEST} deep"));
        }
        let mut value = self.command(words, at, depth, None)?;
        while words.get(*at).is_some_and(|w| w == "|") {
            *at += 1;
            value = self.command(words, at, depth, Some(value))?;
        }
        Ok(value)
    }

    fn command(&self, words: &[String], at: &mut usize, depth: usize, piped: Option<Expr>) -> Result<Expr, String> {
        let first = words.get(*at).ok_or("an expression is missing")?;
        if first.starts_with(|c: char| c.is_alphabetic()) && !matches!(first.as_str(), "true" | "false" | "nil") {
            let function = functions::find(first)?;
            *at += 1;
            let mut arguments = Vec::new();
            while words.get(*at).is_some_and(|w| w != "|" && w != ")") {
                arguments.push(self.operand(words, at, depth)?);
            }
            arguments.extend(piped);
            function.check(arguments.len())?;
            return Ok(Expr::Call(function, arguments));
        }
        match piped {
            None => self.operand(words, at, depth),
            Some(_) => Err(format!("{} cannot take a value from a pipeline", shown(first))),
        }
    }

    fn operand(&self, words: &[String], at: &mut usize, depth: usize) -> Result<Expr, String> {
        let word = words.get(*at).ok_or("an expression is missing")?;
        *at += 1;
        let path = |text: &str| text.split('.').filter(|p| !p.is_empty()).map(String::from).collect::<Vec<_>>();
        if word == "(" {
            let inner = self.pipe(words, at, depth + 1)?;
            if words.get(*at).is_none_or(|w| w != ")") {
                return Err("a parenthesis is not closed".into());
            }
            *at += 1;
            return Ok(match words.get(*at).filter(|w| w.starts_with('.') && w.len() > 1) {
                Some(fields) => {
                    *at += 1;
                    Expr::Fields(Box::new(inner), path(fields))
                }
                None => inner,
            });
        }
        if let Some(text) = word.strip_prefix('"') {
            return Ok(Expr::Literal(json!(text)));
        }
        if word.starts_with('.') {
            return Ok(Expr::Dot(path(word)));
        }
        if word.starts_with('$') {
            let (name, fields) = word.split_once('.').unwrap_or((word, ""));
            self.known(name)?;
            return Ok(Expr::Variable(name.to_string(), path(fields)));
        }
        match word.as_str() {
            "true" => Ok(Expr::Literal(json!(true))),
            "false" => Ok(Expr::Literal(json!(false))),
            "nil" => Ok(Expr::Literal(Json::Null)),
            other => match other.parse::<i64>() {
                Ok(n) => Ok(Expr::Literal(json!(n))),
                // A function without arguments may stand among those of another.
                Err(_) => {
                    let function = functions::find(other)?;
                    function.check(0)?;
                    Ok(Expr::Call(function, Vec::new()))
                }
            },
        }
    }
}

fn shown(word: &str) -> String {
    crate::ui::format::printable(word.trim_start_matches('"'))
}
