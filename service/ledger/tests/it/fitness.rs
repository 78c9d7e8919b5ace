//! What is not fit is refused at the start, with the remedy.

use join_ledger::{Ledger, LedgerError, PgConnectOptions, Schema, Settings};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::*;

async fn refusal(options: PgConnectOptions) -> String {
    match Ledger::connect(options, Settings::default()).await {
        Err(LedgerError::Unfit(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_serves_who_could_rewrite_history() {
    let database = Database::fresh().await;
    let why = refusal(database.roles.owner.clone()).await;
    assert!(why.contains("role join_owner could rewrite history"), "{why}");
    let why = refusal(database.superuser()).await;
    assert!(why.contains("role postgres could rewrite history"), "{why}");
    let why = refusal(database.roles.reader.clone()).await;
    assert!(why.contains("role join_reader may not append"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_missing_or_old_is_named_with_its_remedy() {
    let database = Database::fresh().await;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let newest = "(SELECT max(version) FROM _sqlx_migrations)";
    let pretend = async |superuser: &mut PgConnection, version: &str| {
        let sql = format!("UPDATE _sqlx_migrations SET version = {version} WHERE version = {newest}");
        sqlx::query(AssertSqlSafe(sql)).execute(superuser).await.unwrap();
    };
    pretend(&mut superuser, "20261122000004 + 30000000000000").await;
    Ledger::connect(database.roles.service.clone(), Settings::default()).await.expect("a newer schema is served");
    assert_eq!(join_ledger::migrate(&database.roles.owner).await.unwrap(), Schema::Newer);
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version > 20261122000003").execute(&mut superuser).await.unwrap();
    let why = refusal(database.roles.service.clone()).await;
    assert!(why.contains("older than this program: run `joind migrate`"), "{why}");
    sqlx::query("DROP TABLE _sqlx_migrations").execute(&mut superuser).await.unwrap();
    let why = refusal(database.roles.service.clone()).await;
    assert!(why.contains("no schema yet: run `joind migrate`"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_estimate_of_the_databases_time_is_close() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let mut service = PgConnection::connect_with(&database.roles.service).await.unwrap();
    for _ in 0..5 {
        let before = ledger.now();
        let shown: join_domain::Timestamp =
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut service).await.unwrap();
        let after = ledger.now();
        assert!((shown - before).num_milliseconds() >= -20, "{before} {shown}");
        assert!((after - shown).num_milliseconds() >= -20, "{shown} {after}");
        assert_eq!(after.timestamp_subsec_nanos() % 1000, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_the_databases_and_not_the_machines() {
    let database = Database::fresh().await;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let slow = "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql
                AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 hour' $$";
    sqlx::query(slow).execute(&mut superuser).await.unwrap();
    // A server whose clock is an hour slow, as far as it shows to who looks into this schema first.
    let options = database.roles.service.clone().options([("search_path", "public,pg_catalog")]);
    let ledger = Ledger::connect(options, Settings::default()).await.unwrap();
    let before: join_domain::Timestamp =
        sqlx::query_scalar("SELECT public.clock_timestamp()").fetch_one(&mut superuser).await.unwrap();
    let off = ledger.now() - before;
    assert!((-20..60_000).contains(&off.num_milliseconds()), "{off}");
}
