//! Numbers as people read them.

use std::time::{Duration, SystemTime};

/// A number of bytes in decimal units with three digits: `98.4 MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = n as f64;
    let mut unit = 0;
    // 999.5 would print as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A time to wait: `45 s`, `3 min 20 s`, `2 h 5 min`.
pub fn wait(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// A duration as Go prints it: `1m2.5s`, `4.709213s`, `325.953ms`, `12.3µs`.
pub fn go_duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let trim = |value: f64, decimals: usize| {
        let text = format!("{value:.decimals$}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", trim(nanos as f64 / 1e3, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", trim(nanos as f64 / 1e6, 6)),
        _ => {
            let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
            let seconds = trim((nanos % 60_000_000_000) as f64 / 1e9, 9);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    }
}

/// How long ago something was, in the largest unit: `3 days ago`.
pub fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().unwrap_or_default().as_secs();
    let units = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (7 * 86_400, "week"),
        (86_400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    for (length, unit) in units {
        match seconds / length {
            0 => {}
            1 => return format!("1 {unit} ago"),
            n => return format!("{n} {unit}s ago"),
        }
    }
    "less than a minute ago".into()
}

/// A time as RFC 3339 has it, in UTC: `2026-01-31T08:15:00Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (day, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that a leap day is the last; 719,468 days lie between 0000-03-01 and 1970-01-01, and
    // every 400 years have 146,097.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month_of_year) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month_of_year <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month_of_year:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A count with a thousands separator: `262,144`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// A text from outside on one line of a terminal: control characters are written out, so that a file's keys and names
/// can neither move the cursor nor fake a line.
pub fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Rows in columns as wide as their widest cell, two spaces apart; cells of the columns in `right` are aligned right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let w = widths[c];
            line += &if right.contains(&c) { format!("{cell:>w$}  ") } else { format!("{cell:<w$}  ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (98_362_432, "98.4 MB"),
            (253_113_024, "253 MB"),
            (999_999, "1.0 MB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn durations() {
        let cases = [
            (0, "0s"),
            (999, "999ns"),
            (12_300, "12.3µs"),
            (325_953_000, "325.953ms"),
            (4_709_213_000, "4.709213s"),
            (62_500_000_000, "1m2.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(wait(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(ago(SystemTime::now() - Duration::from_secs(2 * 86_400 + 5)), "2 days ago");
        assert_eq!(ago(SystemTime::now() - Duration::from_secs(3601)), "1 hour ago");
    }

    #[test]
    fn control_characters() {
        assert_eq!(printable("é \"x\"\n\u{1b}[2J"), "é \"x\"\\n\\u{1b}[2J");
    }

    #[test]
    fn dates() {
        // Values of `date -u -d @SECONDS +%FT%TZ`.
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_732_245_000, "2024-11-22T03:10:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn tables() {
        let rows = [vec!["A".to_string(), "1".into()], vec!["long".into(), "20".into()]];
        assert_eq!(table(&rows, &[1]), "A      1\nlong  20\n");
        assert_eq!((count(7), count(1234), count(262_144_000)), ("7".into(), "1,234".into(), "262,144,000".into()));
    }
}
