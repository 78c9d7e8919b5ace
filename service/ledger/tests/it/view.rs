//! Views follow the log, and show what relying parties and people ask for.

use std::time::Duration;

use join_domain::{
    event::{BotCreated, Event, JoinResumed, Nothing, TokenReinstated},
    id::{BotId, InstanceId},
    resource::BotSpec,
};
use join_ledger::{InstanceFilter, Ledger, StreamAppend};
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::support::*;

async fn follow(ledger: &Ledger) {
    while ledger.sequence_once(100).await.unwrap().entries > 0 {}
    while ledger.project_once(100).await.unwrap() > 0 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_show_their_lineage_and_newest_authentications() {
    let database = Database::fresh().await;
    let clock = ManualClock::at("2026-11-22T10:00:00Z");
    let ledger = database.ledger_with(clock.settings()).await;
    let token = example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    for number in 1..15 {
        clock.advance_minutes(1);
        renew(&ledger, &mut slot, Some(attempt(number))).await.unwrap();
    }
    follow(&ledger).await;
    let instance = ledger.instance(InstanceId(id(77))).await.unwrap().unwrap();
    assert_eq!((instance.generation, instance.joins, instance.token), (15, 15, token));
    assert_eq!((instance.token_name.as_str(), instance.bot_name.as_str()), ("example", "example"));
    assert_eq!(instance.first_at, "2026-11-22T10:00:00Z".parse::<join_domain::Timestamp>().unwrap());
    assert_eq!(instance.latest_at, "2026-11-22T10:14:00Z".parse::<join_domain::Timestamp>().unwrap());
    let generations: Vec<u64> = instance.latest.iter().map(|latest| latest.generation).collect();
    assert_eq!(generations, (6..=15).rev().collect::<Vec<_>>());

    let serial = instance.latest[0].serial.clone();
    let resumed = Event::JoinResumed(JoinResumed { attempt: attempt(14), serial: serial.clone() });
    let append = slot.known().unwrap().following(change(&ledger, vec![resumed]));
    slot.append(append).await.unwrap();
    follow(&ledger).await;
    let instance = ledger.instance(InstanceId(id(77))).await.unwrap().unwrap();
    assert_eq!((instance.joins, instance.latest.len()), (15, 10), "a resume is no join");
    assert_eq!((instance.latest[0].case, &instance.latest[0].serial), (None, &serial));
    let of_bot = InstanceFilter { bot: Some(name("example")), limit: 10, ..InstanceFilter::default() };
    assert_eq!(ledger.instances(&of_bot).await.unwrap(), [instance]);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_revoked_by_locks_and_by_the_end_of_their_binding() {
    let database = Database::fresh().await;
    let clock = ManualClock::at("2026-11-22T10:00:00Z");
    let ledger = database.ledger_with(clock.settings()).await;
    let token = example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    clock.advance_minutes(30);
    let mut slot = ledger.token(&name("example")).await.unwrap();
    renew(&ledger, &mut slot, None).await.unwrap();
    drop(slot);
    let revoked = async || {
        follow(&ledger).await;
        let revoked = ledger.revoked_certificates(ledger.now()).await.unwrap();
        // A test's serial numbers end with the generation.
        let generation = |serial: &str| u64::from_str_radix(&serial[16..], 16).unwrap();
        revoked.iter().map(|certificate| generation(&certificate.serial)).collect::<Vec<_>>()
    };
    assert_eq!(revoked().await, [0_u64; 0]);

    for (number, target) in every_target().into_iter().enumerate() {
        let lock = ledger.append(lock_created(&ledger, 50 + number as u128, target.clone())).await.unwrap();
        assert_eq!(revoked().await, [1, 2], "{target}");
        let deleted = join_domain::event::LockDeleted { reason: None };
        let deleted = change(&ledger, vec![Event::LockDeleted(deleted)]);
        ledger.append(StreamAppend::following(&lock[0], deleted)).await.unwrap();
        assert_eq!(revoked().await, [0_u64; 0], "{target}");
    }

    // A reinstatement keeps what was issued before it on the list, until it expires.
    let read = ledger.load(stream(token)).await.unwrap().unwrap();
    let reinstated = Event::TokenReinstated(TokenReinstated { reason: "checked".to_owned(), released: vec![] });
    ledger.append(StreamAppend::following(&read, change(&ledger, vec![reinstated]))).await.unwrap();
    assert_eq!(revoked().await, [1, 2]);
    clock.advance_minutes(45);
    let mut slot = ledger.token(&name("example")).await.unwrap();
    renew(&ledger, &mut slot, None).await.unwrap();
    assert_eq!(revoked().await, [2], "the first has expired, the newest is good");
    let deleted = slot.known().unwrap().following(change(&ledger, vec![Event::TokenDeleted(Nothing {})]));
    slot.append(deleted).await.unwrap();
    assert_eq!(revoked().await, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_are_the_same_however_the_log_is_cut() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let created = Event::BotCreated(BotCreated { name: name("other"), spec: BotSpec::default() });
    ledger.append(StreamAppend::begin(BotId(id(9)).into(), change(&ledger, vec![created]))).await.unwrap();
    first_join(&ledger, "example", key(1), 77).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    for _ in 0..9 {
        renew(&ledger, &mut slot, None).await.unwrap();
    }
    ledger.sequence_once(100).await.unwrap();
    for _ in 0..13 {
        assert_eq!(ledger.project_once(1).await.unwrap(), 1);
        let comparison = ledger.check(|_| {}).await.unwrap();
        assert!(comparison.is_equal(), "{comparison:?}");
    }
    assert_eq!(ledger.project_once(1).await.unwrap(), 0);
    assert_eq!(ledger.positions().await.unwrap().views, 13);
    // In larger pieces, all but the last entry of which this node still knows.
    for _ in 0..9 {
        renew(&ledger, &mut slot, None).await.unwrap();
    }
    ledger.sequence_once(100).await.unwrap();
    for piece in [2, 3, 4] {
        assert_eq!(ledger.project_once(piece).await.unwrap(), u64::from(piece));
        let comparison = ledger.check(|_| {}).await.unwrap();
        assert!(comparison.is_equal(), "{comparison:?}");
    }
}

/// Only the newest entry is read: it tells that the database still holds what this node appended.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_appended_is_viewed_without_reading_it_back() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    renew(&ledger, &mut ledger.token(&name("example")).await.unwrap(), None).await.unwrap();
    let settled = ledger.sequence_once(100).await.unwrap().settled;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let damage = "UPDATE entry e SET envelope = '' FROM log_entry l WHERE l.log_index < $1
        AND (e.stream_id, e.first_version) = (l.stream_id, l.first_version)";
    sqlx::query(damage).bind(i64::try_from(settled - 1).unwrap()).execute(&mut superuser).await.unwrap();
    assert_eq!(ledger.project_once(100).await.unwrap(), settled);
    ledger.check(|_| {}).await.expect_err("who reads them sees the damage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_failed_is_made_again_from_the_same_entries() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    for _ in 0..9 {
        renew(&ledger, &mut slot, None).await.unwrap();
    }
    ledger.sequence_once(100).await.unwrap();
    let settled = ledger.settled().await.unwrap();
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    sqlx::query("ALTER TABLE certificate_view RENAME TO elsewhere").execute(&mut superuser).await.unwrap();
    ledger.project_once(100).await.unwrap_err();
    assert_eq!(ledger.positions().await.unwrap().views, 0);
    sqlx::query("ALTER TABLE elsewhere RENAME TO certificate_view").execute(&mut superuser).await.unwrap();
    // What the failed step had locked is given back a moment later.
    let mut projected = 0;
    for _ in 0..200 {
        projected = ledger.project_once(7).await.unwrap();
        if projected > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(projected, 7);
    assert_eq!(ledger.project_once(100).await.unwrap(), settled - 7);
    let comparison = ledger.check(|_| {}).await.unwrap();
    assert!(comparison.is_equal(), "{comparison:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_are_kept_up_until_stopped() {
    let database = Database::fresh().await;
    let (ledger, other) = (database.ledger().await, database.ledger().await);
    let stop = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    for ledger in [ledger.clone(), other] {
        let stop = stop.clone();
        running.spawn(async move {
            tokio::join!(ledger.run_sequencer(stop.clone()), ledger.run_views(stop));
        });
    }
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    for _ in 0..200 {
        if ledger.instance(InstanceId(id(77))).await.unwrap().is_some() {
            stop.cancel();
            tokio::time::timeout(Duration::from_secs(5), running.join_all()).await.unwrap();
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the views did not follow");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instances_of_a_bot_cost_the_same_however_many_others_have() {
    let database = Database::fresh().await;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    for sql in [
        "INSERT INTO instance_view SELECT gen_random_uuid(), gen_random_uuid(), 'token', bot, NULL, 1, 1, now(), now(), now(), '[]'
         FROM unnest(ARRAY['alpha', 'omega']) AS bot, generate_series(1, 50000)",
        "INSERT INTO instance_view
         SELECT lpad(number::text, 32, '0')::uuid, gen_random_uuid(), 'token', 'example', NULL, 1, 1, now(), now(), now(), '[]'
         FROM generate_series(1, 5) AS number",
        "ANALYZE",
    ] {
        sqlx::query(sql).execute(&mut superuser).await.unwrap();
    }
    count_anew(&mut superuser).await;

    let ledger = database.ledger().await;
    let mut filter = InstanceFilter { bot: Some(name("example")), limit: 2, ..InstanceFilter::default() };
    let mut pages = Vec::new();
    loop {
        let page = ledger.instances(&filter).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some((last.bot_name.clone(), last.id));
        pages.push(page.iter().map(|instance| instance.id.0.as_u128()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![1, 2], vec![3, 4], vec![5]]);
    // A page of all bots may have ended anywhere.
    for (bot, found) in [("alpha", 2), ("omega", 0)] {
        filter.after = Some((bot.to_owned(), InstanceId(id(9))));
        assert_eq!(ledger.instances(&filter).await.unwrap().len(), found, "after {bot}");
    }
    until_counted(ledger, &mut superuser).await;
    let pages = pages_of("instance_view", &mut superuser).await;
    assert!((1..400).contains(&pages), "{pages} pages were read for five instances");
}
