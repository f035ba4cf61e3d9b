//! Tests: what stands after `is`.

use super::ast::Compare;
use super::error::{Eval, fault};
use super::filters;
use super::functions::{CallArgs, required};
use super::machine::Machine;
use super::methods::is_cased;
use super::value::Value;

/// A test, with its names.
type Row = (&'static [&'static str], fn(&Value) -> bool);

/// THE list of tests without arguments.
const KINDS: &[Row] = &[
    (&["defined"], |v| !matches!(v, Value::Undefined(_))),
    (&["undefined"], |v| matches!(v, Value::Undefined(_))),
    (&["none"], |v| matches!(v, Value::None)),
    (&["boolean"], |v| matches!(v, Value::Bool(_))),
    (&["true"], |v| matches!(v, Value::Bool(true))),
    (&["false"], |v| matches!(v, Value::Bool(false))),
    (&["integer"], |v| matches!(v, Value::Int(_))),
    (&["float"], |v| matches!(v, Value::Float(_))),
    (&["number"], |v| v.number().is_some()),
    (&["string"], |v| matches!(v, Value::Str(_))),
    (&["mapping"], |v| matches!(v, Value::Dict(_))),
    (&["iterable", "sequence"], |v| {
        matches!(v, Value::List(_) | Value::Tuple(_) | Value::Str(_) | Value::Dict(_) | Value::Undefined(_))
    }),
    (&["callable"], |v| matches!(v, Value::Macro(_) | Value::Function(_))),
    (&["lower"], |v| matches!(v, Value::Str(s) if is_cased(s, char::is_lowercase, char::is_uppercase))),
    (&["upper"], |v| matches!(v, Value::Str(s) if is_cased(s, char::is_uppercase, char::is_lowercase))),
    (&["escaped"], |_| false),
];

/// THE list of tests that compare.
const COMPARISONS: &[(&[&str], Compare)] = &[
    (&["eq", "equalto"], Compare::Eq),
    (&["ne"], Compare::Ne),
    (&["lt", "lessthan"], Compare::Lt),
    (&["le"], Compare::Le),
    (&["gt", "greaterthan"], Compare::Gt),
    (&["ge"], Compare::Ge),
    (&["in"], Compare::In),
];

/// The comparison of an operator as it stands in `select("==", x)`.
fn operator(name: &str) -> Option<Compare> {
    Some(match name {
        "==" => Compare::Eq,
        "!=" => Compare::Ne,
        "<" => Compare::Lt,
        "<=" => Compare::Le,
        ">" => Compare::Gt,
        ">=" => Compare::Ge,
        _ => return None,
    })
}

/// Whether there is a test of this name.
fn exists(name: &str) -> bool {
    KINDS.iter().any(|r| r.0.contains(&name))
        || COMPARISONS.iter().any(|r| r.0.contains(&name))
        || operator(name).is_some()
        || ["even", "odd", "divisibleby", "sameas", "filter", "test"].contains(&name)
}

/// Whether a test holds for a value.
pub(super) fn holds(machine: &Machine<'_>, name: &str, value: &Value, args: CallArgs) -> Eval<bool> {
    if let Value::Str(s) = value {
        machine.budget.read(s.len())?;
    }
    if let Some((_, test)) = KINDS.iter().find(|r| r.0.contains(&name)) {
        return args.none(name).map(|()| test(value));
    }
    let compare = COMPARISONS.iter().find(|r| r.0.contains(&name)).map(|r| r.1).or_else(|| operator(name));
    if let Some(op) = compare {
        let [other] = args.take(name, ["other"])?;
        return machine.compare(op, value, &required(name, other)?);
    }
    let integer = |v: &Value| match v.integer() {
        Some(n) => Ok(n),
        None => fault(format!("{name}: found {}, expected an integer", v.kind())),
    };
    match name {
        "even" => args.none(name).and_then(|()| Ok(integer(value)? % 2 == 0)),
        "odd" => args.none(name).and_then(|()| Ok(integer(value)? % 2 != 0)),
        "divisibleby" => {
            let [by] = args.take(name, ["num"])?;
            let by = integer(&required(name, by)?)?;
            match value {
                Value::Float(x) => Ok(by != 0 && x % by as f64 == 0.0),
                value => Ok(integer(value)?.checked_rem(by) == Some(0)),
            }
        }
        "sameas" => {
            let [other] = args.take(name, ["other"])?;
            let other = required(name, other)?;
            Ok(value.kind() == other.kind() && value.equals(&other, machine.budget)?)
        }
        "filter" => args.none(name).map(|()| matches!(value, Value::Str(s) if filters::find(s).is_some())),
        "test" => args.none(name).map(|()| matches!(value, Value::Str(s) if exists(s))),
        _ => fault(format!("unknown test {name:.40}")),
    }
}
