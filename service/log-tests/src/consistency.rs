//! Consistency proofs, checked as a witness does that keeps a root alone (RFC 9162 section 2.1.4.2).

use join_log::{Hash, Tree, node_hash};

/// Whether the proof shows that the tree of `old` leaves is the beginning of the tree of `new` leaves.
pub fn is_consistent(old: u64, old_root: Hash, new: u64, new_root: Hash, proof: &[Hash]) -> bool {
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && old_root == Tree::default().root();
    }
    // A complete old tree is itself the first node; the proof leaves it out.
    let first = if old.is_power_of_two() { Some(&old_root) } else { None };
    let mut path = first.into_iter().chain(proof);
    let Some(first) = path.next().filter(|_| old < new) else { return false };
    let (mut node_index, mut last_index) = (old - 1, new - 1);
    while node_index % 2 == 1 {
        (node_index, last_index) = (node_index / 2, last_index / 2);
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in path {
        if last_index == 0 {
            return false;
        }
        if node_index % 2 == 1 || node_index == last_index {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node_index % 2 == 0 && node_index != 0 {
                (node_index, last_index) = (node_index / 2, last_index / 2);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node_index, last_index) = (node_index / 2, last_index / 2);
    }
    last_index == 0 && old_hash == old_root && new_hash == new_root
}
