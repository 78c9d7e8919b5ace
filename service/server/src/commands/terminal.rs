//! What people and programs read: data on stdout, the rest on stderr.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use chrono::SecondsFormat;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use join_domain::{Timestamp, text::printable};

/// Prints data, in one piece. A reader that has left (`| head -1`) has what it wanted: that is no failure.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output can't be written"),
    }
}

/// Prints one line of data.
pub(super) fn line(text: impl Display) -> anyhow::Result<()> {
    print(&(printable(&text.to_string()) + "\n"))
}

/// Says something beside the data. When nobody can hear it, there is nobody to tell that either.
pub(super) fn say(text: impl Display) {
    let _ = io::stderr().write_all((printable(&text.to_string()) + "\n").as_bytes());
}

/// Says why the command fails, or a part of it.
pub fn say_error(error: &anyhow::Error) {
    say(format_args!("error: {error:#}"));
}

/// A time, in UTC.
pub(super) fn time(time: Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Aligned columns without lines.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// A bar of entries that were worked on.
pub(super) fn progress_bar() -> anyhow::Result<ProgressBar> {
    let style = "{msg} [{bar:40}] {human_pos}/{human_len} entries, {per_sec}, {eta} left";
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}
