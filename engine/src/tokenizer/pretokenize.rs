//! Split rules of byte-level BPE: the table of names, and cutting text into words within which pairs merge.
//!
//! A rule is the regular expressions that a model family publishes with its tokenizer, applied one after the other:
//! each cuts the pieces that the one before left, a match is a piece and so is the text between two matches. The
//! expressions run on a linear-time engine that has no lookahead. The only one in use, `\s+(?!\S)` (white space that
//! no other character follows: a run without its last character, if a word comes after it), is applied here to the
//! match of `\s+` instead.

use std::ops::Range;

use regex::Regex;

/// One row: the names under which `tokenizer.ggml.pre` knows a set of rules.
pub(super) struct Rules {
    /// The names, the most usual one first.
    pub(super) names: &'static [&'static str],
    /// The expressions as published, in order.
    stages: &'static [&'static str],
    /// A word that is a token as a whole is not merged from its bytes.
    pub(super) ignore_merges: bool,
    /// Whether texts start with BOS where the file does not say.
    pub(super) add_bos: bool,
}

impl Rules {
    const fn new(names: &'static [&'static str], stages: &'static [&'static str]) -> Rules {
        Rules { names, stages, ignore_merges: false, add_bos: false }
    }

    const fn whole_words_and_bos(mut self) -> Rules {
        self.ignore_merges = true;
        self.add_bos = true;
        self
    }

    /// The rules of a name.
    pub(super) fn find(name: &str) -> Option<&'static Rules> {
        TABLE.iter().find(|r| r.names.contains(&name))
    }

    /// The rules that cut by these expressions, as tokenizers publish them.
    pub(super) fn of_stages(stages: &[&str], whole_words: bool) -> Option<&'static Rules> {
        let spelled: Vec<String> = stages.iter().map(|stage| spelled_out(stage)).collect();
        TABLE.iter().find(|row| row.ignore_merges == whole_words && row.stages == spelled)
    }

    /// All names, for messages.
    pub(super) fn known() -> String {
        TABLE.iter().flat_map(|r| r.names).copied().collect::<Vec<_>>().join(", ")
    }
}

/// An expression with its group of clitics in any case spelled out, as the table has it.
fn spelled_out(pattern: &str) -> String {
    const ANY_CASE: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    const SPELLED: &str = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
    let group = |after: &str| format!("(?:{SPELLED}){after}");
    pattern.replace(&format!("{ANY_CASE}?"), &group("?")).replace(ANY_CASE, SPELLED)
}

/// GPT-2: English clitics, words, numbers, the rest, white space.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// cl100k and its heirs: numbers of three digits, newlines end a piece.
const CL100K: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As cl100k, with single digits.
const QWEN2: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As qwen2, with combining marks as parts of words.
const QWEN35: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// o200k: words also end where a capital follows, clitics stay with their word.
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Tekken (Mistral): as o200k without clitics, single digits.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek LLM's letters: the cased ones of an old Unicode version, as its tokenizer lists them.
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+";
/// DeepSeek's ranges of Chinese, Japanese and Korean, some of them far wider.
const DEEPSEEK_CJK: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";

/// THE list of split rules.
const TABLE: &[Rules] = &[
    Rules::new(&["default"], &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"]),
    Rules::new(
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "falcon_e", "pixtral", "midm-2.0", "lfm2"],
        &[CL100K],
    )
    .whole_words_and_bos(),
    Rules::new(&["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], &[CL100K]),
    Rules::new(&["qwen2", "deepseek-r1-qwen", "stablelm2", "kormo", "megrez", "hunyuan", "grok-2"], &[QWEN2]),
    Rules::new(&["qwen35"], &[QWEN35]),
    Rules::new(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "modern-bert",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "trillion",
            "granite-docling",
        ],
        &[GPT2],
    ),
    Rules::new(&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], &[r"\p{N}", GPT2]),
    Rules::new(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
    ),
    Rules::new(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"]),
    Rules::new(
        &["deepseek-v3", "hunyuan-dense"],
        &[
            r"\p{N}{1,3}",
            r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
    ),
    Rules::new(&["falcon"], &[r"[\p{P}$+<=>^~|`]+", GPT2, r"[0-9][0-9][0-9]"]),
    Rules::new(&["tekken"], &[TEKKEN]).whole_words_and_bos(),
    Rules::new(&["gpt-4o", "llama4", "minimax-m2"], &[O200K]),
];

/// One expression, ready to run.
#[derive(Debug)]
struct Stage {
    regex: Regex,
    /// The last alternative is `\s+`, whose matches leave their last character to a word that follows.
    spaces: bool,
    /// An earlier alternative takes what ends with a newline, so that such a match is none of `\s+`.
    newlines: bool,
}

impl Stage {
    fn new(pattern: &str) -> Stage {
        const LOOKAHEAD: &str = r"|\s+(?!\S)";
        let spaces = pattern.contains(LOOKAHEAD);
        let regex = Regex::new(&pattern.replace(LOOKAHEAD, "")).expect("the expressions of the table are valid");
        Stage { regex, spaces, newlines: pattern.contains(r"[\r\n]") }
    }

    /// End of the piece that a match from `start` to `end` gives.
    fn piece_end(&self, text: &str, start: usize, end: usize) -> usize {
        let matched = &text[start..end];
        let (Some(last), Some(after)) = (matched.chars().next_back(), text[end..].chars().next()) else {
            return end;
        };
        let of_spaces = self.spaces && last.is_whitespace() && !(self.newlines && matches!(last, '\r' | '\n'));
        let cut = end - last.len_utf8();
        if of_spaces && !after.is_whitespace() && cut > start { cut } else { end }
    }

    /// Appends the pieces of `text[range]` to `out`. Linear in its length.
    fn split(&self, text: &str, range: Range<usize>, out: &mut Vec<Range<usize>>) {
        let piece = &text[range.clone()];
        let mut at = 0;
        while let Some(found) = self.regex.find_at(piece, at) {
            let end = self.piece_end(piece, found.start(), found.end());
            if found.start() > at {
                out.push(range.start + at..range.start + found.start());
            }
            if end == found.start() {
                break; // no expression matches nothing
            }
            out.push(range.start + found.start()..range.start + end);
            at = end;
        }
        if at < piece.len() {
            out.push(range.start + at..range.end);
        }
    }
}

/// The rules of one model, ready to run.
#[derive(Debug)]
pub(super) struct Splitter {
    stages: Vec<Stage>,
}

impl Splitter {
    pub(super) fn new(rules: &Rules) -> Splitter {
        Splitter { stages: rules.stages.iter().map(|p| Stage::new(p)).collect() }
    }

    /// Cuts a text into words: ranges that cover it, in order.
    pub(super) fn split(&self, text: &str) -> Vec<Range<usize>> {
        let mut words = Vec::new();
        if !text.is_empty() {
            words.push(0..text.len());
        }
        let mut pieces = Vec::new();
        for stage in &self.stages {
            pieces.clear();
            for word in &words {
                stage.split(text, word.clone(), &mut pieces);
            }
            std::mem::swap(&mut words, &mut pieces);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let rules = Rules::find(name).expect("a row of the table");
        Splitter::new(rules).split(text).into_iter().map(|r| &text[r]).collect()
    }

    #[test]
    fn every_row_compiles_and_covers_the_text() {
        let text = "I'm 12345 \u{a0} x\n\n  y\t\r\n 日本語, ½ Ünïcödé's WORLDs ...  ";
        for rules in TABLE {
            for &name in rules.names {
                assert_eq!(Rules::find(name).unwrap().names, rules.names, "{name} stands in two rows");
                assert_eq!(split(name, text).concat(), text, "{name}");
            }
        }
    }

    #[test]
    fn a_run_of_spaces_leaves_the_last_to_a_word() {
        assert_eq!(split("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(split("gpt-2", "a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(split("gpt-2", "a  "), ["a", "  "]);
        assert_eq!(split("llama-bpe", "a   b\n  \n  c  "), ["a", "  ", " b", "\n  \n", " ", " c", "  "]);
        assert_eq!(split("llama-bpe", "\u{3000}\u{3000}x"), ["\u{3000}", "\u{3000}x"]);
    }

    #[test]
    fn rules_are_found_by_their_expressions() {
        let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let o200k = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let name = |stages: &[&str], whole| Rules::of_stages(stages, whole).map(|r| r.names[0]);
        assert_eq!(name(&[llama], true), Some("llama-bpe"));
        assert_eq!(name(&[llama], false), Some("dbrx"));
        assert_eq!(name(&[&llama.replace("{1,3}", "")], false), Some("qwen2"));
        assert_eq!(name(&[o200k], false), Some("gpt-4o"));
        assert_eq!(name(&[GPT2], false), Some("gpt-2"));
        assert_eq!(name(&[r"\p{N}", GPT2], false), Some("smollm"));
        assert_eq!(name(&["x"], false), None);
    }

    #[test]
    fn digits_by_family() {
        assert_eq!(split("llama-bpe", "x12345"), ["x", "123", "45"]);
        assert_eq!(split("qwen2", "x123"), ["x", "1", "2", "3"]);
        assert_eq!(split("gpt-2", "x 12345"), ["x", " 12345"]);
        assert_eq!(split("smollm", "x 12"), ["x", " ", "1", "2"]);
        assert_eq!(split("default", "12345"), ["123", "45"]);
    }

    #[test]
    fn capitals_end_words_in_o200k() {
        assert_eq!(split("gpt-4o", "camelCase it's"), ["camel", "Case", " it's"]);
        assert_eq!(split("tekken", "camelCase it's"), ["camel", "Case", " it", "'s"]);
    }
}
