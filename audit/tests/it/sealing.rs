//! Forged checkpoints and missing cosignatures.

use join_audit::{Fault, Policy};
use join_log::{Checkpoint, NoteSigner, SignedNote};

use crate::export::{Export, faults, note_of};
use crate::history::History;
use crate::keys::{ORIGIN, Witness, log_key, seed};

fn export() -> Export {
    Export::of(&History::of(30))
}

fn checkpoint_of(export: &Export) -> Checkpoint {
    export.checkpoint.as_ref().unwrap().parse::<SignedNote>().unwrap().checkpoint().unwrap()
}

fn is_forged(checkpoint: impl Into<String>) {
    let export = Export { checkpoint: Some(checkpoint.into()), ..export() };
    let report = export.audited();
    assert_eq!(faults(&report), [(Fault::ForgedCheckpoint, None)], "{:?}", export.checkpoint);
    assert_eq!(report.checkpoint, None);
}

#[test]
fn a_checkpoint_signed_with_another_key() {
    let stranger = NoteSigner::from_seed(ORIGIN, &seed(99)).unwrap();
    is_forged(SignedNote::sign(&checkpoint_of(&export()), &[stranger]).to_string());
}

#[test]
fn a_checkpoint_with_another_root_or_size_under_the_old_signature() {
    let genuine = export().checkpoint.unwrap();
    let other = note_of(&History::of(29).envelopes()).to_string();
    let (text, signature) = (other.split_once("\n\n").unwrap().0, genuine.split_once("\n\n").unwrap().1);
    is_forged(format!("{text}\n\n{signature}"));
    is_forged(genuine.replace("\n30\n", "\n31\n"));
}

#[test]
fn a_checkpoint_of_one_known_log_in_the_name_of_another() {
    let other = NoteSigner::from_seed("join.example/log-b", &seed(50)).unwrap();
    let policy = Policy::of_logs([log_key(), other.verifier_key().to_string().parse().unwrap()]);
    let note = SignedNote::sign(&checkpoint_of(&export()), &[other]);
    let export = Export { checkpoint: Some(note.to_string()), ..export() };
    assert_eq!(faults(&export.audited_by(&policy, None)), [(Fault::ForgedCheckpoint, None)]);
}

#[test]
fn a_good_signature_beside_a_wrong_one_of_a_known_key() {
    let genuine = export().checkpoint.unwrap();
    let other = note_of(&History::of(29).envelopes()).to_string();
    is_forged(format!("{genuine}{}", other.split_once("\n\n").unwrap().1));
}

#[test]
fn what_is_no_checkpoint() {
    let genuine = export().checkpoint.unwrap();
    let (text, signature) = genuine.split_once("\n\n").unwrap();
    is_forged("");
    is_forged(text);
    is_forged(format!("{text}\n\n"));
    is_forged(genuine.trim_end());
    is_forged(genuine.replace('\n', "\r\n"));
    is_forged(genuine.replace('—', "-"));
    is_forged(genuine.replace("\n30\n", "\n030\n"));
    is_forged(format!("{text}\nextension\n\n{signature}"));
    is_forged(format!("{genuine}{}", "— x AAAAAAAA\n".repeat(50_000)));
}

#[test]
fn signatures_of_unknown_keys_are_no_matter() {
    let mut note = note_of(&History::of(30).envelopes());
    Witness::new(9).cosign(&mut note);
    let export =
        Export { checkpoint: Some(format!("{note}— ml-dsa.example/w AAAAAA{}\n", "A".repeat(3230))), ..export() };
    assert_eq!(export.faults(), []);
}

#[test]
fn a_quorum_of_witnesses() {
    let witnesses = [1, 2, 3].map(Witness::new);
    let mut policy = format!("log {}\n", log_key());
    for (name, witness) in ["a", "b", "c"].iter().zip(&witnesses) {
        policy += &format!("witness {name} {}\n", witness.key());
    }
    let policy = |rule: &str| format!("{policy}{rule}").parse::<Policy>().unwrap();
    let cosigned = |numbers: &[usize]| {
        let mut note = note_of(&History::of(30).envelopes());
        numbers.iter().for_each(|number| witnesses[*number].cosign(&mut note));
        Export { checkpoint: Some(note.to_string()), ..export() }
    };
    let found = |numbers: &[usize], rule: &str| faults(&cosigned(numbers).audited_by(&policy(rule), None));
    let too_few = [(Fault::TooFewWitnesses, None)];

    assert_eq!(found(&[], "quorum none"), []);
    assert_eq!(found(&[], "quorum a"), too_few);
    assert_eq!(found(&[0], "quorum a"), []);
    assert_eq!(found(&[1], "quorum a"), too_few);
    assert_eq!(found(&[1], "group g 2 a b c\nquorum g"), too_few);
    assert_eq!(found(&[1, 2], "group g 2 a b c\nquorum g"), []);
    assert_eq!(found(&[2], "group g any a b c\nquorum g"), []);
    assert_eq!(found(&[0, 2], "group g all a b c\nquorum g"), too_few);
    assert_eq!(found(&[0, 1, 2], "group g all a b c\nquorum g"), []);
    assert_eq!(found(&[0, 2], "group x any a b\ngroup y all x c\nquorum y"), []);
    assert_eq!(found(&[0, 1], "group x any a b\ngroup y all x c\nquorum y"), too_few);

    // A cosignature that is wrong spoils the note, even where it is not asked for.
    let mut export = cosigned(&[0]);
    export.checkpoint = export.checkpoint.map(|note| note.replacen("w1 ", "w1 IDJKvgAA", 1));
    let spoilt = faults(&export.audited_by(&policy("quorum none"), None));
    assert_eq!(spoilt, [(Fault::ForgedCheckpoint, None)]);
}
