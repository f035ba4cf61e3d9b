//! Templates of published models, and the language by expressions. The expected texts are those of jinja2, with the
//! options that chat templates are rendered with; `fixtures/templates.py` writes them.

use engine::template::{ChatTemplate, Error, Message, Render};
use serde_json::{Map, Value as Json};

fn fixture() -> Json {
    serde_json::from_slice(include_bytes!("../fixtures/templates.json")).expect("JSON")
}

fn messages(json: &Json) -> Vec<Message> {
    serde_json::from_value(json.clone()).expect("messages")
}

/// Compares what was rendered with what is expected, where `null` is any error but a bound.
fn differs(found: &Result<String, Error>, expected: &Json) -> bool {
    match (found, expected) {
        (Ok(text), Json::String(expected)) => text != expected,
        (Err(Error::Limit { .. } | Error::Syntax { .. }), _) => true,
        (Err(_), Json::Null) => false,
        _ => true,
    }
}

#[test]
fn published_templates() {
    let data = fixture();
    let mut wrong = Vec::new();
    let rows = data["rows"].as_array().expect("rows");
    for row in rows {
        let template = &data["templates"][row["template"].as_u64().expect("a place") as usize];
        let text = |key: &str| template[key].as_str().expect("a string");
        let conversation = row["conversation"].as_str().expect("a name");
        let how = Render {
            add_generation_prompt: row["add_generation_prompt"] == true,
            tools: (row["tools"] == true).then_some(&data["tools"]),
            extra: row["extra"].as_object(),
            now: row["now"].as_i64(),
        };
        let template = ChatTemplate::new(text("source"), text("bos"), text("eos")).expect("a template");
        let found = template.render(&messages(&data["conversations"][conversation]), how);
        if differs(&found, &row["expected"]) {
            let expected = &row["expected"];
            wrong.push(format!("{} {conversation}\n   found {found:?}\nexpected {expected:?}", text("name")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() >= 200);
}

#[test]
fn the_language() {
    let data = fixture();
    let variables = data["variables"].as_object().expect("variables");
    let extra: Map<String, Json> =
        variables.iter().filter(|v| v.0 != "messages").map(|(k, v)| (k.clone(), v.clone())).collect();
    let how = Render { extra: Some(&extra), now: data["now"].as_i64(), ..Render::default() };
    let mut wrong = Vec::new();
    let rows = data["expressions"].as_array().expect("rows");
    for row in rows {
        let source = row["source"].as_str().expect("a source");
        let found = ChatTemplate::new(source, "", "").and_then(|t| t.render(&messages(&variables["messages"]), how));
        if differs(&found, &row["expected"]) {
            wrong.push(format!("{source}\n   found {found:?}\nexpected {:?}", row["expected"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() >= 200);
}
