//! Source to tokens, with the white-space rules that model templates are written for (`trim_blocks` and
//! `lstrip_blocks` of Jinja: a tag in a line of its own leaves no trace of the line).

use super::error::Error;

/// A token and the line it starts in, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'s> {
    pub(super) kind: Kind<'s>,
    pub(super) line: u32,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind<'s> {
    /// Text between tags.
    Text(&'s str),
    /// `{{`
    OpenOutput,
    /// `}}`
    CloseOutput,
    /// `{%`
    OpenTag,
    /// `%}`
    CloseTag,
    /// A name or keyword.
    Name(&'s str),
    /// A string, unescaped.
    Str(String),
    /// An integer.
    Int(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// An operator or bracket.
    Op(&'static str),
}

/// The tokens of a source whose newlines are `\n` already.
pub(super) fn tokenize(source: &str) -> Result<Vec<Token<'_>>, Error> {
    let mut lexer = Lexer { source, at: 0, line: 1, line_start: true, tokens: Vec::new() };
    while lexer.at < source.len() {
        lexer.segment()?;
    }
    Ok(lexer.tokens)
}

/// What opens a tag, and what closes it.
#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Output,
    Block,
    Comment,
}

/// Two characters first, so that the longest one is found.
const OPERATORS: [&str; 24] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "<", ">", "=", ".", ":", "|", ",", "(", ")", "[",
    "]", "{",
];

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    /// Whether the last thing read ended with a newline (or nothing was read).
    line_start: bool,
    tokens: Vec<Token<'s>>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: Kind<'s>) {
        self.tokens.push(Token { kind, line: self.line });
    }

    /// Moves on over `len` bytes.
    fn skip(&mut self, len: usize) {
        let passed = &self.source[self.at..self.at + len];
        self.line += passed.bytes().filter(|&b| b == b'\n').count() as u32;
        self.line_start = passed.ends_with('\n');
        self.at += len;
    }

    fn error<T>(&self, detail: impl Into<String>) -> Result<T, Error> {
        Err(Error::Syntax { line: self.line, detail: detail.into() })
    }

    /// Text up to the next tag, and the tag.
    fn segment(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let opener = rest.match_indices('{').find_map(|(i, _)| match rest.as_bytes().get(i + 1) {
            Some(b'{') => Some((i, Tag::Output)),
            Some(b'%') => Some((i, Tag::Block)),
            Some(b'#') => Some((i, Tag::Comment)),
            _ => None,
        });
        let Some((len, tag)) = opener else {
            self.push(Kind::Text(rest));
            self.skip(rest.len());
            return Ok(());
        };
        let sign = rest.as_bytes().get(len + 2).copied();
        self.text(len, sign, tag != Tag::Output);
        self.skip(2 + usize::from(matches!(sign, Some(b'-' | b'+'))));
        match tag {
            Tag::Comment => self.comment(),
            Tag::Block if self.raw()? => Ok(()),
            _ => self.tag(tag),
        }
    }

    /// The text before a tag, without the white space that the tag takes away.
    fn text(&mut self, len: usize, sign: Option<u8>, is_block: bool) {
        let mut text = &self.rest()[..len];
        if sign == Some(b'-') {
            text = text.trim_end();
        } else if is_block && sign != Some(b'+') {
            let start = text.rfind('\n').map_or(0, |i| i + 1);
            if (start > 0 || self.line_start) && text[start..].trim().is_empty() {
                text = &text[..start];
            }
        }
        if !text.is_empty() {
            self.push(Kind::Text(text));
        }
        let empty = len == 0;
        let line_start = self.line_start;
        self.skip(len);
        if empty {
            self.line_start = line_start;
        }
    }

    /// Moves over the white space that the end of a tag takes away.
    fn trim(&mut self, sign: u8, is_block: bool) {
        let rest = self.rest();
        if sign == b'-' {
            self.skip(rest.len() - rest.trim_start().len());
        } else if is_block && sign != b'+' && rest.starts_with('\n') {
            self.skip(1);
        }
    }

    fn comment(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else {
            return self.error("comment without its end \"#}\"");
        };
        let sign = rest[..end].bytes().next_back().unwrap_or(0);
        self.skip(end + 2);
        self.trim(sign, true);
        Ok(())
    }

    /// Reads a raw block, if this tag begins one.
    fn raw(&mut self) -> Result<bool, Error> {
        let Some((sign, len)) = bare_tag(self.rest(), "raw") else {
            return Ok(false);
        };
        self.skip(len);
        self.trim(sign, false);
        let mut from = 0;
        loop {
            let rest = self.rest();
            let Some(open) = rest[from..].find("{%").map(|i| from + i) else {
                return self.error("raw block without its end \"{% endraw %}\"");
            };
            let sign = rest.as_bytes().get(open + 2).copied().filter(|s| b"-+".contains(s));
            let inner = open + 2 + usize::from(sign.is_some());
            if let Some((end_sign, len)) = bare_tag(&rest[inner..], "endraw") {
                self.text(open, sign, true);
                self.skip(inner - open + len);
                self.trim(end_sign, true);
                return Ok(true);
            }
            from = inner;
        }
    }

    /// The tokens of a tag up to its end.
    fn tag(&mut self, tag: Tag) -> Result<(), Error> {
        let (open, close, end) = match tag {
            Tag::Output => (Kind::OpenOutput, Kind::CloseOutput, "}}"),
            _ => (Kind::OpenTag, Kind::CloseTag, "%}"),
        };
        self.push(open);
        // Brackets that are open: inside of them "}}" is two brackets.
        let mut depth = 0usize;
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.skip(rest.len() - trimmed.len());
            let sign = trimmed.bytes().next().unwrap_or(0);
            let signed = usize::from(matches!(sign, b'-' | b'+'));
            if depth == 0 && trimmed.get(signed..).is_some_and(|t| t.starts_with(end)) {
                self.push(close);
                self.skip(signed + end.len());
                self.trim(sign, tag == Tag::Block);
                return Ok(());
            }
            let Some(first) = trimmed.chars().next() else {
                return self.error(format!("tag without its end \"{end}\""));
            };
            match first {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.token(trimmed, first)?;
        }
    }

    /// One token inside of a tag.
    fn token(&mut self, rest: &'s str, first: char) -> Result<(), Error> {
        let (kind, len) = match first {
            '\'' | '"' => self.string(rest, first)?,
            '0'..='9' => self.number(rest)?,
            '}' => (Kind::Op("}"), 1),
            c if c.is_alphabetic() || c == '_' => {
                let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                (Kind::Name(&rest[..len]), len)
            }
            c => match OPERATORS.iter().find(|op| rest.starts_with(**op)) {
                Some(op) => (Kind::Op(op), op.len()),
                None => return self.error(format!("character {c:?}, which no expression has")),
            },
        };
        self.push(kind);
        self.skip(len);
        Ok(())
    }

    /// A string with the escapes of Python.
    fn string(&self, rest: &'s str, quote: char) -> Result<(Kind<'s>, usize), Error> {
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => return Ok((Kind::Str(text), at + 1)),
                '\\' => {
                    let Some((at, escaped)) = chars.next() else { break };
                    let digits = match escaped {
                        'x' => 2,
                        'u' => 4,
                        'U' => 8,
                        _ => 0,
                    };
                    if digits == 0 {
                        unescape(escaped, &mut text);
                        continue;
                    }
                    let code = rest.get(at + 1..at + 1 + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                    let Some(c) = code.and_then(char::from_u32) else {
                        return self.error(format!("escape \"\\{escaped}\" without {digits} digits of a character"));
                    };
                    text.push(c);
                    chars.by_ref().nth(digits - 1);
                }
                c => text.push(c),
            }
        }
        self.error(format!("string without its end {quote}"))
    }

    /// An integer or a number with a point or exponent.
    fn number(&self, rest: &'s str) -> Result<(Kind<'s>, usize), Error> {
        let digits = |from: usize| from + rest[from..].bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
        let next = |at: usize| rest.as_bytes().get(at).copied().unwrap_or(0);
        let mut end = digits(0);
        let mut float = false;
        if next(end) == b'.' && next(end + 1).is_ascii_digit() {
            float = true;
            end = digits(end + 1);
        }
        let exponent = end + 1 + usize::from(matches!(next(end + 1), b'+' | b'-'));
        if matches!(next(end), b'e' | b'E') && next(exponent).is_ascii_digit() {
            float = true;
            end = digits(exponent);
        }
        let text = rest[..end].replace('_', "");
        let kind = if float { text.parse().ok().map(Kind::Float) } else { text.parse().ok().map(Kind::Int) };
        match kind {
            Some(kind) => Ok((kind, end)),
            None => self.error(format!("number {text:.40}, expected one below 2^127")),
        }
    }
}

/// A tag that is one word: what follows the opener, up to and including the end. Returns the sign before the end.
fn bare_tag(rest: &str, word: &str) -> Option<(u8, usize)> {
    let after = rest.trim_start().strip_prefix(word)?.trim_start();
    let sign = after.bytes().next().filter(|s| b"-+".contains(s));
    let end = after[usize::from(sign.is_some())..].strip_prefix("%}")?;
    Some((sign.unwrap_or(0), rest.len() - end.len()))
}

/// Appends what an escape of one character means. An unknown one keeps its backslash.
fn unescape(escaped: char, text: &mut String) {
    match escaped {
        'n' => text.push('\n'),
        't' => text.push('\t'),
        'r' => text.push('\r'),
        '0' => text.push('\0'),
        'a' => text.push('\x07'),
        'b' => text.push('\x08'),
        'f' => text.push('\x0c'),
        'v' => text.push('\x0b'),
        '\n' => {}
        '\\' | '\'' | '"' => text.push(escaped),
        other => text.extend(['\\', other]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> String {
        let tokens = tokenize(source).unwrap();
        let show = |t: &Token<'_>| match t.kind {
            Kind::Text(text) => text.to_owned(),
            Kind::OpenOutput => "<".into(),
            Kind::CloseOutput => ">".into(),
            Kind::OpenTag => "[".into(),
            Kind::CloseTag => "]".into(),
            _ => ".".into(),
        };
        tokens.iter().map(show).collect()
    }

    #[test]
    fn tags_take_white_space_away() {
        assert_eq!(texts("a\n  {% x %}\nb"), "a\n[.]b");
        assert_eq!(texts("a {% x %}\n\nb"), "a [.]\nb");
        assert_eq!(texts("a \n {%- x -%} \n b"), "a[.]b");
        assert_eq!(texts("a\n  {%+ x +%}\nb"), "a\n  [.]\nb");
        assert_eq!(texts("  {{ x }}\nb"), "  <.>\nb");
        assert_eq!(texts("a {{- x -}} b"), "a<.>b");
        assert_eq!(texts("{% x %}\n  {% y %}"), "[.][.]");
        assert_eq!(texts("{% x %}  {% y %}"), "[.]  [.]");
        assert_eq!(texts("a\n  {# c #}\nb{#- d -#} e"), "a\nbe");
    }

    #[test]
    fn raw_text_is_no_template() {
        assert_eq!(texts("a{% raw %}{{ x }}{% y %}{% endraw %}b"), "a{{ x }}{% y %}b");
        assert_eq!(texts("{%- raw -%} {{ {%- endraw -%} b"), "{{b");
    }

    #[test]
    fn brackets_hide_the_end_of_a_tag() {
        assert_eq!(texts("{{ {'a': {}}}}"), "<......>");
    }

    #[test]
    fn strings_and_numbers() {
        let kinds: Vec<_> = tokenize(r#"{{ 'a\n\'\x41\u00e9\q' "b" 12 1_000 1.5 2e3 1.x }}"#).unwrap();
        let kinds: Vec<_> = kinds.into_iter().map(|t| t.kind).collect();
        let expected = [
            Kind::OpenOutput,
            Kind::Str("a\n'Aé\\q".into()),
            Kind::Str("b".into()),
            Kind::Int(12),
            Kind::Int(1000),
            Kind::Float(1.5),
            Kind::Float(2000.0),
            Kind::Int(1),
            Kind::Op("."),
            Kind::Name("x"),
            Kind::CloseOutput,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for source in ["{{ x", "{% x", "{# x", "{{ 'x }}", "{% raw %}x", "{{ ` }}", "{{ '\\ud800' }}", "{{ '\\"] {
            assert!(matches!(tokenize(source), Err(Error::Syntax { line: 1, .. })), "{source}");
        }
    }
}
