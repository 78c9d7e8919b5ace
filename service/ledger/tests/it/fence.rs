//! What lies outside a token's stream is still seen by its append, cache or no cache.

use std::time::Duration;

use join_domain::{
    event::{BotUpdated, Event, KeypairBound, LockDeleted, Nothing},
    id::{BotId, InstanceId, TokenId},
    resource::{BotSpec, LockTarget},
};
use join_ledger::{Append, AppendError, Ledger, StreamAppend};
use tokio::task::JoinHandle;

use crate::support::*;

/// Two nodes, of which the second has the token in its cache.
async fn two_nodes(database: &Database) -> (Ledger, Ledger) {
    let (one, other) = (database.ledger().await, database.ledger().await);
    example(&one).await;
    first_join(&one, "example", key(1), 77).await;
    let mut slot = other.token(&name("example")).await.unwrap();
    renew(&other, &mut slot, None).await.unwrap();
    (one, other)
}

/// The second node decides from its cache, conflicts, and finds out why.
async fn next_join_sees(other: &Ledger, target: &LockTarget) {
    let mut slot = other.token(&name("example")).await.unwrap();
    assert!(!slot.is_fresh(), "it decides from its cache");
    let outcome = renew(other, &mut slot, None).await;
    assert!(matches!(outcome, Err(AppendError::Conflict)), "{target}: {outcome:?}");
    slot.reload(&[], None).await.unwrap();
    let locks = &slot.known().unwrap().locks;
    assert!(locks.iter().any(|lock| lock.target == *target), "{target}: {locks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_one_node_stops_the_cached_token_of_another() {
    for (number, target) in every_target().into_iter().enumerate() {
        let database = Database::fresh().await;
        let (one, other) = two_nodes(&database).await;
        one.append(lock_created(&one, 50 + number as u128, target.clone())).await.unwrap();
        next_join_sees(&other, &target).await;
        assert_eq!(one.locks_in_force(one.now()).await.unwrap().len(), 1);
    }
}

/// While nodes are replaced one after another, an older one begins lineages that only the guard row tells of.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_elsewhere_disturbs_nobody() {
    let database = Database::fresh().await;
    let (one, other) = two_nodes(&database).await;
    one.append(lock_created(&one, 50, LockTarget::JoinToken(name("another")))).await.unwrap();
    one.append(lock_created(&one, 51, LockTarget::BotInstanceId(InstanceId(id(78))))).await.unwrap();
    one.append(lock_created(&one, 52, LockTarget::PublicKey(key(9).fingerprint()))).await.unwrap();
    let mut slot = other.token(&name("example")).await.unwrap();
    renew(&other, &mut slot, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_removed_lets_the_next_join_pass() {
    let database = Database::fresh().await;
    let (one, other) = two_nodes(&database).await;
    let target = LockTarget::JoinToken(name("example"));
    let recorded = one.append(lock_created(&one, 50, target.clone())).await.unwrap();
    next_join_sees(&other, &target).await;
    let deleted = change(&one, vec![Event::LockDeleted(LockDeleted { reason: None })]);
    one.append(StreamAppend::following(&recorded[0], deleted)).await.unwrap();
    let mut slot = other.token(&name("example")).await.unwrap();
    assert!(matches!(renew(&other, &mut slot, None).await, Err(AppendError::Conflict)));
    slot.reload(&[], None).await.unwrap();
    assert!(slot.known().unwrap().locks.is_empty());
    renew(&other, &mut slot, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_bot_is_seen_by_its_cached_tokens() {
    let database = Database::fresh().await;
    let (one, other) = two_nodes(&database).await;
    let bot = one.load(BotId(id(1)).into()).await.unwrap().unwrap();
    let spec = BotSpec { roles: vec!["new".to_owned()], ..BotSpec::default() };
    let updated = change(&one, vec![Event::BotUpdated(BotUpdated { spec })]);
    one.append(StreamAppend::following(&bot, updated)).await.unwrap();
    let mut slot = other.token(&name("example")).await.unwrap();
    assert!(matches!(renew(&other, &mut slot, None).await, Err(AppendError::Conflict)));
    slot.reload(&[], None).await.unwrap();
    assert_eq!(slot.known().unwrap().bot.as_ref().unwrap().spec.roles, ["new"]);
}

/// A key that is locked can't be bound, also when the decision did not know of the lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_key_is_not_bound() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    let target = LockTarget::PublicKey(key(1).fingerprint());
    ledger.append(lock_created(&ledger, 50, target.clone())).await.unwrap();

    let events = || vec![Event::KeypairBound(KeypairBound { key: key(1) }), accepted(ledger.now(), 77, 1, None)];
    let append = slot.known().unwrap().following(change(&ledger, events()));
    assert!(matches!(slot.append(append).await, Err(AppendError::Conflict)));
    slot.reload(std::slice::from_ref(&target), None).await.unwrap();
    assert_eq!(slot.known().unwrap().locks[0].target, target, "the reload tells why");

    // An expired lock stops nothing.
    let lock = ledger.locks_on(std::slice::from_ref(&target)).await.unwrap().remove(0);
    let updated = join_domain::event::LockUpdated { message: "over".to_owned(), expires: Some(ledger.now()) };
    let updated = change(&ledger, vec![Event::LockUpdated(updated)]);
    ledger.append(StreamAppend::following(&lock, updated)).await.unwrap();
    slot.reload(&[target], None).await.unwrap();
    let append = slot.known().unwrap().following(change(&ledger, events()));
    slot.append(append).await.unwrap();
}

/// A lock whose append has its claims, and waits for a row of somebody else before it moves the fences.
async fn locking_halfway(
    database: &Database,
    ledger: &Ledger,
    token: TokenId,
    target: &LockTarget,
) -> (Blocked, JoinHandle<()>) {
    let blocked = Blocked::stream(database, token.0).await;
    let locks = Append::all(vec![
        lock_created(ledger, 50, target.clone()),
        lock_created(ledger, 51, LockTarget::JoinToken(name("example"))),
    ]);
    let ledger = ledger.clone();
    let locking = tokio::spawn(async move { ledger.append(locks).await.map(drop).unwrap() });
    blocked.until_waiting().await;
    (blocked, locking)
}

/// A lock of a key that no token has is being appended, and a first join that knows nothing of it waits for the key. It is
/// not accepted behind the lock; who joins beside it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_locked_at_that_moment_is_not_bound() {
    let database = Database::fresh().await;
    let (one, other) = (database.ledger().await, database.ledger().await);
    let token = example(&one).await;
    let names = ["new", "beside"].map(name);
    for (number, name) in (3..).zip(&names) {
        create_token(&one, name.as_str(), number, ("example", BotId(id(1)))).await;
    }
    let target = LockTarget::PublicKey(key(2).fingerprint());
    let (blocked, locking) = locking_halfway(&database, &one, token, &target).await;

    let joining = (2..).zip(names.clone()).map(|(number, name)| {
        let other = other.clone();
        tokio::spawn(async move {
            let mut slot = other.token(&name).await.unwrap();
            let events = vec![
                Event::KeypairBound(KeypairBound { key: key(number) }),
                accepted(other.now(), number.into(), 1, None),
            ];
            let append = slot.known().unwrap().following(change(&other, events));
            slot.append(append).await.map(drop)
        })
    });
    let [new, beside] = <[_; 2]>::try_from(joining.collect::<Vec<_>>()).unwrap();
    while blocked.waiters().await < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    blocked.release().await;
    locking.await.unwrap();

    let refused = new.await.unwrap();
    assert!(matches!(refused, Err(AppendError::Conflict)), "{refused:?}");
    beside.await.unwrap().unwrap();
    let mut slot = other.token(&name("new")).await.unwrap();
    slot.reload(std::slice::from_ref(&target), None).await.unwrap();
    assert_eq!(slot.known().unwrap().locks[0].target, target, "the reload tells why");
}

/// A lock is being appended while a token is created that it stops. Neither is visible to the other yet. However they end,
/// the node that has the token in its cache must learn of the lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_and_what_it_stops_meet_when_both_are_new() {
    for target in [LockTarget::JoinToken(name("new")), LockTarget::User(name("example"))] {
        let database = Database::fresh().await;
        let (one, other) = (database.ledger().await, database.ledger().await);
        let token = example(&one).await;

        let (blocked, locking) = locking_halfway(&database, &one, token, &target).await;

        let beginning = tokio::spawn({
            let other = other.clone();
            async move {
                create_token(&other, "new", 3, ("example", BotId(id(1)))).await;
                // Into the cache.
                assert!(other.token(&name("new")).await.unwrap().known().is_some());
            }
        });
        while !beginning.is_finished() && blocked.waiters().await < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        blocked.release().await;
        locking.await.unwrap();
        beginning.await.unwrap();

        let mut slot = other.token(&name("new")).await.unwrap();
        let known = slot.known().unwrap();
        let seen = known.locks.iter().any(|lock| lock.target == target);
        let next = known.following(change(&other, vec![Event::TokenDeleted(Nothing {})]));
        let outcome = slot.append(next).await;
        assert!(seen || matches!(outcome, Err(AppendError::Conflict)), "{target}: {outcome:?}");
    }
}

/// Locks and joins from two nodes at once, over few tokens: deadlocks and lost wake-ups would show as errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_and_joins_do_not_trip_over_each_other() {
    let database = Database::fresh().await;
    let nodes = [database.ledger().await, database.ledger().await];
    let bot = create_bot(&nodes[0], "example", 1).await;
    for number in 0..6_u8 {
        let token = format!("token-{number}");
        create_token(&nodes[0], &token, 100 + u128::from(number), ("example", bot)).await;
        first_join(&nodes[0], &token, key(number + 1), 200 + u128::from(number)).await;
    }
    let mut work = tokio::task::JoinSet::new();
    for worker in 0..8_u128 {
        let ledger = nodes[usize::try_from(worker % 2).unwrap()].clone();
        work.spawn(async move {
            for round in 0..15_u128 {
                if worker < 2 {
                    let target = match round % 2 {
                        0 => LockTarget::User(name("example")),
                        _ => LockTarget::JoinToken(name(&format!("token-{}", round % 6))),
                    };
                    ledger.append(lock_created(&ledger, 10_000 + worker * 100 + round, target)).await.unwrap();
                    continue;
                }
                let mut slot = ledger.token(&name(&format!("token-{}", (worker + round) % 6))).await.unwrap();
                if slot.known().is_none() {
                    slot.reload(&[], None).await.unwrap();
                }
                match renew(&ledger, &mut slot, None).await {
                    Ok(_) | Err(AppendError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    work.join_all().await;
    assert!(nodes[0].check(|_| {}).await.unwrap().is_equal());
    let token = nodes[0].load(TokenId(id(100)).into()).await.unwrap().unwrap();
    assert!(token.fence >= 16, "each lock on the user moved it");
}

/// Claims come before guard rows, whoever takes both: a lock on the token and its deletion meet at its name.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_claims_back_takes_them_before_the_guard_row() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;
    let stored = ledger.load(stream(token)).await.unwrap().unwrap();
    let mut lock = Blocked::begin(&database).await;
    lock.take("SELECT FROM claim WHERE namespace = 'token_name' AND value = 'example' FOR NO KEY UPDATE")
        .await
        .unwrap();
    let deletion = StreamAppend::following(&stored, change(&ledger, vec![Event::TokenDeleted(Nothing {})]));
    let deleting = tokio::spawn(async move { ledger.append(deletion).await });
    lock.until_waiting().await;

    let guard_row = "SELECT FROM stream WHERE kind = 'token' AND name = 'example' FOR NO KEY UPDATE NOWAIT";
    lock.take(guard_row).await.expect("the deletion waits for the claim, and holds no guard row meanwhile");

    lock.release().await;
    deleting.await.unwrap().unwrap();
}
