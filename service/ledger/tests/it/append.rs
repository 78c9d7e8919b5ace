//! Appends: compare, append, and say what was in the way.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use join_domain::{
    envelope::StreamId,
    event::{Event, KeypairBound, Nothing, TokenCreated, TokenUpdated},
    id::{InstanceId, TokenId},
    resource::LockTarget,
    state::Namespace,
};
use join_ledger::{Append, AppendError, Settings, StreamAppend};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_created_found_joined_and_renewed() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;

    first_join(&ledger, "example", key(1), 77).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    assert!(slot.is_fresh(), "a newly bound key is read again");
    assert_eq!(renew(&ledger, &mut slot, Some(attempt(1))).await.unwrap(), 2);
    assert_eq!(renew(&ledger, &mut slot, Some(attempt(2))).await.unwrap(), 3);
    assert_eq!(slot.known().unwrap().version, 7);
    drop(slot);

    let slot = ledger.token(&name("example")).await.unwrap();
    assert!(!slot.is_fresh(), "the cache is warm");
    let stored = ledger.load(stream(token)).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.fence), (7, 0));
    assert_eq!(stored.token().unwrap(), &*slot.known().unwrap().token);
    let found = ledger.find(Namespace::Key, &key(1).fingerprint()).await.unwrap().unwrap();
    assert_eq!(found.stream, stream(token));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_token_is_no_token_and_is_not_remembered() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    for _ in 0..2 {
        let slot = ledger.token(&name("stranger")).await.unwrap();
        assert!(slot.known().is_none());
        assert!(slot.is_fresh());
    }
    assert_eq!(ledger.tokens_cached(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_to_an_outdated_version_conflicts_and_leaves_nothing() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;
    let read = ledger.load(stream(token)).await.unwrap().unwrap();
    let update = |limit| {
        let mut spec = read.token().unwrap().spec.clone();
        spec.recovery.limit = limit;
        let updated = TokenUpdated { bot: read.token().unwrap().bot, spec, secret: None, rebind: false };
        StreamAppend::following(&read, change(&ledger, vec![Event::TokenUpdated(updated)]))
    };
    ledger.append(update(5)).await.unwrap();
    assert!(matches!(ledger.append(update(6)).await, Err(AppendError::Conflict)));

    let now = ledger.load(stream(token)).await.unwrap().unwrap();
    assert_eq!((now.version, now.token().unwrap().spec.recovery.limit), (2, 5));
    assert_eq!(ledger.stream(stream(token), 1, 10).await.unwrap().entries.len(), 2);
    assert_eq!(ledger.positions().await.unwrap().unsequenced, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_once() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;
    let bot = ledger.load(stream(token)).await.unwrap().unwrap().token().unwrap().bot;
    let again = token_created(&ledger, "other", token.0.as_u128(), ("example", bot));
    assert!(matches!(ledger.append(again).await, Err(AppendError::Conflict)));
    assert!(ledger.find(Namespace::TokenName, "other").await.unwrap().is_none());
}

/// Many appends race, over several streams, from two nodes: each version is written once, and every append that was
/// acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_appends_that_race_one_wins_each_version() {
    let database = Database::fresh().await;
    let nodes = [
        database.ledger_with(Settings { writers: 2, ..Settings::default() }).await,
        database.ledger_with(Settings { writers: 1, ..Settings::default() }).await,
    ];
    let bot = create_bot(&nodes[0], "example", 1).await;
    for number in 0..5_u8 {
        let token = format!("token-{number}");
        create_token(&nodes[0], &token, 100 + u128::from(number), ("example", bot)).await;
        first_join(&nodes[0], &token, key(number + 1), 200 + u128::from(number)).await;
    }

    let mut joiners = tokio::task::JoinSet::new();
    for joiner in 0..40_u64 {
        let ledger = nodes[usize::try_from(joiner % 2).unwrap()].clone();
        joiners.spawn(async move {
            let (mut won, mut lost) = (Vec::new(), 0_u32);
            while won.len() < 5 {
                let token = format!("token-{}", joiner % 5);
                let mut slot = ledger.token(&name(&token)).await.unwrap();
                if slot.known().is_none() {
                    slot.reload(&[], None).await.unwrap();
                }
                match renew(&ledger, &mut slot, None).await {
                    Ok(generation) => won.push((token, generation)),
                    Err(AppendError::Conflict) => lost += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            (won, lost)
        });
    }
    let outcomes = joiners.join_all().await;
    let lost: u32 = outcomes.iter().map(|(_, lost)| lost).sum();
    assert!(lost > 0, "two nodes with caches must collide");
    let won: BTreeSet<_> = outcomes.into_iter().flat_map(|(won, _)| won).collect();
    let expected = (0..5).flat_map(|token| (2..42).map(move |generation| (format!("token-{token}"), generation)));
    assert_eq!(won, expected.collect(), "each generation was given once");
    assert!(nodes[0].check(|_| {}).await.unwrap().is_equal());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_used_up_once() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    renew(&ledger, &mut slot, Some(attempt(1))).await.unwrap();
    renew(&ledger, &mut slot, Some(attempt(2))).await.unwrap();

    let seen = renew(&ledger, &mut slot, Some(attempt(1))).await;
    assert!(matches!(seen, Err(AppendError::AttemptSeen)), "{seen:?}");
    assert!(slot.known().is_none(), "after an error nothing is known");
    slot.reload(&[], Some(attempt(1))).await.unwrap();
    assert!(slot.attempt_accepted_before());
    slot.reload(&[], Some(attempt(3))).await.unwrap();
    assert!(!slot.attempt_accepted_before());
    renew(&ledger, &mut slot, Some(attempt(3))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_a_key_belong_to_one_token() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    let bot = ledger.load(stream(token)).await.unwrap().unwrap().token().unwrap().bot;

    match ledger.append(token_created(&ledger, "example", 9, ("example", bot))).await {
        Err(AppendError::ClaimTaken { namespace: Namespace::TokenName, value }) => assert_eq!(value, "example"),
        other => panic!("{other:?}"),
    }

    let mut spec = token_spec("example");
    spec.initial_public_key = Some(key(1));
    let created = Event::TokenCreated(TokenCreated { name: name("other"), bot, spec, secret: None });
    let other = StreamAppend::begin(TokenId(id(9)).into(), change(&ledger, vec![created]));
    match ledger.append(other).await {
        Err(AppendError::ClaimTaken { namespace: Namespace::Key, value }) => assert_eq!(value, key(1).fingerprint()),
        other => panic!("{other:?}"),
    }

    // A join by the writer's way, too.
    create_token(&ledger, "third", 10, ("example", bot)).await;
    let mut slot = ledger.token(&name("third")).await.unwrap();
    let bound = vec![Event::KeypairBound(KeypairBound { key: key(1) }), accepted(ledger.now(), 78, 1, None)];
    let append = slot.known().unwrap().following(change(&ledger, bound));
    assert!(matches!(slot.append(append).await, Err(AppendError::ClaimTaken { .. })));
    assert_eq!(ledger.load(TokenId(id(10)).into()).await.unwrap().unwrap().version, 1);

    // A deleted token gives its name and keys back.
    let read = ledger.load(stream(token)).await.unwrap().unwrap();
    let deleted = change(&ledger, vec![Event::TokenDeleted(Nothing {})]);
    ledger.append(StreamAppend::following(&read, deleted)).await.unwrap();
    create_token(&ledger, "example", 11, ("example", bot)).await;
    slot.reload(&[], None).await.unwrap();
    drop(slot);
    first_join(&ledger, "third", key(1), 79).await;
    assert!(ledger.check(|_| {}).await.unwrap().is_equal());
}

/// One row that the database refuses must not fail the joins that share its statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_append_fails_alone() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let bot = create_bot(&ledger, "example", 1).await;
    for number in 0..20_u8 {
        let token = format!("token-{number}");
        create_token(&ledger, &token, 100 + u128::from(number), ("example", bot)).await;
        first_join(&ledger, &token, key(number + 1), 200 + u128::from(number)).await;
        let mut slot = ledger.token(&name(&token)).await.unwrap();
        renew(&ledger, &mut slot, Some(attempt(1))).await.unwrap();
    }
    // Every third one uses up its attempt a second time. While the first waits for its row, the others gather.
    let blocked = Blocked::stream(&database, id(100)).await;
    let mut joins = tokio::task::JoinSet::new();
    for number in 0..20_u64 {
        let ledger = ledger.clone();
        joins.spawn(async move {
            let mut slot = ledger.token(&name(&format!("token-{number}"))).await.unwrap();
            let by = if number % 3 == 0 { attempt(1) } else { attempt(2) };
            (number, renew(&ledger, &mut slot, Some(by)).await)
        });
        if number == 0 {
            blocked.until_waiting().await;
        }
    }
    let deadline = Deadline::begin();
    while ledger.appends_waiting() < 19 {
        deadline.wait_for("all but the first are in the queue").await;
    }
    blocked.release().await;
    for (number, outcome) in joins.join_all().await {
        match outcome {
            Ok(generation) => assert!(number % 3 != 0 && generation == 3, "token-{number}"),
            Err(AppendError::AttemptSeen) => assert!(number % 3 == 0, "token-{number}"),
            Err(error) => panic!("token-{number}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_are_appended_together_or_not_at_all() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    let outdated = slot.known().unwrap().following(change(&ledger, vec![accepted(ledger.now(), 77, 2, None)]));
    renew(&ledger, &mut slot, None).await.unwrap();

    let lock = lock_created(&ledger, 50, LockTarget::JoinToken(name("example")));
    let both = Append::all(vec![outdated, lock.clone()]);
    assert!(matches!(slot.append(both).await, Err(AppendError::Conflict)));
    assert!(
        ledger.load(StreamId { kind: join_domain::envelope::StreamKind::Lock, id: id(50) }).await.unwrap().is_none()
    );

    slot.reload(&[], None).await.unwrap();
    let current = slot.known().unwrap().following(change(&ledger, vec![accepted(ledger.now(), 77, 3, None)]));
    let recorded = slot.append(Append::all(vec![current, lock])).await.unwrap();
    assert_eq!(recorded[0].stream, stream(token));
    let stored = ledger.load(stream(token)).await.unwrap().unwrap();
    assert_eq!(recorded[0], stored, "the fence that moved is known");
    assert_eq!(stored.fence, 1);
    assert!(slot.known().is_none(), "its locks changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_makes_no_sense_is_refused_before_it_is_sent() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let slot = ledger.token(&name("example")).await.unwrap();
    let known = slot.known().unwrap();
    for append in [
        Append::from(known.following(change(&ledger, vec![]))),
        Append::from(known.following(change(&ledger, vec![accepted(ledger.now(), 77, 2, None)]))),
        Append::all(vec![]),
        Append::all(vec![
            lock_created(&ledger, 50, LockTarget::BotInstanceId(InstanceId(id(1)))),
            lock_created(&ledger, 50, LockTarget::BotInstanceId(InstanceId(id(2)))),
        ]),
    ] {
        let refused = ledger.append(append).await;
        assert!(matches!(refused, Err(AppendError::Malformed(_))), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_turns_appends_away() {
    let database = Database::fresh().await;
    let ledger = database.ledger_with(Settings { queue: 2, ..Settings::default() }).await;
    let bot = create_bot(&ledger, "example", 1).await;
    for number in 0..8_u8 {
        create_token(&ledger, &format!("token-{number}"), 100 + u128::from(number), ("example", bot)).await;
        first_join(&ledger, &format!("token-{number}"), key(number + 1), 200 + u128::from(number)).await;
    }
    let blocked = Blocked::stream(&database, id(100)).await;
    let join = |number: u8| {
        let ledger = ledger.clone();
        async move {
            let mut slot = ledger.token(&name(&format!("token-{number}"))).await.unwrap();
            renew(&ledger, &mut slot, None).await
        }
    };
    let first = tokio::spawn(join(0));
    blocked.until_waiting().await;
    let others: Vec<_> = (1..8).map(|number| tokio::spawn(join(number))).collect();
    let deadline = Deadline::begin();
    while others.iter().filter(|other| other.is_finished()).count() < 5 {
        deadline.wait_for("all but those in the queue are turned away").await;
    }
    blocked.release().await;
    first.await.unwrap().unwrap();
    let mut overloaded = 0;
    for other in others {
        match other.await.unwrap() {
            Ok(_) => {}
            Err(AppendError::Overloaded) => overloaded += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(overloaded, 5, "two of seven found a place");
}

/// A node that froze in the middle of an administrator's act holds the rows that it had taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_holds_keeps_no_other_token_waiting() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let bot = create_bot(&ledger, "example", 1).await;
    for number in 0..8_u8 {
        create_token(&ledger, &format!("token-{number}"), 100 + u128::from(number), ("example", bot)).await;
        first_join(&ledger, &format!("token-{number}"), key(number + 1), 200 + u128::from(number)).await;
        // Its key is known from now on.
        renew(&ledger, &mut ledger.token(&name(&format!("token-{number}"))).await.unwrap(), None).await.unwrap();
    }
    let held = [Blocked::stream(&database, id(100)).await, Blocked::stream(&database, id(101)).await];
    let renewal = |number: u8| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let mut slot = ledger.token(&name(&format!("token-{number}"))).await.unwrap();
            renew(&ledger, &mut slot, None).await
        })
    };
    let begun = Instant::now();
    // The writer waits for this one, and takes what comes meanwhile together.
    let first = renewal(0);
    held[0].until_waiting().await;
    let others: Vec<_> = (1..8).map(renewal).collect();

    assert!(matches!(first.await.unwrap(), Err(AppendError::Unavailable(_))));
    let mut outcomes = Vec::new();
    for other in others {
        outcomes.push(other.await.unwrap());
    }
    assert!(matches!(outcomes[0], Err(AppendError::Unavailable(_))), "{:?}", outcomes[0]);
    assert!(outcomes[1..].iter().all(Result::is_ok), "{outcomes:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());

    for row in held {
        row.release().await;
    }
    for number in 0..2 {
        renewal(number).await.unwrap().unwrap();
    }
}
