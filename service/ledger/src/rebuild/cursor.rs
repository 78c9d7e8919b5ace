//! Reading all of something, in an order, in constant memory, on a connection that writes in between.

use sqlx::{AssertSqlSafe, PgConnection, postgres::PgRow};

use crate::LedgerError;

const FETCH: &str = "FETCH 2000 FROM history";

/// Begins to read, in a transaction that has no other cursor open.
pub(super) async fn open(connection: &mut PgConnection, select: &str) -> Result<(), LedgerError> {
    // The planner takes a cursor for something of which only the beginning is read, and would go through an index.
    for setting in ["SET LOCAL cursor_tuple_fraction = 1", "SET LOCAL work_mem = '256MB'"] {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    let declare = format!("DECLARE history NO SCROLL CURSOR FOR {select}");
    sqlx::query(AssertSqlSafe(declare)).execute(connection).await?;
    Ok(())
}

/// The next rows; none at the end.
pub(super) async fn fetch(connection: &mut PgConnection) -> Result<Vec<PgRow>, LedgerError> {
    // A statement that is kept would keep the columns of another cursor of this name.
    Ok(sqlx::query(FETCH).persistent(false).fetch_all(connection).await?)
}

/// Ends it.
pub(super) async fn close(connection: &mut PgConnection) -> Result<(), LedgerError> {
    sqlx::query("CLOSE history").execute(connection).await?;
    Ok(())
}
