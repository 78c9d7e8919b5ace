//! Plots as SVG: no script, no font of their own.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    bench::by_name,
    floor::median,
    measured::{Measured, Second},
    process::to_f64,
    report::short,
};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// Told apart by people who don't see all colours, too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// One line of a plot.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// How a plot's width is divided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Even,
    /// By its logarithm, with a mark at each value.
    Tenfold,
}

/// What ends the names of runs at half of the peak.
const HALF: &str = ", half of peak";
/// What ends the names of runs on the small authority of `joinload growth`, and how many tokens it has.
const SMALL: (&str, f64) = (", a thousand tokens", 1000.0);
/// The same of those that are larger, and the figures that say how large.
const LARGER: [(&str, &str); 3] =
    [(", a size between", "tokens_between"), (", many tokens", "tokens"), (", a long history", "events")];

/// True for the name of a plot that a run may have written.
pub(super) fn is_one(name: &str) -> bool {
    ["cost", "percentiles"].contains(&name) || ["cost-", "size-", "time-"].iter().any(|begin| name.starts_with(begin))
}

/// Every plot of a run, by name.
pub(super) fn all(measured: &[Measured], figures: &BTreeMap<String, f64>) -> Vec<(String, String)> {
    let groups = by_name(measured);
    let (half, peak): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(what, _)| what.ends_with(HALF));
    let mut plots = vec![("cost".to_owned(), cost("", &peak, figures))];
    if !half.is_empty() {
        plots.push(("cost-half-of-peak".to_owned(), cost(", at half of peak", &half, figures)));
    }
    plots.extend(sizes(&peak, figures));
    plots.push(("percentiles".to_owned(), percentiles(measured)));
    for (index, (what, runs)) in by_name(measured).into_iter().enumerate() {
        let Some(last) = runs.last().filter(|run| run.timeline.len() > 2) else { continue };
        let seconds = |name: &str, value: fn(&Second) -> Option<f64>| Line {
            name: name.to_owned(),
            points: (1_u32..)
                .zip(&last.timeline)
                .filter_map(|(at, second)| Some((f64::from(at), value(second)?)))
                .collect(),
        };
        let mut plot = |name: &str, title: &str, curves: Vec<Line>| {
            let curves: Vec<Line> = curves.into_iter().filter(|curve| !curve.points.is_empty()).collect();
            if !curves.is_empty() {
                let svg = lines(&format!("{what}: {title}, last round"), "second", &curves, Scale::Even);
                plots.push((format!("time-{index:02}-{name}"), svg));
            }
        };
        plot("joins", "joins/s", vec![seconds("joins/s", |second| Some(to_f64(second.joins)))]);
        plot(
            "latency",
            "latency, ms",
            vec![seconds("p50", |second| Some(second.p50_ms)), seconds("p99", |second| Some(second.p99_ms))],
        );
        plot(
            "cpu",
            "cores in use",
            vec![
                seconds("joind", |second| second.joind_cores),
                seconds("postgres", |second| second.postgres_cores),
                seconds("generator", |second| second.generator_cores),
            ],
        );
        plot(
            "memory",
            "memory, MB",
            vec![
                seconds("joind", |second| second.joind_mb),
                seconds("postgres", |second| second.postgres_mb),
                seconds("generator", |second| second.generator_mb),
            ],
        );
    }
    plots
}

/// Latency by percentile, of the runs at a fixed rate; of all, where there is none of that kind.
fn percentiles(measured: &[Measured]) -> String {
    // What is too much on purpose would leave the others no height.
    let is_open = |run: &Measured| run.load.starts_with("open") && !run.what.starts_with("overload");
    let has_open = measured.iter().any(is_open);
    let curves: Vec<Line> = by_name(measured)
        .into_iter()
        .filter_map(|(what, runs)| {
            let run = runs.into_iter().rfind(|run| !has_open || is_open(run))?;
            // One nine more is one step further.
            let points = run.percentiles.iter().map(|(quantile, ms)| (-(1.0 - quantile).max(1e-5).log10(), *ms));
            Some(Line { name: what.to_owned(), points: points.collect() })
        })
        .collect();
    let title = match has_open {
        true => "latency by percentile, ms, last round (open loop, from the intended start)",
        false => "latency by percentile, ms, last round",
    };
    lines(title, "nines: 1 is p90, 2 is p99, 3 is p99.9", &curves, Scale::Even)
}

/// What a join costs, and how many there are, by the tokens of the authority: medians of runs at the peak.
fn sizes(peak: &[(&str, Vec<&Measured>)], figures: &BTreeMap<String, f64>) -> Vec<(String, String)> {
    let tokens = LARGER.iter().filter(|(_, figure)| figure.starts_with("tokens"));
    let larger = tokens.filter_map(|(end, figure)| Some((*end, *figures.get(*figure)?)));
    let sizes: Vec<(&str, f64)> = [SMALL].into_iter().chain(larger).collect();
    let curve = |what: &str, name: String, value: fn(&Measured) -> Option<f64>| Line {
        name,
        points: sizes
            .iter()
            .filter_map(|(end, size)| {
                let (_, runs) = peak.iter().find(|(name, _)| name.strip_suffix(end) == Some(what))?;
                let values: Option<Vec<f64>> = runs.iter().map(|run| value(run)).collect();
                Some((*size, median(values?)))
            })
            .collect(),
    };
    let kinds: Vec<&str> = peak.iter().filter_map(|(what, _)| what.strip_suffix(SMALL.0)).collect();
    let rates = kinds.iter().map(|what| curve(what, (*what).to_owned(), |run| Some(run.joins_per_s)));
    let costs = kinds.iter().flat_map(|what| {
        [
            curve(what, format!("{what}: joind"), |run| run.cpu.joind_us),
            curve(what, format!("{what}: postgres"), |run| run.cpu.postgres_us),
        ]
    });
    let plot = |name: &str, title: &str, curves: Vec<Line>| {
        let has_sizes = curves.iter().any(|curve| curve.points.len() > 1);
        has_sizes.then(|| (format!("size-{name}"), lines(title, "tokens", &curves, Scale::Tenfold)))
    };
    [
        plot("joins", "joins/s by tokens (median of the runs)", rates.collect()),
        plot("cost", "CPU time for each join by tokens, µs (median of the runs)", costs.collect()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A run's name, with how large its authority is.
fn with_size(what: &str, figures: &BTreeMap<String, f64>) -> String {
    let peak = what.strip_suffix(HALF).unwrap_or(what);
    let size = LARGER.iter().find(|(end, _)| peak.ends_with(end)).and_then(|(_, figure)| figures.get(*figure));
    size.map_or_else(|| peak.to_owned(), |size| format!("{peak} ({})", short(*size)))
}

/// CPU of each process for each join, as bars.
fn cost(when: &str, measured: &[(&str, Vec<&Measured>)], figures: &BTreeMap<String, f64>) -> String {
    let groups: Vec<(String, [f64; 3])> = measured
        .iter()
        .map(|(what, runs)| {
            let middle = |of: fn(&Measured) -> Option<f64>| median(runs.iter().filter_map(|run| of(run)).collect());
            let cpu =
                [middle(|run| run.cpu.joind_us), middle(|run| run.cpu.postgres_us), middle(|run| run.cpu.generator_us)];
            (with_size(what, figures), cpu)
        })
        .filter(|(_, cpu)| cpu.iter().sum::<f64>() > 0.0)
        .collect();
    let most = groups.iter().map(|(_, cpu)| cpu.iter().sum::<f64>()).fold(1.0, f64::max);
    let height = 60.0 + 24.0 * f64::from(u32::try_from(groups.len()).unwrap_or(u32::MAX));
    let mut svg = head(height, &format!("CPU time for each join{when}, µs (median of the runs)"));
    let (begin, scale) = (290.0, (WIDTH - 290.0 - 70.0) / most);
    for (row, (what, cpu)) in (0_u32..).zip(&groups) {
        let y = 40.0 + 24.0 * f64::from(row);
        let _ = write!(
            svg,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text>"#,
            begin - 8.0,
            y + 12.0,
            escape(what)
        );
        let mut x = begin;
        for (value, colour) in cpu.iter().zip(COLOURS) {
            let width = value * scale;
            let _ = write!(svg, r#"<rect x="{x:.1}" y="{y:.0}" width="{width:.1}" height="16" fill="{colour}"/>"#);
            x += width;
        }
        let _ = write!(svg, r#"<text x="{:.0}" y="{:.0}">{}</text>"#, x + 6.0, y + 12.0, short(cpu.iter().sum()));
    }
    legend(&mut svg, ["joind", "postgres", "generator"].into_iter(), height - 10.0);
    svg.push_str("</svg>\n");
    svg
}

fn lines(title: &str, below: &str, lines: &[Line], scale: Scale) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let least = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::INFINITY, f64::min);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let mut svg = head(HEIGHT, title);
    if points().next().is_none() {
        svg.push_str("<text x=\"80\" y=\"80\">nothing was measured</text></svg>\n");
        return svg;
    }
    let (from_x, to_x) = (least(|point| point.0), most(|point| point.0));
    let to_y = round_up(most(|point| point.1).max(1e-9));
    let along = |value: f64| if scale == Scale::Tenfold { value.log10() } else { value };
    let (begin, end) = (along(from_x), along(to_x));
    let x = |value: f64| LEFT + (along(value) - begin) / (end - begin).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / to_y * (HEIGHT - TOP - BOTTOM);
    for step in 0..=4 {
        let value = to_y * f64::from(step) / 4.0;
        let at = y(value);
        let _ = write!(
            svg,
            r##"<line x1="{LEFT}" y1="{at:.1}" x2="{:.0}" y2="{at:.1}" stroke="#ccc"/><text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"##,
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            short(value)
        );
    }
    let marks: Vec<f64> = match scale {
        Scale::Even => (0..=4).map(|step| from_x + (to_x - from_x) * f64::from(step) / 4.0).collect(),
        Scale::Tenfold => lines[0].points.iter().map(|point| point.0).collect(),
    };
    for mark in marks {
        let (x, y, anchor) = (x(mark), HEIGHT - BOTTOM + 14.0, if mark < to_x { "middle" } else { "end" });
        let _ = write!(svg, r#"<text x="{x:.1}" y="{y:.0}" text-anchor="{anchor}">{}</text>"#, short(mark));
    }
    let _ = write!(
        svg,
        r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text>"#,
        WIDTH - RIGHT,
        HEIGHT - 4.0,
        escape(below)
    );
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> =
            line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let _ =
            write!(svg, r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#, path.join(" "));
    }
    legend(&mut svg, lines.iter().map(|line| line.name.as_str()), HEIGHT - 4.0);
    svg.push_str("</svg>\n");
    svg
}

fn head(height: f64, title: &str) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/><text x="12" y="20" font-size="14">{}</text>"##,
        escape(title)
    )
}

fn legend<'a>(svg: &mut String, names: impl Iterator<Item = &'a str>, y: f64) {
    let mut x = 12.0;
    for (name, colour) in names.zip(COLOURS.iter().cycle()) {
        let _ = write!(
            svg,
            r#"<rect x="{x:.0}" y="{:.0}" width="10" height="10" fill="{colour}"/><text x="{:.0}" y="{y:.0}">{}</text>"#,
            y - 9.0,
            x + 14.0,
            escape(name)
        );
        x += 30.0 + 6.2 * f64::from(u32::try_from(name.len()).unwrap_or_default());
    }
}

/// The next of 1, 2, 2.5, 5 and their tenfolds.
fn round_up(value: f64) -> f64 {
    let magnitude = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * magnitude).find(|step| *step >= value).unwrap_or(value)
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::{Cpu, histogram};

    fn run(what: &str, load: &str, joins_per_s: f64) -> Measured {
        let cpu = Cpu { joind_us: Some(100.0), postgres_us: Some(50.0), generator_us: Some(10.0) };
        Measured { joins_per_s, cpu, ..Measured::of(what, load.to_owned(), 5.0, &histogram()) }
    }

    fn plots(measured: &[Measured]) -> BTreeMap<String, String> {
        let figures = [("tokens", 1_000_000.0), ("tokens_between", 31_000.0), ("events", 5000.0)];
        all(measured, &figures.map(|(name, value)| (name.to_owned(), value)).into()).into_iter().collect()
    }

    #[test]
    fn sizes_are_a_line_by_tokens_and_half_of_the_peak_has_a_plot_of_its_own() {
        let sides = ["a thousand tokens", "a size between", "many tokens", "a long history"];
        let at_peak = sides.map(|side| run(&format!("renewals, {side}"), "closed", 3000.0));
        let at_half = sides.map(|side| run(&format!("renewals, {side}, half of peak"), "open", 1500.0));
        let plots = plots(&[at_peak, at_half].concat());
        let names: Vec<&str> = plots.keys().map(String::as_str).collect();
        assert_eq!(names, ["cost", "cost-half-of-peak", "percentiles", "size-cost", "size-joins"]);
        assert!(names.iter().all(|name| is_one(name)));
        // From 64 to 748, and 31 000 lies about half way: a thousand and a million are a thousandfold apart.
        let joins = &plots["size-joins"];
        let line = joins.split_once("points=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap();
        let across: Vec<&str> = line.split([' ', ',']).step_by(2).collect();
        assert_eq!(across, ["64.0", "404.0", "748.0"], "{joins}");
        for mark in [">1000<", ">31000<", ">1000000<"] {
            assert!(joins.contains(mark), "{mark} of {joins}");
        }
        assert!(plots["cost"].contains("renewals, many tokens (1000000)"));
        assert!(!plots["cost"].contains("half of peak"));
        assert!(plots["cost-half-of-peak"].contains("renewals, a long history (5000)"));
    }

    #[test]
    fn overload_is_not_among_the_percentiles() {
        let plots = plots(&[run("overload, recoveries", "open, 9/s", 1.0), run("renewals, half of peak", "open", 1.0)]);
        assert!(plots["percentiles"].contains("renewals") && !plots["percentiles"].contains("overload"));
        assert!(!plots.contains_key("size-joins"));
    }
}
