//! What the schema promises, asked of the catalog.

use sqlx::{Connection as _, PgConnection};

use crate::support::*;

/// What a stream's own rows are in: all that a renewal reads and writes, but for its place in the order.
const OF_A_STREAM: [&str; 4] = ["entry", "secret", "snapshot", "stream"];
/// Directories over all streams.
const DIRECTORIES: [&str; 2] = ["claim", "lineage"];
/// One order for one database, and what follows from it.
const ORDER: [&str; 5] = ["log_entry", "log_head", "log_past", "outbox", "sequencer"];
const VIEWS: [&str; 4] = ["certificate_view", "instance_view", "token_view", "view_checkpoint"];
/// Neither of a stream nor of a join.
const OTHERS: [&str; 2] = ["_sqlx_migrations", "authority_key"];

/// A unique key across streams, or rows that are found by anything else, would be in the way of many databases.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_join_touches_can_be_distributed_by_stream() {
    let database = Database::fresh().await;
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let tables = "SELECT relname::text FROM pg_class
                  WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace ORDER BY relname";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut superuser).await.unwrap();
    let placed = [&OF_A_STREAM[..], &DIRECTORIES, &ORDER, &VIEWS, &OTHERS].concat();
    let strays: Vec<_> = tables.iter().filter(|table| !placed.contains(&table.as_str())).collect();
    assert!(
        strays.is_empty(),
        "say what they are of, see docs/architecture.md, `One database, and later many`: {strays:?}"
    );
    assert_eq!(tables.len(), placed.len(), "{tables:?}");

    // Of each unique key its table and its first column.
    let keys = "SELECT indrelid::regclass::text, attname::text FROM pg_index
                JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
                WHERE indisunique AND indrelid::regclass::text = ANY ($1)";
    let keys: Vec<(String, String)> =
        sqlx::query_as(keys).bind(&OF_A_STREAM[..]).fetch_all(&mut superuser).await.unwrap();
    for table in OF_A_STREAM {
        assert!(keys.iter().any(|(of, _)| of == table), "{table} has no key");
    }
    for (table, first) in keys {
        assert_eq!(first, "stream_id", "a unique key of {table} is over many streams");
    }
}
