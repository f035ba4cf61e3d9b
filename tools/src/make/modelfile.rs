//! Modelfiles: lines of a word and its value, comments with `#`, values in `"` or `"""`.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::{From, Recipe};
use crate::error::{Error, Result};
use crate::ui::format::printable;

/// Words of a Modelfile.
const WORDS: &str = "FROM, PARAMETER, TEMPLATE, SYSTEM, MESSAGE, LICENSE, FILE, ADAPTER, REQUIRES";

/// Reads a Modelfile. Paths in it are relative to `folder`.
///
/// # Errors
/// `(line N): ` and what is wrong there.
pub fn parse(text: &str, folder: &Path) -> Result<Recipe> {
    let mut recipe = Recipe::default();
    let mut rest = text.trim_start_matches('\u{feff}');
    let total = rest.matches('\n').count() + 1;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        let line = total - rest.matches('\n').count();
        let wrong = |why: String| Error::Usage(format!("(line {line}): {why}"));
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let (value, after) = value(after, &word.to_ascii_uppercase()).map_err(wrong)?;
        rest = after;
        put(&mut recipe, &word.to_ascii_uppercase(), &value, folder).map_err(wrong)?;
    }
    match recipe.from {
        Some(_) => Ok(recipe),
        None => Err(Error::Usage("no FROM line".into())),
    }
}

/// The value after a word, and what follows it. For MESSAGE and PARAMETER the first word stays in front.
fn value<'t>(text: &'t str, word: &str) -> std::result::Result<(String, &'t str), String> {
    let text = text.trim_start_matches([' ', '\t']);
    let (before, text) = match word {
        "MESSAGE" | "PARAMETER" => {
            let end = text.find([' ', '\t', '\n']).unwrap_or(text.len());
            let (first, after) = text.split_at(end);
            (format!("{first} "), after.trim_start_matches([' ', '\t']))
        }
        _ => (String::new(), text),
    };
    if let Some(inner) = text.strip_prefix("\"\"\"") {
        let end = inner.find("\"\"\"").ok_or("a text in \"\"\" has no end")?;
        return Ok((before + &inner[..end], &inner[end + 3..]));
    }
    if let Some(inner) = text.strip_prefix('"') {
        let end = inner.find('"').ok_or("a text in \" has no end")?;
        return Ok((before + &inner[..end], &inner[end + 1..]));
    }
    let (value, after) = text.split_once('\n').unwrap_or((text, ""));
    Ok((before + value.trim(), after))
}

fn put(recipe: &mut Recipe, word: &str, value: &str, folder: &Path) -> std::result::Result<(), String> {
    let two = || value.split_once(' ').map(|(a, b)| (a.trim(), b)).filter(|(a, b)| !a.is_empty() && !b.is_empty());
    match word {
        "FROM" if value.is_empty() => return Err("FROM needs a model or a file".into()),
        "FROM" => recipe.from = Some(from(value, folder)),
        "TEMPLATE" => recipe.template = Some(value.to_string()),
        "SYSTEM" => recipe.system = Some(value.to_string()),
        "LICENSE" => recipe.licenses.push(value.to_string()),
        "MESSAGE" => {
            let (role, content) = two().ok_or("MESSAGE needs a role and a text")?;
            if !matches!(role, "system" | "user" | "assistant") {
                return Err("a message's role must be system, user or assistant".into());
            }
            recipe.messages.push((role.to_string(), content.to_string()));
        }
        "PARAMETER" => {
            let (name, value) = two().ok_or("PARAMETER needs a name and a value")?;
            parameter(recipe, &name.to_ascii_lowercase(), value);
        }
        "FILE" => recipe.files.push(folder.join(value)),
        "ADAPTER" if value.is_empty() => return Err("ADAPTER needs a file".into()),
        "ADAPTER" => recipe.adapters.push(folder.join(value)),
        "REQUIRES" => recipe.notes.push(format!("REQUIRES {} is not checked", printable(value))),
        other => return Err(format!("{} is not known; words are {WORDS}", printable(other))),
    }
    Ok(())
}

/// A path where it looks like one or exists, else a model's name.
fn from(value: &str, folder: &Path) -> From {
    let path = match value.strip_prefix("~/").zip(std::env::home_dir()) {
        Some((rest, home)) => home.join(rest),
        None => folder.join(value),
    };
    let marked = value.starts_with(['.', '/', '~']) || value.ends_with(".gguf");
    if marked || path.is_file() { From::File(path) } else { From::Model(value.to_string()) }
}

/// Numbers and booleans as such; `stop` collects.
fn parameter(recipe: &mut Recipe, name: &str, value: &str) {
    let name = match name {
        "context_length" => {
            recipe.notes.push("PARAMETER context_length is read as num_ctx".into());
            "num_ctx"
        }
        other => other,
    };
    if name == "stop" {
        let list = recipe.parameters.entry("stop").or_insert_with(|| json!([]));
        if let Json::Array(stops) = list {
            stops.push(json!(value));
        }
        return;
    }
    let parsed = match value {
        "true" => json!(true),
        "false" => json!(false),
        text => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(n), _) => json!(n),
            (_, Ok(x)) => json!(x),
            _ => json!(text),
        },
    };
    recipe.parameters.insert(name.to_string(), parsed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn all_words() {
        let text = "\u{feff}# a comment\nfrom smollm2:latest\nPARAMETER temperature 0.5\nPARAMETER stop \"<end>\"\nparameter stop x\n\
            PARAMETER context_length 512\nSYSTEM \"\"\"two\nlines\"\"\"\nTEMPLATE \"{{ .Prompt }}\"\nMESSAGE user hi there\n\
            MESSAGE assistant \"\"\"yes\n!\"\"\"\nLICENSE MIT\nFILE a.txt\nADAPTER b.gguf\n";
        let r = parse(text, Path::new("/f")).unwrap();
        assert_eq!(r.from, Some(From::Model("smollm2:latest".into())));
        assert_eq!(r.parameters["temperature"], 0.5);
        assert_eq!(r.parameters["stop"], json!(["<end>", "x"]));
        assert_eq!(r.parameters["num_ctx"], 512);
        assert_eq!(r.system.as_deref(), Some("two\nlines"));
        assert_eq!(r.template.as_deref(), Some("{{ .Prompt }}"));
        assert_eq!(r.messages, [("user".to_string(), "hi there".to_string()), ("assistant".into(), "yes\n!".into())]);
        assert_eq!((r.licenses, r.files), (vec!["MIT".to_string()], vec![PathBuf::from("/f/a.txt")]));
        assert_eq!((r.notes.len(), r.adapters), (1, vec![PathBuf::from("/f/b.gguf")]));
        let file = parse("FROM ./m.gguf", Path::new("/f")).unwrap();
        assert_eq!(file.from, Some(From::File("/f/./m.gguf".into())));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, word) in [
            ("", "FROM"),
            ("FROM x\nFROB y", "(line 2): FROB"),
            ("FROM x\n\nADAPTER", "(line 3): ADAPTER"),
            ("FROM x\nSYSTEM \"\"\"open", "no end"),
            ("FROM x\nMESSAGE boss hi", "role"),
            ("FROM x\nPARAMETER temperature", "value"),
            ("FROM", "FROM"),
        ] {
            let error = parse(text, Path::new("")).unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
