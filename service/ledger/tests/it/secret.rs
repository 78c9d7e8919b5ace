//! Secrets come and go with the append that tells of them.

use std::collections::HashMap;

use join_domain::{
    envelope::StreamId,
    event::{AuthorityKeyMoved, ClusterCreated, Event, LogEnded, LogResumed, Nothing},
};
use join_ledger::{
    Append, AppendError, KeyChanges, Ledger, LogDecision, LogHead, Recording, SecretChange, Settings, Stops, StoredKey,
    StreamAppend,
};
use sqlx::Connection as _;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_kept_and_forgotten_with_an_append() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let bot = create_bot(&ledger, "example", 1).await;
    let sealed = |text: &str| SecretChange::Put { purpose: "registration", sealed: text.as_bytes().to_vec() };
    let token = id(2);
    let kept = async |purpose: &str| ledger.secrets(&[token, id(3)], purpose).await.unwrap();
    ledger.append(token_created(&ledger, "example", 2, ("example", bot)).with_secret(sealed("one"))).await.unwrap();
    assert_eq!(kept("registration").await, HashMap::from([(token, b"one".to_vec())]));
    assert!(kept("other").await.is_empty());

    let mut slot = ledger.token(&name("example")).await.unwrap();
    let spent = || change(&ledger, vec![Event::RegistrationSecretSpent(Nothing {})]);
    let outdated = slot.known().unwrap().following(spent());
    let replaced = slot.known().unwrap().following(spent()).with_secret(sealed("two"));
    slot.append(replaced).await.unwrap();
    assert_eq!(kept("registration").await, HashMap::from([(token, b"two".to_vec())]));
    let delete = SecretChange::Delete { purpose: "registration" };
    let conflict = slot.append(outdated.with_secret(delete.clone())).await;
    assert!(matches!(conflict, Err(AppendError::Conflict)));
    assert!(!kept("registration").await.is_empty(), "a conflict leaves it");

    slot.reload(&[], None).await.unwrap();
    let deleted = slot.known().unwrap().following(spent()).with_secret(delete);
    slot.append(deleted).await.unwrap();
    assert!(kept("registration").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_keys_are_stored_once_by_whoever_creates_it() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let create = |kid: &str| {
        let keys = [("x509".to_owned(), kid.to_owned())].into();
        let created = Event::ClusterCreated(ClusterCreated { name: name("example.com"), keys });
        let key = StoredKey {
            kid: kid.to_owned(),
            purpose: "x509".to_owned(),
            phase: "active".to_owned(),
            public: vec![1],
            certificate: Some(vec![2]),
            sealed: vec![3],
            created_at: ledger.now(),
            phase_since: ledger.now(),
        };
        let cluster = StreamAppend::begin(StreamId::CLUSTER, change(&ledger, vec![created]));
        (Append::from(cluster).with_keys(KeyChanges { put: vec![key.clone()], ..KeyChanges::default() }), key)
    };
    let ((first, key), (second, _)) = (create("one"), create("two"));
    ledger.append(first).await.unwrap();
    assert!(matches!(ledger.append(second).await, Err(AppendError::Conflict)));
    assert_eq!(ledger.authority_keys().await.unwrap(), std::slice::from_ref(&key));

    let retired = StoredKey { phase: "retired".to_owned(), ..key };
    let moved = |phase: &str| {
        let (kid, purpose) = ("one".to_owned(), "x509".to_owned());
        Event::AuthorityKeyMoved(AuthorityKeyMoved { kid, purpose, phase: phase.to_owned(), reason: None })
    };
    let cluster = ledger.load(StreamId::CLUSTER).await.unwrap().unwrap();
    let retire = Append::from(StreamAppend::following(&cluster, change(&ledger, vec![moved("retired")])))
        .with_keys(KeyChanges { put: vec![retired.clone()], ..KeyChanges::default() });
    let forget = Append::from(StreamAppend::following(&cluster, change(&ledger, vec![moved("forgotten")])))
        .with_keys(KeyChanges { forget: vec!["one".to_owned()], ..KeyChanges::default() });
    ledger.append(retire).await.unwrap();
    assert!(matches!(ledger.append(forget).await, Err(AppendError::Conflict)), "somebody else was first");
    assert_eq!(ledger.authority_keys().await.unwrap(), [retired]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_recorded_only_after_the_one_it_follows() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    ledger.sequence_once(10).await.unwrap();
    let empty = ledger.log_head().await.unwrap();
    assert_eq!((empty.integrated, empty.signed, empty.checkpoint.as_deref()), (0, 0, None));
    ledger.record_integrated(2).await.unwrap();
    ledger.record_integrated(1).await.unwrap();
    let log = ledger.log(0, 10).await.unwrap();
    let marks: Vec<_> = log.entries.iter().map(|entry| log.mark(entry)).collect();
    let record = async |before: &LogHead, size: u64, text: &str| {
        let last = usize::try_from(size).ok().and_then(|size| marks.get(size.checked_sub(1)?));
        ledger.record_signed(before, size, text, last).await.unwrap()
    };
    assert_eq!(record(&empty, 3, "beyond the end").await, Recording::Overtaken);
    let replaced = ledger.record_signed(&empty, 2, "of other entries", marks.first()).await.unwrap();
    assert_eq!(replaced, Recording::Replaced);
    assert_eq!(record(&empty, 1, "first").await, Recording::Recorded);
    assert_eq!(record(&empty, 2, "by another node").await, Recording::Overtaken);
    let head = ledger.log_head().await.unwrap();
    assert_eq!((head.integrated, head.signed, head.checkpoint.as_deref()), (2, 1, Some("first")));
    assert_eq!(record(&head, 0, "shorter").await, Recording::Overtaken);
    assert_eq!(record(&head, 2, "second").await, Recording::Recorded);
}

/// Nobody has signed yet, so the head looks the same before and after an origin has ended.
#[tokio::test(flavor = "multi_thread")]
async fn no_checkpoint_is_recorded_under_a_name_that_ends_at_that_moment() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    ledger.sequence_once(10).await.unwrap();
    let head = ledger.log_head().await.unwrap();
    let mut ending = Blocked::begin(&database).await;
    for sql in [
        "UPDATE log_head SET integrated_size = 0, signed_size = 0, signed_checkpoint = NULL",
        "INSERT INTO log_past (origin, signed_size, ended_at, reason) VALUES ('ended.example', 0, now(), 'a test')",
    ] {
        ending.take(sql).await.unwrap();
    }
    let recording = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.record_signed(&head, 2, "ended.example\n2\n", None).await.unwrap() }
    });
    ending.until_waiting().await;
    ending.release().await;

    assert_eq!(recording.await.unwrap(), Recording::Overtaken);
    assert_eq!(ledger.log_head().await.unwrap().checkpoint, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_checkpoint_is_recorded_while_any_node_stops_the_log() {
    let database = Database::fresh().await;
    let named = |node: &str| Settings { node: node.to_owned(), ..Settings::default() };
    let (one, two) = (database.ledger_with(named("one")).await, database.ledger_with(named("two")).await);
    example(&one).await;
    one.sequence_once(10).await.unwrap();
    let head = one.log_head().await.unwrap();
    let log = one.log(0, 10).await.unwrap();
    let marks: Vec<_> = log.entries.iter().map(|entry| log.mark(entry)).collect();
    let record = async || two.record_signed(&head, 2, "log.example\n2\n", marks.get(1)).await.unwrap();
    let stops = async || two.log_head().await.unwrap().stops.into_iter().collect::<Vec<_>>();

    // What was found in other entries than these is found again, or not.
    let stopped = one.stop_log("log.example", "an error", 2, marks.first()).await.unwrap();
    assert_eq!((stopped, stops().await), (Recording::Replaced, vec![]));

    for (node, found) in [(&one, "a fork"), (&two, "a fork"), (&one, "another fork")] {
        assert_eq!(node.stop_log("log.example", found, 2, marks.get(1)).await.unwrap(), Recording::Recorded);
    }
    let [first, second] = [("one", "another fork"), ("two", "a fork")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(stops().await, [first.clone(), second.clone()]);
    assert_eq!(record().await, Recording::Overtaken);
    one.take_stop_back().await.unwrap();
    assert_eq!(stops().await, std::slice::from_ref(&second));
    assert_eq!(record().await, Recording::Overtaken);
    let resume = async |stops: &[(String, String)]| {
        let stops: Stops = stops.iter().cloned().collect();
        let event = Event::LogResumed(LogResumed { reason: "a test".to_owned(), stops: stops.clone() });
        decide(&two, event, LogDecision::Resume { stops }).await
    };
    let known = [first, second.clone()];
    assert!(matches!(resume(&known).await, Err(AppendError::Conflict)), "one of them is no stop any more");
    let history = one.stream(StreamId::CLUSTER, 1, 10).await.unwrap().entries.len();
    resume(&[second]).await.unwrap();
    assert_eq!(one.stream(StreamId::CLUSTER, 1, 10).await.unwrap().entries.len(), history + 1);
    assert!(stops().await.is_empty());
    assert_eq!(record().await, Recording::Recorded);

    // With the log its stops end, and it is stopped no more.
    one.stop_log("log.example", "a fork", 2, None).await.unwrap();
    let end = async |head: LogHead| {
        let (origin, reason) = ("log.example".to_owned(), "a test".to_owned());
        let (next, size) = ("log.example/2".to_owned(), head.signed);
        let ended = LogEnded { next, origin: origin.clone(), reason: reason.clone(), size };
        decide(&one, Event::LogEnded(ended), LogDecision::End { head, origin, reason, at: one.now() }).await
    };
    assert!(matches!(end(head).await, Err(AppendError::Conflict)), "it was signed meanwhile");
    end(one.log_head().await.unwrap()).await.unwrap();
    assert!(matches!(end(one.log_head().await.unwrap()).await, Err(AppendError::Conflict)), "it ends once");
    assert_eq!(one.ended_origins().await.unwrap(), ["log.example"]);
    assert_eq!(one.stop_log("log.example", "a fork", 2, None).await.unwrap(), Recording::Overtaken);
    assert!(stops().await.is_empty());
}

/// Pods are named anew each time they start.
#[tokio::test(flavor = "multi_thread")]
async fn stops_of_ever_new_names_do_not_pile_up() {
    let database = Database::fresh().await;
    let named = |node: &str| Settings { node: node.to_owned(), ..Settings::default() };
    let (known, new) = (database.ledger_with(named("pod 1")).await, database.ledger_with(named("pod 0")).await);
    let mut superuser = sqlx::PgConnection::connect_with(&database.superuser()).await.unwrap();
    let stopped = "UPDATE log_head SET stops =
        (SELECT jsonb_object_agg('pod ' || number, 'a fork') FROM generate_series(1, 100) AS number)";
    sqlx::query(stopped).execute(&mut superuser).await.unwrap();
    for node in [&known, &new] {
        node.stop_log("log.example", "another fork", 0, None).await.unwrap();
    }
    let stops = new.log_head().await.unwrap().stops;
    assert_eq!((stops.len(), stops.contains_key("pod 0"), stops["pod 1"].as_str()), (100, false, "another fork"));
    // It is heard as soon as there is room.
    known.take_stop_back().await.unwrap();
    new.stop_log("log.example", "another fork", 0, None).await.unwrap();
    assert_eq!(new.log_head().await.unwrap().stops["pod 0"], "another fork");
}

/// Records a decision about the log in the cluster's stream, which begins with it if there is none.
async fn decide(ledger: &Ledger, event: Event, decision: LogDecision) -> Result<(), AppendError> {
    let change = change(ledger, vec![event]);
    let append = match ledger.load(StreamId::CLUSTER).await.unwrap() {
        Some(cluster) => StreamAppend::following(&cluster, change),
        None => StreamAppend::begin(StreamId::CLUSTER, change),
    };
    ledger.append(Append::from(append).with_log(decision)).await.map(drop)
}
