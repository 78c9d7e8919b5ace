//! Views, compared with the log or made from it: both project the log into temporary tables of the same names, which
//! hide the real ones from that one transaction. So it is the same code that projects.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{Comparison, Progress, Stage, aside, cursor, share};
use crate::{
    Indexed, Ledger, LedgerError, lease,
    row::{signed, unsigned},
    view::{self, TABLES},
};

/// Rows of a table that a comparison names.
const NAMED: i64 = 20;

pub(super) async fn compare(
    ledger: &Ledger,
    comparison: &mut Comparison,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Result<(), LedgerError> {
    let mut connection = connect(ledger).await?;
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    share(&mut transaction, &TABLES.map(|table| format!("public.{table}")).join(", ")).await?;
    let next = sqlx::query_scalar("SELECT next_index FROM view_checkpoint WHERE view = 'views'");
    let next = unsigned(next.fetch_one(&mut *transaction).await?)?;
    project_aside(&mut transaction, next, progress).await?;
    for table in TABLES {
        let side = |first: &str, second: &str| {
            format!(
                "SELECT left(r::text, 200) FROM (SELECT * FROM {first}.{table} EXCEPT SELECT * FROM {second}.{table}) r
                 LIMIT {NAMED}"
            )
        };
        for (sql, what) in [
            (side("pg_temp", "public"), "it follows from the log and is not there"),
            (side("public", "pg_temp"), "it is there and does not follow from the log"),
        ] {
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut *transaction).await?;
            rows.into_iter().for_each(|row| comparison.differs(table, row, what));
        }
    }
    transaction.rollback().await?;
    Ok(connection.close().await?)
}

pub(super) async fn rebuild(ledger: &Ledger, progress: &mut (impl FnMut(Progress) + Send)) -> Result<(), LedgerError> {
    let mut connection = connect(ledger).await?;
    let mut transaction = connection.begin().await?;
    // Nobody projects while this row is locked.
    sqlx::query("SELECT next_index FROM view_checkpoint WHERE view = 'views' FOR UPDATE")
        .execute(&mut *transaction)
        .await?;
    let settled = sqlx::query_scalar("SELECT next_index FROM sequencer").fetch_one(&mut *transaction).await?;
    let settled = unsigned(settled)?;
    project_aside(&mut transaction, settled, progress).await?;
    for table in TABLES {
        for sql in
            [format!("TRUNCATE public.{table}"), format!("INSERT INTO public.{table} SELECT * FROM pg_temp.{table}")]
        {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
        }
    }
    sqlx::query("UPDATE view_checkpoint SET next_index = $1 WHERE view = 'views'")
        .bind(signed(settled))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(connection.close().await?)
}

/// Projects the log into views that are empty, up to `end`, its own.
pub(crate) async fn fill(
    connection: &mut PgConnection,
    end: u64,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Result<(), LedgerError> {
    project(connection, end, progress).await?;
    sqlx::query("UPDATE view_checkpoint SET next_index = $1 WHERE view = 'views'")
        .bind(signed(end))
        .execute(connection)
        .await?;
    Ok(())
}

/// A connection of its own: one that has used the real tables goes on using them, whatever hides them later.
async fn connect(ledger: &Ledger) -> Result<PgConnection, LedgerError> {
    let mut connection = PgConnection::connect_with(&ledger.connect_options()).await?;
    lease::ends_with_us(&mut connection).await?;
    Ok(connection)
}

/// Projects the log up to `end` into temporary tables.
async fn project_aside(
    connection: &mut PgConnection,
    end: u64,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Result<(), LedgerError> {
    for table in TABLES {
        let create = format!("CREATE TEMPORARY TABLE {table} (LIKE public.{table} INCLUDING ALL) ON COMMIT DROP");
        sqlx::query(AssertSqlSafe(create)).execute(&mut *connection).await?;
    }
    project(connection, end, progress).await
}

/// Projects stream by stream. Nothing in a view depends on more than one stream; so the order of the streams
/// makes no difference, and each row is written once instead of once for every piece of the log.
async fn project(
    connection: &mut PgConnection,
    end: u64,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Result<(), LedgerError> {
    let select = format!(
        "SELECT l.log_index, e.stream_id, e.first_version, e.last_version, e.stream_kind, e.recorded_at, e.envelope
         FROM log_entry l JOIN entry e USING (stream_id, first_version) WHERE l.log_index < {}
         ORDER BY e.stream_id, e.first_version",
        signed(end)
    );
    cursor::open(connection, &select).await?;
    go_by_index(connection, true).await?;
    let mut done = 0_u64;
    let mut rows = cursor::fetch(connection).await?;
    let mut entries = Vec::new();
    while !rows.is_empty() {
        let batch =
            aside::begin(move || rows.iter().map(|row| Indexed::from_row(row)?.entry()).collect::<Result<_, _>>());
        view::project(connection, &entries).await?;
        done = done.saturating_add(entries.len() as u64);
        progress(Progress { stage: Stage::Views, done, total: end });
        rows = cursor::fetch(connection).await?;
        entries = batch.done().await?;
    }
    view::project(connection, &entries).await?;
    done = done.saturating_add(entries.len() as u64);
    progress(Progress { stage: Stage::Views, done, total: end });
    cursor::close(connection).await?;
    go_by_index(connection, false).await?;
    if done != end {
        return Err(LedgerError::Corrupt(format!("the log should hold {end} entries, and {done} are there")));
    }
    Ok(())
}

/// Nobody has counted the rows of tables that are being filled, so the planner may scan them for each batch, and each takes
/// longer than the one before.
async fn go_by_index(connection: &mut PgConnection, only: bool) -> Result<(), LedgerError> {
    for plan in ["enable_seqscan", "enable_hashjoin", "enable_mergejoin"] {
        let set = format!("SET LOCAL {plan} = {}", if only { "off" } else { "DEFAULT" });
        sqlx::query(AssertSqlSafe(set)).execute(&mut *connection).await?;
    }
    Ok(())
}
