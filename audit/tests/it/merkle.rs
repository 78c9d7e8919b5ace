//! Roots and proofs: against the test vectors, and against the writer, with which nothing is shared.

use join_audit::merkle::{Accumulator, Hash, is_included, leaf, root};
use join_log::{LogDirectory, prove_consistency, prove_inclusion};
use join_log_tests::is_consistent;
use proptest::prelude::*;

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|number| leaf(number.to_string().as_bytes())).collect()
}

#[test]
fn roots_are_those_of_the_test_vectors() {
    let vectors = [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "db3426e878068d28d269b6c87172322ce5372b65756d0789001d34835f601c03"),
        (2, "cb00989d94a569c0a678ae042b63dcd4625db96440517f37a6eb7976ea24ed4b"),
        (3, "725d5230db68f557470dc35f1d8865813acd7ebb07ad152774141decbae71327"),
        (7, "a3e23b32ccb6bf96d092d165d8aa546e09829de8f03b0e8957581d1e16b92bdf"),
        (8, "3b85a9626c1ccb64c6b95ec7fa64888defe2cf12e39e77e10812ce5fcb9cb58e"),
        (256, "828515d033c19d8c901f37eccb8aed919667703486f8d2fff1cf7040321c5db1"),
        (257, "1eda049a4351d86f76252bd7ec0b7746ad75b7fa0316ad5f541dbda458a312c4"),
        (300, "84e13ec1e037155ae619757599b2cd21ada5a565e0fd9b3139c0c3c6c1b8ada9"),
    ];
    for (size, expected) in vectors {
        assert_eq!(hex::encode(root(&leaves(size))), expected, "{size}");
    }
    let mut tree = Accumulator::default();
    tree.extend(leaves(300));
    assert_eq!(tree.size(), 300);
}

/// A log of 600 entries, of which proofs are asked for any earlier size.
fn log() -> (tempfile::TempDir, LogDirectory) {
    let directory = tempfile::tempdir().unwrap();
    let mut log = LogDirectory::open(directory.path()).unwrap();
    for number in 0..600_u32 {
        log.integrate([number.to_string()]).unwrap();
    }
    (directory, log)
}

#[test]
fn every_proof_of_the_writer_verifies() {
    let (_directory, log) = log();
    let leaves = leaves(600);
    let roots: Vec<Hash> = (0..=600).map(|size| root(&leaves[..size])).collect();
    for size in (1..=40).chain([64, 127, 128, 129, 255, 256, 257, 300, 513, 600]) {
        for index in 0..size {
            let proof = prove_inclusion(log.reader(), index, size).unwrap();
            assert!(
                is_included(leaves[index as usize], index, size, roots[size as usize], &proof),
                "{index} in {size}"
            );
        }
        for old in 0..=size {
            let proof = prove_consistency(log.reader(), old, size).unwrap();
            assert!(is_consistent(old, roots[old as usize], size, roots[size as usize], &proof), "{old} to {size}");
        }
    }
}

/// What a forger may do to a proof.
#[derive(Debug, Clone)]
enum Change {
    FlipBit(usize, u8),
    Drop(usize),
    Repeat(usize),
    Append,
    Swap(usize),
}

impl Change {
    /// The proof changed; none when there is nothing to change that way.
    fn applied(&self, proof: &[Hash]) -> Option<Vec<Hash>> {
        let mut changed = proof.to_vec();
        let place = |at: usize| (!proof.is_empty()).then(|| at % proof.len());
        match *self {
            Self::FlipBit(at, bit) => changed[place(at)?][usize::from(bit) / 8] ^= 1 << (bit % 8),
            Self::Drop(at) => drop(changed.remove(place(at)?)),
            Self::Repeat(at) => changed.insert(place(at)?, proof[place(at)?]),
            Self::Append => changed.push([7; 32]),
            Self::Swap(at) => changed.swap(place(at)?, place(at + 1)?),
        }
        (changed != proof).then_some(changed)
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, bit)| Change::FlipBit(at, bit)),
        any::<usize>().prop_map(Change::Drop),
        any::<usize>().prop_map(Change::Repeat),
        Just(Change::Append),
        (0..1000_usize).prop_map(Change::Swap),
    ]
}

#[test]
fn no_changed_proof_verifies() {
    let (_directory, log) = log();
    let leaves = leaves(600);
    let flipped = |mut hash: Hash, bit: u8| {
        hash[usize::from(bit) / 8] ^= 1 << (bit % 8);
        hash
    };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(600));
    let inputs = (1..=600_u64, any::<u64>(), any::<u64>(), change(), any::<u8>());
    runner
        .run(&inputs, |(size, index, other, change, bit)| {
            let (index, other) = (index % size, other % size);
            let tree = root(&leaves[..size as usize]);
            let entry = leaves[index as usize];
            let proof = prove_inclusion(log.reader(), index, size).unwrap();
            if let Some(changed) = change.applied(&proof) {
                prop_assert!(!is_included(entry, index, size, tree, &changed));
            }
            prop_assert!(!is_included(flipped(entry, bit), index, size, tree, &proof));
            prop_assert!(!is_included(entry, index, size, flipped(tree, bit), &proof));
            prop_assert!(!is_included(entry, size, size, tree, &proof));
            prop_assert!(other == index || !is_included(entry, other, size, tree, &proof));

            let old = index + 1;
            let old_tree = root(&leaves[..old as usize]);
            let proof = prove_consistency(log.reader(), old, size).unwrap();
            if let Some(changed) = change.applied(&proof) {
                prop_assert!(!is_consistent(old, old_tree, size, tree, &changed));
            }
            prop_assert!(!is_consistent(old, flipped(old_tree, bit), size, tree, &proof));
            prop_assert!(!is_consistent(old, old_tree, size, flipped(tree, bit), &proof));
            prop_assert!(!is_consistent(size + 1, tree, size, tree, &proof));
            prop_assert!(!is_consistent(0, old_tree, size, tree, &proof));
            Ok(())
        })
        .unwrap();
}
