//! Durations as Go writes them and as Ollama's clients send them.

use std::time::Duration;

use serde_json::Value as Json;

/// How long a model stays loaded after its last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// For so long; nothing at all unloads it at once.
    For(Duration),
    /// Until the server ends.
    Forever,
}

/// Ollama's.
pub const DEFAULT: KeepAlive = KeepAlive::For(Duration::from_secs(300));

const UNITS: [(&str, f64); 8] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

impl KeepAlive {
    /// Seconds, or a duration such as `1h30m`; below zero is for ever.
    pub fn parse(text: &str) -> Option<KeepAlive> {
        match text.trim().parse::<f64>() {
            Ok(seconds) => KeepAlive::seconds(seconds),
            Err(_) => KeepAlive::seconds(go(text.trim())?),
        }
    }

    /// As [`KeepAlive::parse`], from a request.
    pub fn of_json(json: &Json) -> Option<KeepAlive> {
        match json {
            Json::Number(n) => KeepAlive::seconds(n.as_f64()?),
            Json::String(text) => KeepAlive::parse(text),
            _ => None,
        }
    }

    fn seconds(seconds: f64) -> Option<KeepAlive> {
        // A century is for ever, and what a clock can still add.
        match seconds {
            s if s.is_nan() => None,
            s if !(0.0..=3.2e9).contains(&s) => Some(KeepAlive::Forever),
            s => Duration::try_from_secs_f64(s).ok().map(KeepAlive::For),
        }
    }
}

/// Seconds of a Go duration.
fn go(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += value * UNITS.iter().find(|u| u.0 == &rest[..unit])?.1;
        rest = &rest[unit..];
    }
    Some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        let seconds = |s| Some(KeepAlive::For(Duration::from_secs(s)));
        let rows = [
            ("5m", seconds(300)),
            ("1h30m", seconds(5400)),
            ("1.5m", seconds(90)),
            ("60", seconds(60)),
            ("0", seconds(0)),
            ("0s", seconds(0)),
            ("-1", Some(KeepAlive::Forever)),
            ("-1m", Some(KeepAlive::Forever)),
            ("1e300", Some(KeepAlive::Forever)),
            ("", None),
            ("m", None),
            ("5 m", None),
            ("5x", None),
            ("1..2s", None),
            ("NaN", None),
        ];
        for (text, expected) in rows {
            assert_eq!(KeepAlive::parse(text), expected, "{text:?}");
        }
        assert_eq!(KeepAlive::of_json(&serde_json::json!(-1)), Some(KeepAlive::Forever));
        assert_eq!(KeepAlive::of_json(&serde_json::json!([1])), None);
    }
}
