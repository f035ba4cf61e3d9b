//! Methods of strings, dicts and lists, as Python has them. Those that change a value are not there.

use std::rc::Rc;

use super::ast::Str;
use super::error::{Eval, Stop, fault};
use super::format::braces;
use super::functions::{CallArgs, int_arg, required, text_arg};
use super::machine::Machine;
use super::value::{Loop, Value};

/// The result of a method.
pub(super) fn call(machine: &mut Machine<'_>, value: &Value, name: &Str, args: CallArgs) -> Eval<Value> {
    match value {
        Value::Undefined(what) => fault(format!("{what} is not there, so it has no method {name}")),
        Value::Str(text) => {
            machine.budget.read(text.len())?;
            of_string(machine, text, name, args)
        }
        Value::Dict(_) => of_dict(machine, value, name, args),
        Value::List(s) | Value::Tuple(s) => of_list(machine, &s.items, name, args),
        other => fault(format!("{} has no method {name}", other.kind())),
    }
}

fn of_dict(machine: &mut Machine<'_>, value: &Value, name: &Str, args: CallArgs) -> Eval<Value> {
    let Value::Dict(dict) = value else {
        return fault("no dict");
    };
    let budget = machine.budget;
    match &**name {
        "get" => {
            let [key, default] = args.take("get", ["key", "default"])?;
            let found = dict.get(&required("get", key)?, budget)?;
            Ok(found.cloned().or(default).unwrap_or(Value::None))
        }
        "keys" => {
            args.none("keys")?;
            Value::list(budget, value.items(budget)?)
        }
        "values" => {
            args.none("values")?;
            Value::list(budget, dict.entries.iter().map(|(_, v)| v.clone()).collect())
        }
        "items" => {
            args.none("items")?;
            let pair = |(k, v): &(Value, Value)| Value::tuple(budget, vec![k.clone(), v.clone()]);
            Value::list(budget, dict.entries.iter().map(pair).collect::<Eval<_>>()?)
        }
        "copy" => args.none("copy").map(|()| value.clone()),
        // A macro in a dict.
        _ => match dict.get(&Value::Str(name.clone()), budget)?.cloned() {
            Some(callee @ (Value::Macro(_) | Value::Function(_))) => machine.call(&callee, args),
            _ => fault(format!("dict has no method {name}; templates cannot change values")),
        },
    }
}

fn of_list(machine: &Machine<'_>, items: &[Value], name: &str, args: CallArgs) -> Eval<Value> {
    match name {
        "index" | "count" => {
            let [item] = args.take(name, ["value"])?;
            let item = required(name, item)?;
            let mut places = Vec::new();
            for (i, found) in items.iter().enumerate() {
                if found.equals(&item, machine.budget)? {
                    places.push(i);
                }
            }
            match (name, places.first()) {
                ("count", _) => Ok(Value::Int(places.len() as i128)),
                (_, Some(first)) => Ok(Value::Int(*first as i128)),
                (_, None) => fault("index: the value is not in the list"),
            }
        }
        "copy" => args.none("copy").and_then(|()| Value::list(machine.budget, items.to_vec())),
        _ => fault(format!("list has no method {name}; templates cannot change values")),
    }
}

fn of_string(machine: &Machine<'_>, text: &Str, name: &str, args: CallArgs) -> Eval<Value> {
    let bool = |b| Ok(Value::Bool(b));
    let every = |test: fn(char) -> bool| bool(!text.is_empty() && text.chars().all(test));
    match name {
        "strip" | "lstrip" | "rstrip" => strip(machine, text, name, args),
        "upper" => args.none(name).and_then(|()| machine.str(&text.to_uppercase())),
        "lower" | "casefold" => args.none(name).and_then(|()| machine.str(&text.to_lowercase())),
        "title" => args.none(name).and_then(|()| machine.str(&title(text))),
        "capitalize" => args.none(name).and_then(|()| machine.str(&capitalize(text))),
        "startswith" | "endswith" => affix(machine, text, name, args),
        "removeprefix" | "removesuffix" => {
            let [part] = args.take(name, ["affix"])?;
            let part = text_arg(name, part)?.unwrap_or_default();
            let left = if name == "removeprefix" { text.strip_prefix(&*part) } else { text.strip_suffix(&*part) };
            left.map_or_else(|| Ok(Value::Str(text.clone())), |left| machine.str(left))
        }
        "replace" => {
            let [old, new, count] = args.take(name, ["old", "new", "count"])?;
            let (old, new) = (text_arg(name, old)?.unwrap_or_default(), text_arg(name, new)?.unwrap_or_default());
            let count = int_arg(name, count, -1)?;
            replace(machine, text, &old, &new, usize::try_from(count).ok())
        }
        "split" | "rsplit" | "splitlines" | "partition" | "rpartition" => split(machine, text, name, args),
        "find" | "rfind" | "index" | "count" => search(text, name, args),
        "join" => {
            let [items] = args.take(name, ["items"])?;
            join(machine, &required(name, items)?, text)
        }
        "format" => braces(machine, text, args),
        "zfill" | "ljust" | "rjust" | "center" => pad(machine, text, name, args),
        "isdigit" | "isdecimal" | "isnumeric" => args.none(name).and_then(|()| every(char::is_numeric)),
        "isalpha" => args.none(name).and_then(|()| every(char::is_alphabetic)),
        "isalnum" => args.none(name).and_then(|()| every(char::is_alphanumeric)),
        "isspace" => args.none(name).and_then(|()| every(char::is_whitespace)),
        "isascii" => args.none(name).and_then(|()| bool(text.is_ascii())),
        "isupper" => args.none(name).and_then(|()| bool(is_cased(text, char::is_uppercase, char::is_lowercase))),
        "islower" => args.none(name).and_then(|()| bool(is_cased(text, char::is_lowercase, char::is_uppercase))),
        _ => fault(format!("string has no method {name}")),
    }
}

/// Whether a text has characters of one case and none of the other.
pub(super) fn is_cased(text: &str, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(other)
}

/// Every word with a capital.
pub(super) fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

/// A capital and small letters.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.flat_map(char::to_lowercase)).collect()
}

fn strip(machine: &Machine<'_>, text: &Str, name: &str, args: CallArgs) -> Eval<Value> {
    let [chars] = args.take(name, ["chars"])?;
    let chars: Option<Vec<char>> = match chars {
        None | Some(Value::None) => None,
        chars => text_arg(name, chars)?.map(|c| c.chars().collect()),
    };
    if let Some(chars) = &chars {
        machine.budget.read(text.len().saturating_mul(chars.len()))?;
    }
    let cut = |c: char| chars.as_ref().map_or(c.is_whitespace(), |chars| chars.contains(&c));
    let mut left: &str = text;
    if name != "rstrip" {
        left = left.trim_start_matches(cut);
    }
    if name != "lstrip" {
        left = left.trim_end_matches(cut);
    }
    if left.len() == text.len() { Ok(Value::Str(text.clone())) } else { machine.str(left) }
}

fn affix(machine: &Machine<'_>, text: &str, name: &str, args: CallArgs) -> Eval<Value> {
    let [part, start] = args.take(name, ["affix", "start"])?;
    let start = usize::try_from(int_arg(name, start, 0)?).unwrap_or(0);
    let text = text.char_indices().nth(start).map_or("", |(at, _)| &text[at..]);
    let parts = match required(name, part)? {
        Value::Tuple(s) => s.items.clone(),
        one => vec![one],
    };
    for part in parts {
        let part = text_arg(name, Some(part))?.unwrap_or_default();
        machine.budget.read(part.len())?;
        if if name == "startswith" { text.starts_with(&*part) } else { text.ends_with(&*part) } {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// A text with some or all of the places of another replaced.
pub(super) fn replace(machine: &Machine<'_>, text: &str, old: &str, new: &str, count: Option<usize>) -> Eval<Value> {
    machine.budget.read(text.len() + old.len())?;
    let places = text.matches(old).count().min(count.unwrap_or(usize::MAX));
    machine.budget.fits(text.len().saturating_add(places.saturating_mul(new.len())))?;
    machine.str(&text.replacen(old, new, places))
}

fn split(machine: &Machine<'_>, text: &str, name: &str, args: CallArgs) -> Eval<Value> {
    let budget = machine.budget;
    let parts: Vec<&str> = match name {
        "splitlines" => {
            args.none(name)?;
            text.lines().collect()
        }
        "partition" | "rpartition" => {
            let [sep] = args.take(name, ["sep"])?;
            let sep = text_arg(name, sep)?.filter(|s| !s.is_empty());
            let sep = sep.ok_or_else(|| Stop::Fault(format!("{name}: a separator is missing")))?;
            let found = if name == "partition" { text.find(&*sep) } else { text.rfind(&*sep) };
            let parts = match found {
                Some(at) => [&text[..at], &*sep, &text[at + sep.len()..]],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            return Value::tuple(budget, parts.iter().map(|p| machine.str(p)).collect::<Eval<_>>()?);
        }
        _ => {
            let [sep, most] = args.take(name, ["sep", "maxsplit"])?;
            let most = usize::try_from(int_arg(name, most, -1)?).unwrap_or(usize::MAX - 1);
            let sep = if matches!(sep, Some(Value::None)) { None } else { text_arg(name, sep)? };
            match sep {
                Some(sep) if sep.is_empty() => return fault(format!("{name}: empty separator")),
                Some(sep) if name == "split" => text.splitn(most + 1, &*sep).collect(),
                Some(sep) => {
                    let mut parts: Vec<&str> = text.rsplitn(most + 1, &*sep).collect();
                    parts.reverse();
                    parts
                }
                None if most >= text.len() => text.split_whitespace().collect(),
                None => words(text, most),
            }
        }
    };
    budget.fits_items(2 * parts.len())?;
    Value::list(budget, parts.iter().map(|p| machine.str(p)).collect::<Eval<_>>()?)
}

/// The first `most` words, and the rest.
fn words(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while parts.len() < most && !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        parts.push(word);
        rest = after.trim_start();
    }
    parts.extend((!rest.is_empty()).then_some(rest));
    parts
}

fn search(text: &str, name: &str, args: CallArgs) -> Eval<Value> {
    let [part, start] = args.take(name, ["sub", "start"])?;
    let part = text_arg(name, part)?.unwrap_or_default();
    let start = usize::try_from(int_arg(name, start, 0)?).unwrap_or(0);
    let from = text.char_indices().nth(start).map_or(text.len(), |(at, _)| at);
    let rest = &text[from..];
    if name == "count" {
        return Ok(Value::Int(rest.matches(&*part).count() as i128));
    }
    let found = if name == "rfind" { rest.rfind(&*part) } else { rest.find(&*part) };
    match found {
        Some(at) => Ok(Value::Int((start + rest[..at].chars().count()) as i128)),
        None if name == "index" => fault("index: the text is not there"),
        None => Ok(Value::Int(-1)),
    }
}

/// The texts of items with a text between them.
pub(super) fn join(machine: &Machine<'_>, items: &Value, between: &str) -> Eval<Value> {
    let mut out = String::new();
    for (i, item) in items.items(machine.budget)?.iter().enumerate() {
        let text = machine.text(item)?;
        machine.budget.build(between.len() + text.len())?;
        if i > 0 {
            out.push_str(between);
        }
        out.push_str(&text);
    }
    machine.str(&out)
}

/// A text filled up to a width: at its left with zeros, at its right, left or both sides with spaces.
pub(super) fn pad(machine: &Machine<'_>, text: &str, name: &str, args: CallArgs) -> Eval<Value> {
    let [width, fill] = args.take(name, ["width", "fill"])?;
    let width = usize::try_from(int_arg(name, width, 80)?).unwrap_or(0);
    let fill = text_arg(name, fill)?.and_then(|f| f.chars().next());
    let fill = fill.unwrap_or(if name == "zfill" { '0' } else { ' ' });
    let missing = width.saturating_sub(text.chars().count());
    machine.budget.fits(missing.saturating_mul(4))?;
    let sign = if name == "zfill" && text.starts_with(['-', '+']) { 1 } else { 0 };
    let left = match name {
        "ljust" => 0,
        "center" => missing / 2,
        _ => missing,
    };
    let fill_of = |n: usize| std::iter::repeat_n(fill, n);
    let (head, tail) = text.split_at(sign);
    machine
        .str(&head.chars().chain(fill_of(left)).chain(tail.chars()).chain(fill_of(missing - left)).collect::<String>())
}

/// The result of a method of `loop`.
pub(super) fn of_loop(machine: &mut Machine<'_>, state: &Rc<Loop>, name: &str, args: CallArgs) -> Eval<Value> {
    match name {
        "cycle" if !args.positional.is_empty() => {
            Ok(args.positional[state.index.get() % args.positional.len()].clone())
        }
        "changed" => {
            let now = Value::tuple(machine.budget, args.positional)?;
            if now.has_state() {
                return fault("changed: a namespace, a macro or a loop cannot be remembered");
            }
            let before = state.changed.replace(Some(now.clone()));
            Ok(Value::Bool(match before {
                Some(before) => !before.equals(&now, machine.budget)?,
                None => true,
            }))
        }
        _ => fault(format!("loop has no method {name}")),
    }
}
