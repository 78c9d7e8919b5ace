//! The log as a directory of files, laid out as it is served (c2sp.org/tlog-tiles).
//!
//! Write order is the safety: a bundle, then the tile with its hashes, and the checkpoint only when all that it implies is on
//! the disk. Each file appears by rename, with its final content. Bundles and tiles are pure functions of the entries, so that
//! doing half an integration again is harmless. Whatever lies beyond the last checkpoint is removed and done again after a
//! restart: the entries there may be others by then.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::files::{Disk, Files};
use crate::note::{Checkpoint, NoteError, SignedNote};
use crate::proof::{TileReader, root_at};
use crate::tile::{self, Bundle, Edge, FULL, Layer, MAX_ENTRY, MAX_LEVEL, Tile};
use crate::tree::{Hash, Tree, leaf_hash};

const CHECKPOINT: &str = "checkpoint";

/// Why the directory could not be read or written. What was published before stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file operation failed; the same call may be tried again.
    #[error("cannot write the log's directory: {0}")]
    Files(#[from] io::Error),
    /// The checkpoint and the files of the directory do not belong together.
    #[error(
        "the log's directory is damaged: {0}; move it away, keep it for the auditors, and start again: it is written anew"
    )]
    Damaged(String),
    /// Another process has the directory open.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// An entry is too long to be one.
    #[error("entry {index} has {length} bytes, the limit is {MAX_ENTRY}")]
    EntryTooLong {
        /// Its log index.
        index: u64,
        /// Its length in bytes.
        length: usize,
    },
    /// What was to be published is not a checkpoint.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// What was to be published does not continue what was published before, or is not of this tree.
    #[error("the checkpoint of {size} entries cannot be published: {why}")]
    Unpublishable {
        /// Its size.
        size: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Reads a log's directory, while another process may be writing it.
#[derive(Debug, Clone)]
pub struct LogReader<F = Disk> {
    root: PathBuf,
    files: F,
}

impl LogReader {
    /// Reads from a directory; it need not exist yet.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), files: Disk }
    }
}

impl<F: Files> LogReader<F> {
    /// The published checkpoint, if there is one.
    pub fn checkpoint(&self) -> Result<Option<SignedNote>, DirectoryError> {
        let Some(bytes) = self.file(CHECKPOINT)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| NoteError::Note("it is not UTF-8"));
        let note = text.and_then(|text| text.parse::<SignedNote>());
        note.map(Some).map_err(|why| DirectoryError::Damaged(format!("{CHECKPOINT}: {why}")))
    }

    /// The bytes of a tile or bundle of the published log; none when that does not reach so far. What is beyond may be
    /// written anew.
    pub fn published(&self, tile: Tile) -> Result<Option<Vec<u8>>, DirectoryError> {
        let size = self.checkpoint()?.map_or(Ok(0), |note| note.checkpoint().map(|checkpoint| checkpoint.size))?;
        if tile.end().is_none_or(|end| end > tile.layer.slots(size)) {
            return Ok(None);
        }
        if let Some(bytes) = self.file(&tile.to_string())? {
            return Ok(Some(bytes));
        }
        let widest = tile.layer.partial(size).filter(|edge| edge.index == tile.index).unwrap_or(tile.full());
        Ok(self.file(&widest.to_string())?.and_then(|bytes| prefix(tile, &bytes)))
    }

    /// The bytes of a tile or bundle. A partial one that is not there is cut from the full one, or from a wider partial: an
    /// integration leaves those only at which it stopped.
    pub fn tile(&self, tile: Tile) -> io::Result<Vec<u8>> {
        if let Some(bytes) = self.file(&tile.to_string())? {
            return Ok(bytes);
        }
        let wider = (tile.width..FULL).rev().map(|width| Tile { width: width + 1, ..tile });
        for wider in wider {
            if let Some(cut) = self.file(&wider.to_string())?.and_then(|bytes| prefix(tile, &bytes)) {
                return Ok(cut);
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{tile} is not there")))
    }

    fn file(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.root.join(name);
        match self.files.read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path, error)),
        }
    }
}

impl<F: Files> TileReader for LogReader<F> {
    fn hashes(&self, tile: Tile) -> io::Result<Vec<Hash>> {
        let hashes = tile::hashes_from_bytes(&self.tile(tile)?).filter(|hashes| hashes.len() == tile.width.into());
        hashes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{tile} has the wrong length")))
    }
}

/// The first `tile.width` slots of a wider version of the tile.
fn prefix(tile: Tile, wider: &[u8]) -> Option<Vec<u8>> {
    let length = match tile.layer {
        Layer::Hashes(_) => usize::from(tile.width) * 32,
        Layer::Entries => {
            let entries = tile::entries_from_bytes(wider)?;
            entries.get(..tile.width.into())?.iter().map(|entry| 2 + entry.len()).sum()
        }
    };
    wider.get(..length).map(<[u8]>::to_vec)
}

/// Writes a log's directory. At most one at a time, which [`open_as_left`](LogDirectory::open_as_left) makes
/// sure of.
#[derive(Debug)]
pub struct LogDirectory<F = Disk> {
    reader: LogReader<F>,
    edge: Edge,
    bundle: Bundle,
    published: Option<Checkpoint>,
    unsynced: BTreeSet<PathBuf>,
    _lock: Option<File>,
}

impl LogDirectory {
    /// Opens a directory, making it when it is not there, and checks that its right edge has the root of its checkpoint.
    /// The log is then as long as that checkpoint says: integrate what comes after.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, DirectoryError> {
        Self::open_as_left(root)?.without_leftovers()
    }

    /// The same, but what lies beyond the checkpoint, which may be many files, stays until [`rewind`](Self::rewind): that
    /// has to come before anything is integrated.
    pub fn open_as_left(root: impl AsRef<Path>) -> Result<Self, DirectoryError> {
        let lock = lock(root.as_ref())?;
        let reader = LogReader { root: root.as_ref().to_owned(), files: Disk };
        Ok(Self { _lock: Some(lock), ..Self::empty(reader).at_checkpoint()? })
    }
}

impl<F: Files> LogDirectory<F> {
    /// Forgets what was integrated after the published checkpoint, which nobody has seen: it is integrated again. After an
    /// error the log is as it was before.
    pub fn rewind(&mut self) -> Result<(), DirectoryError>
    where
        F: Clone,
    {
        let rewound = Self::empty(self.reader.clone()).at_checkpoint()?.without_leftovers()?;
        (self.edge, self.bundle) = (rewound.edge, rewound.bundle);
        (self.published, self.unsynced) = (rewound.published, rewound.unsynced);
        Ok(())
    }

    /// Opens a directory on other files than the operating system's. Nothing keeps a second writer out.
    pub fn open_on(files: F, root: &Path) -> Result<Self, DirectoryError> {
        Self::empty(LogReader { root: root.to_owned(), files }).at_checkpoint()?.without_leftovers()
    }

    fn empty(reader: LogReader<F>) -> Self {
        Self {
            reader,
            edge: Edge::default(),
            bundle: Bundle::default(),
            published: None,
            unsynced: BTreeSet::new(),
            _lock: None,
        }
    }

    /// Removes what lies beyond the checkpoint.
    fn without_leftovers(mut self) -> Result<Self, DirectoryError> {
        self.remove_beyond(self.size())?;
        Ok(self)
    }

    /// Goes on where the published checkpoint is.
    fn at_checkpoint(mut self) -> Result<Self, DirectoryError> {
        let published = self.reader.checkpoint()?.map(|note| note.checkpoint()).transpose()?;
        if let Some(checkpoint) = published {
            self.read_edge(&checkpoint)?;
            self.published = Some(checkpoint);
        }
        Ok(self)
    }

    fn read_edge(&mut self, checkpoint: &Checkpoint) -> Result<(), DirectoryError> {
        let damaged = |what: &dyn std::fmt::Display| DirectoryError::Damaged(what.to_string());
        self.edge = Edge::read(checkpoint.size, |tile| self.reader.hashes(tile)).map_err(|why| damaged(&why))?;
        if self.edge.tree().root() != checkpoint.root {
            return Err(damaged(&"the tiles do not have the checkpoint's root"));
        }
        if let Some(tile) = Layer::Entries.partial(checkpoint.size) {
            let bytes = self.reader.tile(tile).map_err(|why| damaged(&why))?;
            let entries = tile::entries_from_bytes(&bytes).unwrap_or_default();
            let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
            let hashes = self.edge.partials().find(|(tile, _)| tile.layer == Layer::Hashes(0));
            if hashes.is_none_or(|(_, hashes)| hashes != leaves) {
                return Err(damaged(&format_args!("the entries of {tile} do not have the hashes of their tile")));
            }
            self.bundle = Bundle::from(bytes);
        }
        Ok(())
    }

    /// The number of entries integrated: the log index to go on with.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// The tree of the entries integrated.
    pub fn tree(&self) -> Tree {
        self.edge.tree()
    }

    /// The last checkpoint published here.
    pub fn published(&self) -> Option<&Checkpoint> {
        self.published.as_ref()
    }

    /// Reads what is written here.
    pub fn reader(&self) -> &LogReader<F> {
        &self.reader
    }

    /// Appends entries, the next log indices in order, and writes the bundles and tiles that change: full ones as they fill up,
    /// partial ones at the end. After an error the log is as long as before, and the same entries may be handed over again.
    pub fn integrate<E: AsRef<[u8]>>(&mut self, entries: impl IntoIterator<Item = E>) -> Result<Tree, DirectoryError> {
        let (mut edge, mut bundle) = (self.edge.clone(), self.bundle.clone());
        for entry in entries {
            let entry = entry.as_ref();
            if !bundle.push(entry) {
                return Err(DirectoryError::EntryTooLong { index: edge.size(), length: entry.len() });
            }
            let completed = edge.append(leaf_hash(entry));
            if let Some((tile, _)) = completed.first() {
                self.write(Tile { layer: Layer::Entries, ..*tile }, std::mem::take(&mut bundle).bytes())?;
            }
            for (tile, hashes) in completed {
                self.write(tile, &tile::hashes_to_bytes(&hashes))?;
            }
        }
        let before = self.edge.size();
        let grew = |layer: Layer| layer.slots(edge.size()) > layer.slots(before);
        if let Some(tile) = Layer::Entries.partial(edge.size()).filter(|tile| grew(tile.layer)) {
            self.write(tile, bundle.bytes())?;
        }
        for (tile, hashes) in edge.partials().filter(|(tile, _)| grew(tile.layer)) {
            self.write(tile, &tile::hashes_to_bytes(hashes))?;
        }
        (self.edge, self.bundle) = (edge, bundle);
        Ok(self.tree())
    }

    /// Publishes a signed checkpoint of at most [`size`](Self::size) entries: the one way in which this directory shows anything.
    /// Refused unless the checkpoint is of this tree and not older than the last one. Signatures are the caller's to check.
    pub fn publish(&mut self, note: &SignedNote) -> Result<(), DirectoryError> {
        let checkpoint = note.checkpoint()?;
        let size = checkpoint.size;
        let refused = |why| Err(DirectoryError::Unpublishable { size, why });
        if self.published.as_ref().is_some_and(|last| last.origin != checkpoint.origin) {
            return refused("the directory belongs to another origin");
        }
        if self.published.as_ref().is_some_and(|last| last.size > size) {
            return refused("a larger one was published before");
        }
        if size > self.size() {
            return refused("its entries are not all integrated");
        }
        if size < self.size() {
            self.write_partials_of(size)?;
        }
        if root_at(&self.reader, size)? != checkpoint.root {
            return refused("its root is not that of the entries integrated");
        }
        self.sync()?;
        self.write_file(CHECKPOINT, note.to_string().as_bytes())?;
        self.sync()?;
        let last = self.published.replace(checkpoint).map_or(0, |last| last.size);
        self.remove_superseded(last, size);
        Ok(())
    }

    /// Writes the partial tiles of an earlier size: they are the beginnings of wider ones.
    fn write_partials_of(&mut self, size: u64) -> Result<(), DirectoryError> {
        for tile in Layer::of(size).filter_map(|layer| layer.partial(size)) {
            let wider = match tile.layer.partial(self.size()).filter(|edge| edge.index == tile.index) {
                Some(edge) => self.reader.tile(edge)?,
                None => self.reader.tile(tile.full())?,
            };
            let bytes = prefix(tile, &wider).ok_or_else(|| DirectoryError::Damaged(format!("{tile} is too short")))?;
            self.write(tile, &bytes)?;
        }
        Ok(())
    }

    fn write(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), DirectoryError> {
        self.write_file(&tile.to_string(), bytes)
    }

    fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
        let LogReader { root, files } = &self.reader;
        let path = root.join(name);
        let unfinished = root.join(format!("{name}.tmp"));
        let directories = || path.ancestors().skip(1).take_while(|directory| directory.starts_with(root));
        let written = directories()
            .take(1)
            .try_for_each(|parent| files.create_directories(parent))
            .and_then(|()| files.write(&unfinished, bytes))
            .and_then(|()| files.rename(&unfinished, &path));
        written.map_err(|error| at(&path, error))?;
        self.unsynced.extend(directories().map(Path::to_owned));
        Ok(())
    }

    /// Waits until every name written so far is on the disk.
    fn sync(&mut self) -> Result<(), DirectoryError> {
        for directory in &self.unsynced {
            self.reader.files.sync_directory(directory).map_err(|error| at(directory, error))?;
        }
        self.unsynced.clear();
        Ok(())
    }

    /// Removes what was written of a log longer than this: no tile may be cut from it, once the last ones of this size are.
    fn remove_beyond(&mut self, size: u64) -> Result<(), DirectoryError> {
        for tile in Layer::of(size).filter_map(|layer| layer.partial(size)) {
            if self.reader.file(&tile.to_string())?.is_none() {
                let cut = self.reader.tile(tile)?;
                self.write(tile, &cut)?;
            }
        }
        self.sync()?;
        let mut beyond = Vec::new();
        for layer in std::iter::once(Layer::Entries).chain((0..=MAX_LEVEL).map(Layer::Hashes)) {
            let (first, width) = (layer.slots(size) / u64::from(FULL), (layer.slots(size) % u64::from(FULL)) as u16);
            let tiles =
                (first..).map(|index| (Tile { layer, index, width: FULL }, if index == first { width } else { 0 }));
            // Tiles are written in order, so after the first place without any there are none.
            let before = beyond.len();
            beyond.extend(tiles.take_while(|(tile, width)| self.is_wider_there(*tile, *width)));
            if beyond.len() == before && layer.slots(size) == 0 && layer != Layer::Entries {
                break;
            }
        }
        // From the end, so that whoever is interrupted and begins again finds all that is left.
        for (tile, width) in beyond.into_iter().rev() {
            self.remove_wider(tile, width)?;
        }
        self.sync()
    }

    /// True when there are versions of a tile that are wider than this.
    fn is_wider_there(&self, tile: Tile, width: u16) -> bool {
        let LogReader { root, files } = &self.reader;
        let is_there = |name: String| files.exists(&root.join(name));
        let partials = || match width {
            0 => is_there(tile.partials()),
            _ => (width + 1..FULL).any(|width| is_there(Tile { width, ..tile }.to_string())),
        };
        is_there(tile.to_string()) || partials()
    }

    /// Removes the versions of a tile that are wider than this.
    fn remove_wider(&mut self, tile: Tile, width: u16) -> Result<(), DirectoryError> {
        let LogReader { root, files } = &self.reader;
        let mut remove = |name: String, remove: fn(&F, &Path) -> io::Result<()>| {
            let path = root.join(name);
            match remove(files, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(at(&path, error)),
                Ok(()) => {
                    self.unsynced.extend(path.parent().map(Path::to_owned));
                    Ok(())
                }
            }
        };
        remove(tile.to_string(), F::remove)?;
        if width == 0 {
            remove(tile.partials(), F::remove_directory)?;
        } else {
            (width + 1..FULL).try_for_each(|width| remove(Tile { width, ..tile }.to_string(), F::remove))?;
        }
        Ok(())
    }

    /// Removes the partial versions of tiles that became full. One that stays behind costs space, nothing else.
    fn remove_superseded(&self, from: u64, to: u64) {
        for layer in Layer::of(to) {
            for index in layer.slots(from) / u64::from(FULL)..layer.slots(to) / u64::from(FULL) {
                let partials = Tile { layer, index, width: FULL }.partials();
                let _ = self.reader.files.remove_directory(&self.reader.root.join(partials));
            }
        }
    }
}

/// Makes the directory, its name on the disk too, and keeps other processes out for as long as the file is open.
fn lock(root: &Path) -> Result<File, DirectoryError> {
    let create = || -> io::Result<File> {
        Disk.create_directories(root)?;
        if let Some(parent) = root.canonicalize()?.parent() {
            Disk.sync_directory(parent)?;
        }
        File::create(root.join(".lock"))
    };
    let lock = create().map_err(|error| at(root, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(root.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(root, error).into()),
    }
}

/// The same error, saying where.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
