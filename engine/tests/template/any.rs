//! Any source, and conversations of any length.

use engine::template::{ChatTemplate, Message, Render};
use proptest::prelude::*;

#[test]
fn long_conversations_have_larger_bounds() {
    // Each message looks at all others, as some templates do.
    let source = "{% for m in messages %}{% for n in messages[loop.index0:] %}{% if n.role == 'x' %}{% endif %}{% endfor %}{{ m.content }}{% endfor %}";
    let template = ChatTemplate::new(source, "", "").expect("a template");
    let messages = vec![Message::new("user", "some words that a person could have said"); 1_000];
    let text = template.render(&messages, Render::default()).expect("within bounds");
    assert_eq!(text.len(), 40 * 1_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Any text is a template or is refused, and a template renders or stops.
    #[test]
    fn any_source(parts in prop::collection::vec(
        prop_oneof![
            prop::sample::select(vec![
                "{{", "}}", "{%", "%}", "{#", "#}", "-", "(", ")", "[", "]", "{", "}", "|", ".", ",", ":", "=", "~", "*",
                "if ", "for ", "in ", "set ", "endif", "endfor", "else", "macro ", "endmacro", "is ", "not ", "and ",
                "x", "messages", "loop", "ns", "namespace", "range", "tojson", "'a'", "\"", "1", "0.5", "raw", "endraw",
                "{{ x }}", "{% if x %}", "{% endif %}", "{% for x in [1] %}", "{% endfor %}", " ", "\n",
            ]).prop_map(str::to_owned),
            "\\PC{0,3}",
        ],
        0..24,
    )) {
        if let Ok(template) = ChatTemplate::new(&parts.concat(), "<s>", "</s>") {
            let _ = template.render(&[Message::new("user", "hi")], Render { now: Some(0), ..Render::default() });
        }
    }
}
