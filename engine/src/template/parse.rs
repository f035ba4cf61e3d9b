//! Tokens to statements.
//!
//! Nesting is bounded, so that neither this parser nor anything that walks the tree can run out of stack.

use std::sync::Arc;

use super::ast::{Action, Args, Expr, For, Macro, Postfix, Stmt, Str, Target};
use super::error::Error;
use super::lex::{Kind, Token, tokenize};

/// Deepest nesting: a block counts 1, a pair of brackets 3. Real templates stay below 40.
const MAX_NESTING: usize = 120;

/// Longest source in bytes. Real templates stay below 40 KiB.
pub(super) const MAX_SOURCE: usize = 1 << 18;

/// The statements of a source.
pub(super) fn parse(source: &str) -> Result<Vec<Stmt>, Error> {
    if source.len() > MAX_SOURCE {
        let detail = format!("source of {} bytes, expected at most {MAX_SOURCE}", source.len());
        return Err(Error::Syntax { line: 1, detail });
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let tokens = tokenize(source)?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, loops: 0 };
    let (body, _) = parser.body(&[])?;
    Ok(body)
}

/// A reader of tokens.
pub(super) struct Parser<'t, 's> {
    tokens: &'t [Token<'s>],
    at: usize,
    depth: usize,
    /// Loops around this place.
    loops: usize,
}

impl<'t, 's> Parser<'t, 's> {
    /// The next token, which stays.
    pub(super) fn peek(&self) -> Option<&'t Kind<'s>> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Option<&'t Kind<'s>> {
        self.at += 1;
        self.tokens.get(self.at - 1).map(|t| &t.kind)
    }

    /// The line of the next token, or the last line.
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    /// An error at the next token.
    pub(super) fn error<T>(&self, detail: impl Into<String>) -> Result<T, Error> {
        Err(Error::Syntax { line: self.line(), detail: detail.into() })
    }

    /// An error that says what stands here instead of what is expected.
    pub(super) fn expected<T>(&self, what: &str) -> Result<T, Error> {
        let found = match self.peek() {
            Some(Kind::Text(_)) | None => "the end".to_owned(),
            Some(Kind::OpenOutput) => "\"{{\"".to_owned(),
            Some(Kind::CloseOutput) => "\"}}\"".to_owned(),
            Some(Kind::OpenTag) => "\"{%\"".to_owned(),
            Some(Kind::CloseTag) => "\"%}\"".to_owned(),
            Some(Kind::Name(name)) => format!("\"{name}\""),
            Some(Kind::Str(text)) => format!("the string {text:?}"),
            Some(Kind::Int(number)) => format!("the number {number}"),
            Some(Kind::Float(number)) => format!("the number {number}"),
            Some(Kind::Op(op)) => format!("\"{op}\""),
        };
        self.error(format!("found {found}, expected {what}"))
    }

    /// Takes an operator, if it is next.
    pub(super) fn accept(&mut self, op: &str) -> bool {
        let found = matches!(self.peek(), Some(Kind::Op(found)) if *found == op);
        self.at += usize::from(found);
        found
    }

    /// Takes a word, if it is next.
    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Kind::Name(found)) if *found == word);
        self.at += usize::from(found);
        found
    }

    /// Takes two words, if they are next.
    pub(super) fn accept_words(&mut self, first: &str, second: &str) -> bool {
        let word = |at: usize, word: &str| matches!(self.tokens.get(at), Some(t) if t.kind == Kind::Name(word));
        let found = word(self.at, first) && word(self.at + 1, second);
        self.at += 2 * usize::from(found);
        found
    }

    /// Takes an operator.
    pub(super) fn expect(&mut self, op: &str) -> Result<(), Error> {
        if self.accept(op) { Ok(()) } else { self.expected(&format!("\"{op}\"")) }
    }

    /// Takes a name.
    pub(super) fn name(&mut self) -> Result<Str, Error> {
        match self.peek() {
            Some(Kind::Name(name)) => {
                self.at += 1;
                Ok(Str::from(*name))
            }
            _ => self.expected("a name"),
        }
    }

    /// Runs `parse` one level deeper.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_NESTING {
            return self.error(format!("nested deeper than {MAX_NESTING} levels"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn close_tag(&mut self) -> Result<(), Error> {
        match self.peek() {
            Some(Kind::CloseTag) => {
                self.at += 1;
                Ok(())
            }
            _ => self.expected("\"%}\""),
        }
    }

    /// Statements up to a tag of one of the words `ends` (or the end of the source, where there are none), whose word
    /// is read and returned.
    fn body(&mut self, ends: &[&'static str]) -> Result<(Vec<Stmt>, &'static str), Error> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let action = match self.next() {
                None if ends.is_empty() => return Ok((body, "")),
                None => return self.error(format!("the end, expected {{% {} %}}", ends.join(" %} or {% "))),
                Some(Kind::Text(text)) => Action::Text(Str::from(*text)),
                Some(Kind::OpenOutput) => {
                    let value = self.tuple()?;
                    match self.next() {
                        Some(Kind::CloseOutput) => Action::Output(value),
                        _ => {
                            self.at -= 1;
                            return self.expected("\"}}\"");
                        }
                    }
                }
                Some(_) => {
                    let Some(Kind::Name(word)) = self.next() else {
                        self.at -= 1;
                        return self.expected("the word of a tag");
                    };
                    if let Some(end) = ends.iter().find(|e| *e == word) {
                        return Ok((body, end));
                    }
                    self.nested(|p| p.statement(word))?
                }
            };
            body.push(Stmt { line, action });
        }
    }

    /// Statements up to the tag of one word, and that tag.
    fn body_to(&mut self, end: &'static str) -> Result<Vec<Stmt>, Error> {
        let (body, _) = self.body(&[end])?;
        // `{% endblock name %}` and the like.
        if matches!(self.peek(), Some(Kind::Name(_))) {
            self.at += 1;
        }
        self.close_tag()?;
        Ok(body)
    }

    /// A statement whose word was read.
    fn statement(&mut self, word: &str) -> Result<Action, Error> {
        match word {
            "if" => self.if_tag(),
            "for" => self.for_tag(),
            "set" => self.set_tag(),
            "macro" => {
                let name = self.name()?;
                let params = self.params()?;
                self.macro_body(name, params, "endmacro").map(Action::Macro)
            }
            "call" => self.call_tag(),
            "filter" => {
                let filters = self.filters_of_block()?;
                self.close_tag()?;
                Ok(Action::Filter(filters, self.body_to("endfilter")?))
            }
            "with" => self.with_tag(),
            "generation" => {
                self.close_tag()?;
                Ok(Action::Block(self.body_to("endgeneration")?))
            }
            "break" | "continue" if self.loops == 0 => self.error(format!("{{% {word} %}} outside of a loop")),
            "break" => self.close_tag().map(|()| Action::Break),
            "continue" => self.close_tag().map(|()| Action::Continue),
            "include" | "import" | "from" | "extends" | "block" => {
                self.error(format!("{{% {word} %}}: the template of a model is one text and reads no other"))
            }
            _ => self.error(format!("unknown tag {{% {word:.40} %}}")),
        }
    }

    fn if_tag(&mut self) -> Result<Action, Error> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple()?;
            self.close_tag()?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match end {
                "elif" => {}
                "else" => {
                    self.close_tag()?;
                    return Ok(Action::If(branches, self.body_to("endif")?));
                }
                _ => {
                    self.close_tag()?;
                    return Ok(Action::If(branches, Vec::new()));
                }
            }
        }
    }

    fn for_tag(&mut self) -> Result<Action, Error> {
        let target = self.target()?;
        if !self.accept_word("in") {
            return self.expected("\"in\"");
        }
        let items = self.tuple_of(Self::or)?;
        let filter = if self.accept_word("if") { Some(self.expression()?) } else { None };
        let recursive = self.accept_word("recursive");
        self.close_tag()?;
        self.loops += 1;
        let (body, end) = self.body(&["else", "endfor"])?;
        self.loops -= 1;
        self.close_tag()?;
        let otherwise = if end == "else" { self.body_to("endfor")? } else { Vec::new() };
        Ok(Action::For(Arc::new(For { target, items, filter, recursive, body, otherwise })))
    }

    fn set_tag(&mut self) -> Result<Action, Error> {
        let target = self.target()?;
        if self.accept("=") {
            let value = self.tuple()?;
            self.close_tag()?;
            return Ok(Action::Set(target, value));
        }
        let filters = if self.accept("|") { self.filters_of_block()? } else { Vec::new() };
        self.close_tag()?;
        Ok(Action::SetBlock(target, filters, self.body_to("endset")?))
    }

    /// The filters of a block, whose text is their value.
    fn filters_of_block(&mut self) -> Result<Vec<Postfix>, Error> {
        let mut filters = vec![self.filter()?];
        while self.accept("|") {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    fn with_tag(&mut self) -> Result<Action, Error> {
        let mut values = Vec::new();
        while !matches!(self.peek(), Some(Kind::CloseTag)) {
            let target = self.target_part()?;
            self.expect("=")?;
            values.push((target, self.expression()?));
            if !self.accept(",") {
                break;
            }
        }
        self.close_tag()?;
        Ok(Action::With(values, self.body_to("endwith")?))
    }

    fn call_tag(&mut self) -> Result<Action, Error> {
        let params = if matches!(self.peek(), Some(Kind::Op("("))) { self.params()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(&call, Expr::Postfix(_, ops) if matches!(ops.last(), Some(Postfix::Call(_)))) {
            return self.error("{% call %} of something that is no call");
        }
        Ok(Action::Call(call, self.macro_body(Str::from("caller"), params, "endcall")?))
    }

    /// Parameters in brackets, with their defaults.
    fn params(&mut self) -> Result<Vec<(Str, Option<Expr>)>, Error> {
        self.expect("(")?;
        let mut params = Vec::new();
        while !self.accept(")") {
            let name = self.name()?;
            let default = if self.accept("=") { Some(self.expression()?) } else { None };
            params.push((name, default));
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(params)
    }

    fn macro_body(
        &mut self,
        name: Str,
        params: Vec<(Str, Option<Expr>)>,
        end: &'static str,
    ) -> Result<Arc<Macro>, Error> {
        self.close_tag()?;
        let loops = std::mem::take(&mut self.loops);
        let body = self.body_to(end)?;
        self.loops = loops;
        Ok(Arc::new(Macro { name, params, body }))
    }

    /// What is assigned to: a name, an attribute, or several.
    fn target(&mut self) -> Result<Target, Error> {
        let first = self.target_part()?;
        if !matches!(self.peek(), Some(Kind::Op(","))) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.accept(",") {
            if !matches!(self.peek(), Some(Kind::Name(name)) if *name != "in") && !self.at_bracket() {
                break;
            }
            parts.push(self.target_part()?);
        }
        Ok(Target::Tuple(parts))
    }

    fn at_bracket(&self) -> bool {
        matches!(self.peek(), Some(Kind::Op("(")))
    }

    fn target_part(&mut self) -> Result<Target, Error> {
        if self.accept("(") {
            let target = self.nested(Self::target)?;
            self.expect(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
            return self.error(format!("assignment to {name}"));
        }
        if self.accept(".") { Ok(Target::Attr(name, self.name()?)) } else { Ok(Target::Name(name)) }
    }

    /// Arguments of a call, whose bracket was read.
    pub(super) fn args(&mut self) -> Result<Args, Error> {
        let mut args = Args::default();
        while !self.accept(")") {
            let named = match (self.peek(), self.tokens.get(self.at + 1).map(|t| &t.kind)) {
                (Some(Kind::Name(name)), Some(Kind::Op("="))) => Some(*name),
                _ => None,
            };
            match named {
                Some(name) => {
                    self.at += 2;
                    args.named.push((Str::from(name), self.expression()?));
                }
                None if args.named.is_empty() => args.positional.push(self.expression()?),
                None => return self.expected("a named argument"),
            }
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(args)
    }
}
