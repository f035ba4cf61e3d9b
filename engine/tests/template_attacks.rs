//! Templates that try to end the process, to fill the memory or to run for ever. A program of its own, so that the
//! memory it takes is theirs.

use std::time::{Duration, Instant};

use engine::template::{ChatTemplate, Error, Message, Render};

/// What a rendering may take. A release build on an idle machine stays below a quarter of it; builds without
/// optimization and busy machines take longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all renderings together may add to the memory of the process, in KiB.
const MEMORY: u64 = 64 << 10;

/// What ends a template.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// A bound.
    Limit,
    /// Anything but a bound: it is refused for another reason.
    Refused,
    /// It is done after all.
    Done,
}
use End::{Done, Limit, Refused};

/// THE list of attacks: source, and how it ends.
fn attacks() -> Vec<(String, End)> {
    let mut rows = Vec::new();
    let mut row = |source: &str, end: End| rows.push((source.to_owned(), end));
    steps(&mut row);
    memory(&mut row);
    stack(&mut row);
    sharing(&mut row);
    escapes(&mut row);
    rows
}

/// A step that is done 99 times.
fn doubling(step: &str) -> String {
    format!("{{% set n = namespace(x='ab', l=[1]) %}}{{% for i in range(99) %}}{step}{{% endfor %}}")
}

/// Work without end.
fn steps(row: &mut impl FnMut(&str, End)) {
    row("{% for i in range(10**9) %}{% endfor %}", Limit);
    row("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", Limit);
    row(
        "{% set l = range(9999) %}{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}",
        Limit,
    );
    row("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", Limit);
    row("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}", Limit);
    row("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", Limit);
    row("{% for i in range(999) %}{{ range(99999)|sort(reverse=true)|first }}{% endfor %}", Limit);
    row("{{ range(99999)|unique|list|length }}", Limit);
    row("{% set a = 'a' * 999999 %}{% set b = a ~ '' %}{% for i in range(99999) %}{{ a == b }}{% endfor %}", Limit);
    row("{% set a = 'a' * 999999 %}{% for i in range(99999) %}{{ 'b' in a }}{% endfor %}", Limit);
}

/// Texts and lists without end.
fn memory(row: &mut impl FnMut(&str, End)) {
    row("{{ '-' * 10**9 }}", Limit);
    row("{{ ([1] * 10**9)|length }}", Limit);
    row("{{ 10**10**10 }}", Refused);
    row(&doubling("{% set n.x = n.x ~ n.x %}"), Limit);
    row(&doubling("{% set n.x = n.x + n.x %}"), Limit);
    row(&doubling("{% set n.l = n.l + n.l %}"), Limit);
    row(&doubling("{% set x %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = x %}"), Limit);
    row(&doubling("{% set n.x = n.x|replace('a', n.x) %}"), Limit);
    row(&doubling("{% set n.x = [n.x, n.x]|join(n.x) %}"), Limit);
    row(&doubling("{% set n.x = '%s%s' % (n.x, n.x) %}"), Limit);
    row(&doubling("{% set n.x = '{0}{0}'.format(n.x) %}"), Limit);
    row("{% set a = 'a' * 30000 %}{{ a.replace('', a)|length }}", Limit);
    row("{% set a = 'a' * 30000 %}{{ a.join(a)|length }}", Limit);
    row("{{ 'x'|indent(10**9) }}", Limit);
    row("{{ 'x'|indent('x' * 99999) }}", Limit);
    row("{{ [1]|tojson(indent=10**9) }}", Limit);
    row("{% set s = 'x' * 99999 %}{{ range(9999)|list|tojson(separators=(s, s)) }}", Limit);
    row("{{ 'x'|center(10**9) }}{{ 'x'.ljust(10**9) }}", Limit);
    row("{{ '%1000000000d' % 1 }}", Limit);
    row("{{ [1]|batch(10**9, 'x')|list }}", Refused);
    row("{{ strftime_now('%B' * 999999) }}", Limit);
    row("{% set a = 'a ' * 499999 %}{{ a.split()|length }}{{ a.split()|length }}", Limit);
    row("{% set a = 'a' * 99999 %}{% for i in range(99999) %}{{ a }}{% endfor %}", Limit);
}

/// Nesting without end.
fn stack(row: &mut impl FnMut(&str, End)) {
    let long = |unit: &str, n: usize| unit.repeat(n);
    row("{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}", Limit);
    row(&long("{% set x = [x] %}", 13_000), Limit);
    row(&long("{% set x = {1: x} %}", 13_000), Limit);
    row(&format!("{{{{ {}1 }}}}", long("(", 99_999)), Refused);
    row(&format!("{{{{ {}1 }}}}", long("[", 99_999)), Refused);
    row(&format!("{{{{ {}1 }}}}", long("{1:", 66_666)), Refused);
    row(&format!("{{{{ {}1 }}}}", long("-", 99_999)), Refused);
    row(&format!("{{{{ {}1 }}}}", long("a[", 99_999)), Refused);
    row(&format!("{{{{ {}1 }}}}", long("0 if 0 else ", 20_000)), Refused);
    row(&long("{% if 1 %}", 20_000), Refused);
    row(&long("{% for a in b %}", 16_000), Refused);
    row(&format!("{{{{ {}1 }}}}", long("not ", 60_000)), Done);
    row(&format!("{{{{ 1{} }}}}", long("+1", 99_999)), Done);
    row(&format!("{{{{ 1{} }}}}", long("|int", 60_000)), Done);
    row(&format!("{{% if 0 %}}{}{{% endif %}}", long("{% elif 0 %}", 15_000)), Done);
    row(&long("x", 300_000), Refused);
}

/// Values that contain themselves, or one value in very many places.
fn sharing(row: &mut impl FnMut(&str, End)) {
    row("{% set n = namespace() %}{% set n.a = n %}{{ n }}", Refused);
    row("{% set n = namespace() %}{% set n.a = [{'x': n}] %}{{ n.a }}", Refused);
    row("{% for x in [1] %}{{ loop.changed(loop) }}{% endfor %}", Refused);
    for last in ["n.l == n.l", "n.l|tojson", "n.l", "n.l|string|length", "n.l in [n.l]", "[n.l, n.l]|sort"] {
        row(&(doubling("{% set n.l = [n.l, n.l] %}") + &format!("{{{{ {last} }}}}")), Limit);
    }
}

/// What is not a template's business.
fn escapes(row: &mut impl FnMut(&str, End)) {
    row("{{ ''.__class__.__mro__[1].__subclasses__() }}", Refused);
    row("{{ messages|map(attribute='__class__')|list }}", Refused);
    row("{{ cycler.__init__.__globals__.os.popen('id').read() }}", Refused);
    row("{{ self.__init__ }}", Refused);
    row("{% include '/etc/passwd' %}", Refused);
    row("{% import 'os' as os %}", Refused);
    row("{% extends 'x' %}", Refused);
    row("{{ lipsum(9) }}", Refused);
}

/// The peak of the memory of this process in KiB, where the system tells it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|l| l.split_whitespace().next()?.parse().ok())
}

#[test]
fn attacks_end_within_their_bounds() {
    let before = peak();
    let mut wrong = Vec::new();
    for (source, expected) in attacks() {
        let start = Instant::now();
        let how = Render { now: Some(0), ..Render::default() };
        let result = ChatTemplate::new(&source, "", "").and_then(|t| t.render(&[Message::new("user", "hi")], how));
        let end = match &result {
            Ok(_) => Done,
            Err(Error::Limit { .. }) => Limit,
            Err(_) => Refused,
        };
        let took = start.elapsed();
        if end != expected || took > PATIENCE {
            wrong.push(format!(
                "{:.90} took {took:?}, expected {expected:?}, found {:.90}",
                source,
                format!("{result:?}")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if let (Some(before), Some(after)) = (before, peak()) {
        assert!(after - before < MEMORY, "{} KiB of memory, expected at most {MEMORY}", after - before);
    }
}
