//! Archives become databases, whole or not at all.

use std::{fs, path::PathBuf, time::Duration};

use join_ledger::Import;
use join_log::{Checkpoint, NoteSigner, SignedNote};
use join_log_tests::{Archive, Fleet};
use join_server::telemetry::{Alarm, METRICS};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::timeout;

use crate::authority::{Authority, Spec, joind};

const ARCHIVED: &str = "archive.example/log";
const EARLIER: &str = "archive.example/earlier";
const BOTS: usize = 50;

/// An archive of that cluster's first entries, and a fleet's history.
async fn archive(of: &Authority, entries: usize) -> PathBuf {
    let ledger = of.ledger().await;
    ledger.sequence_once(1000).await.unwrap();
    let begun = ledger.log(0, 1000).await.unwrap().entries;
    let directory = of.path("archive");
    let mut archive = Archive::create(&directory).unwrap();
    begun.iter().for_each(|entry| archive.push(&entry.envelope).unwrap());
    for entry in Fleet::new(BOTS as u64, ledger.now()).take(entries) {
        archive.push(&entry.to_envelope().unwrap()).unwrap();
    }
    archive.seal(NoteSigner::from_seed(ARCHIVED, &[5; 32]).unwrap()).unwrap();
    directory
}

async fn import(into: &Authority, archive: &std::path::Path) -> anyhow::Result<u8> {
    joind(&["import", "-c", &into.configuration("copy.example/log"), "--from", archive.to_str().unwrap()]).await
}

async fn count(connection: &mut PgConnection, what: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count({what}"))).fetch_one(connection).await.unwrap()
}

/// The keys of the authority are in no event: they come from a backup of their table.
async fn restore_keys(from: &Authority, into: &Authority) {
    let rows: Vec<String> = sqlx::query_scalar("SELECT row_to_json(k)::text FROM authority_key k")
        .fetch_all(&mut from.superuser().await)
        .await
        .unwrap();
    for row in rows {
        sqlx::query("INSERT INTO authority_key SELECT * FROM json_populate_record(NULL::authority_key, $1::json)")
            .bind(row)
            .execute(&mut into.superuser().await)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_becomes_a_database_that_serves_under_another_name() {
    // One at a time has its turn: the first authority is only read here.
    let entries = BOTS * 12;
    let origin = Authority::new().await;
    let begin = ["log", "begin", "-c", &origin.configuration(ARCHIVED), "--ended", EARLIER, "--reason", "restored"];
    assert_eq!(joind(&begin).await.unwrap(), 0);
    let archive = archive(&origin, entries).await;
    let keys_from = origin;
    let into = keys_from.sibling().await;
    assert_eq!(import(&into, &archive).await.unwrap(), 0);

    let ledger = into.ledger().await;
    let comparison = ledger.check(|_| {}).await.unwrap();
    assert!(comparison.is_equal(), "{comparison:?}");
    assert_eq!(comparison.entries, entries as u64 + 2);
    assert_eq!(ledger.settled().await.unwrap(), entries as u64 + 2);
    assert_eq!(ledger.positions().await.unwrap().views, entries as u64 + 2);
    let mut superuser = into.superuser().await;
    assert_eq!(count(&mut superuser, "attempt) FROM entry").await, 10 * BOTS as i64);
    assert_eq!(count(&mut superuser, "*) FROM stream WHERE kind = 'token' AND live").await, BOTS as i64);
    assert_eq!(count(&mut superuser, "*) FROM instance_view").await, BOTS as i64);
    assert_eq!(count(&mut superuser, "*) FROM pg_indexes WHERE indexname = 'entry_attempt'").await, 1);

    // Byte for byte what was archived, in its order.
    let mut at = 0;
    let mut envelopes = Vec::new();
    join_audit::each_envelope(&archive, |envelope| {
        envelopes.push(envelope);
        anyhow::Ok(())
    })
    .unwrap();
    while at < envelopes.len() {
        let page = ledger.log(at as u64, 500).await.unwrap();
        for entry in &page.entries {
            assert_eq!(entry.envelope, envelopes[at]);
            at += 1;
        }
    }

    // It is full now.
    let again = import(&into, &archive).await.unwrap_err();
    assert!(again.to_string().contains("holds history already"), "{again}");

    // Appends go on; the names under which this history was signed are not to be had.
    assert_eq!(ledger.ended_origins().await.unwrap(), [EARLIER, ARCHIVED]);
    restore_keys(&keys_from, &into).await;
    METRICS.alarm(Alarm::LogMisconfigured, false);
    let taken = into.node(Spec { directory: "taken", origin: Some(ARCHIVED), ..Spec::default() }).await;
    taken.until_misconfigured().await;
    assert!(taken.note().is_none());
    taken.stop().await;
    let node = into.node(Spec { directory: "copy", origin: Some("copy.example/log"), ..Spec::default() }).await;
    into.happens(3).await;
    let checkpoint = node.publishes_all().await.checkpoint().unwrap();
    assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("copy.example/log", entries as u64 + 5));
    node.until_alarm(false).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_not_what_was_signed_is_not_imported() {
    let origin = Authority::new().await;
    let archive = archive(&origin, BOTS * 4).await;
    let into = origin.sibling().await;
    let file = archive.join("entries-000000.jsonl");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replacen("bot-0000007", "bot-0000008", 1)).unwrap();
    assert_eq!(import(&into, &archive).await.unwrap(), 3);
    fs::write(&file, good.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    assert_eq!(import(&into, &archive).await.unwrap(), 3);
    fs::write(&file, &good).unwrap();
    // What it kept seals another history, or is damaged.
    let kept = archive.join("checkpoints/2-5a5a5a5a5a5a5a5a");
    fs::create_dir(archive.join("checkpoints")).unwrap();
    let checkpoint = Checkpoint { origin: ARCHIVED.to_owned(), size: 2, root: [0x5a; 32] };
    let note = SignedNote::sign(&checkpoint, &[NoteSigner::from_seed(ARCHIVED, &[5; 32]).unwrap()]).to_string();
    for note in [note.replacen("\n2\n", "\n1\n", 1), note] {
        fs::write(&kept, note).unwrap();
        assert_eq!(import(&into, &archive).await.unwrap(), 3);
    }
    fs::remove_file(kept).unwrap();
    let mut superuser = into.superuser().await;
    for table in ["entry", "log_entry", "stream", "log_past"] {
        assert_eq!(count(&mut superuser, &format!("*) FROM {table}")).await, 0, "{table}");
    }
    let none = import(&into, &into.path("nothing")).await.unwrap_err();
    assert!(
        format!("{none:#}").contains("is it an archive") || format!("{none:#}").contains("an archive of"),
        "{none:#}"
    );
    assert_eq!(import(&into, &archive).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_interrupted_leaves_nothing() {
    let into = Authority::empty().await;
    let owner = into.owner();
    let envelopes: Vec<String> =
        Fleet::new(20, "2026-01-01T00:00:00Z".parse().unwrap()).take(100).map(|e| e.to_envelope().unwrap()).collect();
    let mut import = Import::begin(&owner).await.unwrap();
    import.append(&envelopes).await.unwrap();
    // Meanwhile the database is nobody else's.
    let other = Import::begin(&owner).await.unwrap_err();
    assert!(other.to_string().contains("stop every node"), "{other}");
    drop(import);

    // The server notices by itself.
    let mut superuser = into.superuser().await;
    assert_eq!(count(&mut superuser, "*) FROM entry").await, 0);
    let begun = async {
        loop {
            match Import::begin(&owner).await {
                Ok(import) => break import,
                Err(error) => assert!(error.to_string().contains("stop every node"), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut import = timeout(Duration::from_secs(60), begun).await.expect("the server ends the import within a minute");
    // What is no history is refused at the end, too, and leaves nothing either.
    import.append(&envelopes[..10]).await.unwrap();
    import.append(&envelopes[60..70]).await.unwrap();
    let broken = import.finish(ARCHIVED, "", |_| {}).await.unwrap_err();
    assert!(broken.to_string().contains("goes on after"), "{broken}");
    assert_eq!(count(&mut superuser, "*) FROM entry").await, 0);
    assert_eq!(count(&mut superuser, "*) FROM pg_indexes WHERE indexname = 'entry_attempt'").await, 1);

    let service = Import::begin(&into.service()).await.unwrap_err();
    assert!(service.to_string().contains("does not own"), "{service}");
}
