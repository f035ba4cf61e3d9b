//! Filters on lists.

use std::cmp::Ordering;

use super::ast::Str;
use super::checks::holds;
use super::error::{Eval, Stop, fault};
use super::filters::apply;
use super::functions::{CallArgs, int_arg, required, text_arg};
use super::machine::Machine;
use super::methods;
use super::value::Value;

/// What an attribute path such as `a.b` or `0` gives of a value.
fn path(machine: &Machine<'_>, value: &Value, path: &Value) -> Eval<Value> {
    let Value::Str(names) = path else {
        return machine.item(value, path);
    };
    let mut value = value.clone();
    for name in names.split('.') {
        value = match name.parse() {
            Ok(index) => machine.item(&value, &Value::Int(index))?,
            Err(_) if name.starts_with('_') => return fault(format!("attribute {name:.40} is not for templates")),
            Err(_) => machine.attribute(&value, &Str::from(name))?,
        };
    }
    Ok(value)
}

/// The key by which items are ordered: an attribute, or several with commas between them, in small letters unless case
/// counts.
fn key(machine: &Machine<'_>, item: &Value, attribute: Option<&Value>, case: bool) -> Eval<Value> {
    if let Some(Value::Str(names)) = attribute
        && names.contains(',')
    {
        let one = |name: &str| key(machine, item, Some(&machine.str(name)?), case);
        return Value::list(machine.budget, names.split(',').map(one).collect::<Eval<_>>()?);
    }
    match attribute.map_or_else(|| Ok(item.clone()), |a| path(machine, item, a))? {
        Value::Str(s) if !case => machine.str(&s.to_lowercase()),
        key => Ok(key),
    }
}

pub(super) fn first(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("first")?;
    let missing = Value::Undefined(Str::from("the first item of an empty list"));
    Ok(match &value {
        Value::List(s) | Value::Tuple(s) => s.items.first().cloned().unwrap_or(missing),
        other => other.items(machine.budget)?.into_iter().next().unwrap_or(missing),
    })
}

pub(super) fn last(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("last")?;
    let missing = Value::Undefined(Str::from("the last item of an empty list"));
    Ok(match &value {
        Value::List(s) | Value::Tuple(s) => s.items.last().cloned().unwrap_or(missing),
        other => other.items(machine.budget)?.pop().unwrap_or(missing),
    })
}

pub(super) fn list(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("list")?;
    Value::list(machine.budget, value.items(machine.budget)?)
}

pub(super) fn reverse(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("reverse")?;
    if let Value::Str(s) = &value {
        machine.budget.fits(s.len())?;
        return machine.str(&s.chars().rev().collect::<String>());
    }
    let mut items = value.items(machine.budget)?;
    items.reverse();
    Value::list(machine.budget, items)
}

pub(super) fn join_filter(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [between, attribute] = args.take("join", ["d", "attribute"])?;
    let between = between.map_or(Ok(String::new()), |b| machine.text_of(&b))?;
    let Some(attribute) = attribute else {
        return methods::join(machine, &value, &between);
    };
    let items = value.items(machine.budget)?;
    let items = items.iter().map(|i| path(machine, i, &attribute)).collect::<Eval<_>>()?;
    let items = Value::list(machine.budget, items)?;
    methods::join(machine, &items, &between)
}

/// The items of a value; none for what is empty, be it a list or not.
fn items_or_none(machine: &Machine<'_>, value: &Value) -> Eval<Vec<Value>> {
    if value.truth() { value.items(machine.budget) } else { Ok(Vec::new()) }
}

/// `map(attribute="x", default=y)` or `map("filter", arguments)`.
pub(super) fn map(machine: &mut Machine<'_>, value: Value, mut args: CallArgs) -> Eval<Value> {
    let items = items_or_none(machine, &value)?;
    let by_attribute = args.positional.is_empty();
    let mut mapped = Vec::with_capacity(items.len());
    if by_attribute {
        let [attribute, default] = args.take("map", ["attribute", "default"])?;
        let attribute = required("map", attribute)?;
        for item in &items {
            let found = path(machine, item, &attribute)?;
            mapped.push(match (found, &default) {
                (Value::Undefined(_), Some(default)) => default.clone(),
                (found, _) => found,
            });
        }
    } else {
        let name = text_arg("map", Some(args.positional.remove(0)))?.unwrap_or_default();
        for item in items {
            let args = CallArgs { positional: args.positional.clone(), named: args.named.clone() };
            mapped.push(apply(machine, &name, item, args)?);
        }
    }
    Value::list(machine.budget, mapped)
}

/// `select`, `reject`, `selectattr` and `rejectattr`.
pub(super) fn select(machine: &mut Machine<'_>, value: Value, mut args: CallArgs, name: &str) -> Eval<Value> {
    let keep = name.starts_with("select");
    let attribute = if name.ends_with("attr") {
        if args.positional.is_empty() {
            return fault(format!("{name}: the attribute is missing"));
        }
        Some(args.positional.remove(0))
    } else {
        None
    };
    let test = if args.positional.is_empty() { None } else { text_arg(name, Some(args.positional.remove(0)))? };
    let mut kept = Vec::new();
    for item in items_or_none(machine, &value)? {
        let subject = attribute.as_ref().map_or_else(|| Ok(item.clone()), |a| path(machine, &item, a))?;
        let truth = match &test {
            Some(test) => {
                let args = CallArgs { positional: args.positional.clone(), named: args.named.clone() };
                holds(machine, test, &subject, args)?
            }
            None => subject.truth(),
        };
        if truth == keep {
            kept.push(item);
        }
    }
    Value::list(machine.budget, kept)
}

/// Sorts by keys, stable. Merges runs of growing length: the sort of the standard library takes no comparison that fails.
fn sort_by_keys(machine: &Machine<'_>, mut items: Vec<(Value, Value)>, reverse: bool) -> Eval<Vec<Value>> {
    let mut run = 1;
    while run < items.len() {
        let mut merged = Vec::with_capacity(items.len());
        let mut rest = items.into_iter().peekable();
        while rest.peek().is_some() {
            let left: Vec<_> = rest.by_ref().take(run).collect();
            let right: Vec<_> = rest.by_ref().take(run).collect();
            let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
            while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
                // Equal values need no order: `none`, or an attribute that two items do not have.
                let same = a.0.equals(&b.0, machine.budget)?;
                let order = if same { Ordering::Equal } else { a.0.compare(&b.0, machine.budget)? };
                let order = if reverse { order.reverse() } else { order };
                merged.extend(if order.is_gt() { right.next() } else { left.next() });
            }
            merged.extend(left.chain(right));
        }
        items = merged;
        run *= 2;
    }
    Ok(items.into_iter().map(|i| i.1).collect())
}

pub(super) fn sort(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [reverse, case, attribute] = args.take("sort", ["reverse", "case_sensitive", "attribute"])?;
    let flag = |v: Option<Value>| v.is_some_and(|v| v.truth());
    let (reverse, case) = (flag(reverse), flag(case));
    let items = value.items(machine.budget)?;
    let keyed = items.into_iter().map(|i| Ok((key(machine, &i, attribute.as_ref(), case)?, i)));
    let sorted = sort_by_keys(machine, keyed.collect::<Eval<_>>()?, reverse)?;
    Value::list(machine.budget, sorted)
}

pub(super) fn dictsort(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [case, by, reverse] = args.take("dictsort", ["case_sensitive", "by", "reverse"])?;
    let flag = |v: Option<Value>| v.is_some_and(|v| v.truth());
    let place = match text_arg("dictsort", by)?.as_deref() {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(other) => return fault(format!("dictsort: by {other:.40}, expected key or value")),
    };
    let (case, reverse) = (flag(case), flag(reverse));
    let Value::Dict(dict) = &value else {
        return fault(format!("dictsort: found {}, expected a dict", value.kind()));
    };
    let mut keyed = Vec::new();
    for (k, v) in &dict.entries {
        let pair = Value::tuple(machine.budget, vec![k.clone(), v.clone()])?;
        keyed.push((key(machine, if place == 0 { k } else { v }, None, case)?, pair));
    }
    let sorted = sort_by_keys(machine, keyed, reverse)?;
    Value::list(machine.budget, sorted)
}

pub(super) fn extreme(machine: &mut Machine<'_>, value: Value, args: CallArgs, name: &str) -> Eval<Value> {
    let [case, attribute] = args.take(name, ["case_sensitive", "attribute"])?;
    let case = case.is_some_and(|v| v.truth());
    let mut best: Option<(Value, Value)> = None;
    for item in value.items(machine.budget)? {
        let key = key(machine, &item, attribute.as_ref(), case)?;
        let better = match &best {
            None => true,
            Some((k, _)) if name == "max" => key.compare(k, machine.budget)?.is_gt(),
            Some((k, _)) => key.compare(k, machine.budget)?.is_lt(),
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::Undefined(Str::from("the extreme of an empty list")), |b| b.1))
}

pub(super) fn unique(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [case, attribute] = args.take("unique", ["case_sensitive", "attribute"])?;
    let case = case.is_some_and(|v| v.truth());
    let mut keys: Vec<Value> = Vec::new();
    let mut kept = Vec::new();
    for item in value.items(machine.budget)? {
        let key = key(machine, &item, attribute.as_ref(), case)?;
        let mut known = false;
        for k in &keys {
            known |= k.equals(&key, machine.budget)?;
        }
        if !known {
            keys.push(key);
            kept.push(item);
        }
    }
    Value::list(machine.budget, kept)
}

/// Items of one value of an attribute, as pairs of that value and the items, sorted by it.
pub(super) fn groupby(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [attribute, default, case] = args.take("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = required("groupby", attribute)?;
    let case = case.is_some_and(|v| v.truth());
    let mut keyed = Vec::new();
    for item in value.items(machine.budget)? {
        let found = match (path(machine, &item, &attribute)?, &default) {
            (Value::Undefined(_), Some(default)) => default.clone(),
            (found, _) => found,
        };
        let pair = Value::tuple(machine.budget, vec![found.clone(), item])?;
        keyed.push((key(machine, &found, None, case)?, pair));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for pair in sort_by_keys(machine, keyed, false)? {
        let Value::Tuple(pair) = pair else { continue };
        let (found, item) = (&pair.items[0], pair.items[1].clone());
        match groups.last_mut() {
            Some((k, items))
                if key(machine, k, None, case)?.equals(&key(machine, found, None, case)?, machine.budget)? =>
            {
                items.push(item);
            }
            _ => groups.push((found.clone(), vec![item])),
        }
    }
    let pair = |(k, items)| Value::tuple(machine.budget, vec![k, Value::list(machine.budget, items)?]);
    Value::list(machine.budget, groups.into_iter().map(pair).collect::<Eval<_>>()?)
}

pub(super) fn sum(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [attribute, start] = args.take("sum", ["attribute", "start"])?;
    let (mut whole, mut real, mut is_real) = (0i128, 0f64, false);
    let mut items = value.items(machine.budget)?;
    if let Some(attribute) = &attribute {
        items = items.iter().map(|i| path(machine, i, attribute)).collect::<Eval<_>>()?;
    }
    for item in items.into_iter().chain(start) {
        match (item.integer(), item.number()) {
            (Some(n), _) => whole = whole.checked_add(n).ok_or_else(|| Stop::Fault("sum: overflow".into()))?,
            (None, Some(x)) => {
                real += x;
                is_real = true;
            }
            _ => return fault(format!("sum: found {}, expected a number", item.kind())),
        }
    }
    Ok(if is_real { Value::Float(real + whole as f64) } else { Value::Int(whole) })
}

/// How many items a part may be asked to have.
fn part_len(name: &str, value: Option<Value>) -> Eval<usize> {
    let len = int_arg(name, Some(required(name, value)?), 0)?;
    match usize::try_from(len) {
        Ok(len @ 1..=100_000) => Ok(len),
        _ => fault(format!("{name}: {len} items, expected 1 to 100000")),
    }
}

pub(super) fn batch(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [len, fill] = args.take("batch", ["linecount", "fill_with"])?;
    let len = part_len("batch", len)?;
    let items = value.items(machine.budget)?;
    let mut rows = Vec::new();
    for chunk in items.chunks(len) {
        let mut row = chunk.to_vec();
        if let Some(fill) = &fill {
            machine.budget.fits_items(len)?;
            row.resize(len, fill.clone());
        }
        rows.push(Value::list(machine.budget, row)?);
    }
    Value::list(machine.budget, rows)
}

pub(super) fn slice(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [count, fill] = args.take("slice", ["slices", "fill_with"])?;
    let count = part_len("slice", count)?;
    let items = value.items(machine.budget)?;
    machine.budget.fits_items(count)?;
    let (each, longer) = (items.len() / count, items.len() % count);
    let mut columns = Vec::new();
    let mut rest = items.into_iter();
    for i in 0..count {
        let mut column: Vec<Value> = rest.by_ref().take(each + usize::from(i < longer)).collect();
        column.extend(fill.clone().filter(|_| longer > 0 && i >= longer));
        columns.push(Value::list(machine.budget, column)?);
    }
    Value::list(machine.budget, columns)
}
