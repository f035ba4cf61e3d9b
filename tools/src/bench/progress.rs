//! What a person at a terminal sees while it measures; nothing elsewhere.

use crate::ui::Ui;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar of runs. Dropping it clears the line.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for so many runs.
    pub fn new(ui: Ui, planned: usize) -> Progress {
        let bar = if ui == Ui::Terminal { ProgressBar::new(planned as u64) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs  {eta} left  {msg}");
        Progress { bar: bar.with_style(style.expect("the template is well-formed").progress_chars("##-")) }
    }

    /// Says what is going on.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_string());
        self.bar.tick();
    }

    /// So many runs are done of so many.
    pub fn at(&self, done: usize, planned: usize, what: &str) {
        self.bar.set_length(planned as u64);
        self.bar.set_position(done as u64);
        self.say(what);
    }

    /// One more run begins.
    pub fn next(&self, what: &str) {
        self.say(what);
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
