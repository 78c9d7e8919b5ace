//! Signed notes and checkpoints.

use join_log::{Checkpoint, SignedNote, Tree, VerifierKey};
use proptest::prelude::*;

use crate::{log_signer, signed};

const LOG_KEY: &str = "join.example/log-a+93bd71f6+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
const WITNESS_KEY: &str = "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X";
const LOG_LINE: &str = "— join.example/log-a k71x9rKeoRVmpowoDDT9fZd8mdbecYmNMwt/R2zq+o2R1jZu9mTRM4ut8YFnbXxan7l1qIbB5uFPw/GlgUbM/YWBzwM=\n";
const WITNESS_LINE: &str = "— witness.example/w1 IDJKvgAAAABlU/EAyyehtOzVoAxx9mQ0NULYb+3WLtLZHSMPfq45PkzwKxZP+Pw959YowAbsJ2ItVixdqV9KBTZLeNonPhA0zu8SAA==\n";
const TEXT: &str = "join.example/log-a\n3\nXvAysx/0be7hHuQoHGP0PNmAtXgLJj26UX/f4lhCajI=\n";

fn three_entries() -> Tree {
    let mut tree = Tree::default();
    for entry in [b"a".as_slice(), b"", b"xyz"] {
        tree.append(entry);
    }
    tree
}

#[test]
fn the_signed_checkpoint_is_that_of_the_test_vectors() {
    assert_eq!(log_signer().verifier_key().to_string(), LOG_KEY);
    assert_eq!(signed(&three_entries()).to_string(), format!("{TEXT}\n{LOG_LINE}"));
}

#[test]
fn the_cosignature_of_the_test_vectors_verifies() {
    let mut note: SignedNote = format!("{TEXT}\n{LOG_LINE}{WITNESS_LINE}").parse().unwrap();
    assert!(note.is_signed_by(&LOG_KEY.parse().unwrap()));
    assert!(note.is_signed_by(&WITNESS_KEY.parse().unwrap()));
    assert_eq!(note.checkpoint().unwrap().root, three_entries().root());

    let mut later = note.signatures()[1].clone();
    later.signature[7] += 1;
    note.add(later);
    assert_eq!(note.signatures().len(), 2, "one line a key");
    assert!(!note.is_signed_by(&WITNESS_KEY.parse().unwrap()), "the time is signed too");
}

#[test]
fn a_bad_line_beside_a_good_one_of_the_same_key_spoils_it() {
    let bad = LOG_LINE.replace("9rKe", "9rKf");
    let note: SignedNote = format!("{TEXT}\n{LOG_LINE}{bad}").parse().unwrap();
    assert!(!note.is_signed_by(&LOG_KEY.parse().unwrap()));
}

#[test]
fn what_is_not_quite_a_note_is_refused() {
    let good = format!("{TEXT}\n{LOG_LINE}");
    let wrong = [
        TEXT.to_owned(),
        format!("{TEXT}\n"),
        format!("{TEXT}{LOG_LINE}"),
        good.trim_end().to_owned(),
        good.replace('—', "-"),
        good.replace("log-a k71", "log-a  k71"),
        good.replace("log-a k71", "log+a k71"),
        good.replace("3\nXv", "3\r\nXv"),
        good.replace("YWBzwM=", "YWBzwM"),
        format!("{TEXT}\n— join.example/log-a AAA=\n"),
        format!("{good}{}", LOG_LINE.repeat(2000)),
    ];
    for note in wrong {
        assert!(note.parse::<SignedNote>().is_err(), "{note:.200}");
    }
}

#[test]
fn what_is_not_quite_a_checkpoint_is_refused() {
    assert!(Checkpoint::parse(TEXT).is_ok());
    let wrong = [
        TEXT.replace("\n3\n", "\n03\n"),
        TEXT.replace("\n3\n", "\n+3\n"),
        TEXT.replace("\n3\n", "\n-1\n"),
        TEXT.replace("\n3\n", "\n18446744073709551616\n"),
        TEXT.replace("ajI=", "ajI"),
        TEXT.replace("join.example/log-a", ""),
        TEXT.trim_end().to_owned(),
        format!("{TEXT}extension\n"),
        format!("{TEXT}\n"),
        String::new(),
    ];
    for text in wrong {
        assert!(Checkpoint::parse(&text).is_err(), "{text}");
    }
}

#[test]
fn what_is_not_quite_a_key_is_refused() {
    let key: VerifierKey = LOG_KEY.parse().unwrap();
    assert_eq!((key.to_string(), key.name()), (LOG_KEY.to_owned(), "join.example/log-a"));
    let wrong = [
        LOG_KEY.replace("93bd", "93be"),
        LOG_KEY.replace("log-a", "log-b"),
        LOG_KEY.replace("+AQOh", "+AgOh"),
        LOG_KEY.replace("+AQOh", "+BAOh"),
        LOG_KEY.replace("93bd71f6", "93BD71F6"),
        LOG_KEY.replace("SVTG4", "SVT"),
        LOG_KEY.replace("join.", "join "),
        "name".to_owned(),
    ];
    for key in wrong {
        assert!(key.parse::<VerifierKey>().is_err(), "{key}");
    }
}

#[test]
fn a_signer_shows_its_public_half_only() {
    assert_eq!(format!("{:?}", log_signer()), format!("NoteSigner({LOG_KEY})"));
}

proptest! {
    #[test]
    fn any_text_is_refused_or_read_as_it_stands(text in "(\\PC|\n|— a AAAAAAAA\n){0,40}") {
        if let Ok(note) = text.parse::<SignedNote>() {
            prop_assert_eq!(note.to_string(), text);
        }
    }

    #[test]
    fn a_checkpoint_is_read_back(origin in "[a-z./]{1,20}", size: u64, root: [u8; 32]) {
        let checkpoint = Checkpoint { origin, size, root };
        prop_assert_eq!(Checkpoint::parse(&checkpoint.text()).unwrap(), checkpoint);
    }
}
