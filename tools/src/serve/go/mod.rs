//! Templates in the language of Go's `text/template`, as model makers write them for Ollama: as much of it as they use.
//!
//! Text, actions with trimming, comments, `if`, `range`, `with`, `break`, `continue`, variables, pipelines, the
//! functions of [`functions`]. Anything else is an error that names it, when the template is read and not when it is
//! used. A rendering is bounded in steps and in output.

mod exec;
mod functions;
mod parse;

use engine::template::Message;
use serde_json::{Map, Value as Json, json};

use super::prompt::Extras;
use parse::Node;

/// Stands for the answer to come where a template says `.Response`; what follows it is not part of a prompt.
const MARK: &str = "\u{0}response\u{0}";

/// A template that was read.
#[derive(Clone, Debug)]
pub struct GoTemplate {
    source: String,
    nodes: Vec<Node>,
    /// Whether it loops over the messages itself.
    whole: bool,
}

impl GoTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong or not supported, and in which line.
    pub fn parse(source: &str) -> Result<GoTemplate, String> {
        let nodes = parse::parse(source)?;
        let whole = parse::mentions(&nodes, "Messages");
        let mut all = nodes;
        if !whole && !parse::mentions(&all, "Response") {
            all.extend(parse::parse("{{ .Response }}")?);
        }
        Ok(GoTemplate { source: source.to_string(), nodes: all, whole })
    }

    /// The source, for display.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt of a conversation.
    ///
    /// # Errors
    /// The template does something impossible or too much.
    pub fn chat(&self, messages: &[Message], extras: &Extras) -> Result<String, String> {
        let system: Vec<&str> =
            messages.iter().filter(|m| m.role == "system").filter_map(|m| m.content.as_str()).collect();
        let mut vars = Map::new();
        vars.insert("System".into(), json!(system.join("\n\n")));
        vars.insert("Tools".into(), extras.tools.clone().unwrap_or(json!([])));
        let level = extras.think.as_ref().and_then(Json::as_str).unwrap_or_default();
        let thinks = extras.think.as_ref().is_some_and(|t| t.as_bool().unwrap_or(true));
        vars.insert("Think".into(), json!(thinks));
        vars.insert("ThinkLevel".into(), json!(level));
        vars.insert("IsThinkSet".into(), json!(extras.think.is_some()));
        if self.whole {
            vars.insert("Messages".into(), Json::Array(collate(messages)));
            vars.insert("Response".into(), json!(""));
            return exec::render(&self.nodes, &Json::Object(vars));
        }
        self.turns(messages, vars)
    }

    /// The older kind of template: one turn of system, prompt and response, put together turn by turn.
    fn turns(&self, messages: &[Message], base: Map<String, Json>) -> Result<String, String> {
        let mut out = String::new();
        let (mut system, mut prompt) = (String::new(), String::new());
        let turn = |system: &str, prompt: &str, response: &str| {
            let mut vars = base.clone();
            vars.insert("System".into(), json!(system));
            vars.insert("Prompt".into(), json!(prompt));
            vars.insert("Response".into(), json!(response));
            exec::render(&self.nodes, &Json::Object(vars))
        };
        for message in messages {
            let content = message.content.as_str().unwrap_or_default();
            match message.role.as_str() {
                "system" => join(&mut system, content),
                "assistant" => {
                    out += &turn(&system, &prompt, content)?;
                    (system, prompt) = (String::new(), String::new());
                }
                _ => join(&mut prompt, content),
            }
        }
        let last = turn(&system, &prompt, MARK)?;
        out += last.split(MARK).next().unwrap_or(&last);
        Ok(out)
    }
}

fn join(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(more);
}

/// The messages, those of one role in a row as one.
fn collate(messages: &[Message]) -> Vec<Json> {
    let mut all: Vec<Json> = Vec::new();
    for message in messages {
        let content = message.content.as_str().unwrap_or_default();
        let plain = message.extra.is_empty() && message.role != "tool";
        if let Some(Json::Object(last)) = all.last_mut()
            && plain
            && last.get("role").and_then(Json::as_str) == Some(message.role.as_str())
            && !last.contains_key("tool_calls")
        {
            let old = last.get("content").and_then(Json::as_str).unwrap_or_default();
            let joined = format!("{old}\n\n{content}");
            last.insert("content".into(), json!(joined));
            continue;
        }
        let mut map = Map::new();
        map.insert("role".into(), json!(message.role));
        map.insert("content".into(), json!(content));
        map.extend(message.extra.clone());
        all.push(Json::Object(map));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(source: &str, messages: &[(&str, &str)]) -> Result<String, String> {
        let messages: Vec<Message> = messages.iter().map(|(role, text)| Message::new(*role, *text)).collect();
        GoTemplate::parse(source)?.chat(&messages, &Extras::default())
    }

    #[test]
    fn a_turn_at_a_time() {
        let simple = "{{ .System }}\nUser: {{ .Prompt }}\nAssistant: ";
        assert_eq!(chat(simple, &[("system", "S"), ("user", "U")]).unwrap(), "S\nUser: U\nAssistant: ");
        let turns = "{{ if .System }}<s>{{ .System }}{{ end }}<u>{{ .Prompt }}<a>{{ .Response }}<e>";
        let conversation = [("system", "S"), ("user", "1"), ("assistant", "2"), ("user", "3")];
        assert_eq!(chat(turns, &conversation).unwrap(), "<s>S<u>1<a>2<e><u>3<a>");
    }

    #[test]
    fn all_messages_at_once() {
        let source = "{{- range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 }}<{{ .Role }}>{{ .Content }}\n\
            {{- if and $last (ne .Role \"assistant\") }}<assistant>{{ end }}{{- end }}";
        assert_eq!(chat(source, &[("user", "a"), ("user", "b")]).unwrap(), "<user>a\n\nb<assistant>");
    }

    #[test]
    fn tools_and_calls() {
        let source = "{{ range .Tools }}{{ json . }};{{ .Function.Name }}{{ range $n, $p := .Function.Parameters.Properties }} {{ $n }}:{{ $p.Type }}{{ end }}{{ end }}\
            {{ range .Messages }}{{ range .ToolCalls }}[{{ .Function.Name }} {{ .Function.Arguments }}]{{ end }}{{ end }}";
        let template = GoTemplate::parse(source).unwrap();
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"properties": {"Big": {"type": "string"}}}}}]);
        let mut call = Message::new("assistant", "");
        call.extra.insert("tool_calls".into(), json!([{"function": {"name": "f", "arguments": {"Big": 1}}}]));
        let text = template.chat(&[call], &Extras { tools: Some(tools.clone()), ..Extras::default() }).unwrap();
        assert_eq!(text, format!("{};f Big:string[f {{\"Big\":1}}]", tools[0]));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (source, word) in [
            ("{{ template \"x\" }}", "template"),
            ("a\n{{ frob .X }}", "frob"),
            ("{{ if .X }}", "end"),
            ("{{ .X", "}}"),
            ("{{ end }}", "end"),
            ("{{ $x }}", "$x"),
        ] {
            let error = GoTemplate::parse(source).unwrap_err();
            assert!(error.contains(word) && error.contains("line"), "{source}: {error}");
        }
    }

    #[test]
    fn renderings_are_bounded() {
        let nested = "{{ range .Messages }}".repeat(8) + "x" + &"{{ end }}".repeat(8);
        let nested = nested.replace(".Messages", "$.Messages");
        let many: Vec<(&str, &str)> = (0..100).map(|i| (if i % 2 == 0 { "user" } else { "assistant" }, "y")).collect();
        assert!(chat(&nested, &many).unwrap_err().contains("steps"));
        let deep = "{{ if .X }}".repeat(5000) + &"{{ end }}".repeat(5000);
        assert!(GoTemplate::parse(&deep).unwrap_err().contains("nested"));
        let deep = format!("{{{{ {} }}}}", "(".repeat(5000));
        assert!(GoTemplate::parse(&deep).is_err());
    }
}
