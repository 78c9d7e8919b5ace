//! Portable proofs of single entries.

use join_audit::{Fault, Policy, verify_portable};
use join_log::LogDirectory;
use join_log::portable::prove;
use proptest::prelude::*;

use crate::keys::{Witness, log_key, log_policy, signed};

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn log_of(size: u64) -> (tempfile::TempDir, LogDirectory) {
    let directory = tempfile::tempdir().unwrap();
    let mut log = LogDirectory::open(directory.path()).unwrap();
    log.integrate((0..size).map(entry)).unwrap();
    (directory, log)
}

#[test]
fn every_entry_can_be_proven() {
    let (_directory, log) = log_of(300);
    let note = signed(&log.tree());
    for index in 0..300 {
        let proof = prove(log.reader(), index, &note, b"context").unwrap();
        let proven = verify_portable(&proof, &entry(index), &log_policy()).unwrap();
        assert_eq!((proven.index, proven.checkpoint.size), (index, 300));
        let other = verify_portable(&proof, &entry(index + 1), &log_policy()).unwrap_err();
        assert_eq!((other.fault, other.place.log_index), (Fault::NotIncluded, Some(index)));
    }
}

#[test]
fn a_proof_needs_the_keys_and_the_witnesses_of_the_policy() {
    let (_directory, log) = log_of(5);
    let mut note = signed(&log.tree());
    let witness = Witness::new(1);
    let policy: Policy = format!("log {}\nwitness w {}\nquorum w", log_key(), witness.key()).parse().unwrap();
    let fault =
        |proof: &str, policy: &Policy| verify_portable(proof, &entry(3), policy).map_err(|finding| finding.fault);
    let bare = prove(log.reader(), 3, &note, b"").unwrap();
    assert_eq!(fault(&bare, &policy).unwrap_err(), Fault::TooFewWitnesses);
    assert_eq!(fault(&bare, &Policy::of_logs([])).unwrap_err(), Fault::ForgedCheckpoint);
    witness.cosign(&mut note);
    let cosigned = prove(log.reader(), 3, &note, b"").unwrap();
    assert!(fault(&cosigned, &policy).is_ok());
}

#[test]
fn what_is_not_quite_a_proof_is_refused() {
    let (_directory, log) = log_of(5);
    let proof = prove(log.reader(), 3, &signed(&log.tree()), b"extra").unwrap();
    assert!(verify_portable(&proof, &entry(3), &log_policy()).is_ok());
    for wrong in [
        String::new(),
        proof.replace("@v1", "@v2"),
        proof.replace("index 3", "index 03"),
        proof.replace("index 3\n", ""),
        proof.replace("extra ", "extra !"),
        proof.replace("index 3\n", "index 3\nAAAA\n"),
        proof.replacen("\n\n", "\n", 1),
        proof.replace('\n', "\r\n"),
        proof.trim_end().to_owned(),
        format!("{proof}{}", "— x AAAAAAAA\n".repeat(50_000)),
    ] {
        assert!(verify_portable(&wrong, &entry(3), &log_policy()).is_err(), "{wrong:.300}");
    }
}

proptest! {
    #[test]
    fn no_changed_byte_of_a_proof_passes(at: usize, bit in 0..8, index in 0u64..7) {
        let (_directory, log) = log_of(7);
        let proof = prove(log.reader(), index, &signed(&log.tree()), b"").unwrap();
        let mut bytes = proof.into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        if let Ok(proof) = String::from_utf8(bytes) {
            prop_assert!(verify_portable(&proof, &entry(index), &log_policy()).is_err(), "{}", proof);
        }
    }
}
