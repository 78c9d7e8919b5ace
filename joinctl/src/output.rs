//! What goes to stdout: tables for people, JSON and YAML for programs. And what is said beside it, on stderr.

pub(crate) mod items;
pub(crate) mod table;
pub(crate) mod tree;

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use clap::ValueEnum;
use join_domain::text::printable_json;
use serde_yaml_ng::Value;

pub(crate) use self::{
    items::Items,
    table::{Table, cell, cut},
};
pub(crate) use join_domain::text::printable;

/// The shape of data on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    #[default]
    Text,
    /// JSON with the field names of the YAML.
    Json,
    /// YAML, as `create` reads it.
    Yaml,
}

/// Prints one value as JSON or YAML, or what `text` makes of it.
pub(crate) fn print(format: Format, tree: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = match format {
        Format::Text => text(),
        Format::Json => json(tree)? + "\n",
        Format::Yaml => serde_yaml_ng::to_string(tree)?,
    };
    let mut out = stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// JSON in lines.
fn json(tree: &Value) -> serde_json::Result<String> {
    Ok(printable_json(&serde_json::to_string_pretty(tree)?))
}

/// JSON in one line.
pub(crate) fn json_line(tree: &Value) -> serde_json::Result<String> {
    Ok(printable_json(&serde_json::to_string(tree)?))
}

/// Where data goes.
pub(crate) fn stdout() -> Stdout {
    Stdout(io::stdout())
}

/// Stdout, whose errors can be told from those of other files and pipes.
pub(crate) struct Stdout(io::Stdout);

/// Why stdout takes nothing.
#[derive(Debug)]
enum Unwritten {
    /// Its reader has gone away (`| head`).
    Unread,
    /// As the disk behind `> file` is full.
    Failed(io::Error),
}

impl std::fmt::Display for Unwritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unread => f.write_str("nobody reads what is printed"),
            Self::Failed(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl std::error::Error for Unwritten {}

/// True when nobody reads what is printed, which is no failure.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    let of = |error: &io::Error| {
        matches!(error.get_ref().and_then(|inner| inner.downcast_ref::<Unwritten>()), Some(Unwritten::Unread))
    };
    error.chain().filter_map(|cause| cause.downcast_ref()).any(of)
}

fn unwritten(error: io::Error) -> io::Error {
    match error.kind() {
        // Who writes goes on by itself.
        io::ErrorKind::Interrupted => error,
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, Unwritten::Unread),
        kind => io::Error::new(kind, Unwritten::Failed(error)),
    }
}

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(unwritten)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

/// Prints one line of text.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(stdout(), "{}", printable(text))?)
}

/// Says something beside the data, on stderr. When nobody can hear it, there is nobody to tell that either, and what the
/// command does goes on.
pub(crate) fn say(text: impl Display) {
    let _ = io::stderr().write_all((printable(&text.to_string()) + "\n").as_bytes());
}
