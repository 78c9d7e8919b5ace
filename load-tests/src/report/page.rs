//! One HTML page with everything in it.

use std::fmt::Write as _;

use super::{
    FIGURE, RUN, Report,
    plot::{self, escape},
    run_row,
};

const STYLE: &str = "body{font:14px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:2px 8px;text-align:right}\
td:first-child,th:first-child{text-align:left}svg{max-width:100%;margin:.5em 0}";

/// The page.
pub(super) fn of(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>joinload {command}</title>\
         <style>{STYLE}</style><h1>joinload {command}</h1><p>{about}</p>",
        command = escape(&report.command),
        about = escape(&report.about().join(", ")),
    );
    for (origin, group) in report.by_origin() {
        let heading = origin.map_or("Figures".to_owned(), |origin| format!("Not of this run, but of {origin}"));
        let rows = group.into_iter().map(|(name, value)| report.figure_row(name, value));
        table(&mut page, &heading, FIGURE, rows);
    }
    table(&mut page, "Runs", RUN, report.measured.iter().map(run_row));
    page.push_str("<h2>Checked</h2><ul>");
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
    plot::all(&report.measured, &report.figures).iter().for_each(|(_, svg)| page.push_str(svg));
    page.push_str("</html>\n");
    page
}

fn table<const COLUMNS: usize>(
    page: &mut String,
    heading: &str,
    columns: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) {
    let _ = write!(page, "<h2>{}</h2><table><tr>", escape(heading));
    columns.iter().for_each(|column| {
        let _ = write!(page, "<th>{column}</th>");
    });
    for row in rows {
        page.push_str("</tr><tr>");
        row.iter().for_each(|cell| {
            let _ = write!(page, "<td>{}</td>", escape(cell));
        });
    }
    page.push_str("</tr></table>");
}
