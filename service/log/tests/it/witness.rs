//! The log's conversation with a witness. The witness here is a small but real one.

use join_log::witness::{Answer, Submission, WitnessError, monitoring_path};
use join_log::{LogDirectory, NoteSigner, SignatureLine, VerifierKey};
use join_log_tests::Witness;

use crate::{log_signer, numbers, seed, signed};

/// Carries on the conversation to its end.
fn cosign(log: &LogDirectory, witness: &mut Witness, old: u64) -> Result<SignatureLine, WitnessError> {
    let (note, key) = (signed(&log.tree()), witness.key());
    let mut submission = Submission::new(log.reader(), &note, &key, old)?;
    loop {
        let answer = witness.answer(&submission.body()?, 1_700_000_000);
        if let Some(line) = submission.take(&answer)? {
            return Ok(line);
        }
    }
}

fn log_of(size: u64) -> (tempfile::TempDir, LogDirectory) {
    let root = tempfile::tempdir().unwrap();
    let mut log = LogDirectory::open(root.path()).unwrap();
    log.integrate(numbers(0..size)).unwrap();
    (root, log)
}

fn witness() -> Witness {
    witness_of(log_signer().verifier_key())
}

fn witness_of(log: &VerifierKey) -> Witness {
    let mut witness = Witness::default();
    witness.knows(log.clone());
    witness
}

#[test]
fn the_witness_of_these_tests_cosigns_as_in_the_test_vectors() {
    let (_root, mut log) = log_of(0);
    log.integrate([b"a".as_slice(), b"", b"xyz"]).unwrap();
    let line = cosign(&log, &mut witness(), 0).unwrap();
    assert_eq!(
        line.to_string(),
        "— witness.example/w1 IDJKvgAAAABlU/EAyyehtOzVoAxx9mQ0NULYb+3WLtLZHSMPfq45PkzwKxZP+Pw959YowAbsJ2ItVixdqV9KBTZLeNonPhA0zu8SAA=="
    );
}

#[test]
fn the_monitoring_path_is_that_of_the_test_vectors() {
    let hash = "309435357f3346ed84479cecc81a77c4741c35d22fe3284509d38788fe493d17";
    assert_eq!(monitoring_path("join.example/log-a"), format!("{hash}/checkpoint"));
}

#[test]
fn a_growing_log_is_cosigned_whatever_it_believes_of_the_witness() {
    let (_root, mut log) = log_of(0);
    let mut witness = witness();
    let mut previous = 0;
    for size in [0, 1, 2, 2, 7, 8, 255, 300, 70_000] {
        log.integrate(numbers(log.size()..size)).unwrap();
        for believed in [previous, 0, previous / 2] {
            let line = cosign(&log, &mut witness, believed).unwrap();
            let mut note = signed(&log.tree());
            note.add(line);
            assert!(note.is_signed_by(&witness.key()));
        }
        previous = size;
    }
}

#[test]
fn a_body_is_laid_out_as_specified() {
    let (_root, log) = log_of(7);
    let (note, key) = (signed(&log.tree()), witness().key());
    let body = Submission::new(log.reader(), &note, &key, 4).unwrap().body().unwrap();
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3], lines[4]), ("old 4", "", "join.example/log-a", "7"));
    let fresh = Submission::new(log.reader(), &note, &key, 0).unwrap().body().unwrap();
    assert_eq!(fresh, format!("old 0\n\n{note}"));
}

#[test]
fn a_fork_is_told_apart() {
    let mut witness = witness();
    let (_root, honest) = log_of(10);
    cosign(&honest, &mut witness, 0).unwrap();

    let (_root, mut fork) = log_of(9);
    fork.integrate([b"another tenth"]).unwrap();
    let same_size = cosign(&fork, &mut witness, 0).unwrap_err();
    assert!(matches!(same_size, WitnessError::Inconsistent { old: 10, .. }), "{same_size}");
    fork.integrate([b"eleventh"]).unwrap();
    let larger = cosign(&fork, &mut witness, 10).unwrap_err();
    assert!(matches!(larger, WitnessError::Inconsistent { old: 10, .. }), "{larger}");

    let (_root, rolled_back) = log_of(9);
    for believed in [0, 9, 10] {
        let behind = cosign(&rolled_back, &mut witness, believed).unwrap_err();
        assert!(matches!(behind, WitnessError::Ahead { witnessed: 10, size: 9 }), "{behind}");
    }
}

#[test]
fn refusals_have_names() {
    let (_root, log) = log_of(3);
    let mut stranger = witness_of(NoteSigner::from_seed("join.example/log-b", &seed(1)).unwrap().verifier_key());
    assert!(matches!(cosign(&log, &mut stranger, 0), Err(WitnessError::UnknownLog)));
    let mut rekeyed = witness_of(NoteSigner::from_seed("join.example/log-a", &seed(1)).unwrap().verifier_key());
    assert!(matches!(cosign(&log, &mut rekeyed, 0), Err(WitnessError::Untrusted)));
}

#[test]
fn a_witness_that_misbehaves_gets_nowhere() {
    let (_root, log) = log_of(9);
    let (note, key) = (signed(&log.tree()), witness().key());
    let answer = |status, kind: Option<&str>, body: &str| Answer {
        status,
        content_type: kind.map(str::to_owned),
        body: body.to_owned(),
    };
    let first = |answer: Answer| Submission::new(log.reader(), &note, &key, 0).unwrap().take(&answer);

    let unsigned = first(answer(200, None, "hello\n"));
    assert!(matches!(unsigned, Err(WitnessError::NotCosigned(name)) if name == "witness.example/w1"));
    let other_text = witness().cosign("another text\n", 1).to_string();
    assert!(matches!(first(answer(200, None, &other_text)), Err(WitnessError::NotCosigned(_))));
    let own_line_back = note.signatures()[0].to_string();
    assert!(matches!(first(answer(200, None, &own_line_back)), Err(WitnessError::NotCosigned(_))));
    assert!(matches!(first(answer(409, None, "4\n")), Err(WitnessError::Refused { status: 409, .. })));
    assert!(matches!(first(answer(409, Some("text/x.tlog.size"), "x\n")), Err(WitnessError::Refused { .. })));
    let rude = first(answer(500, None, &format!("a\nb\u{7}{}", "c".repeat(10_000)))).unwrap_err().to_string();
    assert!(rude.starts_with("the witness answered 500: a b ccc") && rude.len() < 300, "{rude}");

    let mut submission = Submission::new(log.reader(), &note, &key, 0).unwrap();
    let moving = |size| answer(409, Some("text/x.tlog.size"), size);
    assert!(submission.take(&moving("1\n")).unwrap().is_none());
    assert!(submission.take(&moving("2\n")).unwrap().is_none());
    assert!(matches!(submission.take(&moving("3\n")), Err(WitnessError::TooManyTries)));
}
