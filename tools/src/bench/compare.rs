//! `bench compare A.json B.json`: which differences between two results are real.
//!
//! Rows meet where model, test and settings are the same. Each pair is put to a rank test on all its samples, and the
//! probabilities are raised for the number of pairs, so that a page of comparisons has no more false alarms than one.
//! Results of llama-bench can be compared too: its JSON has the same names.

use super::stats::{Comparison, Interval, LEVEL, holm};
use crate::error::{Error, Result};
use crate::ui::format::table;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A row of a results file, as far as it is compared.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    /// What must be equal, with the names of the columns.
    key: Vec<(&'static str, String)>,
    test: String,
    samples: Vec<f64>,
    unreliable: bool,
    hash: Option<String>,
}

/// Columns that decide what a row is about. Those that one of the files lacks are left out of the comparison, and so
/// are those that are the same in all of a file: two engines may count batches differently.
const KEYS: [&str; 9] =
    ["model_filename", "n_prompt", "n_gen", "n_depth", "n_threads", "n_batch", "n_ubatch", "type_k", "precision"];
/// Columns that must be equal whatever the rest of the file says.
const ALWAYS: usize = 5;

/// A pair of rows and what the test says.
struct Pair<'a> {
    a: &'a Measured,
    b: &'a Measured,
    found: Option<Comparison>,
}

/// Compares two files; the text to print.
///
/// # Errors
/// A file cannot be read, is no result, or the two have no row in common.
pub fn run(a: &Path, b: &Path) -> Result<String> {
    let (mut rows_a, mut rows_b) = (read(a)?, read(b)?);
    let keys = deciding(&rows_a, &rows_b);
    for row in rows_a.iter_mut().chain(&mut rows_b) {
        row.key.retain(|(name, _)| keys.contains(name));
    }
    let pairs: Vec<Pair> = rows_a
        .iter()
        .flat_map(|a| rows_b.iter().filter(|b| b.key == a.key).map(move |b| (a, b)))
        .map(|(a, b)| Pair {
            a,
            b,
            found: Comparison::of(&a.samples, &b.samples).filter(|_| !a.unreliable && !b.unreliable),
        })
        .collect();
    if pairs.is_empty() {
        let (a, b) = (a.display(), b.display());
        return Err(Error::Usage(format!(
            "{a} and {b} have no test of the same model with the same settings in common"
        )));
    }
    Ok(report(&pairs, &keys))
}

/// The columns of [`KEYS`] by which rows are matched.
fn deciding(a: &[Measured], b: &[Measured]) -> Vec<&'static str> {
    let value =
        |row: &Measured, key: &str| row.key.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
    let varies = |rows: &[Measured], key| rows.iter().any(|r| value(r, key) != value(&rows[0], key));
    let known = |rows: &[Measured], key| rows.iter().all(|r| value(r, key).is_some());
    let decides = |(i, key): &(usize, &'static str)| {
        let needed = *i < ALWAYS || varies(a, key) || varies(b, key);
        needed && known(a, key) && known(b, key)
    };
    KEYS.into_iter().enumerate().filter(decides).map(|(_, key)| key).collect()
}

/// Reads JSON, one array or an object a line.
fn read(path: &Path) -> Result<Vec<Measured>> {
    let text = fs::read_to_string(path).map_err(Error::io("cannot read", path))?;
    let wrong = |why: &str| Error::Usage(format!("{} is no result of `bench -o json`: {why}", path.display()));
    let rows: Vec<Value> = match serde_json::from_str(&text) {
        Ok(Value::Array(rows)) => rows,
        _ => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .map_err(|e| wrong(&format!("expected an array of objects, or an object a line ({e})")))?,
    };
    let measured: Option<Vec<Measured>> = rows.iter().map(row).collect();
    measured.filter(|rows| !rows.is_empty()).ok_or_else(|| wrong("expected rows with n_prompt, n_gen and samples_ts"))
}

fn row(value: &Value) -> Option<Measured> {
    let number = |name: &str| value.get(name)?.as_u64();
    let samples = value.get("samples_ts")?.as_array()?;
    let samples: Vec<f64> = samples.iter().map(Value::as_f64).collect::<Option<_>>()?;
    let positive = !samples.is_empty() && samples.iter().all(|s| s.is_finite() && *s > 0.0);
    let test = super::values::Test {
        prompt: number("n_prompt")? as usize,
        generated: number("n_gen")? as usize,
        depth: number("n_depth").unwrap_or(0) as usize,
    };
    let text = |name: &'static str| {
        let value = value.get(name)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        // The same model may lie elsewhere on another machine.
        let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
        Some((name, if name == "model_filename" { last.to_string() } else { text.clone() }))
    };
    positive.then(|| Measured {
        key: KEYS.iter().filter_map(|name| text(name)).collect(),
        test: test.name(),
        samples,
        unreliable: value.get("unreliable").and_then(Value::as_bool) == Some(true),
        hash: value.get("logits_sha256").and_then(Value::as_str).map(str::to_string),
    })
}

fn report(pairs: &[Pair], keys: &[&str]) -> String {
    let tested: Vec<&Comparison> = pairs.iter().filter_map(|p| p.found.as_ref()).collect();
    let mut adjusted = holm(&tested.iter().map(|c| c.p).collect::<Vec<_>>()).into_iter();
    let shown: Vec<&str> = keys.iter().copied().filter(|k| !["n_prompt", "n_gen", "n_depth"].contains(k)).collect();
    let mut rows = vec![shown.iter().map(|k| k.to_string()).collect::<Vec<_>>()];
    rows[0].extend(["test", "A t/s", "B t/s", "B / A", "95 % interval", "p", "verdict"].map(String::from));
    let mut few = false;
    for pair in pairs {
        let value =
            |key: &&str| pair.a.key.iter().find(|(name, _)| name == key).map_or(String::new(), |(_, v)| v.clone());
        let median = |s: &[f64]| format!("{:.2}", super::stats::quantile(&super::stats::sorted(s), 0.5));
        let mut row: Vec<String> = shown.iter().map(value).collect();
        row.extend([pair.a.test.clone(), median(&pair.a.samples), median(&pair.b.samples)]);
        match &pair.found {
            None => row.extend(["", "", "", "unreliable: every run drifted"].map(String::from)),
            Some(c) => {
                let p = adjusted.next().unwrap_or(1.0);
                let least = Comparison::smallest_p(pair.a.samples.len(), pair.b.samples.len()) * tested.len() as f64;
                few |= least > 1.0 - LEVEL;
                let Interval { low, high, .. } = c.interval;
                row.extend([
                    format!("{:.3}", c.ratio),
                    format!("{low:.3} to {high:.3}"),
                    format!("{p:.4}"),
                    verdict(c, p),
                ]);
            }
        }
        rows.push(row);
    }
    let numbers: Vec<usize> = (shown.len() + 1..shown.len() + 6).collect();
    let mut text = table(&rows, &numbers);
    if few {
        text += "\nToo few runs: even samples that do not overlap could not be told apart here; measure with a larger -r.\n";
    }
    if pairs.iter().any(|p| p.a.hash.is_some() && p.b.hash.is_some() && p.a.hash != p.b.hash) {
        text += "\nThe logits differ: the two did not compute the same.\n";
    }
    text
}

fn verdict(c: &Comparison, p: f64) -> String {
    let percent = (c.ratio - 1.0) * 100.0;
    match (p < 1.0 - LEVEL, percent > 0.0) {
        (false, _) => "no difference seen".into(),
        (true, true) => format!("B is {percent:.1} % faster"),
        (true, false) => format!("B is {:.1} % slower", -percent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(rows: &[Value]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), serde_json::to_string(rows).unwrap()).unwrap();
        file
    }

    fn measured(test: (u64, u64), batch: u64, samples: &[f64]) -> Value {
        json!({"model_filename": "/a/m.gguf", "n_prompt": test.0, "n_gen": test.1, "n_depth": 0, "n_threads": 2, "n_batch": batch,
            "samples_ts": samples})
    }

    fn compared(a: &[Value], b: &[Value]) -> Result<String> {
        run(file(a).path(), file(b).path())
    }

    #[test]
    fn real_differences_are_told_from_noise() {
        let slow = [100.0, 101.0, 99.0, 100.5, 99.5, 98.0, 102.0];
        let fast = slow.map(|s| s * 1.2);
        let text = compared(
            &[measured((512, 0), 2048, &slow), measured((0, 128), 2048, &slow)],
            &[measured((0, 128), 512, &fast), measured((512, 0), 512, &[100.2, 99.9, 100.9, 98.5, 101.5, 100.1, 99.1])],
        )
        .unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("pp512") && lines[1].contains("no difference seen"), "{text}");
        assert!(
            lines[2].contains("tg128") && lines[2].contains("1.200") && lines[2].contains("B is 20.0 % faster"),
            "{text}"
        );
        assert!(!text.contains("Too few") && !text.contains("n_batch"));
    }

    #[test]
    fn settings_that_vary_must_match() {
        let rows = |low, high| [measured((0, 8), 64, &[low; 3]), measured((0, 8), 128, &[high; 3])];
        let text = compared(&rows(1.0, 10.0), &rows(2.0, 20.0)).unwrap();
        assert_eq!(text.lines().filter(|l| l.contains("tg8")).count(), 2, "{text}");
        assert!(text.contains("Too few runs"));
    }

    #[test]
    fn what_cannot_be_compared_says_so() {
        let mut shaky = measured((0, 8), 64, &[1.0, 2.0]);
        shaky["unreliable"] = json!(true);
        shaky["logits_sha256"] = json!("a");
        let mut other = measured((0, 8), 64, &[1.0, 2.0]);
        other["logits_sha256"] = json!("b");
        let text = compared(&[shaky], &[other]).unwrap();
        assert!(text.contains("unreliable: every run drifted") && text.contains("The logits differ"), "{text}");
        let none = compared(&[measured((0, 8), 64, &[1.0])], &[measured((0, 9), 64, &[1.0])]).unwrap_err();
        assert!(none.to_string().contains("in common"));
        for bad in [
            json!([]),
            json!([{"n_prompt": 1}]),
            json!([measured((0, 8), 64, &[])]),
            json!([measured((0, 8), 64, &[-1.0])]),
        ] {
            assert!(compared(bad.as_array().unwrap(), &[measured((0, 8), 64, &[1.0])]).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_are_read_too() {
        let path = file(&[]);
        fs::write(path.path(), format!("{}\n{}\n", measured((0, 8), 64, &[1.0]), measured((8, 0), 64, &[1.0])))
            .unwrap();
        assert_eq!(read(path.path()).unwrap().len(), 2);
        fs::write(path.path(), "not json").unwrap();
        assert!(read(path.path()).is_err());
    }
}
