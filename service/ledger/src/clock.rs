//! The database's time: the one clock that all nodes share.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DurationRound as _, TimeDelta};
use join_domain::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::{
    LedgerError,
    lease::{Lease, in_time},
};

/// How often the estimate is renewed.
const REFRESH: Duration = Duration::from_secs(10);
/// Round trips of one measurement; the shortest counts.
const SAMPLES: usize = 3;

/// The machine's clock that goes on while it sleeps.
#[cfg(not(target_vendor = "apple"))]
const SLEEPLESS: ClockId = ClockId::Boottime;
/// The same: this one goes on there.
#[cfg(target_vendor = "apple")]
const SLEEPLESS: ClockId = ClockId::Monotonic;

/// Tells the time, in UTC with microseconds.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// An estimate of the database's clock: what it showed at the last measurement, and the time since. It is off by half a
/// round trip at most, and by the drift of ten seconds.
#[derive(Debug)]
pub(crate) struct DatabaseClock {
    measured: Mutex<Measured>,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Since the machine started.
    at: Duration,
    showed: Timestamp,
}

impl DatabaseClock {
    /// Measures for the first time.
    pub(crate) async fn measure(connection: &mut PgConnection) -> Result<Self, LedgerError> {
        Ok(Self { measured: Mutex::new(sample(connection).await?) })
    }

    /// Measures again, now and then, until `stop`. A measurement that fails leaves the last one in place.
    pub(crate) async fn keep_fresh(self: Arc<Self>, pool: PgPool, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REFRESH) => {}
            }
            let Ok(mut connection) = Lease::of(&pool).await else { continue };
            match in_time(sample(&mut connection)).await {
                Ok(measured) => *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = measured,
                Err(error) => tracing::debug!(%error, "the database's time could not be measured"),
            }
        }
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        let measured = *self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let since = TimeDelta::from_std(since_start().saturating_sub(measured.at)).unwrap_or(TimeDelta::MAX);
        to_microseconds(measured.showed.checked_add_signed(since).unwrap_or(measured.showed))
    }
}

/// Time since the machine started, with what it slept: a node that was suspended must not decide by the hour at which it
/// fell asleep, which is where the clock of [`std::time::Instant`] goes on.
pub(crate) fn since_start() -> Duration {
    Duration::try_from(clock_gettime(SLEEPLESS)).unwrap_or_default()
}

async fn sample(connection: &mut PgConnection) -> Result<Measured, LedgerError> {
    connection.ping().await?;
    let mut best: Option<(Duration, Measured)> = None;
    for _ in 0..SAMPLES {
        let before = since_start();
        let showed = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&mut *connection).await?;
        let round_trip = since_start().saturating_sub(before);
        let at = before.saturating_add(round_trip / 2);
        if best.is_none_or(|(shortest, _)| round_trip < shortest) {
            best = Some((round_trip, Measured { at, showed }));
        }
    }
    best.map(|(_, measured)| measured).ok_or_else(|| LedgerError::Corrupt("no time was measured".to_owned()))
}

/// A clock that stands until it is moved, for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(to_microseconds(now)))
    }

    /// Shows another time.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = to_microseconds(now);
    }

    /// Moves on, or back.
    pub fn advance(&self, by: TimeDelta) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = to_microseconds(now.checked_add_signed(by).unwrap_or(*now));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// PostgreSQL keeps microseconds: what is decided with must be what is kept.
fn to_microseconds(time: Timestamp) -> Timestamp {
    time.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(time)
}
