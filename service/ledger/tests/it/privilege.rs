//! Append-only is a privilege: the service can't rewrite history, also when it wants to.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::*;

async fn code(connection: &mut PgConnection, sql: &'static str) -> String {
    match sqlx::query(sql).execute(connection).await {
        Ok(_) => "done".to_owned(),
        Err(error) => error.as_database_error().and_then(|error| error.code()).unwrap().into_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_cannot_rewrite_history() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    ledger.sequence_once(10).await.unwrap();
    let mut service = PgConnection::connect_with(&database.roles.service).await.unwrap();
    for sql in [
        "UPDATE entry SET envelope = ''",
        "UPDATE entry SET attempt = NULL",
        "DELETE FROM entry",
        "TRUNCATE entry",
        "UPDATE log_entry SET log_index = 7",
        "DELETE FROM log_entry",
        "TRUNCATE log_entry",
        "DELETE FROM log_past",
        "UPDATE log_past SET origin = 'other'",
        "ALTER TABLE entry ADD COLUMN more text",
        "DROP TABLE entry",
        "CREATE TABLE other (id int)",
        "UPDATE _sqlx_migrations SET success = false",
    ] {
        assert_eq!(code(&mut service, sql).await, "42501", "{sql}");
    }
    for sql in ["SELECT FROM entry", "SELECT FROM log_entry", "SELECT FROM secret", "SELECT FROM authority_key"] {
        assert_eq!(code(&mut service, sql).await, "done", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_everything_but_secrets() {
    let database = Database::fresh().await;
    let mut reader = PgConnection::connect_with(&database.roles.reader).await.unwrap();
    for sql in [
        "SELECT FROM secret",
        "SELECT FROM authority_key",
        "INSERT INTO entry VALUES (gen_random_uuid(), 1, 1, 'lock', now(), '{}')",
        "DELETE FROM stream",
        "UPDATE sequencer SET next_index = 0",
    ] {
        assert_eq!(code(&mut reader, sql).await, "42501", "{sql}");
    }
    for table in ["entry", "log_entry", "stream", "claim", "instance_view", "certificate_view"] {
        let read = sqlx::query(AssertSqlSafe(format!("SELECT FROM {table}"))).execute(&mut reader).await;
        assert!(read.is_ok(), "{table}");
    }
}

/// A table that somebody adds is nobody's by default; this list is where it is decided who gets what.
#[tokio::test(flavor = "multi_thread")]
async fn the_privileges_of_every_table_are_known() {
    let database = Database::fresh().await;
    let mut connection = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let granted: Vec<String> = sqlx::query_scalar(
        "SELECT table_name || ' ' || grantee || ' ' || string_agg(privilege_type, ',' ORDER BY privilege_type)
         FROM information_schema.role_table_grants
         WHERE table_schema = 'public' AND grantee IN ('join_service', 'join_reader', 'PUBLIC')
         GROUP BY table_name, grantee ORDER BY table_name COLLATE \"C\", grantee COLLATE \"C\"",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let all = "DELETE,INSERT,SELECT,TRUNCATE,UPDATE";
    let expected = [
        "_sqlx_migrations join_reader SELECT".to_owned(),
        "_sqlx_migrations join_service SELECT".to_owned(),
        "authority_key join_service DELETE,INSERT,SELECT,UPDATE".to_owned(),
        "certificate_view join_reader SELECT".to_owned(),
        format!("certificate_view join_service {all}"),
        "claim join_reader SELECT".to_owned(),
        format!("claim join_service {all}"),
        "entry join_reader SELECT".to_owned(),
        "entry join_service INSERT,SELECT".to_owned(),
        "folded join_reader SELECT".to_owned(),
        "folded join_service SELECT".to_owned(),
        "instance_view join_reader SELECT".to_owned(),
        format!("instance_view join_service {all}"),
        "lineage join_reader SELECT".to_owned(),
        format!("lineage join_service {all}"),
        "log_entry join_reader SELECT".to_owned(),
        "log_entry join_service INSERT,SELECT".to_owned(),
        "log_head join_reader SELECT".to_owned(),
        "log_head join_service SELECT,UPDATE".to_owned(),
        "log_past join_reader SELECT".to_owned(),
        "log_past join_service INSERT,SELECT".to_owned(),
        "outbox join_service DELETE,INSERT,SELECT".to_owned(),
        "secret join_service DELETE,INSERT,SELECT,UPDATE".to_owned(),
        "sequencer join_reader SELECT".to_owned(),
        "sequencer join_service SELECT,UPDATE".to_owned(),
        "snapshot join_reader SELECT".to_owned(),
        format!("snapshot join_service {all}"),
        "stream join_reader SELECT".to_owned(),
        format!("stream join_service {all}"),
        "token_view join_reader SELECT".to_owned(),
        format!("token_view join_service {all}"),
        "view_checkpoint join_reader SELECT".to_owned(),
        "view_checkpoint join_service SELECT,UPDATE".to_owned(),
    ];
    assert_eq!(granted, expected);
}
