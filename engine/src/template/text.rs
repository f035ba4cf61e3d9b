//! Values as text, as Python writes them: what `{{ x }}`, `~` and the filter `string` give.

use super::budget::Budget;
use super::error::Eval;
use super::value::Value;

/// The text of a value, counted: a string as it is, anything else as in a program.
pub(super) fn to_text(value: &Value, budget: &Budget) -> Eval<String> {
    let mut text = String::new();
    match value {
        Value::Str(s) => push(&mut text, s, budget)?,
        Value::Undefined(_) => {}
        other => write_repr(other, &mut text, budget)?,
    }
    Ok(text)
}

fn push(out: &mut String, text: &str, budget: &Budget) -> Eval<()> {
    budget.build(text.len())?;
    out.push_str(text);
    Ok(())
}

/// Appends a value as it stands in a program.
pub(super) fn write_repr(value: &Value, out: &mut String, budget: &Budget) -> Eval<()> {
    budget.step()?;
    match value {
        Value::Undefined(_) => push(out, "Undefined", budget),
        Value::None => push(out, "None", budget),
        Value::Bool(true) => push(out, "True", budget),
        Value::Bool(false) => push(out, "False", budget),
        Value::Int(n) => push(out, &n.to_string(), budget),
        Value::Float(x) => push(out, &float(*x), budget),
        Value::Str(s) => {
            budget.build(s.len())?;
            quote(s, out);
            Ok(())
        }
        Value::List(s) => {
            push(out, "[", budget)?;
            write_items(&s.items, out, budget)?;
            push(out, "]", budget)
        }
        Value::Tuple(s) => {
            push(out, "(", budget)?;
            write_items(&s.items, out, budget)?;
            push(out, if s.items.len() == 1 { ",)" } else { ")" }, budget)
        }
        Value::Dict(d) => {
            push(out, "{", budget)?;
            for (i, (key, value)) in d.entries.iter().enumerate() {
                push(out, if i == 0 { "" } else { ", " }, budget)?;
                write_repr(key, out, budget)?;
                push(out, ": ", budget)?;
                write_repr(value, out, budget)?;
            }
            push(out, "}", budget)
        }
        other => push(out, &format!("<{}>", other.kind()), budget),
    }
}

fn write_items(items: &[Value], out: &mut String, budget: &Budget) -> Eval<()> {
    for (i, item) in items.iter().enumerate() {
        push(out, if i == 0 { "" } else { ", " }, budget)?;
        write_repr(item, out, budget)?;
    }
    Ok(())
}

/// A string in quotes: single ones, unless it has those and no double ones.
fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() && (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// A number as Python writes floats: the shortest digits that give it back, an exponent from 1e16 on and below 1e-4.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{x:?}").split_once('e').map_or_else(|| format!("{x:?}"), |_| format!("{x:.1}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_python_writes_them() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123456.789, "123456.789"),
            (f64::INFINITY, "inf"),
        ];
        for (x, expected) in cases {
            assert_eq!(float(x), expected);
        }
    }

    #[test]
    fn strings_choose_their_quotes() {
        for (text, expected) in
            [("a", "'a'"), ("it's", "\"it's\""), ("'\"", "'\\'\"'"), ("a\n\x01é\\", "'a\\n\\x01é\\\\'")]
        {
            let mut out = String::new();
            quote(text, &mut out);
            assert_eq!(out, expected);
        }
    }
}
