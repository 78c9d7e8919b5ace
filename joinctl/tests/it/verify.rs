//! Offline verification: an export that is right, and one that is not; the proof of one event.

use std::{fs, path::Path};

use join_domain::{
    envelope::{Entry, Origin, StreamId, StreamKind},
    event::{BotCreated, BotUpdated, Event, Nothing},
    resource::BotSpec,
};
use join_log::{Checkpoint, LogDirectory, NoteSigner, SignedNote, portable};

use crate::{Ran, command, run};

const ORIGIN: &str = "join.example/log-a";

fn signer() -> NoteSigner {
    NoteSigner::from_seed(ORIGIN, &[7; 32]).unwrap()
}

/// The history of one bot.
fn envelopes() -> Vec<String> {
    let spec = |role: &str| BotSpec { roles: vec![role.to_owned()], ..BotSpec::default() };
    let events = [
        Event::BotCreated(BotCreated { name: "example".parse().unwrap(), spec: spec("reader") }),
        Event::BotUpdated(BotUpdated { spec: spec("writer") }),
        Event::BotDeleted(Nothing {}),
    ];
    let time = chrono::DateTime::from_timestamp(1_760_000_000, 0).unwrap();
    let entry = |(i, event)| Entry {
        stream: StreamId { kind: StreamKind::Bot, id: uuid::Uuid::from_u128(1) },
        first_version: i,
        events: vec![event],
        decided_at: time,
        recorded_at: time,
        origin: Origin { actor: "admin/example".into(), ..Origin::default() },
    };
    (1..).zip(events).map(|event| entry(event).to_envelope().unwrap()).collect()
}

/// Writes what `audit export` leaves behind.
fn export(root: &Path) -> (LogDirectory, SignedNote) {
    let envelopes = envelopes();
    let mut log = LogDirectory::open(root.join("log")).unwrap();
    log.integrate(&envelopes).unwrap();
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size: 3, root: log.tree().root() };
    let note = SignedNote::sign(&checkpoint, &[signer()]);

    let export = root.join("export");
    fs::create_dir(&export).unwrap();
    fs::rename(root.join("log/tile"), export.join("tile")).unwrap();
    let line =
        |(i, envelope): (usize, String)| format!("{}\n", serde_json::json!({"log_index": i, "envelope": envelope}));
    fs::write(export.join("entries-000000.jsonl"), envelopes.into_iter().enumerate().map(line).collect::<String>())
        .unwrap();
    fs::write(export.join("checkpoint"), note.to_string()).unwrap();
    fs::write(export.join("policy"), policy()).unwrap();
    fs::write(export.join("end.json"), r#"{"entries":3}"#).unwrap();
    (log, note)
}

fn policy() -> String {
    format!("log {}\nquorum none\n", signer().verifier_key())
}

fn verify(root: &Path, arguments: &[&str]) -> Ran {
    run(&mut command(root, &[&["audit", "verify"], arguments].concat()))
}

#[test]
fn an_export_that_is_right_is_verified_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path());
    let ran = verify(folder.path(), &["--from", "export"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("entries      3, with 3 events in 1 streams"), "{}", ran.stdout);
    assert!(ran.stdout.contains("verified"), "{}", ran.stdout);
    assert!(ran.stderr.contains("the log key that stands in the export itself"), "{}", ran.stderr);

    fs::write(folder.path().join("mine"), policy()).unwrap();
    let trusted = ["--from", "export", "--policy", "mine", "--trusted", "export/checkpoint", "--format", "json"];
    let ran = verify(folder.path(), &trusted);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["report"]["checkpoint"]["size"], 3);
    assert_eq!(json["report"]["findings"], serde_json::json!([]));
}

#[test]
fn a_changed_event_ends_with_3_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path());
    let entries = folder.path().join("export/entries-000000.jsonl");
    fs::write(&entries, fs::read_to_string(&entries).unwrap().replace("writer", "admin!")).unwrap();
    let ran = verify(folder.path(), &["--from", "export"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stdout.contains("WRONG        log index 1: "), "{}", ran.stdout);
    assert!(ran.stderr.contains("error: the ledger is not what it should be: log index 1: "), "{}", ran.stderr);
    assert!(!ran.stdout.contains("verified"), "{}", ran.stdout);
}

#[test]
fn an_export_that_is_not_there_is_no_finding() {
    let folder = tempfile::tempdir().unwrap();
    let ran = verify(folder.path(), &["--from", "nowhere"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
}

#[test]
fn the_proof_of_an_event_is_checked_and_tells_the_event() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (log, note) = export(root);
    fs::rename(root.join("export/tile"), root.join("log/tile")).unwrap();
    let proof = portable::prove(log.reader(), 1, &note, envelopes()[1].as_bytes()).unwrap();
    fs::write(root.join("event.tlog-proof"), &proof).unwrap();
    fs::write(root.join("mine"), policy()).unwrap();

    let arguments = ["--proof", "event.tlog-proof", "--policy", "mine"];
    let ran = verify(root, &arguments);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("proven: entry 1 of join.example/log-a stands in the checkpoint of 3 entries\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("bot.updated"), "{}", ran.stdout);

    // The proof of this entry does not prove another.
    let other = portable::prove(log.reader(), 1, &note, envelopes()[2].as_bytes()).unwrap();
    fs::write(root.join("event.tlog-proof"), other).unwrap();
    let ran = verify(root, &arguments);
    assert_eq!(ran.code, 3, "{}", ran.stdout);
    assert_eq!(ran.stdout, "");

    // Nor does what is left of it on a bad disk.
    let mut damaged = proof.into_bytes();
    *damaged.last_mut().unwrap() = 0xff;
    fs::write(root.join("event.tlog-proof"), damaged).unwrap();
    assert_eq!(verify(root, &arguments).code, 3);
}

#[test]
fn bytes_that_are_no_text_are_a_finding_in_a_checkpoint() {
    for file in ["checkpoint", "checkpoints/2-00"] {
        let folder = tempfile::tempdir().unwrap();
        export(folder.path());
        let path = folder.path().join("export").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"join.example/log-a\n\xff").unwrap();
        let ran = verify(folder.path(), &["--from", "export"]);
        assert_eq!(ran.code, 3, "{file}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("the ledger is not what it should be"), "{file}: {}", ran.stderr);
    }
}
