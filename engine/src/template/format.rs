//! The two ways of Python to fill a text: `"%s" % x` and `"{}".format(x)`.

use super::error::{Eval, Stop, fault};
use super::functions::CallArgs;
use super::machine::Machine;
use super::text::write_repr;
use super::value::Value;

/// Widest field.
const MAX_WIDTH: usize = 1000;

/// The text of `format % args`. A value that is left over is an error, unless it is a list or dict.
pub(super) fn percent(machine: &Machine<'_>, format: &str, args: Vec<Value>) -> Eval<Value> {
    machine.budget.build(format.len())?;
    let mut args = args.into_iter();
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flags = rest.len() - rest.trim_start_matches(['-', '0', '+', ' ', '#']).len();
        let (flags, after) = rest.split_at(flags);
        let (width, after) = number(after)?;
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => number(after).map(|(n, after)| (Some(n), after))?,
            None => (None, after),
        };
        let Some(kind) = after.chars().next() else {
            return fault("format ends after \"%\"");
        };
        rest = &after[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = args.next().ok_or_else(|| Stop::Fault("format: too few values".into()))?;
        let text = converted(machine, kind, precision, &value)?;
        machine.budget.build(text.len() + 4 * width)?;
        fill(&text, flags, width, &mut out);
    }
    out.push_str(rest);
    match args.next() {
        Some(value) if !matches!(value, Value::List(_) | Value::Dict(_)) => fault("format: too many values"),
        _ => machine.str(&out),
    }
}

/// A number at the start of a text, 0 if there is none.
fn number(text: &str) -> Eval<(usize, &str)> {
    let (digits, rest) = text.split_at(text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    match digits.parse() {
        Ok(n) if n <= MAX_WIDTH => Ok((n, rest)),
        Err(_) if digits.is_empty() => Ok((0, rest)),
        _ => Err(Stop::Limit("characters of a field", MAX_WIDTH as u64)),
    }
}

/// A value as one conversion writes it.
fn converted(machine: &Machine<'_>, kind: char, precision: Option<usize>, value: &Value) -> Eval<String> {
    let wrong = || Stop::Fault(format!("format: found {} for %{kind}, expected a number", value.kind()));
    Ok(match kind {
        's' => match precision {
            Some(n) => machine.text(value)?.chars().take(n).collect(),
            None => machine.text_of(value)?,
        },
        'r' => {
            let mut text = String::new();
            write_repr(value, &mut text, machine.budget)?;
            text
        }
        'd' | 'i' | 'u' => match value {
            Value::Float(x) => format!("{}", x.trunc()),
            value => value.integer().ok_or_else(wrong)?.to_string(),
        },
        'x' => format!("{:x}", value.integer().ok_or_else(wrong)?),
        'X' => format!("{:X}", value.integer().ok_or_else(wrong)?),
        'f' | 'F' => format!("{:.*}", precision.unwrap_or(6), value.number().ok_or_else(wrong)?),
        other => return fault(format!("format: unknown conversion %{other}")),
    })
}

/// Appends a text, filled up to a width.
fn fill(text: &str, flags: &str, width: usize, out: &mut String) {
    let missing = width.saturating_sub(text.chars().count());
    let digits = text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit());
    if flags.contains('-') {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if flags.contains('0') && digits {
        let (sign, number) = text.split_at(usize::from(text.starts_with(['-', '+'])));
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(number);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(text);
    }
}

/// The text of `format.format(args)`, with plain fields: `{}`, `{0}`, `{name}`.
pub(super) fn braces(machine: &Machine<'_>, format: &str, args: CallArgs) -> Eval<Value> {
    let mut out = String::new();
    let mut rest = format;
    let mut next = 0;
    while let Some(at) = rest.find(['{', '}']) {
        machine.budget.build(at + 1)?;
        out.push_str(&rest[..at]);
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        let Some((field, after)) = rest.split_once('}').filter(|_| brace == "{") else {
            return fault("format: a single brace");
        };
        rest = after;
        let value = match field.parse::<usize>() {
            Ok(i) => args.positional.get(i),
            Err(_) if field.is_empty() => {
                next += 1;
                args.positional.get(next - 1)
            }
            Err(_) => args.named.iter().find(|a| *a.0 == *field).map(|a| &a.1),
        };
        let value = value.ok_or_else(|| Stop::Fault(format!("format: no value for {{{field:.40}}}")))?;
        let text = machine.text(value)?;
        machine.budget.build(text.len())?;
        out.push_str(&text);
    }
    out.push_str(rest);
    machine.str(&out)
}
