//! Witnesses cosign what the service publishes, and hold nothing up.

use std::{
    fs,
    time::{Duration, Instant},
};

use join_log::{Checkpoint, Layer, Tile, leaf_hash};
use join_server::{config, telemetry::Alarm};

use crate::{
    authority::{Authority, Node, PATIENCE, Spec, until},
    small_witness::Witness,
};

fn with(witness: &Witness) -> Spec<'static> {
    Spec { witnesses: vec![witness.configured()], ..Spec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_cosigned_again_and_again() {
    let (authority, witness) = (Authority::new().await, Witness::start().await);
    let node = authority.node(with(&witness)).await;
    witness.knows(node.log_key());
    for _ in 0..3 {
        authority.happens(40).await;
        let end = authority.ledger().await.positions().await.unwrap();
        let size = end.next_index + end.unsequenced;
        let cosigned =
            node.publishes(|note| note.checkpoint().unwrap().size >= size && note.is_signed_by(&witness.key));
        assert!(cosigned.await.is_signed_by(&node.log_key()));
    }
    node.stop().await;

    // A node that begins anew does not know how far the witness is: it asks from the start, and is told.
    let told = witness.answers().len();
    let node = authority.node(with(&witness)).await;
    authority.happens(1).await;
    let size = node.publishes_all().await.checkpoint().unwrap().size;
    node.publishes(|note| note.checkpoint().unwrap().size >= size && note.is_signed_by(&witness.key)).await;
    let answers = witness.answers().split_off(told);
    assert_eq!(answers[..2], [409, 200], "{answers:?}");
    assert!(answers[2..].iter().all(|status| *status == 200), "{answers:?}");
    node.stop().await;

    // What is published again keeps what it had, also when the witness is away by then.
    let away = config::Witness { url: "http://127.0.0.1:1".to_owned(), ..witness.configured() };
    let file = authority.path(Spec::default().directory).join("checkpoint");
    let written = || fs::metadata(&file).unwrap().modified().unwrap();
    let before = written();
    let node = authority.node(Spec { witnesses: vec![away], ..Spec::default() }).await;
    until("it is published again", async || written() > before).await;
    assert!(node.note().unwrap().is_signed_by(&witness.key));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_that_are_away_silent_or_strangers_hold_nothing_up() {
    let (authority, stranger) = (Authority::new().await, Witness::start().await);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    // Takes the connection, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = stranger.key.to_string();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let witnesses = [away, silent_url].map(|url| config::Witness { key: key.clone(), url });
    let witnesses = witnesses.into_iter().chain([stranger.configured()]).collect();
    let node = authority.node(Spec { witnesses, ..Spec::default() }).await;
    for _ in 0..3 {
        authority.happens(5).await;
        let begun = Instant::now();
        let note = node.publishes_all().await;
        assert!(!note.is_signed_by(&stranger.key));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    assert!(stranger.answers().iter().all(|status| *status == 404));
    assert_eq!(node.alarm().await, Some(false));
    node.stop().await;
}

/// Database and node were both set back: the witness alone remembers.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_has_seen_more_stops_the_log() {
    let (authority, witness) = (Authority::new().await, Witness::start().await);
    witness.has_seen(20);
    let node = authority.node(with(&witness)).await;
    witness.knows(node.log_key());
    authority.happens(3).await;
    node.until_alarm(true).await;
    // History goes on, differently, and grows longer than what the witness saw.
    authority.happens(30).await;
    node.still_finds(Alarm::LogRollback).await;
    assert!(node.note().is_none(), "nobody is shown what the witness did not take");
    let head = authority.ledger().await.log_head().await.unwrap();
    assert!(head.integrated > 20 && head.signed < 20, "nothing was signed: {head:?}");
    assert!(head.stops["joind one"].starts_with("a witness has seen 20 entries"), "others are told: {head:?}");

    // However often it looks, it writes the history once.
    let tile = Tile { layer: Layer::Entries, index: 0, width: u16::try_from(head.integrated).unwrap() };
    let written = || fs::metadata(authority.path("log").join(tile.to_string())).unwrap().modified().unwrap();
    let before = written();
    node.still_finds(Alarm::LogRollback).await;
    assert_eq!(written(), before);
    node.stop().await;
}

/// Others go on while it is found, so there is always more in the database than in the files.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_has_seen_more_stops_the_log_under_load() {
    let (authority, witness) = (Authority::new().await, Witness::start().await);
    witness.has_seen(1_000_000);
    let node = authority.node(with(&witness)).await;
    witness.knows(node.log_key());
    authority.happens_during(node.until_alarm(true)).await;
    node.stop().await;
}

/// It shows elsewhere what it has seen, so all that a node has is that it did not take a checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_refused_a_checkpoint_gets_no_other_until_it_shows_what_fits() {
    let (authority, witness) = (Authority::new().await, Witness::start().await);
    // It is not asked again for what is published, so that what it refuses is new.
    let node = authority.node(Spec { ask_again: PATIENCE, ..with(&witness) }).await;
    let first = node.publishes_all().await.checkpoint().unwrap();
    authority.happens(3).await;
    let published = node.publishes_all().await.checkpoint().unwrap();
    let disputed = first.size + 1;
    witness.has_cosigned(&Checkpoint { root: leaf_hash(b"another history"), size: disputed, ..published.clone() });
    witness.knows(node.log_key());
    authority.happens(3).await;
    node.until_alarm(true).await;
    let signed = authority.ledger().await.log_head().await.unwrap().signed;
    assert!(signed > published.size);
    let stands = async |node: &Node| {
        authority.happens(3).await;
        node.still_finds(Alarm::LogRollback).await;
        let head = authority.ledger().await.log_head().await.unwrap();
        assert_eq!(head.signed, signed, "no other checkpoint is signed: {head:?}");
        assert!(head.stops["joind one"].contains("has seen another history"), "{head:?}");
    };
    stands(&node).await;
    // An older one, from before they differ, says nothing.
    witness.shows(&first);
    stands(&node).await;
    witness.shows_nothing();
    node.stop().await;

    // Neither by a process that has not heard the refusal.
    let node = authority.node(with(&witness)).await;
    stands(&node).await;
    assert_eq!(node.note().unwrap().checkpoint().unwrap(), published);

    // It was mistaken.
    witness.has_cosigned(&published);
    witness.shows(&published);
    node.publishes(|note| note.is_signed_by(&witness.key)).await;
    assert!(authority.ledger().await.log_head().await.unwrap().stops.is_empty());
    node.until_alarm(false).await;
    node.stop().await;
}
