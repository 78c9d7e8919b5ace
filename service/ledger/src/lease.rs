//! A connection that was lent by a pool. A server that falls silent answers nothing any more, not even that the connection is
//! closed: what it was asked is given up, and the connection with it.

use std::{
    ops::{Deref, DerefMut},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};

/// A connection that was idle for longer is asked whether it lives before it is used.
pub(crate) const ASK_AFTER: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A connection that was lent for longer is closed, not given back: the pool would ask it whether it lives, and wait for
/// the answer with a place taken.
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
        if self.since.elapsed() >= SLOW {
            self.connection.close_on_drop();
        }
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
