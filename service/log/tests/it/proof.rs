//! Proofs built from tiles are those of RFC 6962. (That they verify is proven by the auditor's tests.)

use join_log::portable::prove;
use join_log::{Hash, LogDirectory, prove_consistency, prove_inclusion, root_at};

use crate::{naive, numbers, signed};

fn log_of(size: u64) -> (tempfile::TempDir, LogDirectory, Vec<Hash>) {
    let root = tempfile::tempdir().unwrap();
    let mut log = LogDirectory::open(root.path()).unwrap();
    let entries = numbers(0..size);
    log.integrate(&entries).unwrap();
    let leaves = entries.iter().map(|entry| naive::leaf(entry)).collect();
    (root, log, leaves)
}

fn starts(proof: &[Hash]) -> Vec<String> {
    proof.iter().map(|hash| hex::encode(&hash[..8])).collect()
}

#[test]
fn proofs_are_those_of_the_test_vectors() {
    // A log that has stopped at 7 and one that has not answer alike.
    let (_root, longer, _) = log_of(8);
    let (_other_root, log, _) = log_of(7);
    for reader in [log.reader(), longer.reader()] {
        let inclusion = prove_inclusion(reader, 4, 7).unwrap();
        assert_eq!(starts(&inclusion), ["53304f5e3fd4bcd2", "3bf9c81c231cae70", "9f4a3fc20d4162dc"]);
    }
    let consistency = prove_consistency(log.reader(), 3, 7).unwrap();
    assert_eq!(starts(&consistency), ["fa61e3dec3439589", "906c5d2485cae722", "cb00989d94a569c0", "973f083957c7359f"]);
    assert_eq!(starts(&prove_consistency(log.reader(), 4, 7).unwrap()), ["973f083957c7359f"]);

    let consistency = prove_consistency(longer.reader(), 6, 8).unwrap();
    assert_eq!(starts(&consistency), ["d2737dce8a7df1d7", "f384a00ff1483ad1", "9f4a3fc20d4162dc"]);
}

#[test]
fn every_proof_is_that_of_the_definition() {
    for size in [1, 2, 5, 64, 255, 256, 257, 300, 513] {
        let (_root, log, leaves) = log_of(size);
        assert_eq!(root_at(log.reader(), size).unwrap(), naive::root(&leaves));
        for index in 0..size {
            let proof = prove_inclusion(log.reader(), index, size).unwrap();
            assert_eq!(proof, naive::inclusion(index as usize, &leaves), "{index} in {size}");
        }
        for old in 0..=size {
            let proof = prove_consistency(log.reader(), old, size).unwrap();
            assert_eq!(proof, naive::consistency(old as usize, &leaves), "{old} to {size}");
        }
    }
}

#[test]
fn proofs_reach_the_second_and_third_level_of_tiles() {
    let (_root, log, leaves) = log_of(70_000);
    for index in [0, 255, 256, 65_535, 65_536, 69_999] {
        let proof = prove_inclusion(log.reader(), index, 70_000).unwrap();
        assert_eq!(proof, naive::inclusion(index as usize, &leaves), "{index}");
    }
    for old in [1, 256, 65_535, 65_536, 65_537, 69_888] {
        let proof = prove_consistency(log.reader(), old, 70_000).unwrap();
        assert_eq!(proof, naive::consistency(old as usize, &leaves), "{old}");
    }
}

#[test]
fn impossible_proofs_are_refused() {
    let (_root, log, _) = log_of(3);
    let beyond = prove_inclusion(log.reader(), 3, 3).unwrap_err();
    assert_eq!(beyond.to_string(), "entry 3 is not in a tree of 3 entries");
    let backwards = prove_consistency(log.reader(), 4, 3).unwrap_err();
    assert_eq!(backwards.to_string(), "a tree of 4 entries cannot be the beginning of one of 3");
}

#[test]
fn a_portable_proof_is_laid_out_as_specified() {
    let (_root, log, _) = log_of(2);
    let note = signed(&log.tree());
    let text = prove(log.reader(), 1, &note, b"").unwrap();
    let (proof, checkpoint) = text.split_once("\n\n").unwrap();
    assert_eq!(proof, "c2sp.org/tlog-proof@v1\nindex 1\n2zQm6HgGjSjSabbIcXIyLOU3K2V1bQeJAB00g19gHAM=");
    assert_eq!(checkpoint, note.to_string());
    assert!(
        prove(log.reader(), 1, &note, b"more")
            .unwrap()
            .starts_with("c2sp.org/tlog-proof@v1\nextra bW9yZQ==\nindex 1\n")
    );
}
