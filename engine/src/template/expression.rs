//! Tokens to expressions: the half of the parser that stands inside of tags.

use super::ast::{Args, Arith, Compare, Expr, Literal, Postfix, Str, Unary};
use super::error::Error;
use super::lex::Kind;
use super::parse::Parser;

/// Operators of arithmetic by how tight they bind, loosest first.
const ARITH: [&[(&str, Arith)]; 4] = [
    &[("+", Arith::Add), ("-", Arith::Sub)],
    &[("~", Arith::Concat)],
    &[("//", Arith::FloorDiv), ("*", Arith::Mul), ("/", Arith::Div), ("%", Arith::Rem)],
    &[("**", Arith::Pow)],
];

/// Comparisons that are operators.
const COMPARE: [(&str, Compare); 6] = [
    ("==", Compare::Eq),
    ("!=", Compare::Ne),
    (">=", Compare::Ge),
    ("<=", Compare::Le),
    (">", Compare::Gt),
    ("<", Compare::Lt),
];

/// Words that end an expression, so that none of them is the argument of a test.
const KEYWORDS: [&str; 8] = ["if", "else", "and", "or", "not", "in", "is", "recursive"];

impl Parser<'_, '_> {
    /// One or several expressions; several are a tuple.
    pub(super) fn tuple(&mut self) -> Result<Expr, Error> {
        self.tuple_of(Self::expression)
    }

    /// One or several of what `parse` reads.
    pub(super) fn tuple_of(&mut self, parse: fn(&mut Self) -> Result<Expr, Error>) -> Result<Expr, Error> {
        let first = self.nested(parse)?;
        if !matches!(self.peek(), Some(Kind::Op(","))) {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.accept(",") {
            if matches!(self.peek(), Some(Kind::CloseOutput | Kind::CloseTag | Kind::Op(")" | "]"))) {
                break;
            }
            items.push(self.nested(parse)?);
        }
        Ok(Expr::Tuple(items))
    }

    /// An expression.
    pub(super) fn expression(&mut self) -> Result<Expr, Error> {
        self.nested(|p| {
            let value = p.or()?;
            if !p.accept_word("if") {
                return Ok(value);
            }
            let condition = p.or()?;
            let otherwise = if p.accept_word("else") { Some(p.expression()?) } else { None };
            Ok(Expr::If(Box::new((value, condition, otherwise))))
        })
    }

    /// An expression without a condition.
    pub(super) fn or(&mut self) -> Result<Expr, Error> {
        let mut parts = vec![self.and()?];
        while self.accept_word("or") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, Error> {
        let mut parts = vec![self.not()?];
        while self.accept_word("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn not(&mut self) -> Result<Expr, Error> {
        let mut count = 0usize;
        while self.accept_word("not") {
            count += 1;
        }
        let value = self.comparison()?;
        // More than two are like one or two.
        let count = if count > 2 { 2 - count % 2 } else { count };
        Ok((0..count).fold(value, |value, _| Expr::Unary(Unary::Not, Box::new(value))))
    }

    fn comparison(&mut self) -> Result<Expr, Error> {
        let first = self.arith(0)?;
        let mut rest = Vec::new();
        while let Some(op) = self.comparison_op() {
            rest.push((op, self.arith(0)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn comparison_op(&mut self) -> Option<Compare> {
        if let Some((_, op)) = COMPARE.iter().find(|(op, _)| self.accept(op)) {
            return Some(*op);
        }
        if self.accept_word("in") {
            return Some(Compare::In);
        }
        self.accept_words("not", "in").then_some(Compare::NotIn)
    }

    /// A chain of operators that bind as tight as `level` or tighter.
    fn arith(&mut self, level: usize) -> Result<Expr, Error> {
        let Some(ops) = ARITH.get(level) else {
            return self.unary();
        };
        let first = self.arith(level + 1)?;
        let mut rest = Vec::new();
        while let Some((_, op)) = ops.iter().find(|(op, _)| self.accept(op)) {
            rest.push((*op, self.arith(level + 1)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Arith(Box::new(first), rest) })
    }

    /// Signs, a value, and what is applied to it. Signs bind tighter than filters and looser than the rest.
    fn unary(&mut self) -> Result<Expr, Error> {
        let mut signs = Vec::new();
        loop {
            if self.accept("-") {
                signs.push(Unary::Minus);
            } else if self.accept("+") {
                signs.push(Unary::Plus);
            } else {
                break;
            }
            if signs.len() > 8 {
                return self.error("more than 8 signs in a row");
            }
        }
        let value = self.operand()?;
        let value = signs.into_iter().rev().fold(value, |value, sign| Expr::Unary(sign, Box::new(value)));
        let mut ops = Vec::new();
        loop {
            if self.accept("|") {
                ops.push(self.filter()?);
            } else if self.accept_word("is") {
                ops.push(self.test()?);
            } else if !ops.is_empty() && self.accept("(") {
                ops.push(Postfix::Call(self.args()?));
            } else {
                break;
            }
        }
        Ok(postfix(value, ops))
    }

    /// A value with its attributes, items and calls.
    fn operand(&mut self) -> Result<Expr, Error> {
        let value = self.primary()?;
        let mut ops = Vec::new();
        loop {
            if self.accept(".") {
                ops.push(self.attribute()?);
            } else if self.accept("[") {
                ops.push(self.nested(Self::subscript)?);
            } else if self.accept("(") {
                ops.push(Postfix::Call(self.args()?));
            } else {
                break;
            }
        }
        Ok(postfix(value, ops))
    }

    /// What follows a point: a name, a method call, or a number.
    fn attribute(&mut self) -> Result<Postfix, Error> {
        if let Some(Kind::Int(index)) = self.peek() {
            self.next();
            return Ok(Postfix::Item(Expr::Literal(Literal::Int(*index))));
        }
        let name = self.name()?;
        if name.starts_with('_') {
            return self.error(format!("attribute {name:.40}: names that begin with _ are not for templates"));
        }
        if self.accept("(") { Ok(Postfix::Method(name, self.args()?)) } else { Ok(Postfix::Attr(name)) }
    }

    /// What stands in square brackets, whose first one was read.
    fn subscript(&mut self) -> Result<Postfix, Error> {
        let mut parts = [None, None, None];
        let mut at = 0;
        loop {
            if self.accept(":") {
                at += 1;
                if at == parts.len() {
                    return self.error("slice of more than three parts");
                }
            } else if self.accept("]") {
                break;
            } else if parts[at].is_none() {
                parts[at] = Some(self.tuple()?);
            } else {
                return self.expected("\"]\"");
            }
        }
        match (at, parts) {
            (0, [Some(item), _, _]) => Ok(Postfix::Item(item)),
            (0, _) => self.error("empty subscript"),
            (_, parts) => Ok(Postfix::Slice(Box::new(parts))),
        }
    }

    /// A filter, whose bar was read.
    pub(super) fn filter(&mut self) -> Result<Postfix, Error> {
        let name = self.name()?;
        let args = if self.accept("(") { self.args()? } else { Args::default() };
        Ok(Postfix::Filter(name, args))
    }

    /// A test, whose `is` was read. Its one argument may stand without brackets.
    fn test(&mut self) -> Result<Postfix, Error> {
        let negated = self.accept_word("not");
        let name = self.name()?;
        let takes = match self.peek() {
            Some(Kind::Name(name)) => !KEYWORDS.contains(name),
            Some(Kind::Str(_) | Kind::Int(_) | Kind::Float(_) | Kind::Op("[" | "{")) => true,
            _ => false,
        };
        let args = if self.accept("(") {
            self.args()?
        } else if takes {
            Args { positional: vec![self.nested(Self::operand)?], named: Vec::new() }
        } else {
            Args::default()
        };
        Ok(Postfix::Test { name, negated, args })
    }

    fn primary(&mut self) -> Result<Expr, Error> {
        let literal = match self.peek() {
            Some(Kind::Name(name)) if KEYWORDS.contains(name) => return self.expected("a value"),
            Some(Kind::Name(name)) => match *name {
                "true" | "True" => Literal::Bool(true),
                "false" | "False" => Literal::Bool(false),
                "none" | "None" => Literal::None,
                name => {
                    self.next();
                    return Ok(Expr::Name(Str::from(name)));
                }
            },
            Some(Kind::Int(number)) => Literal::Int(*number),
            Some(Kind::Float(number)) => Literal::Float(*number),
            Some(Kind::Str(_)) => {
                let mut text = String::new();
                while let Some(Kind::Str(part)) = self.peek() {
                    text.push_str(part);
                    self.next();
                }
                return Ok(Expr::Literal(Literal::Str(Str::from(text))));
            }
            _ if self.accept("(") => return self.nested(Self::bracket),
            _ if self.accept("[") => return self.nested(|p| p.items("]")).map(Expr::List),
            _ if self.accept("{") => return self.nested(Self::dict),
            _ => return self.expected("a value"),
        };
        self.next();
        Ok(Expr::Literal(literal))
    }

    /// A value or a tuple in round brackets, whose first one was read.
    fn bracket(&mut self) -> Result<Expr, Error> {
        if self.accept(")") {
            return Ok(Expr::Tuple(Vec::new()));
        }
        let value = self.tuple()?;
        self.expect(")")?;
        Ok(value)
    }

    /// Values up to a bracket.
    fn items(&mut self, close: &str) -> Result<Vec<Expr>, Error> {
        let mut items = Vec::new();
        while !self.accept(close) {
            items.push(self.expression()?);
            if !self.accept(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    /// Keys and values, whose first bracket was read.
    fn dict(&mut self) -> Result<Expr, Error> {
        let mut entries = Vec::new();
        while !self.accept("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Dict(entries))
    }
}

/// The only part, or all of them joined.
fn one_or(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

/// A value with what is applied to it.
fn postfix(value: Expr, ops: Vec<Postfix>) -> Expr {
    if ops.is_empty() { value } else { Expr::Postfix(Box::new(value), ops) }
}
