//! Tests of the log's writer: test vectors, the directory under faults, proofs, witnessing and the refusal to sign.

mod directory;
mod faults;
mod fsck;
mod memory_disk;
mod naive;
mod note;
mod proof;
mod rollback;
mod tile;
mod tree;
mod witness;

use join_log::{Checkpoint, NoteSigner, SignedNote, Tree};

/// The entries "0", "1", … of the test vectors.
fn numbers(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    range.map(|number| number.to_string().into_bytes()).collect()
}

/// The secret bytes `first`, `first + 1`, … of a test key.
fn seed(first: u8) -> [u8; 32] {
    std::array::from_fn(|i| first + i as u8)
}

/// The log key of the test vectors.
fn log_signer() -> NoteSigner {
    NoteSigner::from_seed("join.example/log-a", &seed(0)).unwrap()
}

fn checkpoint(tree: &Tree) -> Checkpoint {
    Checkpoint { origin: "join.example/log-a".into(), size: tree.size(), root: tree.root() }
}

fn signed(tree: &Tree) -> SignedNote {
    SignedNote::sign(&checkpoint(tree), &[log_signer()])
}
