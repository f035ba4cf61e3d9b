//! Stop strings in a stream of text.

/// Watches a stream of text for strings at which it is to end.
///
/// Text that may be the beginning of a stop string is held back until that is decided. The string whose last character
/// comes first counts, of two that end together the longer one. Time is linear in the text, for each stop string.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    matchers: Vec<Matcher>,
    /// Text not yet given out: the longest end of the stream that begins a stop string.
    held: String,
    stopped: Option<usize>,
}

/// One stop string, matched byte by byte with the failure function of Knuth, Morris and Pratt.
#[derive(Clone, Debug)]
struct Matcher {
    /// Place in the list that was given.
    index: usize,
    text: Vec<u8>,
    /// For each number of matched bytes: how many still match when the next one does not.
    fallback: Vec<usize>,
    /// Bytes matched by now.
    matched: usize,
}

impl Matcher {
    fn new(index: usize, text: &str) -> Matcher {
        let text = text.as_bytes().to_vec();
        let mut fallback = vec![0; text.len()];
        let mut matched = 0;
        for i in 1..text.len() {
            while matched > 0 && text[i] != text[matched] {
                matched = fallback[matched - 1];
            }
            matched += usize::from(text[i] == text[matched]);
            fallback[i] = matched;
        }
        Matcher { index, text, fallback, matched: 0 }
    }

    /// Takes a byte; whether the string is complete.
    fn step(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.text[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1];
        }
        self.matched += usize::from(self.text[self.matched] == byte);
        self.matched == self.text.len()
    }
}

impl StopStrings {
    /// Watches for these strings; empty ones are left out.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> StopStrings {
        let stops = stops.iter().map(AsRef::as_ref).enumerate();
        let matchers = stops.filter(|(_, s)| !s.is_empty()).map(|(i, s)| Matcher::new(i, s)).collect();
        StopStrings { matchers, ..StopStrings::default() }
    }

    /// Takes more text. Returns what can be given out by now, and whether a stop string was found: then it is the text
    /// before that string, and whatever comes later gives nothing.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.stopped.is_some() {
            return (String::new(), true);
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            let mut found: Option<(usize, usize)> = None;
            for matcher in &mut self.matchers {
                if matcher.step(byte) && found.is_none_or(|(len, _)| matcher.text.len() > len) {
                    found = Some((matcher.text.len(), matcher.index));
                }
            }
            if let Some((len, index)) = found {
                self.stopped = Some(index);
                // What is held begins at or before the start of every string that may be complete.
                self.held.truncate(before + at + 1 - len);
                return (std::mem::take(&mut self.held), true);
            }
        }
        let keep = self.matchers.iter().map(|m| m.matched).max().unwrap_or(0);
        let ready = self.held.len() - keep;
        let rest = self.held.split_off(ready);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Which of the strings was found, by its place in the list that was given.
    pub fn found(&self) -> Option<usize> {
        self.stopped
    }

    /// The end of the stream: the text that was held back, as no stop string can become of it any more.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}
