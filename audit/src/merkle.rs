//! RFC 6962 hashing and the verification of its proofs (RFC 9162 sections 2.1.3.2 and 2.1.4.2).

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The hash of an entry.
pub fn leaf(entry: &[u8]) -> Hash {
    sha256(&[&[0x00], entry])
}

/// The hash of two subtrees.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[0x01], left, right])
}

/// A tree that is only ever added to: for every height at most one complete subtree, like the digits of a binary number.
#[derive(Debug, Clone, Default)]
pub struct Accumulator {
    subtrees: Vec<Option<Hash>>,
    size: u64,
}

impl Accumulator {
    /// Adds the next leaf's hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut carried = leaf;
        for subtree in &mut self.subtrees {
            match subtree.take() {
                Some(left) => carried = node(&left, &carried),
                None => {
                    *subtree = Some(carried);
                    self.size += 1;
                    return;
                }
            }
        }
        self.subtrees.push(Some(carried));
        self.size += 1;
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree so far.
    pub fn root(&self) -> Hash {
        let smallest_first = self.subtrees.iter().flatten();
        let root = smallest_first.copied().reduce(|right, left| node(&left, &right));
        root.unwrap_or_else(|| sha256(&[]))
    }
}

impl Extend<Hash> for Accumulator {
    fn extend<T: IntoIterator<Item = Hash>>(&mut self, leaves: T) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

/// The root of some leaves.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut tree = Accumulator::default();
    tree.extend(leaves.iter().copied());
    tree.root()
}

/// Whether the proof leads from a leaf at `index` to the root of a tree of `size` leaves.
pub fn is_included(leaf: Hash, index: u64, size: u64, root: Hash, proof: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut node_index, mut last_index) = (index, size - 1);
    let mut hash = leaf;
    for sibling in proof {
        if last_index == 0 {
            return false;
        }
        if node_index % 2 == 1 || node_index == last_index {
            hash = node(sibling, &hash);
            // At the right edge, levels at which the node has no sibling are skipped.
            while node_index % 2 == 0 && node_index != 0 {
                (node_index, last_index) = (node_index / 2, last_index / 2);
            }
        } else {
            hash = node(&hash, sibling);
        }
        (node_index, last_index) = (node_index / 2, last_index / 2);
    }
    last_index == 0 && hash == root
}
