//! The Merkle tree of RFC 6962 section 2.1 with SHA-256, appended to through its peaks.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 hash: of a leaf, a node or a whole tree.
pub type Hash = [u8; 32];

/// The hash of one entry: `SHA256(0x00 || entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(entry);
    to_hash(context.finish().as_ref())
}

/// The hash of two subtrees: `SHA256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut node = [1; 65];
    node[1..33].copy_from_slice(left);
    node[33..].copy_from_slice(right);
    to_hash(digest(&SHA256, &node).as_ref())
}

pub(crate) fn to_hash(bytes: &[u8]) -> Hash {
    bytes.try_into().expect("the caller hands over 32 bytes")
}

/// The number of peaks does not fit the size: a tree has one peak for each 1-bit of its size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tree of {size} entries has {} peaks, not {given}", size.count_ones())]
pub struct WrongPeaks {
    size: u64,
    given: usize,
}

/// A tree that can grow: its size, and the roots of its complete subtrees ("peaks"), the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    peaks: Vec<Hash>,
}

impl Tree {
    /// Continues a tree of `size` entries.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Result<Self, WrongPeaks> {
        if peaks.len() != size.count_ones() as usize {
            return Err(WrongPeaks { size, given: peaks.len() });
        }
        Ok(Self { size, peaks })
    }

    /// The number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One hash for each 1-bit of the size, the largest subtree first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends an entry and returns its leaf hash.
    pub fn append(&mut self, entry: &[u8]) -> Hash {
        let leaf = leaf_hash(entry);
        self.append_hash(leaf);
        leaf
    }

    /// Appends a leaf by its hash; likewise any subtree, as long as all are equally large.
    pub fn append_hash(&mut self, mut hash: Hash) {
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("a peak for every 1-bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root hash; that of an empty tree is `SHA256("")`.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => to_hash(digest(&SHA256, &[]).as_ref()),
            Some(last) => peaks.fold(*last, |root, peak| node_hash(peak, &root)),
        }
    }
}

impl FromIterator<Hash> for Tree {
    fn from_iter<T: IntoIterator<Item = Hash>>(hashes: T) -> Self {
        let mut tree = Self::default();
        hashes.into_iter().for_each(|hash| tree.append_hash(hash));
        tree
    }
}
