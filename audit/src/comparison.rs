//! Comparing entries with hash tiles (c2sp.org/tlog-tiles), which tells *where* a log was changed.
//!
//! A checkpoint has one root: it tells that some entry was changed, not which. Tiles whose own root is the checkpoint's are as
//! trustworthy as it, and hold every leaf's hash.

use crate::export::{Export, ReadError};
use crate::merkle::{Accumulator, Hash, root};

/// Slots of a full tile.
const FULL: u64 = 256;

/// The comparison of the entries of an export with its tiles.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    export: &'a Export,
    size: u64,
    /// The leaf hashes of the tile in which the comparison is.
    leaves: Vec<Hash>,
    tree: Accumulator,
    /// By level, the roots of full tiles below that do not fill a tile yet; level 0 stays empty.
    above: Vec<Vec<Hash>>,
    first_difference: Option<u64>,
    wrong_tile: Option<String>,
    /// A tile of leaf hashes could not be read.
    stopped: bool,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The root that the tiles have.
    pub(crate) root: Hash,
    /// The first log index at which an entry does not have the hash in its tile.
    pub(crate) first_difference: Option<u64>,
    /// A tile that is missing, or does not follow from those below it.
    pub(crate) wrong_tile: Option<String>,
}

impl<'a> Comparison<'a> {
    /// Compares with the tiles of a tree of `size` entries.
    pub(crate) fn new(export: &'a Export, size: u64) -> Self {
        Self {
            export,
            size,
            leaves: Vec::new(),
            tree: Accumulator::default(),
            above: Vec::new(),
            first_difference: None,
            wrong_tile: None,
            stopped: false,
        }
    }

    /// Takes the hash of the next entry.
    pub(crate) fn take(&mut self, index: u64, leaf: Hash) -> Result<(), ReadError> {
        if index >= self.size {
            return Ok(());
        }
        if index.is_multiple_of(FULL) {
            self.load(index / FULL)?;
        }
        let theirs = self.leaves.get((index % FULL) as usize);
        if self.first_difference.is_none() && theirs.is_some_and(|theirs| *theirs != leaf) {
            self.first_difference = Some(index);
        }
        Ok(())
    }

    /// Reads what is left after `entries` entries, and the tiles above.
    pub(crate) fn finish(mut self, entries: u64) -> Result<Outcome, ReadError> {
        for index in entries.div_ceil(FULL)..self.size.div_ceil(FULL) {
            if self.stopped {
                break;
            }
            self.load(index)?;
        }
        for (level, hashes) in std::mem::take(&mut self.above).into_iter().enumerate() {
            if !self.stopped && !hashes.is_empty() {
                let index = (self.size >> (8 * level)) / FULL;
                self.must_hold(level, index, &hashes)?;
            }
        }
        Ok(Outcome { root: self.tree.root(), first_difference: self.first_difference, wrong_tile: self.wrong_tile })
    }

    /// Goes on with another tile of leaf hashes, and checks the tiles above that it completes.
    fn load(&mut self, index: u64) -> Result<(), ReadError> {
        self.leaves.clear();
        if self.stopped {
            return Ok(());
        }
        let width = FULL.min(self.size - index * FULL);
        self.leaves = match self.read(0, index, width)? {
            Ok(hashes) => hashes,
            Err(wrong) => {
                self.wrong_tile.get_or_insert(wrong);
                self.stopped = true;
                return Ok(());
            }
        };
        self.tree.extend(self.leaves.iter().copied());
        let mut full = (width == FULL).then(|| root(&self.leaves));
        let mut level = 0;
        while let Some(slot) = full.take() {
            level += 1;
            if self.above.len() <= level {
                self.above.resize(level + 1, Vec::new());
            }
            self.above[level].push(slot);
            if self.above[level].len() as u64 == FULL {
                let hashes = std::mem::take(&mut self.above[level]);
                self.must_hold(level, ((index + 1) >> (8 * level)) - 1, &hashes)?;
                full = Some(root(&hashes));
            }
        }
        Ok(())
    }

    fn must_hold(&mut self, level: usize, index: u64, hashes: &[Hash]) -> Result<(), ReadError> {
        let width = hashes.len() as u64;
        let wrong = match self.read(level, index, width)? {
            Ok(held) if held == hashes => return Ok(()),
            Ok(_) => format!("hash tile {} does not follow from the tiles below it", name(level, index, width)),
            Err(wrong) => wrong,
        };
        self.wrong_tile.get_or_insert(wrong);
        Ok(())
    }

    /// A tile's hashes, or what is wrong with it. A partial tile may have given way to the full one.
    fn read(&self, level: usize, index: u64, width: u64) -> Result<Result<Vec<Hash>, String>, ReadError> {
        let limit = (FULL * 32) as usize;
        let mut bytes = self.export.file(&name(level, index, width), limit)?;
        if bytes.is_none() && width < FULL {
            bytes = self.export.file(&name(level, index, FULL), limit)?;
            bytes = bytes.map(|bytes| bytes.into_iter().take(width as usize * 32).collect());
        }
        let Some(bytes) = bytes else {
            return Ok(Err(format!("hash tile {} is missing", name(level, index, width))));
        };
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() as u64 != width || !rest.is_empty() {
            return Ok(Err(format!("hash tile {} has the wrong length", name(level, index, width))));
        }
        Ok(Ok(hashes.to_vec()))
    }
}

fn name(level: usize, index: u64, width: u64) -> String {
    let mut place = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        place = format!("x{:03}/{place}", rest % 1000);
        rest /= 1000;
    }
    let partial = if width < FULL { format!(".p/{width}") } else { String::new() };
    format!("tile/{level}/{place}{partial}")
}
