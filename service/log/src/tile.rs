//! Names and bytes of tiles and entry bundles (c2sp.org/tlog-tiles), and the right edge from which the next ones grow.

use std::fmt;

use crate::tree::{Hash, Tree, to_hash};

/// The width of a full tile: slots of a hash tile, entries of a bundle.
pub const FULL: u16 = 256;

/// The longest entry in bytes: its length must fit two bytes.
pub const MAX_ENTRY: usize = u16::MAX as usize;

/// The highest tile level that a name may have.
pub const MAX_LEVEL: u8 = 63;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// The entries themselves: each its length as big-endian u16, then its bytes.
    Entries,
    /// Hashes of subtrees of `256^level` entries, 32 bytes each; level 0 holds leaf hashes.
    Hashes(u8),
}

impl Layer {
    /// How many slots of this layer a tree of `size` entries fills. A slot is filled once its subtree is complete.
    pub fn slots(self, size: u64) -> u64 {
        match self {
            Self::Entries => size,
            Self::Hashes(level) => size.checked_shr(8 * u32::from(level)).unwrap_or(0),
        }
    }

    /// The unfinished tile at the right edge of a tree of `size` entries, if this layer has one.
    pub fn partial(self, size: u64) -> Option<Tile> {
        let slots = self.slots(size);
        let width = (slots % u64::from(FULL)) as u16;
        (width > 0).then_some(Tile { layer: self, index: slots / u64::from(FULL), width })
    }

    /// Every layer of which a tree of `size` entries fills a slot, the entries first.
    pub fn of(size: u64) -> impl Iterator<Item = Self> {
        let hashes = (0..=MAX_LEVEL).map(Self::Hashes);
        std::iter::once(Self::Entries).chain(hashes).take_while(move |layer| layer.slots(size) > 0)
    }
}

/// The name of one file of tiles: which layer, which tile of it, and how many slots are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What it holds.
    pub layer: Layer,
    /// Its place in the layer; its first slot is `index * 256`.
    pub index: u64,
    /// Filled slots, 1 to 256. Below 256 the tile is partial.
    pub width: u16,
}

impl Tile {
    /// The full tile at the same place.
    pub fn full(self) -> Self {
        Self { width: FULL, ..self }
    }

    /// How many slots of its layer there are with its own; none when there can't be so many.
    pub fn end(self) -> Option<u64> {
        self.index.checked_mul(FULL.into())?.checked_add(self.width.into())
    }

    /// The directory in which partial versions of this tile lie, relative to the log's prefix.
    pub fn partials(self) -> String {
        format!("{}.p", self.full())
    }

    /// Reads a path such as `tile/0/x001/067.p/44`; `None` for anything but the one right spelling.
    pub fn parse(path: &str) -> Option<Self> {
        let (layer, place) = path.strip_prefix("tile/")?.split_once('/')?;
        let layer = match layer {
            "entries" => Layer::Entries,
            level => Layer::Hashes(level.parse().ok().filter(|level| *level <= MAX_LEVEL)?),
        };
        let (place, width) = match place.split_once(".p/") {
            Some((place, width)) => (place, width.parse().ok().filter(|width| *width < FULL)?),
            None => (place, FULL),
        };
        let index = place.replace(['x', '/'], "").parse().ok()?;
        let tile = Self { layer, index, width };
        (width > 0 && tile.to_string() == path).then_some(tile)
    }
}

/// The path below the log's prefix: `tile/<L>/<N>` or `tile/<L>/<N>.p/<W>`.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Layer::Entries => f.write_str("tile/entries")?,
            Layer::Hashes(level) => write!(f, "tile/{level}")?,
        }
        let mut unit = 1;
        while self.index / unit >= 1000 {
            unit *= 1000;
        }
        while unit > 1 {
            write!(f, "/x{:03}", self.index / unit % 1000)?;
            unit /= 1000;
        }
        write!(f, "/{:03}", self.index % 1000)?;
        if self.width < FULL { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// The right edge of the tree: the unfinished hash tile of every level, which is all that appending needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// Puts the edge of a tree of `size` entries together from the hashes of its partial tiles, as `read` knows them.
    pub fn read<E>(size: u64, mut read: impl FnMut(Tile) -> Result<Vec<Hash>, E>) -> Result<Self, E> {
        let levels = Layer::of(size)
            .filter(|layer| *layer != Layer::Entries)
            .map(|layer| layer.partial(size).map_or(Ok(Vec::new()), &mut read))
            .collect::<Result<_, _>>()?;
        Ok(Self { size, levels })
    }

    /// The number of entries in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf and returns the tiles that it completes, the lowest first. A full tile feeds one slot of the level above.
    pub fn append(&mut self, leaf: Hash) -> Vec<(Tile, Vec<Hash>)> {
        self.size += 1;
        let mut completed = Vec::new();
        let mut slot = leaf;
        for level in 0..=MAX_LEVEL {
            if self.levels.len() == usize::from(level) {
                self.levels.push(Vec::with_capacity(usize::from(FULL)));
            }
            let hashes = &mut self.levels[usize::from(level)];
            hashes.push(slot);
            if hashes.len() < usize::from(FULL) {
                break;
            }
            let hashes = std::mem::take(hashes);
            slot = hashes.iter().copied().collect::<Tree>().root();
            let layer = Layer::Hashes(level);
            completed.push((Tile { layer, index: layer.slots(self.size) / u64::from(FULL) - 1, width: FULL }, hashes));
        }
        completed
    }

    /// The partial tiles of the edge, the lowest first.
    pub fn partials(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        (0..)
            .zip(&self.levels)
            .filter_map(|(level, hashes)| Layer::Hashes(level).partial(self.size).map(|tile| (tile, hashes.as_slice())))
    }

    /// The tree whose edge this is.
    pub fn tree(&self) -> Tree {
        let mut peaks = Vec::new();
        for mut hashes in self.levels.iter().rev().map(Vec::as_slice) {
            while !hashes.is_empty() {
                let (peak, rest) = hashes.split_at(1 << hashes.len().ilog2());
                peaks.push(peak.iter().copied().collect::<Tree>().root());
                hashes = rest;
            }
        }
        Tree::from_peaks(self.size, peaks).expect("the widths of the tiles are the size in base 256")
    }
}

/// The bytes of a hash tile.
pub fn hashes_to_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.concat()
}

/// The hashes of a tile's bytes; `None` when they are not whole hashes.
pub fn hashes_from_bytes(bytes: &[u8]) -> Option<Vec<Hash>> {
    bytes.len().is_multiple_of(32).then(|| bytes.chunks_exact(32).map(to_hash).collect())
}

/// Entries in the making of a bundle, as the bytes of its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    bytes: Vec<u8>,
}

impl Bundle {
    /// Adds an entry; `false`, and nothing added, when it is longer than [`MAX_ENTRY`].
    #[must_use]
    pub fn push(&mut self, entry: &[u8]) -> bool {
        let Ok(length) = u16::try_from(entry.len()) else { return false };
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(entry);
        true
    }

    /// The file's content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Goes on with the content of a partial bundle's file.
impl From<Vec<u8>> for Bundle {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

/// The entries of a bundle's bytes; `None` when they end in the middle of one.
pub fn entries_from_bytes(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        entries.push(entry);
        bytes = rest;
    }
    Some(entries)
}
