//! `bench --html`: one page with everything in it, drawings as SVG and the data as JSON, that needs no network.

mod plots;
mod svg;

use super::kernels::KernelRow;
use super::output;
use super::record::{COMMIT, Figures, Row};
use super::values::Setting;
use crate::ui::page::{self, escape, table};
use plots::{Point, class, label};

/// Kernels of one model with one setting.
pub struct Kernels {
    /// The model's words.
    pub model: String,
    /// What it would be loaded with.
    pub setting: Setting,
    /// The figures.
    pub rows: Vec<KernelRow>,
}

/// The page.
pub fn page(rows: &[Row], kernels: &[Kernels]) -> String {
    let results: Vec<(&Row, Figures)> = rows.iter().filter_map(|r| Some((r, r.figures()?))).collect();
    let mut body = head(rows);
    for (title, wanted) in [("Generation", true), ("Prompt", false)] {
        let part: Vec<(&Row, Figures)> =
            rows.iter().filter(|r| (r.test.generated > 0) == wanted).filter_map(|r| Some((r, r.figures()?))).collect();
        if !part.is_empty() {
            body += &format!(
                "<h2>{title}</h2>\n<p>Dot: median. Line: its interval. Marks: single runs.</p>\n{}",
                plots::speeds(&part)
            );
        }
    }
    body += &results_table(&results);
    if let Some(row) = rows.first() {
        let points: Vec<Point> =
            results.iter().map(|(r, f)| test_point(r, f)).chain(kernels.iter().flat_map(kernel_points)).collect();
        body += "<h2>Roofline</h2>\n<p>What the machine's memory and arithmetic allow, as measured before and after; tests, and kernels by themselves.</p>\n";
        body += &plots::roofline(&row.sitting.roof, &points);
        body += &legend();
    }
    for k in kernels {
        let (model, setting) = (escape(&k.model), &k.setting);
        let title = format!(
            "{model}, {}, {}, {}",
            plots::threads(setting.threads),
            setting.precision.name(),
            setting.isa.name()
        );
        body += &format!("<h2>Kernels: {title}</h2>\n{}{}", plots::shares(&k.rows), kernel_table(k));
    }
    let data = output::results(output::Format::Json, rows);
    // Nothing in the data can end the element early: a `<` is written as its number.
    let data = data.replace('<', "\\u003c");
    body += &format!("<script type=\"application/json\" id=\"data\">\n{data}</script>\n");
    page::page("Handmill benchmark", &body)
}

fn head(rows: &[Row]) -> String {
    let Some(row) = rows.first() else { return "<h1>Handmill benchmark</h1>\n".into() };
    let (s, roof) = (row.sitting, row.sitting.roof);
    format!(
        "<h1>Handmill benchmark</h1>\n<p>{}<br>{}<br>Roof: {:.1} GB/s read, {:.0} GOP/s int8, {:.0} GFLOP/s f32, {} kernels<br>{}, build {}</p>\n",
        escape(&s.machine.cpu),
        escape(&s.machine.features.replace(',', ", ")),
        roof.read / 1e9,
        roof.int8 / 1e9,
        roof.float / 1e9,
        row.setting.isa.name(),
        escape(&s.time),
        escape(COMMIT)
    )
}

fn results_table(results: &[(&Row, Figures)]) -> String {
    let milliseconds = |ns: Option<f64>| ns.map_or(String::new(), |ns| format!("{:.2}", ns / 1e6));
    let megabytes = |bytes: Option<u64>| bytes.map_or(String::new(), |b| format!("{:.0}", b as f64 / 1e6));
    let line = |(r, f): &(&Row, Figures)| {
        let (s, i) = (&f.ts_summary, f.ts_summary.interval);
        vec![
            label(r),
            format!("{:.2} ± {:.2}", s.mean, s.sd),
            format!("{:.2} [{:.2}, {:.2}]", s.median, i.low, i.high),
            format!("{:.0} %", f.roof_share * 100.0),
            milliseconds(f.ttft),
            milliseconds(f.gaps.map(|g| g[0])),
            milliseconds(f.gaps.map(|g| g[2])),
            milliseconds(Some(r.cost.load as f64)),
            megabytes(r.cost.peak),
            format!("{} / {}", f.drifted, r.runs.len()),
        ]
    };
    let headings = [
        "test",
        "t/s",
        "median [interval]",
        "roof",
        "first token ms",
        "gap p50 ms",
        "gap p99 ms",
        "load ms",
        "peak MB",
        "drifted",
    ];
    table(&headings, results.iter().map(line))
}

fn test_point(row: &Row, f: &Figures) -> Point {
    let (bytes, ops) = row.work.iter().fold((0, 0), |(b, o), w| (b + w.bytes, o + w.ops()));
    Point {
        name: label(row),
        class: "test",
        intensity: ops as f64 / bytes.max(1) as f64,
        rate: ops as f64 * 1e9 / f.ns_summary.median,
        share: f.roof_share,
    }
}

/// The kernels that read or compute enough to be near a roof.
fn kernel_points(kernels: &Kernels) -> impl Iterator<Item = Point> {
    let heavy = kernels.rows.iter().filter(|r| matches!(r.shape.kernel(), "matmul" | "attention"));
    heavy.map(|r| Point {
        name: format!("{} {}", r.phase.name(), r.shape.name()),
        class: class(r.shape.kernel()),
        intensity: r.work.ops() as f64 / r.work.bytes.max(1) as f64,
        rate: r.op_rate() * 1e9,
        share: r.roof_share(),
    })
}

fn legend() -> String {
    let entries = [("test", "whole test"), ("k0", "matmul"), ("k1", "attention")];
    let entry = |(class, name): &(&str, &str)| format!("<span class=\"key {class}\"></span>{name} ");
    format!("<p class=\"legend\">{}</p>\n", entries.iter().map(entry).collect::<String>())
}

fn kernel_table(kernels: &Kernels) -> String {
    let line = |r: &KernelRow| {
        vec![
            r.phase.name().to_string(),
            r.shape.kernel().to_string(),
            r.shape.format(kernels.setting.kv),
            r.shape.sizes(),
            r.calls.to_string(),
            format!("{:.2}", r.ns.median / 1e3),
            format!("{:.1}", r.read_rate()),
            format!("{:.1}", r.op_rate()),
            format!("{:.0} %", r.roof_share() * 100.0),
            format!("{:.1} %", r.share * 100.0),
            format!("{:.1e}", r.error),
        ]
    };
    let headings = ["step", "kernel", "format", "shape", "calls", "us", "GB/s", "GFLOP/s", "roof", "of step", "error"];
    table(&headings, kernels.rows.iter().map(line))
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{Phase, Shape};
    use super::super::probe::Roof;
    use super::super::record::tests::{model, row, sitting};
    use super::super::stats::Summary;
    use super::super::work::Work;
    use super::*;

    fn whole_page() -> String {
        let (sitting, model) = (sitting(), model());
        let mut prompt = row(&sitting, &model);
        prompt.test = super::super::values::Test { prompt: 8, generated: 0, depth: 0 };
        let kernel = |share| KernelRow {
            phase: Phase { tokens: 1, start: 512 },
            shape: Shape::Quantize { k: 64, columns: 1 },
            calls: 2,
            ns: Summary::of(&[2000.0]).unwrap(),
            work: Work { bytes: 4000, int8: 1000, float: 1000 },
            error: 0.004,
            share,
            roof: Roof { read: 4e9, int8: 1e12, float: 1e12 },
        };
        let kernels =
            Kernels { model: "a <model>".into(), setting: prompt.setting, rows: vec![kernel(0.25), kernel(0.75)] };
        page(&[row(&sitting, &model), prompt], &[kernels])
    }

    #[test]
    fn the_page_has_everything_in_it() {
        let page = whole_page();
        for part in [
            "<h2>Generation</h2>",
            "<h2>Prompt</h2>",
            "<h2>Roofline</h2>",
            "<h2>Kernels: a &lt;model&gt;",
            "id=\"data\"",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<svg").count(), 4);
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "the page asks for {outside}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf\""));
    }

    #[test]
    fn every_element_is_closed() {
        let page = whole_page();
        for element in [
            "html", "head", "body", "style", "script", "table", "tr", "td", "svg", "text", "title", "circle", "p", "h2",
        ] {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    #[test]
    fn the_data_can_be_read_back() {
        let page = whole_page();
        let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
        let rows: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 2);
    }
}
