//! Running statements.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Action, Expr, For, Macro, Postfix, Stmt, Str, Target};
use super::error::{Eval, fault};
use super::functions::CallArgs;
use super::machine::{Machine, Scope};
use super::value::{Closure, Loop, Seq, Value};

/// Where to go on after a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

impl Machine<'_> {
    /// Runs statements in order.
    pub(super) fn run(&mut self, body: &[Stmt]) -> Eval<Flow> {
        let budget = self.budget;
        let _level = budget.descend()?;
        for stmt in body {
            budget.step()?;
            self.line = stmt.line;
            let flow = self.statement(&stmt.action)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, action: &Action) -> Eval<Flow> {
        match action {
            Action::Text(text) => self.write(text)?,
            Action::Output(expr) => {
                let value = self.eval(expr)?;
                let text = self.text(&value)?;
                self.write(&text)?;
            }
            Action::If(branches, otherwise) => return self.run_if(branches, otherwise),
            Action::For(code) => {
                let items = self.eval(&code.items)?.walk(self.budget)?;
                self.run_for(code, items, 0)?;
            }
            Action::Set(target, expr) => {
                let value = self.eval(expr)?;
                self.assign(target, value)?;
            }
            Action::SetBlock(target, filters, body) => {
                let text = self.in_scope(|m| m.capture(|m| m.run(body).map(drop)))?;
                let value = self.apply(text, filters)?;
                self.assign(target, value)?;
            }
            Action::Filter(filters, body) => {
                let text = self.in_scope(|m| m.capture(|m| m.run(body).map(drop)))?;
                let value = self.apply(text, filters)?;
                let text = self.text(&value)?;
                self.write(&text)?;
            }
            Action::Macro(code) => {
                let closure = Closure { code: code.clone(), scope: self.scopes.len() - 1 };
                self.define(code.name.clone(), Value::Macro(Rc::new(closure)));
            }
            Action::Call(call, body) => self.run_call(call, body)?,
            Action::With(values, body) => {
                return self.in_scope(|m| {
                    for (target, expr) in values {
                        let value = m.eval(expr)?;
                        m.assign(target, value)?;
                    }
                    m.run(body)
                });
            }
            Action::Block(body) => return self.run(body),
            Action::Break => return Ok(Flow::Break),
            Action::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// Appends to the text that is being written.
    fn write(&mut self, text: &str) -> Eval<()> {
        if self.out.len() == 1 {
            self.budget.output(text.len())?;
        }
        self.budget.build(text.len())?;
        if let Some(out) = self.out.last_mut() {
            out.push_str(text);
        }
        Ok(())
    }

    /// The text that `body` writes.
    fn capture(&mut self, body: impl FnOnce(&mut Self) -> Eval<()>) -> Eval<Value> {
        self.out.push(String::new());
        body(self)?;
        let text = self.out.pop().unwrap_or_default();
        self.str(&text)
    }

    /// Runs `body` in a scope of its own.
    fn in_scope<T>(&mut self, body: impl FnOnce(&mut Self) -> Eval<T>) -> Eval<T> {
        self.scopes.push(Scope { vars: Vec::new(), parent: Some(self.scopes.len() - 1) });
        let result = body(self)?;
        self.scopes.pop();
        Ok(result)
    }

    /// Sets a variable of the innermost scope.
    fn define(&mut self, name: Str, value: Value) {
        let Some(scope) = self.scopes.last_mut() else { return };
        match scope.vars.iter_mut().find(|v| v.0 == name) {
            Some(var) => var.1 = value,
            None => scope.vars.push((name, value)),
        }
    }

    fn assign(&mut self, target: &Target, value: Value) -> Eval<()> {
        match target {
            Target::Name(name) => {
                self.budget.step()?;
                self.define(name.clone(), value);
                Ok(())
            }
            Target::Attr(name, attr) => {
                let Value::Namespace(vars) = self.lookup(name)? else {
                    return fault(format!("assignment to {name}.{attr}, but {name} is no namespace"));
                };
                if value.has_state() {
                    return fault("a namespace cannot hold a namespace, a macro or a loop");
                }
                let mut vars = vars.borrow_mut();
                self.budget.read(vars.len())?;
                match vars.iter_mut().find(|v| v.0 == *attr) {
                    Some(var) => var.1 = value,
                    None => {
                        self.budget.build_items(2)?;
                        vars.push((attr.clone(), value));
                    }
                }
                Ok(())
            }
            Target::Tuple(targets) => {
                let items = value.items(self.budget)?;
                if items.len() != targets.len() {
                    return fault(format!("{} values for {} names", items.len(), targets.len()));
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item))
            }
        }
    }

    fn run_if(&mut self, branches: &[(Expr, Vec<Stmt>)], otherwise: &[Stmt]) -> Eval<Flow> {
        for (condition, body) in branches {
            if self.eval(condition)?.truth() {
                return self.run(body);
            }
        }
        self.run(otherwise)
    }

    /// Runs a loop over items.
    pub(super) fn run_for(&mut self, code: &Arc<For>, items: Rc<Seq>, depth: usize) -> Eval<()> {
        let items = match &code.filter {
            Some(filter) => self.in_scope(|m| m.filtered(&code.target, filter, &items.items))?,
            None => items,
        };
        if items.items.is_empty() {
            return self.run(&code.otherwise).map(drop);
        }
        let state = Loop { code: code.clone(), items, index: Cell::new(0), depth, changed: RefCell::new(None) };
        let state = Rc::new(state);
        self.in_scope(|m| {
            for (index, item) in state.items.items.iter().enumerate() {
                state.index.set(index);
                // Variables set in a round are gone in the next one.
                if let Some(scope) = m.scopes.last_mut() {
                    scope.vars.clear();
                }
                m.define(Str::from("loop"), Value::Loop(state.clone()));
                m.assign(&code.target, item.clone())?;
                if m.run(&code.body)? == Flow::Break {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The items that the condition of a loop holds for.
    fn filtered(&mut self, target: &Target, filter: &Expr, items: &[Value]) -> Eval<Rc<Seq>> {
        let mut kept = Vec::new();
        for item in items {
            self.assign(target, item.clone())?;
            if self.eval(filter)?.truth() {
                self.budget.build_items(1)?;
                kept.push(item.clone());
            }
        }
        Seq::of(kept).map(Rc::new)
    }

    fn run_call(&mut self, call: &Expr, body: &Arc<Macro>) -> Eval<()> {
        let Expr::Postfix(callee, ops) = call else {
            return fault("call block without a call");
        };
        let Some((Postfix::Call(args), before)) = ops.split_last() else {
            return fault("call block without a call");
        };
        let callee = self.eval(callee)?;
        let callee = self.apply(callee, before)?;
        let mut args = self.args(args)?;
        let closure = Closure { code: body.clone(), scope: self.scopes.len() - 1 };
        args.named.push((Str::from("caller"), Value::Macro(Rc::new(closure))));
        let result = self.call(&callee, args)?;
        let text = self.text(&result)?;
        self.write(&text)
    }

    /// The result of a call.
    pub(super) fn call(&mut self, callee: &Value, args: CallArgs) -> Eval<Value> {
        let budget = self.budget;
        let _level = budget.descend()?;
        match callee {
            Value::Function(function) => function.call(self, args),
            Value::Macro(closure) => self.call_macro(closure, args),
            Value::Loop(state) if state.code.recursive => {
                let [items] = args.take("loop", ["items"])?;
                let items = items.unwrap_or(Value::None).walk(budget)?;
                self.capture(|m| m.run_for(&state.code, items, state.depth + 1))
            }
            Value::Undefined(what) => fault(format!("{what} is not there, so it cannot be called")),
            other => fault(format!("{} cannot be called", other.kind())),
        }
    }

    fn call_macro(&mut self, closure: &Closure, mut args: CallArgs) -> Eval<Value> {
        let code = &closure.code;
        let caller = args.named.iter().position(|(n, _)| &**n == "caller").map(|at| args.named.remove(at));
        if args.positional.len() > code.params.len() {
            return fault(format!("macro {}: more arguments than its {}", code.name, code.params.len()));
        }
        if let Some((name, _)) = args.named.iter().find(|(n, _)| code.params.iter().all(|p| p.0 != *n)) {
            return fault(format!("macro {}: unknown argument {name}", code.name));
        }
        // The macro sees what its definition saw, not what its caller sees.
        self.scopes.push(Scope { vars: caller.into_iter().collect(), parent: Some(closure.scope) });
        let mut positional = args.positional.into_iter();
        for (name, default) in &code.params {
            let named = args.named.iter().find(|a| a.0 == *name).map(|a| a.1.clone());
            let value = match (positional.next().or(named), default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.eval(default)?,
                (None, None) => Value::Undefined(name.clone()),
            };
            self.define(name.clone(), value);
        }
        let line = self.line;
        let text = self.capture(|m| m.run(&code.body).map(drop))?;
        self.line = line;
        self.scopes.pop();
        Ok(text)
    }
}

impl Loop {
    /// What `loop.name` stands for.
    pub(super) fn attribute(&self, name: &str) -> Option<Value> {
        let (index, len) = (self.index.get(), self.items.items.len());
        let int = |n: usize| Value::Int(n as i128);
        Some(match name {
            "index" => int(index + 1),
            "index0" => int(index),
            "revindex" => int(len - index),
            "revindex0" => int(len - index - 1),
            "first" => Value::Bool(index == 0),
            "last" => Value::Bool(index + 1 == len),
            "length" => int(len),
            "depth" => int(self.depth + 1),
            "depth0" => int(self.depth),
            "previtem" => index.checked_sub(1).and_then(|i| self.items.items.get(i)).cloned()?,
            "nextitem" => self.items.items.get(index + 1).cloned()?,
            _ => return None,
        })
    }
}
