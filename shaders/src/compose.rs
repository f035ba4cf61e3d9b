//! The composer: WGSL files become one text.
//!
//! Five directives, each on a line of its own, and names that are replaced:
//!
//! | line | does |
//! | --- | --- |
//! | `#import NAME` | puts a file here, the first time it is named |
//! | `#if FLAG`, `#if !FLAG`, `#else`, `#end` | keeps or drops lines; a flag is a name that is defined and not 0 |
//! | `#for I in A..B`, `#end` | repeats lines with `$I` counting |
//! | `#let I = A * B + C` | defines a number for the lines that follow; operators `+ * / %`, from left to right |
//! | `$NAME` | is replaced by what is defined; an unknown name is an error |
//!
//! Loops over constants are written out here, not left to drivers: some unroll nothing that has a guard.

use std::collections::BTreeMap;

/// Names and what they stand for.
pub type Defines = BTreeMap<String, String>;

/// Composes `main` with its imports. `file` gives the text of a file by its name without the suffix.
///
/// # Errors
/// What is wrong, with file and line.
pub fn compose(main: &str, defines: &Defines, file: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut composer = Composer { file, seen: Vec::new(), out: String::new() };
    composer.import(main, defines)?;
    Ok(composer.out)
}

struct Composer<'a> {
    file: &'a dyn Fn(&str) -> Option<String>,
    seen: Vec<String>,
    out: String,
}

impl Composer<'_> {
    fn import(&mut self, name: &str, defines: &Defines) -> Result<(), String> {
        if self.seen.iter().any(|seen| seen == name) {
            return Ok(());
        }
        self.seen.push(name.to_string());
        let text = (self.file)(name).ok_or_else(|| format!("there is no file {name}.wgsl"))?;
        let lines: Vec<&str> = text.lines().collect();
        self.lines(name, &lines, 0, defines)
    }

    /// Composes `lines`, the first of which is line `first` (from 0) of a file.
    fn lines(&mut self, name: &str, lines: &[&str], first: usize, defines: &Defines) -> Result<(), String> {
        let mut at = 0;
        let mut own = defines.clone();
        while at < lines.len() {
            let defines = &own;
            let line = lines[at];
            let fail = |what: String| format!("{name}.wgsl:{}: {what}", first + at + 1);
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["#import", file] => {
                    let file = replace(file, defines).map_err(fail)?;
                    self.import(&file, defines)?;
                    at += 1;
                }
                ["#if", flag] => {
                    let (middle, end) = block(&lines[at..]).map_err(fail)?;
                    let on = flag.strip_prefix('!').map_or_else(|| is_set(flag, defines), |f| !is_set(f, defines));
                    let kept = if on { at + 1..at + middle } else { (at + middle + 1).min(at + end)..at + end };
                    self.lines(name, &lines[kept.clone()], first + kept.start, defines)?;
                    at += end + 1;
                }
                ["#for", variable, "in", range] => {
                    let (_, end) = block(&lines[at..]).map_err(fail)?;
                    let (from, to) = counts(range, defines).map_err(fail)?;
                    for i in from..to {
                        let mut inner = defines.clone();
                        inner.insert(variable.to_string(), i.to_string());
                        self.lines(name, &lines[at + 1..at + end], first + at + 1, &inner)?;
                    }
                    at += end + 1;
                }
                ["#let", variable, "=", ..] => {
                    let value = calculate(&words[3..], defines).map_err(fail)?;
                    own.insert(variable.to_string(), value.to_string());
                    at += 1;
                }
                [word, ..] if word.starts_with('#') => return Err(fail(format!("{line:?} is no directive"))),
                _ => {
                    // Comments are for those who read the file.
                    let code = line.split("//").next().unwrap_or("").trim_end();
                    if !code.is_empty() {
                        self.out += &replace(code, defines).map_err(fail)?;
                        self.out.push('\n');
                    }
                    at += 1;
                }
            }
        }
        Ok(())
    }
}

fn is_set(flag: &str, defines: &Defines) -> bool {
    defines.get(flag).is_some_and(|value| value != "0")
}

/// Lines from a block's first to its `#else` (or its end) and to its `#end`.
fn block(lines: &[&str]) -> Result<(usize, usize), String> {
    let (mut depth, mut middle) = (0, None);
    for (at, line) in lines.iter().enumerate() {
        match line.split_whitespace().next() {
            Some("#if" | "#for") => depth += 1,
            Some("#else") if depth == 1 => middle = Some(at),
            Some("#end") => {
                depth -= 1;
                if depth == 0 {
                    return Ok((middle.unwrap_or(at), at));
                }
            }
            _ => {}
        }
    }
    Err("a block without #end".into())
}

fn counts(range: &str, defines: &Defines) -> Result<(u32, u32), String> {
    let range = replace(range, defines)?;
    let (from, to) = range.split_once("..").ok_or_else(|| format!("{range:?} is no range"))?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    Ok((number(from)?, number(to)?))
}

/// Numbers and operators in turn, from left to right.
fn calculate(words: &[&str], defines: &Defines) -> Result<u32, String> {
    let number = |word: &str| {
        let text = replace(word, defines)?;
        text.parse::<u32>().map_err(|_| format!("{text:?} is no number"))
    };
    let (first, rest) = words.split_first().ok_or("nothing to calculate")?;
    rest.chunks(2).try_fold(number(first)?, |sum, pair| {
        let &[operator, word] = pair else { return Err("an operator without a number".to_string()) };
        let n = number(word)?;
        match operator {
            "+" => Ok(sum + n),
            "*" => Ok(sum * n),
            "/" if n > 0 => Ok(sum / n),
            "%" if n > 0 => Ok(sum % n),
            _ => Err(format!("{operator:?} {n} is no operation")),
        }
    })
}

fn replace(code: &str, defines: &Defines) -> Result<String, String> {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some((before, after)) = rest.split_once('$') {
        let end = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let name = &after[..end];
        out += before;
        out += defines.get(name).ok_or_else(|| format!("${name} is not defined"))?;
        rest = &after[end..];
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(main: &str, defines: &[(&str, &str)]) -> Result<String, String> {
        let defines = defines.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let file = |name: &str| match name {
            "main" => Some(main.to_string()),
            "part" => Some("fn part() {}\n".to_string()),
            _ => None,
        };
        compose("main", &defines, &file)
    }

    #[test]
    fn lines_are_imported_chosen_repeated_and_replaced() {
        assert_eq!(run("#let b = $a * 3 + 1 / 2 % 4\n$b", &[("a", "5")]).unwrap(), "0\n");
        let text = "#import part\n#import part\n#if A\na // why\n#else\nb\n#end\n#for i in 1..N\n#if !A\nc$i = $N;\n#end\n#end\n";
        assert_eq!(run(text, &[("A", "1")]).unwrap_err(), "main.wgsl:8: \"N\" is no number");
        let text = text.replace("1..N", "1..$N");
        assert_eq!(run(&text, &[("A", "1"), ("N", "3")]).unwrap(), "fn part() {}\na\n");
        assert_eq!(run(&text, &[("A", "0"), ("N", "3")]).unwrap(), "fn part() {}\nb\nc1 = 3;\nc2 = 3;\n");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, what) in [
            ("x\n#import none", "there is no file none.wgsl"),
            ("#if A\n", "main.wgsl:1: a block without #end"),
            ("\n#loop", "main.wgsl:2: \"#loop\" is no directive"),
            ("let a = $b;", "main.wgsl:1: $b is not defined"),
            ("#for i in 3", "main.wgsl:1: a block without #end"),
            ("#let a = 1 / 0", "main.wgsl:1: \"/\" 0 is no operation"),
            ("#for i in 3\n#end", "main.wgsl:1: \"3\" is no range"),
        ] {
            assert_eq!(run(text, &[]).unwrap_err(), what);
        }
    }
}
