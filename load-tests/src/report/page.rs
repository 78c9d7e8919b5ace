//! One HTML page with everything in it.

use std::fmt::Write as _;

use super::{
    Report,
    plot::{self, escape},
    short, short_or_blank,
};

const STYLE: &str = "body{font:14px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:2px 8px;text-align:right}\
td:first-child,th:first-child{text-align:left}svg{max-width:100%;margin:.5em 0}";

/// The page.
pub(super) fn of(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>joinload {command}</title>\
         <style>{STYLE}</style><h1>joinload {command}</h1><p>{at}, {version}, {machine}, seed {seed}</p>",
        command = escape(&report.command),
        at = report.at,
        version = escape(&report.version()),
        machine = escape(&report.machine),
        seed = report.seed,
    );
    for (origin, group) in report.by_origin() {
        let heading = origin.map_or("Figures".to_owned(), |origin| format!("Not of this run, but of {origin}"));
        let _ = write!(page, "<h2>{}</h2><table><tr><th>figure</th><th>median</th>", escape(&heading));
        page.push_str("<th>least</th><th>most</th></tr>");
        for (name, value) in group {
            let spread =
                report.spreads.get(name).map(|[least, _, most]| (short(*least), short(*most))).unwrap_or_default();
            let value = short(value);
            let _ = write!(page, "<tr><td>{name}</td><td>{value}</td><td>{}</td><td>{}</td></tr>", spread.0, spread.1);
        }
        page.push_str("</table>");
    }
    page.push_str(
        "<h2>Runs</h2><table><tr><th>what</th><th>load</th><th>joins/s</th><th>p50 ms</th>\
         <th>p99 ms</th><th>p99.9 ms</th><th>joind µs</th><th>postgres µs</th><th>generator µs</th></tr>",
    );
    for run in &report.measured {
        let _ = write!(page, "<tr><td>{}</td><td>{}</td>", escape(&run.what), escape(&run.load));
        let rates = [run.joins_per_s, run.p50_ms, run.p99_ms, run.p999_ms].map(Some);
        let cpu = [run.cpu.joind_us, run.cpu.postgres_us, run.cpu.generator_us];
        rates.into_iter().chain(cpu).for_each(|number| {
            let _ = write!(page, "<td>{}</td>", short_or_blank(number));
        });
        page.push_str("</tr>");
    }
    page.push_str("</table><h2>Checked</h2><ul>");
    report.checked.iter().for_each(|what| {
        let _ = write!(page, "<li>{}</li>", escape(what));
    });
    page.push_str("</ul><h2>Settings and notes</h2><ul>");
    let settings = report.settings.as_object().into_iter().flatten().map(|(name, value)| (name, value.to_string()));
    let notes = report.notes.iter().map(|(name, text)| (name, text.clone()));
    settings.chain(notes).for_each(|(name, text)| {
        let _ = write!(page, "<li>{}: {}</li>", escape(name), escape(&text));
    });
    page.push_str("</ul><h2>Plots</h2>");
    plot::all(&report.measured).iter().for_each(|(_, svg)| page.push_str(svg));
    page.push_str("</html>\n");
    page
}
