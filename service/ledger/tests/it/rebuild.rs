//! Everything but the entries follows from them; a comparison finds what does not, and a rebuild mends it.

use join_domain::id::TokenId;
use join_ledger::{AppendError, Comparison, Ledger, LedgerError, Stage};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::*;

/// Bots, tokens, joins and locks, as they accumulate.
async fn lived_in(ledger: &Ledger) {
    let bot = create_bot(ledger, "example", 1).await;
    for number in 0..5_u8 {
        let token = format!("token-{number}");
        create_token(ledger, &token, 100 + u128::from(number), ("example", bot)).await;
        first_join(ledger, &token, key(number + 1), 200 + u128::from(number)).await;
        let mut slot = ledger.token(&name(&token)).await.unwrap();
        for _ in 0..number {
            renew(ledger, &mut slot, None).await.unwrap();
        }
    }
    let target = join_domain::resource::LockTarget::JoinToken(name("token-1"));
    ledger.append(lock_created(ledger, 50, target)).await.unwrap();
    ledger.sequence_once(100).await.unwrap();
    ledger.project_once(15).await.unwrap();
}

async fn compared(ledger: &Ledger) -> Comparison {
    ledger.check(|_| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_up_equals_what_is_rebuilt() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    lived_in(&ledger).await;
    let mut stages = Vec::new();
    let comparison = ledger.check(|progress| stages.push(progress)).await.unwrap();
    assert!(comparison.is_equal(), "{comparison:?}");
    assert_eq!((comparison.entries, comparison.streams), (22, 7));
    assert!(stages.iter().any(|progress| progress.stage == Stage::Guard && progress.done == progress.total));
    assert!(stages.iter().any(|progress| progress.stage == Stage::Views && progress.done == 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_finds_every_row_that_does_not_follow_and_a_rebuild_mends_it() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    lived_in(&ledger).await;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    for (sql, table) in [
        ("UPDATE snapshot SET state = replace(state, '\"limit\":1', '\"limit\":9') WHERE state LIKE '%\"name\":\"token-2\"%'", "stream"),
        ("UPDATE snapshot SET state = '{}' WHERE state LIKE '%\"name\":\"token-2\"%'", "stream"),
        ("UPDATE snapshot SET version = version - 1 WHERE state LIKE '%\"name\":\"token-2\"%'", "stream"),
        ("DELETE FROM snapshot WHERE state LIKE '%\"name\":\"token-2\"%'", "stream"),
        ("INSERT INTO snapshot SELECT gen_random_uuid(), 1, state FROM snapshot LIMIT 1", "snapshot"),
        ("UPDATE stream SET version = version + 1 WHERE name = 'token-2'", "stream"),
        ("UPDATE stream SET instance_id = NULL WHERE name = 'token-2'", "stream"),
        ("UPDATE stream SET lock_target = 'user:bot-x' WHERE kind = 'lock'", "stream"),
        ("UPDATE stream SET live = false WHERE name = 'token-2'", "stream"),
        ("DELETE FROM stream WHERE name = 'token-2'", "stream"),
        ("INSERT INTO stream SELECT gen_random_uuid(), kind, version, fence, name, live, bot_id, instance_id, lock_target,
            expires_at FROM stream WHERE name = 'token-2'", "stream"),
        ("UPDATE claim SET value = 'other' WHERE value = 'token-2'", "claim"),
        ("DELETE FROM claim WHERE value = 'token-2'", "claim"),
        ("INSERT INTO claim VALUES ('key', 'SHA256:other', gen_random_uuid())", "claim"),
        ("DELETE FROM lineage", "lineage"),
        ("UPDATE instance_view SET joins = joins + 1 WHERE token_name = 'token-2'", "instance_view"),
        ("DELETE FROM certificate_view WHERE token_name = 'token-2'", "certificate_view"),
        ("UPDATE token_view SET bot_name = 'other'", "token_view"),
    ] {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut superuser).await.unwrap();
        let comparison = compared(&ledger).await;
        assert!(comparison.differences.iter().any(|difference| difference.table == table), "{sql}: {comparison:?}");
        ledger.rebuild(|_| {}).await.unwrap();
        let comparison = compared(&ledger).await;
        assert!(comparison.is_equal(), "{sql}: {comparison:?}");
    }
}

/// A dump reads for as long as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn joins_go_on_while_a_rebuild_waits_for_somebody_who_reads_its_tables() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    lived_in(&ledger).await;
    let mut dump = Blocked::begin(&database).await;
    dump.take("LOCK TABLE stream IN ACCESS SHARE MODE").await.unwrap();
    let rebuilding = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.rebuild(|_| {}).await }
    });
    dump.until_waiting().await;
    for number in 2..5 {
        let mut slot = ledger.token(&name(&format!("token-{number}"))).await.unwrap();
        renew(&ledger, &mut slot, None).await.unwrap();
    }
    assert!(!rebuilding.is_finished());
    dump.release().await;
    rebuilding.await.unwrap().unwrap();
    assert!(compared(&ledger).await.is_equal());
}

/// No rebuild mends the entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_finds_entries_that_are_filed_wrongly_or_kept_out_of_the_log() {
    for (sql, table) in [
        ("UPDATE entry SET recorded_at = recorded_at - interval '30 days' WHERE attempt IS NOT NULL", "entry"),
        ("UPDATE entry SET attempt = NULL WHERE attempt IS NOT NULL", "entry"),
        ("UPDATE entry SET attempt = gen_random_uuid() WHERE attempt IS NOT NULL", "entry"),
        ("UPDATE entry SET attempt = gen_random_uuid() WHERE attempt IS NULL AND first_version = 1", "entry"),
        ("UPDATE outbox SET xid = '1'", "outbox"),
    ] {
        let database = Database::fresh().await;
        let ledger = database.ledger().await;
        lived_in(&ledger).await;
        let mut slot = ledger.token(&name("token-3")).await.unwrap();
        renew(&ledger, &mut slot, Some(attempt(7))).await.unwrap();
        drop(slot);
        assert!(compared(&ledger).await.is_equal());
        let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
        let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut superuser).await.unwrap();
        assert!(done.rows_affected() > 0, "{sql}");
        let differences = compared(&ledger).await.differences;
        assert!(differences.iter().any(|difference| difference.table == table), "{sql}: {differences:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_does_not_survive_a_rebuild() {
    let database = Database::fresh().await;
    let (ledger, other) = (database.ledger().await, database.ledger().await);
    lived_in(&ledger).await;
    drop(other.token(&name("token-3")).await.unwrap());
    ledger.rebuild(|_| {}).await.unwrap();
    let mut slot = other.token(&name("token-3")).await.unwrap();
    assert!(!slot.is_fresh());
    assert!(matches!(renew(&other, &mut slot, None).await, Err(AppendError::Conflict)));
    slot.reload(&[], None).await.unwrap();
    renew(&other, &mut slot, None).await.unwrap();
}

/// A rebuild empties tables, and to whoever has chosen its moment before they are empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_begins_during_a_rebuild_waits_for_its_end() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    lived_in(&ledger).await;
    for [keep, empty, fill] in [
        [
            "CREATE TEMPORARY TABLE kept AS TABLE public.snapshot",
            "TRUNCATE public.snapshot",
            "INSERT INTO public.snapshot TABLE kept",
        ],
        [
            "CREATE TEMPORARY TABLE kept AS TABLE public.token_view",
            "TRUNCATE public.token_view",
            "INSERT INTO public.token_view TABLE kept",
        ],
    ] {
        let mut rebuild = Blocked::begin(&database).await;
        rebuild.take(keep).await.unwrap();
        rebuild.take(empty).await.unwrap();
        let comparing = tokio::spawn({
            let ledger = ledger.clone();
            async move { compared(&ledger).await }
        });
        rebuild.until_waiting().await;
        rebuild.take(fill).await.unwrap();
        rebuild.release().await;
        let comparison = comparing.await.unwrap();
        assert!(comparison.is_equal(), "{comparison:?}");
    }
}

/// Joins go on while it compares, and wait while it rebuilds: nothing is lost, and nothing differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joins_go_on_around_comparisons_and_rebuilds() {
    let database = Database::fresh().await;
    let (ledger, other) = (database.ledger().await, database.ledger().await);
    lived_in(&ledger).await;
    let joining = tokio::spawn(async move {
        let mut joined = 0_u32;
        while joined < 200 {
            let mut slot = other.token(&name("token-4")).await.unwrap();
            if slot.known().is_none() {
                slot.reload(&[], None).await.unwrap();
            }
            match renew(&other, &mut slot, None).await {
                Ok(_) => joined += 1,
                Err(AppendError::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
            other.sequence_once(10).await.unwrap();
            other.project_once(3).await.unwrap();
        }
    });
    while !joining.is_finished() {
        let comparison = compared(&ledger).await;
        assert!(comparison.is_equal(), "{comparison:?}");
        ledger.rebuild(|_| {}).await.unwrap();
    }
    joining.await.unwrap();
    assert!(compared(&ledger).await.is_equal());
    let token = ledger.load(TokenId(id(104)).into()).await.unwrap().unwrap();
    assert_eq!(token.token().unwrap().latest().unwrap().join.generation, 205);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_do_not_fit_together_are_named() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    lived_in(&ledger).await;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    for (damage, complaint) in [
        (
            "DELETE FROM entry WHERE stream_id = (SELECT stream_id FROM claim WHERE value = 'token-4') AND first_version = 4",
            "goes on after version 3",
        ),
        (
            "DELETE FROM entry WHERE stream_id = (SELECT stream_id FROM claim WHERE value = 'token-4') AND first_version = 10",
            "were committed",
        ),
        ("UPDATE entry SET envelope = '{}' WHERE stream_kind = 'lock'", "not what it should be"),
    ] {
        sqlx::query("BEGIN").execute(&mut superuser).await.unwrap();
        let lost: Vec<(uuid::Uuid, i64, i64, String, join_domain::Timestamp, String)> = sqlx::query_as(
            "SELECT stream_id, first_version, last_version, stream_kind, recorded_at, envelope FROM entry",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        sqlx::query(AssertSqlSafe(damage)).execute(&mut superuser).await.unwrap();
        sqlx::query("COMMIT").execute(&mut superuser).await.unwrap();
        match ledger.check(|_| {}).await {
            Err(LedgerError::Corrupt(what)) => assert!(what.contains(complaint), "{damage}: {what}"),
            other => panic!("{damage}: {other:?}"),
        }
        assert!(ledger.rebuild(|_| {}).await.is_err(), "{damage}");
        for (stream, first, last, kind, at, envelope) in lost {
            sqlx::query(
                "INSERT INTO entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (stream_id, first_version) DO UPDATE SET envelope = excluded.envelope",
            )
            .bind(stream)
            .bind(first)
            .bind(last)
            .bind(kind)
            .bind(at)
            .bind(envelope)
            .execute(&mut superuser)
            .await
            .unwrap();
        }
        assert!(compared(&ledger).await.is_equal(), "what could not be rebuilt is as before");
    }
}
