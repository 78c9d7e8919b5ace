//! A database that was set back: nothing is signed until somebody decides.

use join_domain::{
    envelope::StreamId,
    event::{Event, LogEnded},
};
use join_server::telemetry::{Alarm, METRICS};

use crate::authority::{Authority, Node, ORIGIN, Spec, joind, until};

const NEXT: &str = "test.example/log-2";
const OTHER: &str = "joind two";

/// An authority whose database has forgotten what its node published, with the size of that. The directory `fits` is as
/// the database is.
async fn set_back() -> (Authority, u64) {
    let mut authority = Authority::new().await;
    let node = authority.node(Spec::default()).await;
    let fits = authority.node(Spec { name: OTHER, directory: "fits", ..Spec::default() }).await;
    authority.happens(5).await;
    node.publishes_all().await;
    fits.publishes_all().await;
    node.stop().await;
    fits.stop().await;
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
    node.still_finds(Alarm::LogRollback).await;
    assert_eq!(node.note().unwrap().to_string(), stands.to_string());
    let ledger = authority.ledger().await;
    let head = ledger.log_head().await.unwrap();
    assert!(head.signed < size, "nothing was signed: {head:?}");
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
    node.until_misconfigured().await;
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
    assert_eq!(note.checkpoint().unwrap().size, 6 + 1 + 3, "it seals all the history that there is, this decision too");
    let said = Event::LogEnded(LogEnded {
        next: NEXT.to_owned(),
        origin: ORIGIN.to_owned(),
        reason: "restored from an older backup".to_owned(),
        size: 6,
    });
    assert_eq!(last_of_cluster(&authority).await, said);
    assert!(note.is_signed_by(&node.log_key()));
    node.until_alarm(false).await;
    node.stop().await;

    // Typed a second time, it says that it is done.
    let again = joind(&begin).await.unwrap_err().to_string();
    assert!(again.contains(&format!("`{NEXT}` was begun already, after `{ORIGIN}`")), "{again}");

    // Nodes of the old configuration are of no use any more, with their directory or with an empty one.
    for directory in ["log", "empty"] {
        METRICS.alarm(Alarm::LogMisconfigured, false);
        let node = authority.node(Spec { directory, ..Spec::default() }).await;
        node.until_misconfigured().await;
        let stands = node.note().map(|note| note.to_string());
        authority.happens(2).await;
        node.still_finds(Alarm::LogMisconfigured).await;
        assert_eq!(node.note().map(|note| note.to_string()), stands);
        node.stop().await;
    }
    assert!(!authority.path("empty").join("tile").exists(), "nothing is written that can't be signed");
    // And no name is used twice.
    let again = joind(&[&["log", "begin", "-c", &authority.configuration(ORIGIN)], &reason[..]].concat()).await;
    assert!(again.unwrap_err().to_string().contains("was ended once"));
    let ended = authority.ledger().await.ended_origins().await.unwrap();
    assert_eq!(ended, [ORIGIN]);
}

/// A node that knew has refused, and history goes on with another, whose empty directory knows nothing.
async fn one_knew() -> (Authority, Node) {
    let (authority, _) = set_back().await;
    let knows = authority.node(Spec::default()).await;
    knows.until_alarm(true).await;
    knows.stop().await;
    let empty = authority.node(Spec { name: OTHER, directory: "empty", ..Spec::default() }).await;
    authority.happens(3).await;
    (authority, empty)
}

/// What the newest checkpoint that the database keeps is of, and who stopped the log.
async fn head(authority: &Authority) -> (u64, Vec<String>) {
    let ledger = authority.ledger().await;
    let head = ledger.log_head().await.unwrap();
    ledger.close().await;
    (head.signed, head.stops.into_keys().collect())
}

/// What was last recorded about the cluster.
async fn last_of_cluster(authority: &Authority) -> Event {
    let ledger = authority.ledger().await;
    let mut entries = ledger.stream(StreamId::CLUSTER, 1, 100).await.unwrap().entries;
    ledger.close().await;
    entries.pop().unwrap().events.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn proof_of_one_node_stops_those_that_have_none() {
    let (authority, empty) = one_knew().await;
    let (signed, stops) = head(&authority).await;
    assert_eq!(stops, ["joind one"]);
    empty.still_finds(Alarm::LogRollback).await;
    assert_eq!(head(&authority).await, (signed, stops.clone()), "nothing was signed");
    assert!(empty.note().is_none());
    empty.stop().await;

    // Neither does the proof go away with the disk that it was on.
    let lost = authority.node(Spec { directory: "lost", ..Spec::default() }).await;
    lost.still_finds(Alarm::LogRollback).await;
    assert_eq!(head(&authority).await, (signed, stops));
    lost.stop().await;

    // Its directory was the wrong one: with one that fits, it takes back what it said.
    let empty = authority.node(Spec { name: OTHER, directory: "empty", ..Spec::default() }).await;
    let fits = authority.node(Spec { directory: "fits", ..Spec::default() }).await;
    let note = fits.publishes_all().await;
    assert_eq!(note.checkpoint().unwrap().size, signed + 3);
    assert_eq!(head(&authority).await, (signed + 3, vec![]));
    assert_eq!(empty.publishes_all().await.to_string(), note.to_string());
    fits.until_alarm(false).await;
    fits.stop().await;
    empty.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_that_a_stop_was_wrong_ends_it() {
    let (authority, empty) = one_knew().await;
    let configuration = authority.configuration(ORIGIN);
    let resume = ["log", "resume", "-c", &configuration, "--reason", "that node was of another cluster"];
    let (_, stops) = head(&authority).await;
    assert_eq!(joind(&resume).await.unwrap(), 0);
    let Event::LogResumed(resumed) = last_of_cluster(&authority).await else { panic!("no such event") };
    assert_eq!(resumed.reason, "that node was of another cluster");
    assert_eq!(resumed.stops.into_keys().collect::<Vec<_>>(), stops);
    let note = empty.publishes_all().await;
    assert_eq!(note.checkpoint().unwrap().origin, ORIGIN);
    empty.until_alarm(false).await;
    assert!(joind(&resume).await.unwrap_err().to_string().contains("no node has stopped the log"));
    empty.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_with_the_log_and_nodes_of_the_old_one_stop_nothing() {
    let (authority, empty) = one_knew().await;
    empty.stop().await;
    let configuration = authority.configuration(NEXT);
    assert_eq!(joind(&["log", "begin", "-c", &configuration, "--reason", "restored"]).await.unwrap(), 0);
    assert_eq!(head(&authority).await, (0, vec![]));
    // More than the old log had, so that its directory can be compared.
    authority.happens(20).await;
    let old = authority.node(Spec::default()).await;
    old.until_misconfigured().await;
    let next = authority.node(Spec { name: OTHER, directory: "log-2", origin: Some(NEXT), ..Spec::default() }).await;
    assert_eq!(next.publishes_all().await.checkpoint().unwrap().origin, NEXT);
    assert_eq!(head(&authority).await.1, [""; 0]);
    old.stop().await;
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_one_finder_outlasts_that_of_another() {
    let (authority, empty) = one_knew().await;
    empty.stop().await;
    let old = authority.node(Spec { name: OTHER, ..Spec::default() }).await;
    until("both have stopped the log", async || head(&authority).await.1 == ["joind one", OTHER]).await;
    old.stop().await;
    let signed = head(&authority).await.0;
    let fits = authority.node(Spec { directory: "fits", ..Spec::default() }).await;
    until("one takes it back", async || head(&authority).await.1 == [OTHER]).await;
    fits.still_finds(Alarm::LogRollback).await;
    assert_eq!(head(&authority).await.0, signed, "nothing was signed");
    fits.stop().await;
}
