//! From the text of an answer, as it comes, to content, thinking and calls of tools.
//!
//! A mark may be cut by the pieces of a stream: what may be its beginning is held back until that is decided.

use serde_json::{Map, Value as Json, json};

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// Its arguments, an object.
    pub arguments: Json,
}

/// What a piece of text brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// What is said.
    pub content: String,
    /// What is thought.
    pub thinking: String,
    /// Calls that are complete.
    pub calls: Vec<Call>,
}

impl Part {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && self.thinking.is_empty() && self.calls.is_empty()
    }
}

/// Marks between which models put calls: the Hermes and Qwen form, and that of Mistral, which ends with the answer.
const CALLS: [(&str, &str); 3] =
    [("<tool_call>", "</tool_call>"), ("[TOOL_CALLS]", "\u{0}"), ("<|python_tag|>", "\u{0}")];
const THINK: (&str, &str) = ("<think>", "</think>");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space has come.
    Start,
    Content,
    Thinking,
    /// Between marks: text is kept until the closing one.
    Call(&'static str),
    /// The answer began like bare JSON: kept until it ends.
    Bare,
}

/// Reads one answer.
#[derive(Clone, Debug)]
pub struct Reader {
    state: State,
    held: String,
    /// The mark of a thought was just passed: white space after it says nothing.
    fresh: bool,
    tools: bool,
    think: bool,
}

impl Reader {
    /// A reader that looks for calls with `tools` and for thinking with `think`; `thinking`: the prompt has opened the
    /// thought already.
    pub fn new(tools: bool, think: bool, thinking: bool) -> Reader {
        let state = if think && thinking { State::Thinking } else { State::Start };
        Reader { state, held: String::new(), fresh: state == State::Thinking, tools, think }
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Part {
        let mut part = Part::default();
        if !self.tools && !self.think {
            part.content.push_str(text);
            return part;
        }
        self.held.push_str(text);
        while self.step(&mut part) {}
        part
    }

    /// The end of the answer.
    pub fn finish(&mut self) -> Part {
        let mut part = Part::default();
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Call(_) | State::Bare => match calls(&rest) {
                Some(calls) => part.calls = calls,
                None => part.content = rest,
            },
            State::Thinking => part.thinking = rest,
            State::Start | State::Content => part.content = rest,
        }
        part
    }

    /// Whether there may be more to do at once.
    fn step(&mut self, part: &mut Part) -> bool {
        if self.fresh {
            self.held = self.held.trim_start().to_string();
            if self.held.is_empty() {
                return false;
            }
            self.fresh = false;
        }
        match self.state {
            State::Start => self.start(),
            State::Thinking => match self.until(THINK.1, &mut part.thinking) {
                true => {
                    self.fresh = true;
                    self.state = State::Start;
                    true
                }
                false => false,
            },
            State::Content => self.content(part),
            State::Call(end) => {
                let Some(at) = self.held.find(end) else { return false };
                let inner = self.held[..at].to_string();
                self.held = self.held[at + end.len()..].to_string();
                match calls(&inner) {
                    Some(calls) => part.calls.extend(calls),
                    None => part.content.push_str(&inner),
                }
                self.state = State::Content;
                true
            }
            State::Bare => false,
        }
    }

    /// The first text that is not white space decides.
    fn start(&mut self) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() {
            return false;
        }
        if self.think {
            if let Some(thought) = text.strip_prefix(THINK.0) {
                self.held = thought.to_string();
                self.fresh = true;
                self.state = State::Thinking;
                return true;
            }
            if THINK.0.starts_with(text) {
                return false;
            }
        }
        self.state = if self.tools && text.starts_with(['{', '[']) && !text.starts_with("[TOOL") {
            State::Bare
        } else {
            State::Content
        };
        // `[` alone may still be the beginning of a mark.
        if self.state == State::Bare && "[TOOL_CALLS]".starts_with(text) {
            self.state = State::Start;
            return false;
        }
        true
    }

    fn content(&mut self, part: &mut Part) -> bool {
        if !self.tools {
            part.content += &std::mem::take(&mut self.held);
            return false;
        }
        let found = CALLS.iter().filter_map(|(open, close)| Some((self.held.find(open)?, *open, *close))).min();
        if let Some((at, open, close)) = found {
            part.content += self.held[..at].trim_end();
            self.held = self.held[at + open.len()..].to_string();
            self.state = State::Call(close);
            return true;
        }
        let keep = CALLS.iter().map(|(open, _)| beginning(&self.held, open)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        part.content += &std::mem::replace(&mut self.held, rest);
        false
    }

    /// Moves text up to a mark; whether the mark was found, and is gone.
    fn until(&mut self, mark: &str, out: &mut String) -> bool {
        if let Some(at) = self.held.find(mark) {
            out.push_str(&self.held[..at]);
            self.held = self.held[at + mark.len()..].to_string();
            return true;
        }
        let keep = beginning(&self.held, mark);
        let rest = self.held.split_off(self.held.len() - keep);
        out.push_str(&std::mem::replace(&mut self.held, rest));
        false
    }
}

/// Bytes at the end of `text` that may be the beginning of `mark`.
fn beginning(text: &str, mark: &str) -> usize {
    (1..mark.len()).rev().find(|&n| mark.is_char_boundary(n) && text.ends_with(&mark[..n])).unwrap_or(0)
}

/// The calls in a text of JSON: one object or a list of them, each with a name and arguments.
fn calls(text: &str) -> Option<Vec<Call>> {
    let values: Vec<Json> =
        serde_json::Deserializer::from_str(text.trim()).into_iter().collect::<Result<_, _>>().ok()?;
    let flat = values.into_iter().flat_map(|v| match v {
        Json::Array(items) => items,
        other => vec![other],
    });
    let calls: Option<Vec<Call>> = flat.map(call).collect();
    calls.filter(|c| !c.is_empty())
}

fn call(value: Json) -> Option<Call> {
    let Json::Object(mut map) = value else { return None };
    if let Some(Json::Object(inner)) = map.get("function") {
        map = inner.clone();
    }
    let name = map.get("name")?.as_str()?.to_string();
    let arguments = match map.remove("arguments").or_else(|| map.remove("parameters")) {
        None | Some(Json::Null) => json!({}),
        Some(Json::Object(arguments)) => Json::Object(arguments),
        Some(Json::String(text)) => serde_json::from_str::<Map<String, Json>>(&text).ok().map(Json::Object)?,
        Some(_) => return None,
    };
    Some(Call { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same whether a text comes whole or a character at a time.
    fn read(tools: bool, think: bool, text: &str) -> (String, String, Vec<Call>) {
        let mut all = Vec::new();
        let pieces: [Vec<String>; 2] = [vec![text.to_string()], text.chars().map(String::from).collect()];
        for pieces in pieces {
            let mut reader = Reader::new(tools, think, false);
            let mut sum = Part::default();
            let mut parts: Vec<Part> = pieces.iter().map(|p| reader.push(p)).collect();
            parts.push(reader.finish());
            for p in parts {
                sum.content += &p.content;
                sum.thinking += &p.thinking;
                sum.calls.extend(p.calls);
            }
            all.push((sum.content, sum.thinking, sum.calls));
        }
        assert_eq!(all[0].1, all[1].1, "{text}");
        assert_eq!(all[0].2, all[1].2, "{text}");
        assert_eq!(all[0].0.split_whitespace().collect::<Vec<_>>(), all[1].0.split_whitespace().collect::<Vec<_>>());
        all.remove(0)
    }

    #[test]
    fn plain_text_is_content() {
        for text in ["hello", "a < b <tool", "[1, 2]", "{\"a\": 1}", "<", "[TOO", ""] {
            let (content, thinking, calls) = read(true, true, text);
            assert_eq!((content.as_str(), thinking.as_str(), calls.len()), (text, "", 0));
        }
    }

    #[test]
    fn thoughts_and_calls() {
        let call = Call { name: "f".into(), arguments: json!({"x": 1}) };
        let one = r#"{"name": "f", "arguments": {"x": 1}}"#;
        for text in [
            format!("<tool_call>\n{one}\n</tool_call>"),
            format!("[TOOL_CALLS] [{one}]"),
            r#"{"name": "f", "parameters": {"x": 1}}"#.to_string(),
            r#"{"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}"#.to_string(),
            format!("<|python_tag|>{one}"),
        ] {
            let (content, _, calls) = read(true, false, &text);
            assert_eq!((content.trim(), &calls), ("", &vec![call.clone()]), "{text}");
        }
        let (content, thinking, calls) =
            read(true, true, &format!("<think>\nhm < 3\n</think>\n\nSo: <tool_call>{one}</tool_call>"));
        assert_eq!((content.trim(), thinking.as_str(), calls), ("So:", "hm < 3\n", vec![call]));
        let (content, thinking, _) = read(false, true, "<think>only");
        assert_eq!((content.as_str(), thinking.as_str()), ("", "only"));
        let (content, _, calls) = read(true, false, "<tool_call>broken</tool_call> x");
        assert_eq!((content.as_str(), calls.len()), ("broken x", 0));
    }
}
