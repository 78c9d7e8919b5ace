//! Reading an export directory, a line at a time. Its layout is described at the top of this crate.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::note::MAX_NOTE;

/// The longest line of entries in bytes: an entry of 65 535 bytes, each escaped.
const MAX_ENTRY_LINE: u64 = 400_000;

/// The longest line of views in bytes.
const MAX_VIEW_LINE: u64 = 64 << 20;

/// A file that could not be read at all, which says nothing about what is in it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {error}", path.display())]
pub struct ReadError {
    path: PathBuf,
    error: io::Error,
}

/// A line of entries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryLine {
    pub(crate) log_index: u64,
    pub(crate) envelope: String,
}

/// The end marker.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    pub(crate) entries: u64,
}

/// An export directory.
#[derive(Debug)]
pub(crate) struct Export {
    root: PathBuf,
}

impl Export {
    pub(crate) fn open(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The files of entries in their order.
    pub(crate) fn entry_files(&self) -> Result<EntryFiles, ReadError> {
        let error = |error| ReadError { path: self.root.clone(), error };
        let mut numbers = Vec::new();
        for file in fs::read_dir(&self.root).map_err(error)? {
            let name = file.map_err(error)?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix("entries-")?.strip_suffix(".jsonl")?.parse::<u64>().ok());
            numbers.extend(number.filter(|number| name.to_str() == Some(&entry_file(*number))));
        }
        numbers.sort_unstable();
        let missing = (0..).zip(&numbers).find(|(expected, number)| expected != *number);
        Ok(EntryFiles {
            missing: missing.map(|(expected, _)| entry_file(expected)),
            paths: numbers.into_iter().map(|number| self.root.join(entry_file(number))).collect(),
        })
    }

    /// The text of the signed checkpoint, if there is one. What is not UTF-8 is nothing that was signed.
    pub(crate) fn checkpoint(&self) -> Result<Option<String>, ReadError> {
        self.note("checkpoint")
    }

    fn note(&self, name: &str) -> Result<Option<String>, ReadError> {
        let bytes = self.file(name, MAX_NOTE)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The checkpoints that it had before, with the names of their files. What was being written when a run was interrupted
    /// is none.
    pub(crate) fn kept(&self) -> Result<Vec<(String, String)>, ReadError> {
        let folder = self.root.join("checkpoints");
        let error = |error| ReadError { path: folder.clone(), error };
        let files = match fs::read_dir(&folder) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(error)?,
        };
        let mut kept = Vec::new();
        for file in files {
            let name = file.map_err(error)?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.')
                && let Some(note) = self.note(&format!("checkpoints/{name}"))?
            {
                kept.push((name, note));
            }
        }
        kept.sort();
        Ok(kept)
    }

    /// The end marker, if there is one that can be read.
    pub(crate) fn end(&self) -> Result<Option<End>, ReadError> {
        let bytes = read(&self.root.join("end.json"), MAX_NOTE)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// The claimed views, if any are.
    pub(crate) fn views(&self) -> Result<Option<Lines>, ReadError> {
        let path = self.root.join("views.jsonl");
        if !path.exists() {
            return Ok(None);
        }
        Lines::open(&path, MAX_VIEW_LINE).map(Some)
    }

    /// Whether there are hash tiles.
    pub(crate) fn has_tiles(&self) -> bool {
        self.root.join("tile/0").exists()
    }

    /// The bytes of a file below the export, if it is there; no more than `limit`, and one to show that there are more.
    pub(crate) fn file(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, ReadError> {
        read(&self.root.join(name), limit)
    }
}

/// Hands over the envelopes of an export in their order, one at a time. Nothing about them is checked but that there are
/// lines of the right form.
///
/// # Errors
/// What `take` returns, or a file that cannot be read or holds something else.
pub fn each_envelope<E: From<ReadError>>(
    export: &Path,
    mut take: impl FnMut(String) -> Result<(), E>,
) -> Result<(), E> {
    Export::open(export).entry_files()?.each(|line| match serde_json::from_slice::<EntryLine>(line) {
        Ok(entry) => take(entry.envelope).map(|()| true),
        Err(error) => Err(ReadError { path: export.to_owned(), error: error.into() }.into()),
    })
}

fn entry_file(number: u64) -> String {
    format!("entries-{number:06}.jsonl")
}

/// The files of entries.
#[derive(Debug)]
pub(crate) struct EntryFiles {
    /// The first one that should be there and is not.
    pub(crate) missing: Option<String>,
    paths: Vec<PathBuf>,
}

impl EntryFiles {
    /// Hands over every line in order, until `take` says that it makes no sense to go on.
    pub(crate) fn each<E: From<ReadError>>(&self, mut take: impl FnMut(&[u8]) -> Result<bool, E>) -> Result<(), E> {
        for path in &self.paths {
            let mut lines = Lines::open(path, MAX_ENTRY_LINE)?;
            while let Some(line) = lines.next()? {
                if !take(line)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Lines of bounded length: of a longer one only the beginning comes, which parses as nothing.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    limit: u64,
    line: Vec<u8>,
}

impl Lines {
    fn open(path: &Path, limit: u64) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|error| ReadError { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(1 << 16, file), limit, line: Vec::new() })
    }

    /// The next line, without its end.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        self.line.clear();
        let read = self.reader.by_ref().take(self.limit).read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| ReadError { path: self.path.clone(), error })?;
        Ok((read > 0).then(|| self.line.strip_suffix(b"\n").unwrap_or(&self.line)))
    }
}

fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, ReadError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReadError { path: path.to_owned(), error }),
    }
}
