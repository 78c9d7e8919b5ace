//! A database that was set back: nothing is signed until somebody decides.

use std::time::Duration;

use crate::authority::{Authority, ORIGIN, Spec, joind};

const NEXT: &str = "test.example/log-2";

/// An authority whose database has forgotten what its node published, with the size of that.
async fn set_back() -> (Authority, u64) {
    let mut authority = Authority::new().await;
    let node = authority.node(Spec::default()).await;
    authority.happens(5).await;
    node.publishes_all().await;
    node.stop().await;
    let backup = authority.backup().await;

    let node = authority.node(Spec::default()).await;
    authority.happens(5).await;
    let size = node.publishes_all().await.checkpoint().unwrap().size;
    node.stop().await;
    authority.restore(backup).await;
    (authority, size)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_set_back_is_not_signed() {
    let (authority, size) = set_back().await;
    let node = authority.node(Spec::default()).await;
    node.until_alarm(true).await;
    let stands = node.note().unwrap();
    assert_eq!(stands.checkpoint().unwrap().size, size);

    // History goes on, differently, and grows longer than what was signed.
    authority.happens(20).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.note().unwrap().to_string(), stands.to_string());
    let ledger = authority.ledger().await;
    let head = ledger.log_head().await.unwrap();
    assert!(head.signed < size, "nothing was signed: {head:?}");
    assert_eq!(node.alarm().await, Some(true));
    node.stop().await;

    // Neither after a restart.
    let node = authority.node(Spec::default()).await;
    node.until_alarm(true).await;
    assert_eq!(node.note().unwrap().to_string(), stands.to_string());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_decides_and_the_history_goes_on_under_another_name() {
    let (authority, _) = set_back().await;
    let anew = || Spec { directory: "log-2", origin: Some(NEXT), ..Spec::default() };

    // A changed configuration alone is no decision.
    let node = authority.node(anew()).await;
    node.until_alarm(true).await;
    assert!(node.note().is_none());
    let reason = ["--reason", "restored from an older backup"];
    let same = joind(&[&["log", "begin", "-c", &authority.configuration(ORIGIN)], &reason[..]].concat()).await;
    assert!(same.unwrap_err().to_string().contains("log.origin is still"));

    let configuration = authority.configuration(NEXT);
    let begin = [&["log", "begin", "-c", &configuration], &reason[..]].concat();
    assert_eq!(joind(&begin).await.unwrap(), 0);
    authority.happens(3).await;
    let note = node.publishes_all().await;
    assert_eq!(note.checkpoint().unwrap().origin, NEXT);
    assert_eq!(note.checkpoint().unwrap().size, 6 + 3, "it seals all the history that there is");
    assert!(note.is_signed_by(&node.log_key()));
    node.until_alarm(false).await;
    node.stop().await;

    // Nodes of the old configuration are of no use any more, with their directory or with an empty one.
    for directory in ["log", "empty"] {
        let node = authority.node(Spec { directory, ..Spec::default() }).await;
        node.until_alarm(true).await;
        let stands = node.note().map(|note| note.to_string());
        authority.happens(2).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(node.note().map(|note| note.to_string()), stands);
        node.stop().await;
    }
    // And no name is used twice.
    let again = joind(&[&["log", "begin", "-c", &authority.configuration(ORIGIN)], &reason[..]].concat()).await;
    assert!(again.unwrap_err().to_string().contains("was ended once"));
    let ended = authority.ledger().await.ended_origins().await.unwrap();
    assert_eq!(ended, [ORIGIN]);
}
