//! Values of a template, with the meaning that Python gives them.
//!
//! Lists and dicts cannot be changed, a namespace can hold nothing that holds a namespace, and nesting is bounded: so
//! no value contains itself, and every walk ends with little stack. Walks count their steps, as one value may stand in
//! many places of another.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{For, Macro, Str};
use super::budget::Budget;
use super::error::{Eval, Stop, fault};
use super::functions::Function;

/// Deepest nesting of lists and dicts. JSON is read to 128.
pub(super) const MAX_DEPTH: u16 = 160;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A name that stands for nothing, or an attribute that a value does not have; with what was looked for.
    Undefined(Str),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Str),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    Namespace(Rc<RefCell<Vec<(Str, Value)>>>),
    Macro(Rc<Closure>),
    Function(Function),
    Loop(Rc<Loop>),
}

/// The items of a list or tuple.
#[derive(Debug)]
pub(super) struct Seq {
    pub(super) items: Vec<Value>,
    meta: Nesting,
}

/// The entries of a dict, in order, each key once.
#[derive(Debug)]
pub(super) struct Dict {
    pub(super) entries: Vec<(Value, Value)>,
    meta: Nesting,
}

/// How deep a value is nested, and whether a namespace or something else with state is in it.
#[derive(Clone, Copy, Debug, Default)]
struct Nesting {
    depth: u16,
    state: bool,
}

/// A macro, and the scope that it was defined in.
#[derive(Debug)]
pub(super) struct Closure {
    pub(super) code: Arc<Macro>,
    pub(super) scope: usize,
}

/// The state of a loop: what `loop` stands for.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) code: Arc<For>,
    pub(super) items: Rc<Seq>,
    pub(super) index: Cell<usize>,
    pub(super) depth: usize,
    pub(super) changed: RefCell<Option<Value>>,
}

impl Value {
    /// The empty text.
    pub(super) fn empty() -> Value {
        Value::Str(Str::from(""))
    }

    /// A text, counted.
    pub(super) fn text(budget: &Budget, text: &str) -> Eval<Value> {
        // A shared text has a header of two counts, and the allocator rounds up.
        budget.build(text.len() + size_of::<Value>())?;
        Ok(Value::Str(Str::from(text)))
    }

    /// A list, counted.
    pub(super) fn list(budget: &Budget, items: Vec<Value>) -> Eval<Value> {
        Seq::new(budget, items).map(|s| Value::List(Rc::new(s)))
    }

    /// A tuple, counted.
    pub(super) fn tuple(budget: &Budget, items: Vec<Value>) -> Eval<Value> {
        Seq::new(budget, items).map(|s| Value::Tuple(Rc::new(s)))
    }

    /// A dict, counted, whose keys are known to differ.
    pub(super) fn dict(budget: &Budget, entries: Vec<(Value, Value)>) -> Eval<Value> {
        budget.build_items(2 * entries.len())?;
        let meta = Nesting::around(entries.iter().flat_map(|(k, v)| [k, v]))?;
        Ok(Value::Dict(Rc::new(Dict { entries, meta })))
    }

    /// The kind of a value, as Python calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "undefined",
            Value::None => "none",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "string",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Namespace(_) => "namespace",
            Value::Macro(_) => "macro",
            Value::Function(_) => "function",
            Value::Loop(_) => "loop",
        }
    }

    /// Whether a condition holds for it.
    pub(super) fn truth(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(n) => *n != 0,
            Value::Float(x) => *x != 0.0,
            Value::Str(s) => !s.is_empty(),
            Value::List(s) | Value::Tuple(s) => !s.items.is_empty(),
            Value::Dict(d) => !d.entries.is_empty(),
            Value::Namespace(_) | Value::Macro(_) | Value::Function(_) | Value::Loop(_) => true,
        }
    }

    fn nesting(&self) -> Nesting {
        match self {
            Value::List(s) | Value::Tuple(s) => s.meta,
            Value::Dict(d) => d.meta,
            Value::Namespace(_) | Value::Loop(_) | Value::Macro(_) => Nesting { depth: 0, state: true },
            _ => Nesting::default(),
        }
    }

    /// Whether a namespace (or a macro or loop, which may lead to one) is in it.
    pub(super) fn has_state(&self) -> bool {
        self.nesting().state
    }

    /// The number of an integer, float or boolean.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Int(n) => Some(*n as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// The number of an integer or boolean.
    pub(super) fn integer(&self) -> Option<i128> {
        match self {
            Value::Bool(b) => Some(i128::from(*b)),
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// The items of anything that can be walked: a text by its characters, a dict by its keys.
    pub(super) fn items(&self, budget: &Budget) -> Eval<Vec<Value>> {
        let count = |n: usize| budget.build_items(n);
        match self {
            Value::Undefined(_) => Ok(Vec::new()),
            Value::Str(s) => {
                count(2 * s.len())?;
                Ok(s.chars().map(|c| Value::Str(Str::from(&*c.encode_utf8(&mut [0; 4])))).collect())
            }
            Value::List(s) | Value::Tuple(s) => count(s.items.len()).map(|()| s.items.clone()),
            Value::Dict(d) => count(d.entries.len()).map(|()| d.entries.iter().map(|(k, _)| k.clone()).collect()),
            other => fault(format!("{} cannot be walked, expected a list, dict or string", other.kind())),
        }
    }

    /// The items of anything that can be walked, those of a list where they are.
    pub(super) fn walk(&self, budget: &Budget) -> Eval<Rc<Seq>> {
        match self {
            Value::List(s) | Value::Tuple(s) => Ok(s.clone()),
            other => Seq::of(other.items(budget)?).map(Rc::new),
        }
    }

    /// Number of items or characters.
    pub(super) fn len(&self, budget: &Budget) -> Eval<usize> {
        match self {
            Value::Undefined(_) => Ok(0),
            Value::Str(s) => budget.read(s.len()).map(|()| s.chars().count()),
            Value::List(s) | Value::Tuple(s) => Ok(s.items.len()),
            Value::Dict(d) => Ok(d.entries.len()),
            other => fault(format!("{} has no length", other.kind())),
        }
    }

    /// Whether two values are equal: numbers by value, everything else within its kind.
    pub(super) fn equals(&self, other: &Value, budget: &Budget) -> Eval<bool> {
        budget.step()?;
        Ok(match (self, other) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Str(a), Value::Str(b)) => {
                budget.read(a.len().min(b.len()))?;
                a == b
            }
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                let mut pairs = a.items.iter().zip(&b.items);
                a.items.len() == b.items.len() && all(&mut pairs, |(x, y)| x.equals(y, budget))?
            }
            (Value::Dict(a), Value::Dict(b)) => {
                let same = |(key, x): &(Value, Value)| match b.get(key, budget)? {
                    Some(y) => x.equals(y, budget),
                    None => Ok(false),
                };
                a.entries.len() == b.entries.len() && all(&mut a.entries.iter(), same)?
            }
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
            (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
            (a, b) => match (a.integer(), b.integer()) {
                (Some(x), Some(y)) => x == y,
                _ => matches!((a.number(), b.number()), (Some(x), Some(y)) if x == y),
            },
        })
    }

    /// The order of two values, which only numbers among themselves, texts and lists have.
    pub(super) fn compare(&self, other: &Value, budget: &Budget) -> Eval<Ordering> {
        budget.step()?;
        let order = match (self, other) {
            (Value::Str(a), Value::Str(b)) => {
                budget.read(a.len().min(b.len()))?;
                Some(a.cmp(b))
            }
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                for (x, y) in a.items.iter().zip(&b.items) {
                    if !x.equals(y, budget)? {
                        return x.compare(y, budget);
                    }
                }
                Some(a.items.len().cmp(&b.items.len()))
            }
            (a, b) => match (a.integer(), b.integer()) {
                (Some(x), Some(y)) => Some(x.cmp(&y)),
                _ => a.number().zip(b.number()).and_then(|(x, y)| x.partial_cmp(&y)),
            },
        };
        order.ok_or_else(|| Stop::Fault(format!("{} and {} have no order", self.kind(), other.kind())))
    }

    /// Whether `item` is in this value.
    pub(super) fn contains(&self, item: &Value, budget: &Budget) -> Eval<bool> {
        match self {
            Value::Undefined(_) => Ok(false),
            Value::Str(text) => match item {
                Value::Str(part) => {
                    budget.read(text.len() + part.len())?;
                    Ok(text.contains(&**part))
                }
                other => {
                    fault(format!("found {} before \"in\", expected a string to look for in a string", other.kind()))
                }
            },
            Value::List(s) | Value::Tuple(s) => any(&mut s.items.iter(), |x| x.equals(item, budget)),
            Value::Dict(d) => Ok(d.get(item, budget)?.is_some()),
            other => fault(format!("found {} after \"in\", expected a list, dict or string", other.kind())),
        }
    }
}

impl Seq {
    fn new(budget: &Budget, items: Vec<Value>) -> Eval<Seq> {
        budget.build_items(items.len())?;
        Seq::of(items)
    }

    /// Items that were counted already.
    pub(super) fn of(items: Vec<Value>) -> Eval<Seq> {
        let meta = Nesting::around(items.iter())?;
        Ok(Seq { items, meta })
    }
}

impl Dict {
    /// The value of a key.
    pub(super) fn get(&self, key: &Value, budget: &Budget) -> Eval<Option<&Value>> {
        budget.read(self.entries.len())?;
        for (found, value) in &self.entries {
            let same = match (found, key) {
                (Value::Str(a), Value::Str(b)) => a == b,
                (Value::Str(_), _) | (_, Value::Str(_)) => false,
                (a, b) => a.equals(b, budget)?,
            };
            if same {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

impl Nesting {
    /// The nesting of a value around others.
    fn around<'v>(parts: impl Iterator<Item = &'v Value>) -> Eval<Nesting> {
        let mut meta = Nesting { depth: 1, state: false };
        for part in parts.map(Value::nesting) {
            meta.depth = meta.depth.max(part.depth + 1);
            meta.state |= part.state;
        }
        if meta.depth > MAX_DEPTH {
            return Err(Stop::Limit("levels of lists in lists", MAX_DEPTH.into()));
        }
        Ok(meta)
    }
}

/// Whether a test holds for all.
fn all<T>(items: &mut impl Iterator<Item = T>, mut test: impl FnMut(T) -> Eval<bool>) -> Eval<bool> {
    for item in items {
        if !test(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a test holds for one.
fn any<T>(items: &mut impl Iterator<Item = T>, mut test: impl FnMut(T) -> Eval<bool>) -> Eval<bool> {
    for item in items {
        if test(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}
