//! Filters: what stands after `|`. Those on lists are in `list_filters`.

use super::ast::Str;
use super::error::{Eval, Stop, fault};
use super::format::percent;
use super::functions::{CallArgs, int_arg, required, text_arg};
use super::json::{Layout, MAX_INDENT, to_json};
use super::list_filters;
use super::machine::Machine;
use super::methods::{capitalize, pad, replace, title};
use super::text::write_repr;
use super::value::Value;

/// A filter: takes the value before the bar and the arguments.
pub(super) type Filter = fn(&mut Machine<'_>, Value, CallArgs) -> Eval<Value>;

/// THE list of filters.
const FILTERS: &[(&[&str], Filter)] = &[
    (&["abs"], abs),
    (&["batch"], list_filters::batch),
    (&["capitalize"], |m, v, a| text_only(m, v, a, "capitalize", capitalize)),
    (&["center"], |m, v, a| pad(m, &m.text_of(&v)?, "center", a)),
    (&["count", "length"], length),
    (&["d", "default"], default),
    (&["dictsort"], list_filters::dictsort),
    (&["e", "escape", "forceescape"], escape),
    (&["first"], list_filters::first),
    (&["float"], float),
    (&["format"], |m, v, a| percent(m, &m.text_of(&v)?, a.positional)),
    (&["groupby"], list_filters::groupby),
    (&["indent"], indent),
    (&["int"], int),
    (&["items"], items),
    (&["join"], list_filters::join_filter),
    (&["last"], list_filters::last),
    (&["list"], list_filters::list),
    (&["lower"], |m, v, a| text_only(m, v, a, "lower", str::to_lowercase)),
    (&["map"], list_filters::map),
    (&["max"], |m, v, a| list_filters::extreme(m, v, a, "max")),
    (&["min"], |m, v, a| list_filters::extreme(m, v, a, "min")),
    (&["pprint"], pprint),
    (&["reject"], |m, v, a| list_filters::select(m, v, a, "reject")),
    (&["rejectattr"], |m, v, a| list_filters::select(m, v, a, "rejectattr")),
    (&["replace"], replace_filter),
    (&["reverse"], list_filters::reverse),
    (&["round"], round),
    (&["select"], |m, v, a| list_filters::select(m, v, a, "select")),
    (&["selectattr"], |m, v, a| list_filters::select(m, v, a, "selectattr")),
    (&["slice"], list_filters::slice),
    (&["sort"], list_filters::sort),
    (&["safe", "string"], |m, v, a| a.none("string").and_then(|()| m.str(&m.text_of(&v)?))),
    (&["sum"], list_filters::sum),
    (&["title"], |m, v, a| text_only(m, v, a, "title", title)),
    (&["tojson"], tojson),
    (&["trim"], trim),
    (&["truncate"], truncate),
    (&["unique"], list_filters::unique),
    (&["upper"], |m, v, a| text_only(m, v, a, "upper", str::to_uppercase)),
    (&["wordcount"], wordcount),
];

/// The filter of a name.
pub(super) fn find(name: &str) -> Option<Filter> {
    FILTERS.iter().find(|f| f.0.contains(&name)).map(|f| f.1)
}

/// The result of a filter.
pub(super) fn apply(machine: &mut Machine<'_>, name: &str, value: Value, args: CallArgs) -> Eval<Value> {
    match find(name) {
        Some(filter) => filter(machine, value, args),
        None => fault(format!("unknown filter {name:.40}")),
    }
}

/// A filter that changes a text as a whole.
fn text_only<'m>(
    machine: &Machine<'m>,
    value: Value,
    args: CallArgs,
    name: &str,
    change: impl FnOnce(&str) -> String,
) -> Eval<Value> {
    args.none(name)?;
    machine.str(&change(&machine.text_of(&value)?))
}

fn abs(_: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("abs")?;
    match &value {
        Value::Float(x) => Ok(Value::Float(x.abs())),
        v => match v.integer().and_then(i128::checked_abs) {
            Some(n) => Ok(Value::Int(n)),
            None => fault(format!("abs: found {}, expected a number", v.kind())),
        },
    }
}

fn length(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("length")?;
    Ok(Value::Int(value.len(machine.budget)? as i128))
}

fn default(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [default, also_false] = args.take("default", ["default_value", "boolean"])?;
    let missing = match also_false {
        Some(flag) if flag.truth() => !value.truth(),
        _ => matches!(value, Value::Undefined(_)),
    };
    machine.budget.step()?;
    Ok(if missing { default.unwrap_or_else(Value::empty) } else { value })
}

fn escape(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("escape")?;
    let text = machine.text_of(&value)?;
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    machine.str(&out)
}

fn float(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [default] = args.take("float", ["default"])?;
    let parsed = match &value {
        Value::Str(s) => {
            machine.budget.read(s.len())?;
            s.trim().parse().ok()
        }
        v => v.number(),
    };
    Ok(parsed.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
}

fn int(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [default, base] = args.take("int", ["default", "base"])?;
    let base = u32::try_from(int_arg("int", base, 10)?).ok().filter(|b| (2..=36).contains(b));
    let base = base.ok_or_else(|| Stop::Fault("int: base out of range, expected 2 to 36".into()))?;
    let whole = |x: f64| (x.abs() < 1e38).then_some(x.trunc() as i128);
    let parsed = match &value {
        Value::Str(s) => {
            machine.budget.read(s.len())?;
            let text = s.trim();
            i128::from_str_radix(text, base).ok().or_else(|| text.parse().ok().and_then(whole))
        }
        Value::Float(x) => whole(*x),
        v => v.integer(),
    };
    Ok(parsed.map(Value::Int).or(default).unwrap_or(Value::Int(0)))
}

fn items(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    match value {
        Value::Undefined(_) => Value::list(machine.budget, Vec::new()),
        Value::Dict(_) => super::methods::call(machine, &value, &Str::from("items"), args),
        other => fault(format!("items: found {}, expected a dict", other.kind())),
    }
}

fn pprint(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("pprint")?;
    let mut text = String::new();
    write_repr(&value, &mut text, machine.budget)?;
    machine.str(&text)
}

fn replace_filter(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [old, new, count] = args.take("replace", ["old", "new", "count"])?;
    let old = machine.text_of(&required("replace", old)?)?;
    let new = machine.text_of(&required("replace", new)?)?;
    let count = match count {
        None | Some(Value::None) => None,
        count => usize::try_from(int_arg("replace", count, 0)?).ok(),
    };
    replace(machine, &machine.text_of(&value)?, &old, &new, count)
}

fn round(_: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [precision, method] = args.take("round", ["precision", "method"])?;
    let precision = int_arg("round", precision, 0)?.clamp(-300, 300) as i32;
    let Some(x) = value.number() else {
        return fault(format!("round: found {}, expected a number", value.kind()));
    };
    let method = text_arg("round", method)?;
    // An integer stays one, unless a method of floats is asked for.
    if let (Some(n), None | Some("common"), 0..) = (value.integer(), method.as_deref(), precision) {
        return Ok(Value::Int(n));
    }
    let scale = 10f64.powi(precision);
    let scaled = match method.as_deref() {
        None | Some("common") => (x * scale).round_ties_even(),
        Some("ceil") => (x * scale).ceil(),
        Some("floor") => (x * scale).floor(),
        Some(other) => return fault(format!("round: unknown method {other:.40}")),
    };
    Ok(Value::Float(scaled / scale))
}

fn trim(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let text = Value::Str(machine.text_of(&value)?.into());
    super::methods::call(machine, &text, &Str::from("strip"), args)
}

fn truncate(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [length, anywhere, end, leeway] = args.take("truncate", ["length", "killwords", "end", "leeway"])?;
    let length = usize::try_from(int_arg("truncate", length, 255)?).unwrap_or(0);
    let leeway = usize::try_from(int_arg("truncate", leeway, 5)?).unwrap_or(0);
    let end = text_arg("truncate", end)?.unwrap_or_else(|| Str::from("..."));
    let end_len = end.chars().count();
    let Value::Str(text) = &value else {
        return fault(format!("truncate: found {}, expected a string", value.kind()));
    };
    machine.budget.read(text.len())?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let cut: String = text.chars().take(length.saturating_sub(end_len)).collect();
    let cut = match cut.rsplit_once(' ') {
        Some((words, _)) if !anywhere.is_some_and(|a| a.truth()) => words,
        _ => &cut,
    };
    machine.str(&format!("{cut}{end}"))
}

fn wordcount(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    args.none("wordcount")?;
    let text = machine.text_of(&value)?;
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
    Ok(Value::Int(words.count() as i128))
}

/// The width of an indent: a number of spaces, or the text itself.
fn indent_of(what: &str, value: Option<Value>, default: usize) -> Eval<String> {
    let width = match value {
        None => default,
        Some(Value::Str(s)) if s.len() <= MAX_INDENT => return Ok(s.to_string()),
        Some(Value::Str(s)) => s.len(),
        value => usize::try_from(int_arg(what, value, 0)?).unwrap_or(0),
    };
    if width > MAX_INDENT {
        return Err(Stop::Limit("spaces of an indent", MAX_INDENT as u64));
    }
    Ok(" ".repeat(width))
}

fn indent(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [width, first, blank] = args.take("indent", ["width", "first", "blank"])?;
    let prefix = indent_of("indent", width, 4)?;
    let flag = |v: Option<Value>| v.is_some_and(|v| v.truth());
    let (first, blank) = (flag(first), flag(blank));
    let text = machine.text_of(&value)?;
    let lines = text.matches('\n').count() + 1;
    machine.budget.fits(text.len().saturating_add(lines.saturating_mul(prefix.len())))?;
    let mut out = String::new();
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let wanted = if i == 0 { first } else { blank || !line.is_empty() };
        if wanted {
            out.push_str(&prefix);
        }
        out.push_str(line);
    }
    machine.str(&out)
}

fn tojson(machine: &mut Machine<'_>, value: Value, args: CallArgs) -> Eval<Value> {
    let [ascii, indent, separators, sort_keys] =
        args.take("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    // The first argument without a name is Jinja's own filter's indent; model templates know both.
    let (ascii, indent) = match (ascii, indent) {
        (Some(width @ Value::Int(_)), None) => (None, Some(width)),
        both => both,
    };
    let flag = |v: Option<Value>| v.is_some_and(|v| v.truth());
    let indent = match indent {
        None | Some(Value::None) => None,
        width => Some(indent_of("tojson", width, 0)?),
    };
    let mut layout = Layout {
        comma: if indent.is_some() { "," } else { ", " }.to_owned(),
        colon: ": ".to_owned(),
        indent,
        sort_keys: flag(sort_keys),
        ascii: flag(ascii),
    };
    match separators {
        None | Some(Value::None) => {}
        Some(Value::Tuple(s) | Value::List(s)) if s.items.len() == 2 => {
            layout.comma = machine.text_of(&s.items[0])?;
            layout.colon = machine.text_of(&s.items[1])?;
        }
        Some(_) => return fault("tojson: separators, expected two strings"),
    }
    let text = to_json(&value, &layout, machine.budget)?;
    machine.str(&text)
}
