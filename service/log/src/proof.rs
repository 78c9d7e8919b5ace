//! Inclusion and consistency proofs (RFC 6962 section 2.1), built from tiles.

use std::collections::HashMap;
use std::io;

use crate::tile::{FULL, Layer, Tile};
use crate::tree::{Hash, Tree, node_hash};

/// Where the hashes of tiles come from.
pub trait TileReader {
    /// The hashes of a hash tile, exactly `tile.width` of them. A partial tile may be answered from the full one.
    fn hashes(&self, tile: Tile) -> io::Result<Vec<Hash>>;
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The entry is not in the tree.
    #[error("entry {index} is not in a tree of {size} entries")]
    NoSuchEntry {
        /// The entry's index, from 0.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// A later tree is smaller.
    #[error("a tree of {old} entries cannot be the beginning of one of {new}")]
    Backwards {
        /// The size that should come first.
        old: u64,
        /// The size that should come after it.
        new: u64,
    },
    /// A tile could not be read.
    #[error("cannot read the log's tiles: {0}")]
    Tiles(#[from] io::Error),
}

/// The hashes that lead from entry `index` to the root of the tree of `size` entries, the leaf's sibling first.
pub fn prove_inclusion(reader: &impl TileReader, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
    if index >= size {
        return Err(ProofError::NoSuchEntry { index, size });
    }
    let mut nodes = Nodes::new(reader, size);
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = split(from, to);
        if index < middle {
            proof.push(nodes.root(middle, to)?);
            to = middle;
        } else {
            proof.push(nodes.root(from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The hashes that show the tree of `old` entries to be the beginning of the tree of `new` entries.
/// There is nothing to show, and the proof is empty, when `old` is 0 or equals `new`.
pub fn prove_consistency(reader: &impl TileReader, old: u64, new: u64) -> Result<Vec<Hash>, ProofError> {
    if old > new {
        return Err(ProofError::Backwards { old, new });
    }
    let mut nodes = Nodes::new(reader, new);
    let (mut from, mut to) = (0, new);
    let mut proof = Vec::new();
    while old > 0 && old < to {
        let middle = split(from, to);
        if old <= middle {
            proof.push(nodes.root(middle, to)?);
            to = middle;
        } else {
            proof.push(nodes.root(from, middle)?);
            from = middle;
        }
    }
    if from > 0 {
        proof.push(nodes.root(from, to)?); // not the old tree itself, so its verifier does not have it
    }
    proof.reverse();
    Ok(proof)
}

/// The root that the tree had at `size` entries.
pub fn root_at(reader: &impl TileReader, size: u64) -> io::Result<Hash> {
    if size == 0 { Ok(Tree::default().root()) } else { Nodes::new(reader, size).root(0, size) }
}

/// The hash of entry `index`.
pub fn leaf_at(reader: &impl TileReader, index: u64) -> io::Result<Hash> {
    Nodes::new(reader, index + 1).root(index, index + 1)
}

/// Where RFC 6962 splits the leaves `from..to`: the largest power of two below their number makes the left side.
fn split(from: u64, to: u64) -> u64 {
    from + (1 << (to - from - 1).ilog2())
}

/// The inner nodes of a tree, found in its tiles.
struct Nodes<'a, R> {
    reader: &'a R,
    size: u64,
    tiles: HashMap<Tile, Vec<Hash>>,
}

impl<'a, R: TileReader> Nodes<'a, R> {
    fn new(reader: &'a R, size: u64) -> Self {
        Self { reader, size, tiles: HashMap::new() }
    }

    /// The root of the leaves `from..to`, a range that splitting led to. An incomplete one is folded, never read.
    fn root(&mut self, from: u64, to: u64) -> io::Result<Hash> {
        let leaves = to - from;
        if leaves.is_power_of_two() {
            return self.complete(leaves.trailing_zeros(), from);
        }
        let middle = split(from, to);
        Ok(node_hash(&self.root(from, middle)?, &self.root(middle, to)?))
    }

    /// The root of the `2^height` leaves beginning at `from`: up to 128 slots of one tile, hashed up to one.
    fn complete(&mut self, height: u32, from: u64) -> io::Result<Hash> {
        let layer = Layer::Hashes((height / 8) as u8);
        let first_slot = from >> (height / 8 * 8);
        let index = first_slot / u64::from(FULL);
        let width = (layer.slots(self.size) - index * u64::from(FULL)).min(FULL.into()) as u16;
        let tile = Tile { layer, index, width };
        let hashes = match self.tiles.get(&tile) {
            Some(hashes) => hashes,
            None => {
                let hashes = self.reader.hashes(tile)?;
                self.tiles.entry(tile).or_insert(hashes)
            }
        };
        let start = (first_slot % u64::from(FULL)) as usize;
        let slots = hashes.get(start..start + (1 << (height % 8)));
        let slots = slots.ok_or_else(|| io::Error::other(format!("{tile} holds {} hashes only", hashes.len())))?;
        Ok(slots.iter().copied().collect::<Tree>().root())
    }
}
