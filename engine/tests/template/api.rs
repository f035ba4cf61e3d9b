//! What the rest of the program sees of a template.

use engine::template::{ChatTemplate, Error, Message, Render};
use gguf::{Builder, Endian, Gguf};

fn file(keys: &[(&str, &str)]) -> Vec<u8> {
    let mut file = Builder::new(Endian::Little);
    file.key("tokenizer.ggml.tokens", vec!["<s>", "</s>", "a"]).expect("a key");
    file.key("tokenizer.ggml.bos_token_id", 0u32).expect("a key");
    file.key("tokenizer.ggml.eos_token_id", 9u32).expect("a key");
    for (key, value) in keys {
        file.key(key, *value).expect("a key");
    }
    file.start(Vec::new()).expect("a header").finish().expect("a file")
}

fn from_file(keys: &[(&str, &str)]) -> Result<Option<ChatTemplate>, Error> {
    let file = file(keys);
    ChatTemplate::from_meta(Gguf::parse(&file).expect("a GGUF file").meta())
}

fn render(source: &str, messages: &[Message]) -> Result<String, Error> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(messages, Render::default())
}

#[test]
fn a_file_brings_its_template_and_tokens() {
    assert!(from_file(&[]).expect("no template").is_none());
    let template =
        from_file(&[("tokenizer.chat_template", "{{ bos_token }}|{{ eos_token }}|{{ messages[0].content }}")]);
    let template = template.expect("a template").expect("a template");
    // An id outside of the vocabulary has no text; the tokenizer refuses it.
    assert_eq!(template.render(&[Message::new("user", "hi")], Render::default()).as_deref(), Ok("<s>||hi"));
    assert!(template.mentions("bos_token") && !template.mentions("tools"));
}

#[test]
fn a_template_that_cannot_be_read_does_not_keep_a_model_from_loading() {
    let template = from_file(&[("tokenizer.chat_template", "a\n{% if %}")]).expect("loads").expect("a template");
    let error = template.render(&[], Render::default()).expect_err("no template");
    assert!(matches!(error, Error::Syntax { line: 2, .. }), "{error}");
    assert_eq!(ChatTemplate::new("a\n{% if %}", "", "").expect_err("no template"), error);
}

#[test]
fn tools_have_their_own_template_where_the_file_has_one() {
    let keys = [("tokenizer.chat_template", "plain"), ("tokenizer.chat_template.tool_use", "with {{ tools|length }}")];
    let template = from_file(&keys).expect("loads").expect("a template");
    let (none, tools) = (serde_json::json!([]), serde_json::json!([{"type": "function"}]));
    let how = |tools| Render { tools, ..Render::default() };
    assert_eq!(template.render(&[], how(None)).as_deref(), Ok("plain"));
    assert_eq!(template.render(&[], how(Some(&none))).as_deref(), Ok("plain"));
    assert_eq!(template.render(&[], how(Some(&tools))).as_deref(), Ok("with 1"));
}

#[test]
fn messages_are_json_objects() {
    let json = r#"{"role": "tool", "content": "1", "name": "f", "tool_call_id": "x"}"#;
    let message: Message = serde_json::from_str(json).expect("a message");
    let source = "{{ messages[0] }}{{ messages[0].name }}{{ messages[0].missing is defined }}";
    let expected = "{'role': 'tool', 'content': '1', 'name': 'f', 'tool_call_id': 'x'}fFalse";
    assert_eq!(render(source, &[message]).as_deref(), Ok(expected));
}

#[test]
fn extra_variables_replace_the_usual_ones() {
    let extra = serde_json::json!({"enable_thinking": false, "bos_token": "B"});
    let template =
        ChatTemplate::new("{{ enable_thinking }}{{ bos_token }}{{ eos_token }}", "<s>", "</s>").expect("one");
    let how = Render { extra: extra.as_object(), ..Render::default() };
    assert_eq!(template.render(&[], how).as_deref(), Ok("FalseB</s>"));
}

#[test]
fn the_time_is_the_callers() {
    let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') if strftime_now is defined else '?' }}", "", "");
    let template = template.expect("a template");
    assert_eq!(template.render(&[], Render::default()).as_deref(), Ok("?"));
    let how = Render { now: Some(1_721_995_199), ..Render::default() };
    assert_eq!(template.render(&[], how).as_deref(), Ok("26 Jul 2024"));
}

#[test]
fn errors_say_where_and_what() {
    let error = |source: &str| render(source, &[]).expect_err("an error").to_string();
    assert_eq!(
        error("{{ raise_exception('no \"system\" here') }}"),
        "the model's chat template refuses this conversation: no \"system\" here"
    );
    assert_eq!(error("a\n\n{{ x.y }}"), "chat template, line 3: x is not there, so it has no attribute y");
    assert_eq!(error("a\n{{ 1 + 'x' }}"), "chat template, line 2: Add of int and string has no result");
    assert_eq!(error("{% for x in y %}\n{{ x"), "chat template, line 2: tag without its end \"}}\"");
    assert_eq!(error("{{ x | nosuch }}"), "chat template, line 1: unknown filter nosuch");
    assert_eq!(error("{% frob %}"), "chat template, line 1: unknown tag {% frob %}");
    assert!(error("{% include 'a' %}").contains("reads no other"));
    assert!(error(&format!("{{{{ raise_exception('{}') }}}}", "x".repeat(100_000))).len() < 1_000);
}

#[test]
fn values_cannot_be_changed() {
    for source in ["{{ messages.append(1) }}", "{{ {}.update(a=1) }}", "{{ [1].pop() }}", "{% set messages.x = 1 %}"] {
        assert!(matches!(render(source, &[]), Err(Error::Render { .. })), "{source}");
    }
}
