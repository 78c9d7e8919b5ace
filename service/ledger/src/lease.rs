//! A connection that was lent by a pool. A server that falls silent answers nothing any more, not even that the connection is
//! closed: what it was asked is given up, and the connection with it.

use std::{
    ops::{Deref, DerefMut},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};

/// A connection that was idle for longer is asked whether it lives before it is used.
pub(crate) const ASK_AFTER: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A connection that was lent for longer is closed, not given back: the pool would ask it whether it lives, and wait for
/// the answer with a place taken. So is one that owes an answer, as who asked has given up.
const SLOW: Duration = Duration::from_secs(5);

/// A connection of a pool.
pub(crate) struct Lease {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Lease {
    pub(crate) async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let connection = pool.acquire().await?;
        Ok(Self { connection, since: Instant::now() })
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // It reads the answers that are outstanding, if they are here already.
        let owes_nothing = matches!(self.connection.flush().now_or_never(), Some(Ok(())));
        if !owes_nothing || self.since.elapsed() >= SLOW {
            self.connection.close_on_drop();
        }
    }
}

/// Has the server look each second, while it works, whether somebody waits for that: what was given up would be done to its
/// end, a scan of the whole history too. Where its operating system does not tell, it is.
pub(crate) async fn ends_with_us(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    match sqlx::query("SET client_connection_check_interval = '1s'").execute(connection).await {
        Ok(_) | Err(sqlx::Error::Database(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives up what takes too long.
pub(crate) async fn in_time<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    within(PATIENCE, work).await
}

/// Gives up what takes longer than `limit`.
pub(crate) async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let late = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into());
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}
