//! Pieces of drawings: axes with round numbers, marks, text. Colours are classes that the page's style names.

use crate::ui::page::escape;
use std::fmt::Write;

/// A drawing under construction, in pixels from its upper left corner.
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// How text meets its point.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// Begins there.
    Start,
    /// Is centred there.
    Middle,
    /// Ends there.
    End,
}

impl Svg {
    /// An empty drawing.
    pub fn new(width: f64, height: f64) -> Svg {
        Svg { width, height, body: String::new() }
    }

    /// A line from one point to another.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(self.body, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    /// A rectangle with what a pointer on it is told.
    pub fn bar(&mut self, class: &str, at: (f64, f64), size: (f64, f64), told: &str) {
        let ((x, y), (w, h)) = (at, size);
        let told = escape(told);
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{w:.2}" height="{h:.1}"><title>{told}</title></rect>"#
        );
    }

    /// A dot with what a pointer on it is told.
    pub fn dot(&mut self, class: &str, at: (f64, f64), radius: f64, told: &str) {
        let (x, y) = at;
        let told = escape(told);
        let _ = writeln!(
            self.body,
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius}"><title>{told}</title></circle>"#
        );
    }

    /// Text.
    pub fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let ((x, y), text) = (at, escape(text));
        let _ =
            writeln!(self.body, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    /// The finished drawing, described for those who cannot see it.
    pub fn finish(self, description: &str) -> String {
        let Svg { width, height, body } = self;
        let label = escape(description);
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" role=\"img\" aria-label=\"{label}\">\n{body}</svg>\n"
        )
    }
}

/// An axis: values to pixels.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// From 0 to at least `high`, between the pixels `from` and `to`.
    pub fn linear(high: f64, from: f64, to: f64) -> Scale {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = round_step(high / 4.0);
        Scale { low: 0.0, high: (high / step).ceil() * step, from, to, log: false }
    }

    /// Powers of ten around `low` and `high`, which are positive.
    pub fn log(low: f64, high: f64, from: f64, to: f64) -> Scale {
        let (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
        Scale { low, high: high.max(10.0 * low), from, to, log: true }
    }

    /// Where a value is; values beyond the ends are at the ends.
    pub fn at(&self, value: f64) -> f64 {
        let place = |v: f64| if self.log { v.max(self.low).log10() } else { v };
        let part = (place(value) - place(self.low)) / (place(self.high) - place(self.low));
        self.from + (self.to - self.from) * part.clamp(0.0, 1.0)
    }

    /// The ends.
    pub fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Round values to mark.
    pub fn ticks(&self) -> Vec<f64> {
        if self.log {
            let count = (self.high / self.low).log10().round() as i32;
            return (0..=count).map(|i| self.low * 10f64.powi(i)).collect();
        }
        let step = round_step(self.high / 4.0);
        (0..=(self.high / step).round() as i32).map(|i| step * f64::from(i)).collect()
    }
}

/// The next 1, 2, 2.5 or 5 times a power of ten.
fn round_step(wanted: f64) -> f64 {
    let power = 10f64.powf(wanted.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    power * steps.into_iter().find(|s| s * power >= wanted * (1.0 - 1e-9)).unwrap_or(10.0)
}

/// A number with about three digits: `0.25`, `12`, `4.1k`.
pub fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        v if v >= 100.0 || v == v.round() => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        let s = Scale::linear(87.0, 100.0, 300.0);
        assert_eq!(s.ends(), (0.0, 100.0));
        assert_eq!(s.ticks(), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!((s.at(0.0), s.at(50.0), s.at(1000.0)), (100.0, 200.0, 300.0));
        let s = Scale::log(0.3, 450.0, 0.0, 40.0);
        assert_eq!(s.ticks().len(), 5);
        // Powers of ten by powf are rounded.
        assert!((s.at(1.0) - 10.0).abs() < 1e-9 && (s.at(1e-9)).abs() < 1e-9 && (s.ends().1 - 1000.0).abs() < 1e-9);
        assert_eq!(Scale::linear(0.0, 0.0, 1.0).ends(), (0.0, 1.0));
    }

    #[test]
    fn numbers_and_text() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.25"),
            (12.34, "12.3"),
            (128.0, "128"),
            (4100.0, "4100"),
            (12_500.0, "12.5k"),
            (2e6, "2M"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn drawings_close_what_they_open() {
        let mut svg = Svg::new(10.0, 20.0);
        svg.line("a", (0.0, 0.0), (1.0, 1.0));
        svg.bar("b", (0.0, 0.0), (1.0, 1.0), "x<y");
        svg.dot("c", (0.0, 0.0), 2.0, "z");
        svg.text("d", (0.0, 0.0), Anchor::Middle, "t");
        let text = svg.finish("one \"drawing\"");
        assert!(text.starts_with("<svg viewBox=\"0 0 10 20\"") && text.ends_with("</svg>\n"));
        assert!(text.contains("x&lt;y") && text.contains("one &quot;drawing&quot;"));
    }
}
