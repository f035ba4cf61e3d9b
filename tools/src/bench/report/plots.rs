//! The three drawings of the report: speeds with their intervals, the roofline, the kernels' parts of a step.

use super::super::kernels::KernelRow;
use super::super::probe::Roof;
use super::super::record::{Figures, Row};
use super::svg::{Anchor, Scale, Svg, short};

/// Width of every drawing.
const WIDTH: f64 = 900.0;
/// Height of a line of text with its mark.
const LINE: f64 = 26.0;
/// Room for labels at the left of lines.
const LABELS: f64 = 330.0;

/// What tells a row from the others: model, test, and settings.
pub fn label(row: &Row) -> String {
    let s = &row.setting;
    format!("{} {}, {}", row.model.file_name(), row.test.name(), threads(s.threads))
}

/// Speeds: a dot at the median, a line over the interval, a small mark for each run.
pub fn speeds(rows: &[(&Row, Figures)]) -> String {
    let height = LINE * rows.len() as f64 + 50.0;
    let mut svg = Svg::new(WIDTH, height);
    let highest = rows.iter().flat_map(|(_, f)| f.ts.iter().copied()).fold(0.0, f64::max);
    let x = Scale::linear(highest, LABELS, WIDTH - 90.0);
    axis(&mut svg, &x, height - 32.0, "tokens/s");
    for (i, (row, f)) in rows.iter().enumerate() {
        let y = LINE * (i as f64 + 0.75);
        let s = &f.ts_summary;
        svg.text("label", (LABELS - 12.0, y + 4.0), Anchor::End, &label(row));
        for ts in &f.ts {
            svg.line("run", (x.at(*ts), y - 7.0), (x.at(*ts), y + 7.0));
        }
        svg.line("interval", (x.at(s.interval.low), y), (x.at(s.interval.high), y));
        let told = format!(
            "{:.2} tokens/s, {:.1} % interval {:.2} to {:.2}, {} runs, {} drifted",
            s.median,
            s.interval.coverage * 100.0,
            s.interval.low,
            s.interval.high,
            row.runs.len(),
            f.drifted
        );
        svg.dot(if f.unreliable { "dot shaky" } else { "dot" }, (x.at(s.median), y), 5.0, &told);
        svg.text("value", (WIDTH - 80.0, y + 4.0), Anchor::Start, &format!("{:.1}", s.median));
    }
    svg.finish("tokens per second of each test, with the interval of the median")
}

fn axis(svg: &mut Svg, x: &Scale, y: f64, unit: &str) {
    for tick in x.ticks() {
        svg.line("grid", (x.at(tick), 4.0), (x.at(tick), y));
        svg.text("tick", (x.at(tick), y + 15.0), Anchor::Middle, &short(tick));
    }
    svg.text("tick", (x.at(x.ends().1), y + 29.0), Anchor::End, unit);
}

/// A mark of the roofline.
pub struct Point {
    /// What it is.
    pub name: String,
    /// Class of its colour.
    pub class: &'static str,
    /// Operations a byte.
    pub intensity: f64,
    /// Operations a second.
    pub rate: f64,
    /// Its part of what the roof allows.
    pub share: f64,
}

/// What the memory and the arithmetic allow, and where tests and kernels are below that (Williams, Waterman and
/// Patterson, "Roofline", 2009).
pub fn roofline(roof: &Roof, points: &[Point]) -> String {
    let (height, left, bottom) = (430.0, 70.0, 380.0);
    let mut svg = Svg::new(WIDTH, height);
    let all = |of: fn(&Point) -> f64| points.iter().map(of).filter(|v| *v > 0.0 && v.is_finite()).collect::<Vec<_>>();
    let ends =
        |values: &[f64]| (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(0.0, f64::max));
    let ridge = roof.int8 / roof.read;
    let (low, high) = ends(&[all(|p| p.intensity), vec![1.0, 2.0 * ridge]].concat());
    let x = Scale::log(low, high, left, WIDTH - 30.0);
    let (low, high) = ends(&[all(|p| p.rate / 1e9), vec![roof.int8 / 1e9, roof.float / 1e9]].concat());
    let y = Scale::log(low, high, bottom, 20.0);
    for tick in x.ticks() {
        svg.line("grid", (x.at(tick), 20.0), (x.at(tick), bottom));
        svg.text("tick", (x.at(tick), bottom + 16.0), Anchor::Middle, &short(tick));
    }
    for tick in y.ticks() {
        svg.line("grid", (left, y.at(tick)), (WIDTH - 30.0, y.at(tick)));
        svg.text("tick", (left - 8.0, y.at(tick) + 4.0), Anchor::End, &short(tick));
    }
    svg.text("tick", (WIDTH - 30.0, bottom + 34.0), Anchor::End, "operations a byte read");
    svg.text("tick", (left, 12.0), Anchor::Middle, "GOP/s");
    for (peak, name) in [(roof.int8, "int8"), (roof.float, "f32")] {
        let (ridge, end) = (peak / roof.read, x.ends().1);
        // The slope begins where the lower end of one of the axes is.
        let start = x.ends().0.max(y.ends().0 * 1e9 / roof.read);
        svg.line("roof", (x.at(start), y.at(start * roof.read / 1e9)), (x.at(ridge), y.at(peak / 1e9)));
        svg.line("roof", (x.at(ridge), y.at(peak / 1e9)), (x.at(end), y.at(peak / 1e9)));
        let told = format!("{name} {} GOP/s", short(peak / 1e9));
        svg.text("label", (x.at(end) - 6.0, y.at(peak / 1e9) - 6.0), Anchor::End, &told);
    }
    svg.text(
        "label",
        // Left of the ridge and above the slope, where no point can be.
        (x.at(ridge) - 12.0, y.at(roof.int8 / 1e9) - 6.0),
        Anchor::End,
        &format!("memory {} GB/s", short(roof.read / 1e9)),
    );
    for p in points {
        let told = format!("{}: {} GOP/s, {:.0} % of the roof", p.name, short(p.rate / 1e9), p.share * 100.0);
        svg.dot(&format!("point {}", p.class), (x.at(p.intensity), y.at(p.rate / 1e9)), 5.0, &told);
    }
    svg.finish("operations a second against operations a byte, below what memory and arithmetic allow")
}

/// `1 thread`, `2 threads`.
pub fn threads(n: usize) -> String {
    if n == 1 { "1 thread".into() } else { format!("{n} threads") }
}

/// The class of a kernel's colour.
pub fn class(kernel: &str) -> &'static str {
    match kernel {
        "matmul" => "k0",
        "attention" => "k1",
        "quantize" => "k2",
        "rms_norm" => "k3",
        "rope" => "k4",
        "gated" => "k5",
        "kv_store" => "k6",
        _ => "k7",
    }
}

/// Every kernel's part of the time of a step, one bar a step.
pub fn shares(rows: &[KernelRow]) -> String {
    let mut phases: Vec<&KernelRow> = vec![];
    for row in rows {
        if !phases.iter().any(|p| p.phase == row.phase) {
            phases.push(row);
        }
    }
    let height = phases.len() as f64 * 54.0 + 10.0;
    let (left, right) = (90.0, WIDTH - 20.0);
    let mut svg = Svg::new(WIDTH, height);
    for (i, first) in phases.iter().enumerate() {
        let y = 8.0 + 54.0 * i as f64;
        svg.text("label", (left - 12.0, y + 23.0), Anchor::End, first.phase.name());
        let mut x = left;
        for row in rows.iter().filter(|r| r.phase == first.phase) {
            let width = (right - left) * row.share;
            let told = format!(
                "{}: {:.1} % of the step, {} calls of {:.1} us",
                row.shape.name(),
                row.share * 100.0,
                row.calls,
                row.ns.median / 1e3
            );
            svg.bar(&format!("part {}", class(row.shape.kernel())), (x, y), (width, 36.0), &told);
            if width > 90.0 {
                svg.text("inside", (x + width / 2.0, y + 22.0), Anchor::Middle, row.shape.kernel());
            }
            x += width;
        }
    }
    svg.finish("each kernel's part of the time of a step")
}
