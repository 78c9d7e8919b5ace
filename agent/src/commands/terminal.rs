//! What people and programs read: data on stdout, the rest on stderr.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write as _},
};

use anyhow::{Context as _, Result};
use join_domain::text::printable;

/// Prints data, in one piece. A reader that has left (`| grep -q`) has what it wanted: that is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Says something beside the data. When nobody can hear it, there is nobody to tell that either.
pub(crate) fn say(text: impl Display) {
    let _ = io::stderr().write_all((printable(&text.to_string()) + "\n").as_bytes());
}
