//! Evaluating expressions. Statements are in `exec`.

use std::borrow::Cow;

use super::ast::{Args, Arith, Compare, Expr, Literal, Postfix, Str, Unary};
use super::budget::Budget;
use super::checks;
use super::error::{Eval, fault};
use super::filters;
use super::format::percent;
use super::functions::{CallArgs, Function};
use super::methods;
use super::text::to_text;
use super::value::Value;

/// The variables of a block, and the scope that stands around it.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) vars: Vec<(Str, Value)>,
    pub(super) parent: Option<usize>,
}

/// The state of a rendering.
pub(super) struct Machine<'r> {
    pub(super) budget: &'r Budget,
    /// Seconds since the start of 1970 on the clock that the template shall see.
    pub(super) now: Option<i64>,
    /// The first one is that of the whole template.
    pub(super) scopes: Vec<Scope>,
    /// Texts being written: the result, and in it the bodies of macros and block assignments.
    pub(super) out: Vec<String>,
    /// Line of the statement that runs.
    pub(super) line: u32,
}

impl<'r> Machine<'r> {
    pub(super) fn new(budget: &'r Budget, now: Option<i64>, vars: Vec<(Str, Value)>) -> Machine<'r> {
        Machine { budget, now, scopes: vec![Scope { vars, parent: None }], out: vec![String::new()], line: 1 }
    }

    /// The text of a value, counted.
    pub(super) fn text_of(&self, value: &Value) -> Eval<String> {
        to_text(value, self.budget)
    }

    /// The text of a value, copied only where it has to be made.
    pub(super) fn text<'v>(&self, value: &'v Value) -> Eval<Cow<'v, str>> {
        match value {
            Value::Str(s) => Ok(Cow::Borrowed(s)),
            other => self.text_of(other).map(Cow::Owned),
        }
    }

    /// A new value of a text that was not counted yet.
    pub(super) fn str(&self, text: &str) -> Eval<Value> {
        Value::text(self.budget, text)
    }

    /// What a name stands for.
    pub(super) fn lookup(&self, name: &str) -> Eval<Value> {
        let mut at = Some(self.scopes.len() - 1);
        while let Some(scope) = at.map(|i| &self.scopes[i]) {
            self.budget.read(4 * scope.vars.len())?;
            if let Some((_, value)) = scope.vars.iter().rev().find(|(n, _)| &**n == name) {
                return Ok(value.clone());
            }
            at = scope.parent;
        }
        Ok(match Function::find(name) {
            Some(Function::StrftimeNow) if self.now.is_none() => Value::Undefined(Str::from(name)),
            Some(function) => Value::Function(function),
            None => Value::Undefined(Str::from(name)),
        })
    }

    /// A dict of entries of which a later one replaces an earlier one of the same key.
    pub(super) fn unique_dict(&self, entries: Vec<(Value, Value)>) -> Eval<Value> {
        let mut unique: Vec<(Value, Value)> = Vec::new();
        for (key, value) in entries {
            if matches!(key, Value::List(_) | Value::Dict(_) | Value::Undefined(_)) || key.has_state() {
                return fault(format!("{} cannot be the key of a dict", key.kind()));
            }
            let mut at = None;
            for (i, (found, _)) in unique.iter().enumerate() {
                if found.equals(&key, self.budget)? {
                    at = Some(i);
                    break;
                }
            }
            match at {
                Some(i) => unique[i].1 = value,
                None => unique.push((key, value)),
            }
        }
        Value::dict(self.budget, unique)
    }

    /// The value of an expression.
    pub(super) fn eval(&mut self, expr: &Expr) -> Eval<Value> {
        self.budget.step()?;
        match expr {
            Expr::Literal(literal) => Ok(match literal {
                Literal::None => Value::None,
                Literal::Bool(b) => Value::Bool(*b),
                Literal::Int(n) => Value::Int(*n),
                Literal::Float(x) => Value::Float(*x),
                Literal::Str(s) => Value::Str(s.clone()),
            }),
            Expr::Name(name) => self.lookup(name),
            _ => {
                let budget = self.budget;
                let _level = budget.descend()?;
                self.eval_nested(expr)
            }
        }
    }

    /// The value of an expression that has parts.
    fn eval_nested(&mut self, expr: &Expr) -> Eval<Value> {
        match expr {
            Expr::Literal(_) | Expr::Name(_) => self.eval(expr),
            Expr::List(items) => {
                let items = self.eval_all(items)?;
                Value::list(self.budget, items)
            }
            Expr::Tuple(items) => {
                let items = self.eval_all(items)?;
                Value::tuple(self.budget, items)
            }
            Expr::Dict(entries) => {
                let entry = |(key, value): &(Expr, Expr)| Ok((self.eval(key)?, self.eval(value)?));
                let entries = entries.iter().map(entry).collect::<Eval<_>>()?;
                self.unique_dict(entries)
            }
            Expr::Unary(op, value) => {
                let value = self.eval(value)?;
                self.unary(*op, &value)
            }
            Expr::Arith(first, rest) => {
                let mut value = self.eval(first)?;
                for (op, right) in rest {
                    let right = self.eval(right)?;
                    value = self.arith(*op, &value, &right)?;
                }
                Ok(value)
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (op, right) in rest {
                    let right = self.eval(right)?;
                    if !self.compare(*op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::And(parts) => self.until(parts, false),
            Expr::Or(parts) => self.until(parts, true),
            Expr::If(parts) => {
                let (value, condition, otherwise) = &**parts;
                match (self.eval(condition)?.truth(), otherwise) {
                    (true, _) => self.eval(value),
                    (false, Some(otherwise)) => self.eval(otherwise),
                    (false, None) => Ok(Value::Undefined(Str::from("the value of an if without else"))),
                }
            }
            Expr::Postfix(value, ops) => {
                let value = self.eval(value)?;
                self.apply(value, ops)
            }
        }
    }

    fn eval_all(&mut self, exprs: &[Expr]) -> Eval<Vec<Value>> {
        exprs.iter().map(|e| self.eval(e)).collect()
    }

    /// The first value whose truth is `truth`, or the last one.
    fn until(&mut self, parts: &[Expr], truth: bool) -> Eval<Value> {
        let mut value = Value::None;
        for part in parts {
            value = self.eval(part)?;
            if value.truth() == truth {
                break;
            }
        }
        Ok(value)
    }

    /// Evaluates the arguments of a call.
    pub(super) fn args(&mut self, args: &Args) -> Eval<CallArgs> {
        let positional = self.eval_all(&args.positional)?;
        let named = args.named.iter().map(|(n, e)| Ok((n.clone(), self.eval(e)?))).collect::<Eval<_>>()?;
        Ok(CallArgs { positional, named })
    }

    /// Applies attributes, items, calls, filters and tests to a value, in order.
    pub(super) fn apply(&mut self, mut value: Value, ops: &[Postfix]) -> Eval<Value> {
        for op in ops {
            self.budget.step()?;
            value = match op {
                Postfix::Attr(name) => self.attribute(&value, name)?,
                Postfix::Item(index) => {
                    let index = self.eval(index)?;
                    self.item(&value, &index)?
                }
                Postfix::Slice(parts) => {
                    let mut bounds = [None, None, None];
                    for (bound, part) in bounds.iter_mut().zip(&**parts) {
                        *bound = part.as_ref().map(|p| self.eval(p)).transpose()?;
                    }
                    self.slice(&value, bounds)?
                }
                Postfix::Call(args) => {
                    let args = self.args(args)?;
                    self.call(&value, args)?
                }
                Postfix::Method(name, args) => {
                    let args = self.args(args)?;
                    self.method(&value, name, args)?
                }
                Postfix::Filter(name, args) => {
                    let args = self.args(args)?;
                    filters::apply(self, name, value, args)?
                }
                Postfix::Test { name, negated, args } => {
                    let args = self.args(args)?;
                    Value::Bool(checks::holds(self, name, &value, args)? != *negated)
                }
            };
        }
        Ok(value)
    }

    /// The method of a value: one of its kind, or a macro in a dict or namespace.
    fn method(&mut self, value: &Value, name: &Str, args: CallArgs) -> Eval<Value> {
        match value {
            Value::Loop(state) => methods::of_loop(self, state, name, args),
            Value::Namespace(_) => {
                let callee = self.attribute(value, name)?;
                self.call(&callee, args)
            }
            _ => methods::call(self, value, name, args),
        }
    }

    /// An attribute: the key of a dict, a variable of a namespace, the state of a loop.
    pub(super) fn attribute(&self, value: &Value, name: &Str) -> Eval<Value> {
        let missing = || Value::Undefined(Str::from(format!("attribute {name} of a {}", value.kind())));
        Ok(match value {
            Value::Undefined(what) => return fault(format!("{what} is not there, so it has no attribute {name}")),
            Value::Dict(d) => match d.get(&Value::Str(name.clone()), self.budget)? {
                Some(found) => found.clone(),
                None => missing(),
            },
            Value::Namespace(vars) => {
                let vars = vars.borrow();
                self.budget.read(vars.len())?;
                vars.iter().rev().find(|v| v.0 == *name).map_or_else(missing, |v| v.1.clone())
            }
            Value::Loop(state) => state.attribute(name).unwrap_or_else(missing),
            _ => missing(),
        })
    }

    /// An item of a list, dict or string.
    pub(super) fn item(&self, value: &Value, index: &Value) -> Eval<Value> {
        let missing = || Value::Undefined(Str::from(format!("item of a {}", value.kind())));
        let place = |len: usize| {
            let i = index.integer()?;
            let i = if i < 0 { i + len as i128 } else { i };
            usize::try_from(i).ok().filter(|&i| i < len)
        };
        match (value, index) {
            (Value::Undefined(what), _) => fault(format!("{what} is not there, so it has no items")),
            (Value::Dict(d), _) => Ok(d.get(index, self.budget)?.cloned().unwrap_or_else(missing)),
            (Value::List(s) | Value::Tuple(s), _) => {
                Ok(place(s.items.len()).map_or_else(missing, |i| s.items[i].clone()))
            }
            (Value::Str(s), Value::Int(_) | Value::Bool(_)) => {
                let place = place(value.len(self.budget)?);
                match place.and_then(|i| s.chars().nth(i)) {
                    Some(c) => self.str(c.encode_utf8(&mut [0; 4])),
                    None => Ok(missing()),
                }
            }
            (Value::Namespace(_) | Value::Loop(_), Value::Str(name)) => self.attribute(value, name),
            _ => Ok(missing()),
        }
    }

    /// Part of a list or string, with the meaning that Python gives the bounds.
    fn slice(&self, value: &Value, bounds: [Option<Value>; 3]) -> Eval<Value> {
        let bound = |value: &Option<Value>| match value {
            None | Some(Value::None) => Ok(None),
            Some(v) => match v.integer() {
                Some(i) => Ok(Some(i)),
                None => fault(format!("slice: found {}, expected an integer", v.kind())),
            },
        };
        let [start, stop, step] = &bounds;
        let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
        if step == 0 {
            return fault("slice: step 0, expected another number");
        }
        if let Value::Undefined(what) = value {
            return fault(format!("{what} is not there, so it has no slices"));
        }
        if !matches!(value, Value::Str(_) | Value::List(_) | Value::Tuple(_)) {
            return Ok(Value::Undefined(Str::from(format!("slice of a {}", value.kind()))));
        }
        let len = value.len(self.budget)? as i128;
        let clamp = |i: i128, low: i128, high: i128| (if i < 0 { i.saturating_add(len) } else { i }).clamp(low, high);
        let (first, end) = if step > 0 {
            (start.map_or(0, |i| clamp(i, 0, len)), stop.map_or(len, |i| clamp(i, 0, len)))
        } else {
            (start.map_or(len - 1, |i| clamp(i, -1, len - 1)), stop.map_or(-1, |i| clamp(i, -1, len - 1)))
        };
        let inside = move |i: &i128| if step > 0 { *i < end } else { *i > end };
        let places = std::iter::successors(Some(first), |i| i.checked_add(step)).take_while(inside).map(|i| i as usize);
        match value {
            Value::Str(s) if step == 1 => {
                let text: String = s.chars().skip(first as usize).take((end - first).max(0) as usize).collect();
                self.str(&text)
            }
            Value::Str(s) => {
                self.budget.build(4 * s.len())?;
                let chars: Vec<char> = s.chars().collect();
                self.str(&places.map(|i| chars[i]).collect::<String>())
            }
            Value::Tuple(s) => Value::tuple(self.budget, places.map(|i| s.items[i].clone()).collect()),
            Value::List(s) => Value::list(self.budget, places.map(|i| s.items[i].clone()).collect()),
            other => Ok(other.clone()),
        }
    }

    fn unary(&self, op: Unary, value: &Value) -> Eval<Value> {
        let result = match (op, value) {
            (Unary::Not, v) => Some(Value::Bool(!v.truth())),
            (Unary::Minus, Value::Float(x)) => Some(Value::Float(-x)),
            (Unary::Plus, Value::Float(x)) => Some(Value::Float(*x)),
            (Unary::Minus, v) => v.integer().and_then(i128::checked_neg).map(Value::Int),
            (Unary::Plus, v) => v.integer().map(Value::Int),
        };
        match result {
            Some(value) => Ok(value),
            None => fault(format!("found {} after a sign, expected a number", value.kind())),
        }
    }

    /// Whether a comparison holds.
    pub(super) fn compare(&self, op: Compare, left: &Value, right: &Value) -> Eval<bool> {
        let budget = self.budget;
        Ok(match op {
            Compare::Eq => left.equals(right, budget)?,
            Compare::Ne => !left.equals(right, budget)?,
            Compare::Lt => left.compare(right, budget)?.is_lt(),
            Compare::Le => left.compare(right, budget)?.is_le(),
            Compare::Gt => left.compare(right, budget)?.is_gt(),
            Compare::Ge => left.compare(right, budget)?.is_ge(),
            Compare::In => right.contains(left, budget)?,
            Compare::NotIn => !right.contains(left, budget)?,
        })
    }

    /// The result of an operator of arithmetic.
    fn arith(&self, op: Arith, left: &Value, right: &Value) -> Eval<Value> {
        match (op, left, right) {
            (Arith::Concat, _, _) => {
                let (left, right) = (self.text(left)?, self.text(right)?);
                self.concat(&left, &right)
            }
            (Arith::Add, Value::Str(a), Value::Str(b)) => self.concat(a, b),
            (Arith::Add, Value::List(a), Value::List(b)) => Value::list(self.budget, self.joined(&a.items, &b.items)?),
            (Arith::Add, Value::Tuple(a), Value::Tuple(b)) => {
                Value::tuple(self.budget, self.joined(&a.items, &b.items)?)
            }
            (Arith::Mul, Value::Str(_) | Value::List(_) | Value::Tuple(_), n) if n.integer().is_some() => {
                self.repeat(left, n)
            }
            (Arith::Mul, n, Value::Str(_) | Value::List(_) | Value::Tuple(_)) if n.integer().is_some() => {
                self.repeat(right, n)
            }
            (Arith::Rem, Value::Str(format), _) => {
                let args = match right {
                    Value::Tuple(s) => s.items.clone(),
                    other => vec![other.clone()],
                };
                percent(self, format, args)
            }
            _ => match number_op(op, left, right) {
                Some(value) => Ok(value),
                None => {
                    let (left, right) = (described(left), described(right));
                    fault(format!("{op:?} of {left} and {right} has no result"))
                }
            },
        }
    }

    fn concat(&self, left: &str, right: &str) -> Eval<Value> {
        self.budget.fits(left.len() + right.len())?;
        self.str(&[left, right].concat())
    }

    fn joined(&self, a: &[Value], b: &[Value]) -> Eval<Vec<Value>> {
        self.budget.fits_items(a.len() + b.len())?;
        Ok([a, b].concat())
    }

    fn repeat(&self, value: &Value, n: &Value) -> Eval<Value> {
        let n = usize::try_from(n.integer().unwrap_or(0).max(0)).unwrap_or(usize::MAX);
        match value {
            Value::Str(s) => {
                self.budget.fits(s.len().saturating_mul(n))?;
                self.str(&s.repeat(if s.is_empty() { 0 } else { n }))
            }
            Value::List(s) => Value::list(self.budget, self.repeated(&s.items, n)?),
            Value::Tuple(s) => Value::tuple(self.budget, self.repeated(&s.items, n)?),
            other => fault(format!("{} cannot be repeated", other.kind())),
        }
    }

    fn repeated(&self, items: &[Value], n: usize) -> Eval<Vec<Value>> {
        self.budget.fits_items(items.len().saturating_mul(n))?;
        let n = if items.is_empty() { 0 } else { n };
        Ok(std::iter::repeat_n(items, n).flatten().cloned().collect())
    }
}

/// A value in a message: its kind, or what is missing.
fn described(value: &Value) -> String {
    match value {
        Value::Undefined(what) => format!("{what} (which is not there)"),
        other => other.kind().to_owned(),
    }
}

/// The result of an operator on two numbers.
fn number_op(op: Arith, left: &Value, right: &Value) -> Option<Value> {
    if let (Some(a), Some(b), true) = (left.integer(), right.integer(), op != Arith::Div) {
        return int_op(op, a, b);
    }
    let (a, b) = (left.number()?, right.number()?);
    Some(Value::Float(match op {
        Arith::Add => a + b,
        Arith::Sub => a - b,
        Arith::Mul => a * b,
        Arith::Div if b != 0.0 => a / b,
        Arith::FloorDiv if b != 0.0 => (a / b).floor(),
        Arith::Rem if b != 0.0 => a - b * (a / b).floor(),
        Arith::Pow if a != 0.0 || b >= 0.0 => a.powf(b),
        _ => return None,
    }))
}

/// The result of an operator on two integers.
fn int_op(op: Arith, a: i128, b: i128) -> Option<Value> {
    let floor_div = |a: i128, b: i128| {
        let quotient = a.checked_div(b)?;
        Some(quotient - i128::from(a % b != 0 && (a < 0) != (b < 0)))
    };
    match op {
        Arith::Add => a.checked_add(b),
        Arith::Sub => a.checked_sub(b),
        Arith::Mul => a.checked_mul(b),
        Arith::FloorDiv => floor_div(a, b),
        Arith::Rem => floor_div(a, b).map(|q| a - q * b),
        Arith::Pow if b < 0 && a == 0 => None,
        Arith::Pow if b < 0 => return Some(Value::Float((a as f64).powf(b as f64))),
        Arith::Pow => a.checked_pow(u32::try_from(b).ok()?),
        Arith::Div | Arith::Concat => None,
    }
    .map(Value::Int)
}
