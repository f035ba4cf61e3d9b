//! Arguments of calls, and the functions that every template has.

use std::cell::RefCell;
use std::rc::Rc;

use super::ast::Str;
use super::error::{Eval, Stop, fault};
use super::machine::Machine;
use super::time::strftime;
use super::value::Value;

/// Most numbers that `range` gives.
const MAX_RANGE: i128 = 100_000;

/// Evaluated arguments.
#[derive(Debug, Default)]
pub(super) struct CallArgs {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Str, Value)>,
}

impl CallArgs {
    /// Arguments without names.
    pub(super) fn of(positional: Vec<Value>) -> CallArgs {
        CallArgs { positional, named: Vec::new() }
    }

    /// The arguments in the order of `names`; an error for one too many and for a name that is not among them.
    pub(super) fn take<const N: usize>(self, what: &str, names: [&str; N]) -> Eval<[Option<Value>; N]> {
        if self.positional.len() > N {
            return fault(format!("{what}: {} arguments, expected at most {N}", self.positional.len()));
        }
        let mut taken = [const { None }; N];
        for (slot, value) in taken.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|n| **n == *name) {
                Some(at) if taken[at].is_none() => taken[at] = Some(value),
                Some(_) => return fault(format!("{what}: argument {name} is given twice")),
                None => return fault(format!("{what}: unknown argument {name}, expected {}", names.join(", "))),
            }
        }
        Ok(taken)
    }

    /// As [`CallArgs::take`] for something that takes none.
    pub(super) fn none(self, what: &str) -> Eval<()> {
        self.take(what, []).map(|[]| ())
    }
}

/// The integer of an argument.
pub(super) fn int_arg(what: &str, value: Option<Value>, default: i128) -> Eval<i128> {
    match value {
        None => Ok(default),
        Some(v) => v.integer().ok_or_else(|| Stop::Fault(format!("{what}: found {}, expected an integer", v.kind()))),
    }
}

/// The text of an argument.
pub(super) fn text_arg(what: &str, value: Option<Value>) -> Eval<Option<Str>> {
    match value {
        None => Ok(None),
        Some(Value::Str(s)) => Ok(Some(s)),
        Some(v) => fault(format!("{what}: found {}, expected a string", v.kind())),
    }
}

/// An argument that has to be given.
pub(super) fn required(what: &str, value: Option<Value>) -> Eval<Value> {
    value.ok_or_else(|| Stop::Fault(format!("{what}: an argument is missing")))
}

/// A function that every template has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    Namespace,
    RaiseException,
    /// Only there where the caller gives a time.
    StrftimeNow,
}

/// THE list of functions.
const FUNCTIONS: [(&str, Function); 5] = [
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("namespace", Function::Namespace),
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
];

impl Function {
    /// The function of a name.
    pub(super) fn find(name: &str) -> Option<Function> {
        FUNCTIONS.iter().find(|f| f.0 == name).map(|f| f.1)
    }

    /// The result of a call.
    pub(super) fn call(self, machine: &Machine<'_>, args: CallArgs) -> Eval<Value> {
        let budget = machine.budget;
        match self {
            Function::Range => range(machine, args),
            Function::Dict => {
                let [from] = CallArgs::of(args.positional).take("dict", ["mapping"])?;
                let mut entries = match from {
                    Some(Value::Dict(d)) => d.entries.clone(),
                    Some(other) => return fault(format!("dict: found {}, expected a dict", other.kind())),
                    None => Vec::new(),
                };
                let named = args.named.into_iter().map(|(k, v)| (Value::Str(k), v));
                named.for_each(|entry| entries.push(entry));
                machine.unique_dict(entries)
            }
            Function::Namespace => {
                let mut values = Vec::new();
                for from in args.positional {
                    let Value::Dict(d) = from else {
                        return fault(format!("namespace: found {}, expected a dict", from.kind()));
                    };
                    for (key, value) in &d.entries {
                        values.extend(text_arg("namespace", Some(key.clone()))?.map(|key| (key, value.clone())));
                    }
                }
                values.extend(args.named);
                budget.build_items(2 * values.len())?;
                if values.iter().any(|v| v.1.has_state()) {
                    return fault("namespace: a namespace cannot hold another one, a macro or a loop");
                }
                Ok(Value::Namespace(Rc::new(RefCell::new(values))))
            }
            Function::RaiseException => {
                let [message] = args.take("raise_exception", ["message"])?;
                let message = message.map_or(Ok(String::new()), |m| machine.text_of(&m))?;
                Err(Stop::Raised(message))
            }
            Function::StrftimeNow => {
                let [format] = args.take("strftime_now", ["format"])?;
                let format = text_arg("strftime_now", format)?.unwrap_or_default();
                let now = machine.now.ok_or_else(|| Stop::Fault("strftime_now: no time is given".into()))?;
                // A field is at most nine bytes for two of the format, but a name or a year may be longer.
                budget.build(32 * format.len())?;
                Value::text(budget, &strftime(now, &format))
            }
        }
    }
}

fn range(machine: &Machine<'_>, args: CallArgs) -> Eval<Value> {
    let [first, stop, step] = args.take("range", ["start", "stop", "step"])?;
    let first = int_arg("range", Some(required("range", first)?), 0)?;
    let (start, stop) = match stop {
        Some(stop) => (first, int_arg("range", Some(stop), 0)?),
        None => (0, first),
    };
    let step = int_arg("range", step, 1)?;
    if step == 0 {
        return fault("range: step 0, expected another number");
    }
    let span = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let width = step.unsigned_abs().try_into().unwrap_or(i128::MAX);
    let len = (span.max(0) / width) + i128::from(span.max(0) % width != 0);
    if len > MAX_RANGE {
        return Err(Stop::Limit("numbers of a range", MAX_RANGE as u64));
    }
    machine.budget.fits_items(len as usize)?;
    Value::list(machine.budget, (0..len).map(|i| Value::Int(start + i * step)).collect())
}
