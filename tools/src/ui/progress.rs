//! Messages and progress on standard error: a bar on a terminal, now and then a line elsewhere.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::format::{bytes, wait};

/// Time between two lines of progress where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Time between two pieces of news of a watched thing.
const WATCHED_EVERY: Duration = Duration::from_millis(100);

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ui {
    /// A person at a terminal.
    Terminal,
    /// A file or a pipe.
    Lines,
    /// Nobody.
    Silent,
    /// Whoever [`watched`] this thread's work.
    Watched,
}

/// Something that is going on: its words, and the bytes done and to do, where it has such.
pub type News<'a> = (&'a str, Option<(u64, Option<u64>)>);

type Watcher = Box<dyn FnMut(News)>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Runs work of this thread whose progress, shown with [`Ui::Watched`], goes to `watcher`.
pub fn watched<T>(watcher: impl FnMut(News) + 'static, work: impl FnOnce() -> T) -> T {
    WATCHER.set(Some(Box::new(watcher)));
    let result = work();
    WATCHER.set(None);
    result
}

fn tell(news: News) {
    WATCHER.with_borrow_mut(|watcher| {
        if let Some(watcher) = watcher {
            watcher(news);
        }
    });
}

impl Ui {
    /// Standard error as it is.
    pub fn stderr() -> Ui {
        if stderr().is_terminal() { Ui::Terminal } else { Ui::Lines }
    }

    /// Prints a line.
    pub fn say(self, message: &str) {
        match self {
            Ui::Silent => {}
            Ui::Watched => tell((message, None)),
            Ui::Terminal | Ui::Lines => eprintln!("{message}"),
        }
    }

    /// Starts showing the progress of something that has `total` bytes, `done` of them already.
    pub fn bar(self, label: &str, total: Option<u64>, done: u64) -> Bar {
        let bar = match self {
            Ui::Terminal => drawn(label, total, done),
            Ui::Lines | Ui::Silent | Ui::Watched => ProgressBar::hidden(),
        };
        let now = Instant::now();
        Bar {
            ui: self,
            bar,
            label: label.into(),
            total,
            first: done,
            done: Cell::new(done),
            start: now,
            said: Cell::new(now),
        }
    }

    /// Starts showing the progress of `total` steps.
    pub fn steps(self, label: &str, total: usize) -> Steps {
        let bar = if self == Ui::Terminal { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}  {eta} left  {msg}");
        let style = style.expect("the template is well-formed").progress_chars("##-");
        let bar = bar.with_style(style).with_prefix(label.to_string());
        bar.set_position(0);
        Steps { ui: self, bar, label: label.into(), total, said: Cell::new(Instant::now()) }
    }
}

/// Progress in steps of about equal length. Dropping it ends the display.
pub struct Steps {
    ui: Ui,
    bar: ProgressBar,
    label: String,
    total: usize,
    said: Cell<Instant>,
}

impl Steps {
    /// So many are done; the note stands beside it.
    pub fn at(&self, done: usize, note: &str) {
        self.bar.set_message(note.to_string());
        self.bar.set_position(done as u64);
        if self.ui == Ui::Lines && self.said.get().elapsed() >= LINE_EVERY {
            self.said.set(Instant::now());
            eprintln!("{}: {done} of {}, {note}", self.label, self.total);
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn drawn(label: &str, total: Option<u64>, done: u64) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left"),
        None => (ProgressBar::no_length(), "{msg} {spinner} {bytes}  {bytes_per_sec}"),
    };
    let style = ProgressStyle::with_template(template).expect("the template is well-formed").progress_chars("##-");
    let bar = bar.with_style(style).with_message(label.to_string()).with_position(done);
    bar.reset_eta();
    bar
}

/// Progress of one thing. Dropping it ends the display.
pub struct Bar {
    ui: Ui,
    bar: ProgressBar,
    label: String,
    total: Option<u64>,
    first: u64,
    done: Cell<u64>,
    start: Instant,
    said: Cell<Instant>,
}

impl Bar {
    /// `n` more bytes are done.
    pub fn inc(&self, n: u64) {
        self.done.set(self.done.get() + n);
        self.bar.inc(n);
        if self.ui == Ui::Watched && self.said.get().elapsed() >= WATCHED_EVERY {
            self.said.set(Instant::now());
            tell((&self.label, Some((self.done.get(), self.total))));
        }
        if self.ui == Ui::Lines && self.said.get().elapsed() >= LINE_EVERY {
            self.said.set(Instant::now());
            eprintln!("{}", self.line());
        }
    }

    /// The state as a line: done, speed, time left.
    fn line(&self) -> String {
        let done = self.done.get();
        let seconds = self.start.elapsed().as_secs_f64().max(1e-3);
        let speed = (done - self.first) as f64 / seconds;
        let rate = format!("{}/s", bytes(speed as u64));
        match self.total {
            Some(total) if speed > 0.0 => {
                let left =
                    Duration::try_from_secs_f64(total.saturating_sub(done) as f64 / speed).unwrap_or(Duration::MAX);
                let percent = done as f64 / total.max(1) as f64 * 100.0;
                format!(
                    "{}: {} of {} ({percent:.0} %), {rate}, {} left",
                    self.label,
                    bytes(done),
                    bytes(total),
                    wait(left)
                )
            }
            _ => format!("{}: {}, {rate}", self.label, bytes(done)),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // What took long enough to be noticed leaves a line behind.
        let noticed = self.start.elapsed() >= Duration::from_millis(200) && self.done.get() > self.first;
        match self.ui {
            Ui::Terminal if noticed => self.bar.abandon(),
            Ui::Terminal => self.bar.finish_and_clear(),
            Ui::Lines if noticed => eprintln!(
                "{}: {} in {:.1} s",
                self.label,
                bytes(self.done.get() - self.first),
                self.start.elapsed().as_secs_f64()
            ),
            Ui::Watched => tell((&self.label, Some((self.done.get(), self.total)))),
            Ui::Lines | Ui::Silent => {}
        }
    }
}
