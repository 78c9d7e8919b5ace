//! The log's order: gapless, each stream's own order kept, nothing skipped, whatever commits when.

use std::{collections::HashMap, time::Duration};

use join_domain::{envelope::StreamId, id::InstanceId, resource::LockTarget};
use join_ledger::{Append, Assigned, HistoryFilter, Indexed, Kinds, Ledger, Whose};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::*;

async fn whole_log(ledger: &Ledger) -> Vec<Indexed> {
    let mut entries = Vec::new();
    loop {
        let page = ledger.log(entries.len() as u64, 7).await.unwrap();
        entries.extend(page.entries.iter().cloned());
        if page.is_end() {
            return entries;
        }
    }
}

/// Every index once, and each stream's versions in order, without a gap.
fn assert_ordered(log: &[Indexed]) {
    let mut versions: HashMap<StreamId, u64> = HashMap::new();
    for (index, entry) in (0..).zip(log) {
        assert_eq!(entry.index, index);
        let version = versions.entry(entry.stream).or_default();
        assert_eq!(entry.first_version, *version + 1, "{}", entry.stream);
        *version = entry.last_version;
    }
}

fn lock_of(number: u128) -> LockTarget {
    LockTarget::BotInstanceId(InstanceId(id(number)))
}

/// An append that has drawn its number and waits, in the middle of its transaction, for a row of somebody else.
async fn hanging(database: &Database, ledger: &Ledger, number: u128) -> (Blocked, tokio::task::JoinHandle<bool>) {
    let blocked = Blocked::stream(database, id(2)).await;
    let append = Append::all(vec![
        lock_created(ledger, number, lock_of(1)),
        lock_created(ledger, number + 1, LockTarget::JoinToken(name("example"))),
    ]);
    let ledger = ledger.clone();
    let append = tokio::spawn(async move { ledger.append(append).await.is_ok() });
    blocked.until_waiting().await;
    (blocked, append)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_late_is_not_skipped() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let (blocked, late) = hanging(&database, &ledger, 50).await;
    for number in 100..105 {
        ledger.append(lock_created(&ledger, number, lock_of(2))).await.unwrap();
    }
    assert_eq!(ledger.sequence_once(100).await.unwrap(), Assigned { entries: 7, settled: 7 });
    let before = whole_log(&ledger).await;

    blocked.release().await;
    assert!(late.await.unwrap());
    assert_eq!(ledger.sequence_once(100).await.unwrap(), Assigned { entries: 2, settled: 9 });
    let after = whole_log(&ledger).await;
    assert_eq!(after[..7], before[..], "what was read stays");
    let late: Vec<Uuid> = after[7..].iter().map(|entry| entry.stream.id).collect();
    assert_eq!(late, [id(50), id(51)]);
    assert_ordered(&after);
}

/// What was appended by one statement is one note, which is never divided.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_ends_with_the_note_that_fills_it() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let together = (1..=4).map(|number| lock_created(&ledger, number, lock_of(1))).collect();
    ledger.append(Append::all(together)).await.unwrap();
    for number in 5..=7 {
        ledger.append(lock_created(&ledger, number, lock_of(2))).await.unwrap();
    }
    assert_eq!(ledger.positions().await.unwrap().unsequenced, 7);
    assert_eq!(ledger.sequence_once(2).await.unwrap(), Assigned { entries: 4, settled: 4 });
    assert_eq!(ledger.sequence_once(2).await.unwrap(), Assigned { entries: 2, settled: 6 });
    assert_eq!(ledger.positions().await.unwrap().unsequenced, 1);
    assert_eq!(ledger.sequence_once(2).await.unwrap(), Assigned { entries: 1, settled: 7 });
    let order: Vec<Uuid> = whole_log(&ledger).await.iter().map(|entry| entry.stream.id).collect();
    assert_eq!(order, (1..=7).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_ends_in_the_middle_leaves_no_gap() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let (blocked, aborted) = hanging(&database, &ledger, 50).await;
    ledger.append(lock_created(&ledger, 100, lock_of(2))).await.unwrap();
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    assert!(!aborted.await.unwrap());
    blocked.release().await;
    assert_eq!(ledger.sequence_once(100).await.unwrap().entries, 3);
    let log = whole_log(&ledger).await;
    assert_ordered(&log);
    assert!(log.iter().all(|entry| entry.stream.id != id(50)));
}

/// A node that hangs while it numbers keeps the others waiting for nothing, and when it is gone they go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequencer_that_hangs_blocks_nobody_and_is_replaced() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let mut hanging = PgConnection::connect_with(&database.roles.service).await.unwrap();
    sqlx::query("BEGIN").execute(&mut hanging).await.unwrap();
    sqlx::query("SELECT FROM sequencer FOR UPDATE").execute(&mut hanging).await.unwrap();

    let step = tokio::time::timeout(Duration::from_secs(5), ledger.sequence_once(100)).await.unwrap().unwrap();
    assert_eq!(step.entries, 0, "the seat is taken");
    assert_eq!(ledger.positions().await.unwrap().unsequenced, 2);
    drop(hanging);
    for _ in 0..100 {
        if ledger.sequence_once(100).await.unwrap().entries == 2 {
            assert_ordered(&whole_log(&ledger).await);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody took over");
}

/// Two nodes append and number at once, in small steps, while a follower reads: it sees every entry once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_sequencers_give_every_entry_one_index() {
    let database = Database::fresh().await;
    let nodes = [database.ledger().await, database.ledger().await];
    let bot = create_bot(&nodes[0], "example", 1).await;
    for number in 0..4_u8 {
        create_token(&nodes[0], &format!("token-{number}"), 100 + u128::from(number), ("example", bot)).await;
        first_join(&nodes[0], &format!("token-{number}"), key(number + 1), 200 + u128::from(number)).await;
    }
    let stop = CancellationToken::new();
    let mut sequencers = tokio::task::JoinSet::new();
    for worker in 0..4_usize {
        let (ledger, stop) = (nodes[worker % 2].clone(), stop.clone());
        sequencers.spawn(async move {
            let mut steps = 0_u32;
            while !stop.is_cancelled() {
                steps += u32::from(ledger.sequence_once(3).await.unwrap().entries > 0);
            }
            steps
        });
    }
    let follower = tokio::spawn({
        let (ledger, stop) = (nodes[1].clone(), stop.clone());
        async move {
            let mut followed: Vec<Indexed> = Vec::new();
            while !stop.is_cancelled() {
                followed.extend(ledger.follow(followed.len() as u64, 5).await.unwrap().entries);
            }
            followed
        }
    });
    let mut joins = tokio::task::JoinSet::new();
    for worker in 0..8_u8 {
        let ledger = nodes[usize::from(worker % 2)].clone();
        joins.spawn(async move {
            for _ in 0..20 {
                let mut slot = ledger.token(&name(&format!("token-{}", worker % 4))).await.unwrap();
                if slot.known().is_none() {
                    slot.reload(&[], None).await.unwrap();
                }
                renew(&ledger, &mut slot, None).await.unwrap();
            }
        });
    }
    joins.join_all().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.cancel();
    let steps = sequencers.join_all().await;
    assert!(steps.iter().filter(|steps| **steps > 0).count() > 1, "more than one took part: {steps:?}");
    while nodes[0].sequence_once(100).await.unwrap().entries > 0 {}

    let log = whole_log(&nodes[0]).await;
    assert_ordered(&log);
    let followed = follower.await.unwrap();
    assert_eq!(followed[..], log[..followed.len()]);
    let mut versions: HashMap<StreamId, u64> = HashMap::new();
    for entry in &log {
        versions.insert(entry.stream, entry.last_version);
    }
    for (stream, version) in versions {
        assert_eq!(nodes[0].load(stream).await.unwrap().unwrap().version, version, "{stream} is there up to its end");
    }
    assert_eq!(nodes[0].positions().await.unwrap().unsequenced, 0);
}

/// A step that looks before another has taken what is there, and has its turn after: it takes the little that is left of
/// what it saw, and must not believe that there is no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_finds_its_notes_taken_passes_none_of_the_others() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    for number in 0..6 {
        ledger.append(lock_created(&ledger, 100 + number, lock_of(number))).await.unwrap();
    }
    let step = include_str!("../../sql/number.sql");
    let slow = step.replacen("WITH seat", "WITH pause AS MATERIALIZED (SELECT pg_advisory_lock(1)), seat", 1).replacen(
        "FROM sequencer s,",
        "FROM pause, sequencer s,",
        1,
    );
    assert_eq!(slow.matches("pause").count(), 2, "the statement has another form by now");
    let mut pause = Blocked::begin(&database).await;
    pause.take("SELECT pg_advisory_xact_lock(1)").await.unwrap();
    let mut second = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let now = ledger.now();
    let slow = tokio::spawn(async move {
        let numbered = sqlx::query(sqlx::AssertSqlSafe(slow)).bind(3_i64).bind("slow").bind(now);
        numbered.fetch_one(&mut second).await.unwrap().get::<Vec<Uuid>, _>(1).len()
    });
    pause.until_waiting().await;

    assert_eq!(ledger.sequence_once(2).await.unwrap().entries, 2);
    pause.release().await;
    assert_eq!(slow.await.unwrap(), 1, "of the three that it saw, one was left");

    while ledger.sequence_once(100).await.unwrap().entries > 0 {}
    let log = whole_log(&ledger).await;
    assert_ordered(&log);
    assert_eq!(log.len(), 6);
}

/// A follower on the node that appended takes all but the newest entry from memory, and that one tells whether the
/// database is still the one that they were appended to.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_appended_is_followed_without_reading_it_back() {
    let database = Database::fresh().await;
    let (ledger, other) = (database.ledger().await, database.ledger().await);
    example(&ledger).await;
    ledger.append(lock_created(&ledger, 100, lock_of(1))).await.unwrap();
    assert_eq!(ledger.sequence_once(100).await.unwrap().settled, 3);
    let appended = whole_log(&ledger).await;
    let follow = async |ledger: &Ledger, from| ledger.follow(from, 100).await.unwrap().entries;
    assert_eq!(follow(&ledger, 0).await, appended);
    assert_eq!(ledger.follow(1, 1).await.unwrap().entries, appended[1..2]);

    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let mut change = async |entry: &Indexed| {
        let later = "UPDATE entry SET recorded_at = recorded_at + interval '1 second' WHERE stream_id = $1";
        sqlx::query(later).bind(entry.stream.id).execute(&mut superuser).await.unwrap();
    };
    change(&appended[0]).await;
    assert_ne!(whole_log(&ledger).await, appended);
    assert_eq!(follow(&ledger, 0).await, appended, "it was not read");
    assert_eq!(follow(&other, 0).await, whole_log(&other).await, "another node reads it");

    // What another node appends or numbers is read, whatever this one remembers.
    other.append(lock_created(&other, 101, lock_of(2))).await.unwrap();
    ledger.append(lock_created(&ledger, 102, lock_of(3))).await.unwrap();
    assert_eq!(ledger.sequence_once(100).await.unwrap().settled, 5);
    ledger.append(lock_created(&ledger, 103, lock_of(4))).await.unwrap();
    assert_eq!(other.sequence_once(100).await.unwrap().settled, 6);
    ledger.append(lock_created(&ledger, 104, lock_of(5))).await.unwrap();
    assert_eq!(ledger.sequence_once(100).await.unwrap().settled, 7);
    let log = whole_log(&ledger).await;
    assert_eq!(follow(&ledger, 1).await, log[1..]);
    assert_eq!(follow(&ledger, 6).await, log[6..]);

    change(&log[6]).await;
    assert_eq!(follow(&ledger, 0).await, whole_log(&ledger).await, "the newest entry is another one: all are read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_whose_transactions_count_anew_goes_on_numbering() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let restored =
        "UPDATE sequencer SET horizon = (pg_snapshot_xmax(pg_current_snapshot())::text::int8 + 1000)::text::xid8";
    sqlx::query(restored).execute(&mut superuser).await.unwrap();
    assert_eq!(ledger.sequence_once(100).await.unwrap().entries, 2);
    ledger.append(lock_created(&ledger, 50, lock_of(1))).await.unwrap();
    assert_eq!(ledger.sequence_once(100).await.unwrap().entries, 1);
    // Also when they have come as far as those of before in the meantime.
    ledger.append(lock_created(&ledger, 51, lock_of(2))).await.unwrap();
    let caught_up =
        "UPDATE sequencer SET horizon = (SELECT max(xid)::text::int8 + 1 FROM outbox)::text::xid8, horizon_of = 7";
    sqlx::query(caught_up).execute(&mut superuser).await.unwrap();
    assert_eq!(ledger.sequence_once(100).await.unwrap().entries, 1);
    let horizon = "SELECT horizon <= pg_snapshot_xmin(pg_current_snapshot()) FROM sequencer";
    let counts: bool = sqlx::query_scalar(horizon).fetch_one(&mut superuser).await.unwrap();
    assert!(counts, "the horizon is of this database again");
}

/// Rows that are gone stay where they were until a vacuum; a step must not wade through them.
#[tokio::test(flavor = "multi_thread")]
async fn numbering_costs_the_same_after_a_hundred_thousand_notes() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    for sql in [
        "ALTER TABLE outbox SET (autovacuum_enabled = off)",
        "INSERT INTO outbox (stream_ids, first_versions) SELECT ARRAY[gen_random_uuid()], ARRAY[1] FROM generate_series(1, 100000)",
        "DELETE FROM outbox WHERE stream_ids[1] NOT IN (SELECT stream_id FROM entry)",
    ] {
        sqlx::query(sql).execute(&mut superuser).await.unwrap();
    }
    // These may wade. Their horizon waits for transactions of the whole server.
    let ended: String =
        sqlx::query_scalar("SELECT pg_current_xact_id()::text").fetch_one(&mut superuser).await.unwrap();
    let passed = "SELECT horizon >= $1::xid8 FROM sequencer";
    let deadline = Deadline::begin();
    for number in 1000.. {
        ledger.append(lock_created(&ledger, number, lock_of(number))).await.unwrap();
        ledger.sequence_once(100).await.unwrap();
        if sqlx::query_scalar(passed).bind(&ended).fetch_one(&mut superuser).await.unwrap() {
            break;
        }
        deadline.wait_for("the horizon has passed").await;
    }
    until_counted(ledger, &mut superuser).await;
    count_anew(&mut superuser).await;

    let later = database.ledger().await;
    for number in 0..10 {
        later.append(lock_created(&later, 100 + number, lock_of(number))).await.unwrap();
        assert_eq!(later.sequence_once(100).await.unwrap().entries, 1);
    }
    until_counted(later, &mut superuser).await;
    let pages = pages_of("outbox", &mut superuser).await;
    assert!((1..400).contains(&pages), "{pages} pages were read for ten notes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_token_costs_the_same_however_long_the_log_is() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    renew(&ledger, &mut ledger.token(&name("example")).await.unwrap(), None).await.unwrap();
    ledger.sequence_once(100).await.unwrap();
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    for sql in [
        "INSERT INTO log_entry SELECT number, gen_random_uuid(), 1 FROM generate_series(4, 200003) AS number",
        "UPDATE sequencer SET next_index = 200004",
        "ANALYZE",
    ] {
        sqlx::query(sql).execute(&mut superuser).await.unwrap();
    }
    until_counted(ledger, &mut superuser).await;
    count_anew(&mut superuser).await;

    let later = database.ledger().await;
    let of_token = HistoryFilter { whose: Whose::Token(name("example")), ..HistoryFilter::default() };
    for from in [0, 2] {
        let page = later.history(&of_token, from, 1000).await.unwrap();
        let indices: Vec<u64> = page.entries.iter().map(|(indexed, _)| indexed.index).collect();
        assert_eq!(indices, (from.max(1)..4).collect::<Vec<_>>());
        assert_eq!((page.next, page.settled), (200_004, 200_004));
    }
    until_counted(later, &mut superuser).await;
    let pages = pages_of("log_entry", &mut superuser).await;
    assert!((1..400).contains(&pages), "{pages} pages were read for three entries");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sequencer_runs_until_it_is_stopped() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (ledger, stop) = (ledger.clone(), stop.clone());
        async move { ledger.run_sequencer(stop).await }
    });
    let mut hint = ledger.settled_hint();
    example(&ledger).await;
    tokio::time::timeout(Duration::from_secs(5), hint.wait_for(|settled| *settled == 2)).await.unwrap().unwrap();
    // What another node appends is found without a hint.
    let other = database.ledger().await;
    other.append(lock_created(&other, 50, lock_of(1))).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), hint.wait_for(|settled| *settled == 3)).await.unwrap().unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_hole_is_an_error_and_no_short_history() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;
    ledger.sequence_once(10).await.unwrap();
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    sqlx::query("UPDATE sequencer SET next_index = 3").execute(&mut superuser).await.unwrap();
    let error = ledger.log(0, 10).await.unwrap_err().to_string();
    assert!(error.contains("every index from 0 to 2"), "{error}");
    sqlx::query("UPDATE sequencer SET next_index = 2").execute(&mut superuser).await.unwrap();

    sqlx::query("DELETE FROM entry WHERE stream_id = $1").bind(token.0).execute(&mut superuser).await.unwrap();
    assert!(ledger.log(0, 10).await.is_err(), "an index without an entry");
    let error = ledger.stream(stream(token), 1, 10).await.unwrap_err().to_string();
    assert!(error.contains("was at version 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_tells_where_the_log_ends_also_from_beyond_that() {
    let database = Database::fresh().await;
    let nodes = [database.ledger().await, database.ledger().await];
    example(&nodes[0]).await;
    nodes[0].sequence_once(10).await.unwrap();
    let token = HistoryFilter { whose: Whose::Token(name("example")), ..HistoryFilter::default() };
    // Whichever node numbered, every other knows at once: a cursor is as good on each of them.
    for (node, filter) in nodes.iter().zip([token, HistoryFilter::default()]) {
        for from in [2, 3, u64::MAX] {
            let page = node.history(&filter, from, 10).await.unwrap();
            assert_eq!((page.entries.len(), page.next, page.settled), (0, from, 2));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_searched_page_by_page() {
    let database = Database::fresh().await;
    let clock = ManualClock::at("2026-11-22T10:00:00Z");
    let ledger = database.ledger_with(clock.settings()).await;
    let bot = create_bot(&ledger, "example", 1).await;
    for number in 0..3_u8 {
        clock.advance_minutes(10);
        let token = format!("token-{number}");
        create_token(&ledger, &token, 100 + u128::from(number), ("example", bot)).await;
        first_join(&ledger, &token, key(number + 1), 200 + u128::from(number)).await;
        let mut slot = ledger.token(&name(&token)).await.unwrap();
        for _ in 0..5 {
            clock.advance_minutes(1);
            renew(&ledger, &mut slot, None).await.unwrap();
        }
    }
    ledger.sequence_once(1000).await.unwrap();

    let search = async |filter: &HistoryFilter| {
        let (mut found, mut next) = (Vec::new(), 0);
        loop {
            let page = ledger.history(filter, next, 2).await.unwrap();
            assert!(page.entries.len() <= 2);
            found.extend(page.entries.iter().map(|(indexed, _)| indexed.index));
            next = page.next;
            if page.is_end() {
                assert_eq!(page.settled, 22);
                return found;
            }
        }
    };
    let all = HistoryFilter::default();
    assert_eq!(search(&all).await, (0..22).collect::<Vec<_>>());
    let token = HistoryFilter { whose: Whose::Token(name("token-1")), ..HistoryFilter::default() };
    assert_eq!(search(&token).await, (8..15).collect::<Vec<_>>());
    let created = HistoryFilter { kinds: Kinds(vec!["token.created".to_owned()]), ..HistoryFilter::default() };
    assert_eq!(search(&created).await, [1, 8, 15]);
    let joins = HistoryFilter { kinds: Kinds(vec!["join.*".to_owned()]), ..token.clone() };
    assert_eq!(search(&joins).await, (9..15).collect::<Vec<_>>());
    let since = HistoryFilter { since: Some("2026-11-22T10:35:00Z".parse().unwrap()), ..HistoryFilter::default() };
    assert_eq!(search(&since).await, (15..22).collect::<Vec<_>>());
    let until = HistoryFilter { until: Some("2026-11-22T10:10:00Z".parse().unwrap()), ..HistoryFilter::default() };
    assert_eq!(search(&until).await, [0]);
    let unknown = HistoryFilter { whose: Whose::Token(name("unknown")), ..HistoryFilter::default() };
    assert_eq!(search(&unknown).await, [0_u64; 0]);
}
