//! What goes to stdout: tables for people, JSON and YAML for programs.

pub(crate) mod items;
pub(crate) mod table;
pub(crate) mod tree;

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde_yaml_ng::Value;

pub(crate) use self::{items::Items, table::table};

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
    let mut out = io::stdout().lock();
    match format {
        Format::Text => out.write_all(text().as_bytes())?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, tree).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Format::Yaml => out.write_all(serde_yaml_ng::to_string(tree)?.as_bytes())?,
    }
    Ok(out.flush()?)
}

/// Prints one line of text.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{}", printable(text))?)
}

/// The text with its control characters made visible: names, messages and addresses come from others, and must not
/// steer a terminal. Line breaks stay.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb\r\u{9b}1m\nc"), "a\\u{1b}[2Jb\\r\\u{9b}1m\nc");
    }
}
