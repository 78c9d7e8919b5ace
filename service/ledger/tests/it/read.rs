//! Lists, histories of streams, and states of the past.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use join_domain::{
    envelope::StreamKind,
    event::{Event, Nothing},
    id::{InstanceId, TokenId},
    resource::LockTarget,
    state::State,
};
use join_ledger::{ListFilter, Settings, StreamAppend};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn live_streams_are_listed_page_by_page_and_by_label() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let bot = create_bot(&ledger, "example", 1).await;
    for number in 0..7_u8 {
        create_token(&ledger, &format!("token-{number}"), 100 - u128::from(number), ("example", bot)).await;
    }
    let read = ledger.load(TokenId(id(97)).into()).await.unwrap().unwrap();
    let deleted = change(&ledger, vec![Event::TokenDeleted(Nothing {})]);
    ledger.append(StreamAppend::following(&read, deleted)).await.unwrap();

    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let filter = ListFilter { after, limit: 2, ..ListFilter::default() };
        let page = ledger.list(StreamKind::Token, &filter).await.unwrap();
        names.extend(page.streams.iter().map(|stored| stored.state.name().unwrap().to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["token-0", "token-1", "token-2", "token-4", "token-5", "token-6"]);
    let labelled = |value: &str| ListFilter {
        selector: [("team".to_owned(), value.to_owned())].into(),
        limit: 100,
        ..ListFilter::default()
    };
    assert_eq!(ledger.list(StreamKind::Token, &labelled("infra")).await.unwrap().streams.len(), 6);
    assert_eq!(ledger.list(StreamKind::Token, &labelled("other")).await.unwrap().streams.len(), 0);
    assert_eq!(
        ledger.list(StreamKind::Bot, &ListFilter { limit: 1, ..ListFilter::default() }).await.unwrap().next,
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_to_its_end_and_folded_to_any_moment() {
    let database = Database::fresh().await;
    let clock = ManualClock::at("2026-11-22T10:00:00Z");
    let ledger = database.ledger_with(clock.settings()).await;
    let token = example(&ledger).await;
    clock.advance_minutes(10);
    first_join(&ledger, "example", key(1), 77).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    for _ in 0..5 {
        clock.advance_minutes(10);
        renew(&ledger, &mut slot, None).await.unwrap();
    }

    let mut versions = Vec::new();
    let mut from = Some(1);
    while let Some(version) = from {
        let page = ledger.stream(stream(token), version, 3).await.unwrap();
        versions.extend(page.entries.iter().map(|entry| entry.first_version));
        from = page.next;
    }
    assert_eq!(versions, [1, 2, 4, 6, 8, 10, 12]);
    assert!(ledger.stream(stream(TokenId(id(9))), 1, 3).await.unwrap().entries.is_empty());

    let at = async |time: &str| ledger.state_at(stream(token), time.parse().unwrap()).await.unwrap();
    assert!(at("2026-11-22T09:59:59Z").await.is_none());
    assert!(at("2026-11-22T10:00:00Z").await.unwrap().token().unwrap().binding.is_none());
    let generation =
        |stored: Option<join_ledger::Stored>| stored.unwrap().token().unwrap().latest().unwrap().join.generation;
    assert_eq!(generation(at("2026-11-22T10:10:00Z").await), 1);
    assert_eq!(generation(at("2026-11-22T10:39:59Z").await), 3);
    let now = at("2027-01-01T00:00:00Z").await.unwrap();
    assert_eq!(now.state, State::Token(slot.known().unwrap().token.clone()));
    assert_eq!(now.version, 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_again_under_its_name_is_another_with_a_history_of_its_own() {
    let database = Database::fresh().await;
    let clock = ManualClock::at("2026-11-22T10:00:00Z");
    let ledger = database.ledger_with(clock.settings()).await;
    let first = example(&ledger).await;
    let read = ledger.load(stream(first)).await.unwrap().unwrap();
    let deleted = change(&ledger, vec![Event::TokenDeleted(Nothing {})]);
    ledger.append(StreamAppend::following(&read, deleted)).await.unwrap();
    clock.advance_minutes(1);
    let bot = read.token().unwrap().bot;
    let second = create_token(&ledger, "example", 1000, ("example", bot)).await;
    let namesakes = ledger.namesakes(StreamKind::Token, &name("example")).await.unwrap();
    assert_eq!(namesakes, [stream(first), stream(second)]);
    let slot = ledger.token(&name("example")).await.unwrap();
    assert_eq!(slot.known().unwrap().token.id, second);
}

/// As while a new fleet comes in: the plan was made when there were few tokens, and nobody has counted since.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_what_a_lock_concerns_are_found_by_index_when_the_tables_grew_since_the_plan_was_made() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let bot = create_bot(&ledger, "example", 1).await;
    let names: Vec<_> = (0..40_u8).map(|number| format!("token-{number}")).collect();
    for (number, name) in (100..).zip(&names) {
        create_token(&ledger, name, number, ("example", bot)).await;
    }
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    // A statement that changes the table has plans made anew, so it comes first.
    let uncounted = "ALTER TABLE stream SET (autovacuum_enabled = off)";
    sqlx::query(uncounted).execute(&mut superuser).await.unwrap();
    let cold = database.ledger().await;
    let (early, late) = names.split_at(30);
    let lock = async |number: u128, token: &str| {
        let target = LockTarget::JoinToken(self::name(token));
        cold.append(lock_created(&cold, number, target)).await.unwrap();
    };
    for (number, name) in (1000..).zip(early) {
        let mut slot = cold.token(&self::name(name)).await.unwrap();
        slot.reload(&[], Some(attempt(1))).await.unwrap();
        assert!(slot.known().is_some());
        drop(slot);
        lock(number, name).await;
    }
    for sql in [
        "WITH more AS (
             INSERT INTO stream (stream_id, kind, version, fence, name, live, bot_id)
             SELECT gen_random_uuid(), kind, version, fence, name || number, live, bot_id
             FROM stream, generate_series(1, 300) number WHERE kind = 'token' RETURNING stream_id, version
         ) INSERT INTO snapshot SELECT stream_id, version, '{}' FROM more",
        "INSERT INTO entry SELECT stream_id, 1, 1, 'token', now(), '{}', stream_id FROM stream WHERE kind = 'token'
         ON CONFLICT DO NOTHING",
        "SELECT pg_stat_force_next_flush()",
    ] {
        sqlx::query(sql).execute(&mut superuser).await.unwrap();
    }
    // Counts arrive when the connections that they are of have ended.
    ledger.close().await;
    sqlx::query("SELECT pg_stat_reset()").execute(&mut superuser).await.unwrap();
    for (number, name) in (2000..).zip(late) {
        let mut slot = cold.token(&self::name(name)).await.unwrap();
        slot.reload(&[], Some(attempt(1))).await.unwrap();
        assert!(slot.known().is_some());
        drop(slot);
        lock(number, name).await;
    }
    until_counted(cold, &mut superuser).await;
    let read = "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_user_tables
                WHERE relname IN ('stream', 'snapshot', 'entry', 'claim', 'lineage')";
    let read: i64 = sqlx::query_scalar(read).fetch_one(&mut superuser).await.unwrap();
    assert!((1..3000).contains(&read), "{read} rows were read for ten tokens and their locks");
}

/// They are read together; even so each is told what concerns it, and nothing of the others.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_at_the_same_moment_is_told_of_the_own_token_alone() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    for number in 0..10_u8 {
        let (bot, token) = (format!("bot-{number}"), format!("token-{number}"));
        let id = create_bot(&ledger, &bot, (100 + number).into()).await;
        create_token(&ledger, &token, (200 + number).into(), (&bot, id)).await;
        first_join(&ledger, &token, key(number), u128::from(number)).await;
        let mut slot = ledger.token(&name(&token)).await.unwrap();
        renew(&ledger, &mut slot, Some(attempt(number.into()))).await.unwrap();
    }
    let locked = |number: u8| match number % 5 {
        0 => Some(LockTarget::JoinToken(name(&format!("token-{number}")))),
        1 => Some(LockTarget::User(name(&format!("bot-{number}")))),
        2 => Some(LockTarget::BotInstanceId(InstanceId(id(number.into())))),
        3 => Some(LockTarget::PublicKey(key(number).fingerprint())),
        _ => None,
    };
    for number in 0..10 {
        if let Some(target) = locked(number) {
            ledger.append(lock_created(&ledger, 300 + u128::from(number), target)).await.unwrap();
        }
    }
    // Not of the token, but the attempt asks about it.
    let beside = LockTarget::PublicKey(key(99).fingerprint());
    ledger.append(lock_created(&ledger, 400, beside.clone())).await.unwrap();

    let cold = database.ledger().await;
    let mut asking = JoinSet::new();
    // Two of three are there; each second asks about an attempt, of which one of two was accepted.
    for number in (0..15_u8).cycle().take(60) {
        let (cold, beside) = (cold.clone(), beside.clone());
        asking.spawn(async move {
            let mut slot = cold.token(&name(&format!("token-{number}"))).await.unwrap();
            let targets = if number % 3 == 0 { vec![beside] } else { Vec::new() };
            let asked = (number % 2 == 0).then(|| attempt(if number % 4 == 0 { number.into() } else { 99 }));
            slot.reload(&targets, asked).await.unwrap();
            let known = slot.known().map(|known| {
                let locks: BTreeSet<_> = known.locks.iter().map(|lock| lock.target.to_string()).collect();
                (known.token.id, known.bot.as_ref().map(|bot| bot.name.to_string()), locks)
            });
            (number, known, slot.attempt_accepted_before())
        });
    }
    for (number, known, accepted_before) in asking.join_all().await {
        let also = (number % 3 == 0).then(|| LockTarget::PublicKey(key(99).fingerprint()));
        let locks: BTreeSet<_> = locked(number).into_iter().chain(also).map(|target| target.to_string()).collect();
        let there = (TokenId(id((200 + number).into())), Some(format!("bot-{number}")), locks);
        assert_eq!(known, (number < 10).then_some(there), "token-{number}");
        assert_eq!(accepted_before, number < 10 && number % 4 == 0, "token-{number}");
    }
}

/// Strangers can ask for a token as often as they like.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_read_while_a_join_has_its_turn() {
    let database = Database::fresh().await;
    let (ledger, other) = (database.ledger().await, database.ledger().await);
    let bot = create_bot(&ledger, "example", 1).await;
    create_token(&ledger, "example", 2, ("example", bot)).await;
    first_join(&ledger, "example", key(1), 70).await;
    let example = name("example");
    let remembered = || ledger.remembered_token(&example).map(|known| known.version);
    renew(&ledger, &mut ledger.token(&example).await.unwrap(), None).await.unwrap();
    let before = remembered().expect("the join is remembered");

    let mut slot = ledger.token(&example).await.unwrap();
    assert_eq!(ledger.read_token(&example).await.unwrap().unwrap().version, before);
    renew(&ledger, &mut slot, None).await.unwrap();
    let after = remembered().expect("the renewal is remembered");
    assert!(after > before);
    drop(slot);

    // Another node goes on; what is read replaces what is remembered, and the next join fits at once.
    renew(&other, &mut other.token(&example).await.unwrap(), None).await.unwrap();
    assert_eq!(remembered(), Some(after));
    let newest = ledger.read_token(&example).await.unwrap().unwrap().version;
    assert!(newest > after);
    assert_eq!(remembered(), Some(newest));
    renew(&ledger, &mut ledger.token(&example).await.unwrap(), None).await.unwrap();

    tokio::time::sleep(Duration::from_secs(1)).await;
    ledger.doubt_token(&example);
    assert_eq!(remembered(), None);
    let read = ledger.read_token(&example).await.unwrap().unwrap().version;
    assert_eq!(remembered(), Some(read));
    ledger.doubt_token(&example);
    assert_eq!(remembered(), Some(read), "what was read a moment ago is not doubted");
    assert!(ledger.read_token(&name("nobody")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_larger_than_the_cache_joins_as_well_and_its_tokens_are_read_each_time() {
    const FLEET: u64 = 20;
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let bot = create_bot(&ledger, "example", 1).await;
    let names: Vec<_> = (0..FLEET).map(|number| format!("token-{number}")).collect();
    for (number, name) in (100_u8..).zip(&names) {
        create_token(&ledger, name, number.into(), ("example", bot)).await;
        first_join(&ledger, name, key(number), u128::from(number)).await;
    }
    let large = database.ledger().await;
    let small = database.ledger_with(Settings { cache_bytes: 16 * 1024, ..Settings::default() }).await;
    for ledger in [&large, &small] {
        for _ in 0..3 {
            for name in &names {
                renew(ledger, &mut ledger.token(&self::name(name)).await.unwrap(), None).await.unwrap();
            }
        }
    }
    assert_eq!((large.tokens_cached(), large.token_reads()), (20, FLEET));
    assert!((1..20).contains(&small.tokens_cached()), "{} tokens are cached", small.tokens_cached());
    assert!(small.token_reads() > 2 * FLEET, "{} were read", small.token_reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_beside_joins_never_outlives_what_they_know() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let bot = create_bot(&ledger, "example", 1).await;
    create_token(&ledger, "example", 2, ("example", bot)).await;
    first_join(&ledger, "example", key(1), 70).await;
    let example = name("example");
    let joins_go_on = Arc::new(AtomicBool::new(true));
    let reading = tokio::spawn({
        let (ledger, example, joins_go_on) = (ledger.clone(), example.clone(), Arc::clone(&joins_go_on));
        async move {
            let mut reads = 0;
            while joins_go_on.load(Ordering::Relaxed) {
                ledger.read_token(&example).await.unwrap().unwrap();
                reads += 1;
            }
            reads
        }
    });
    for _ in 0..200 {
        let mut slot = ledger.token(&example).await.unwrap();
        renew(&ledger, &mut slot, None).await.expect("nothing but this node's own joins moves the token");
    }
    joins_go_on.store(false, Ordering::Relaxed);
    assert!(reading.await.unwrap() > 10, "it was read meanwhile");
}
