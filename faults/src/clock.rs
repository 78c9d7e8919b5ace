//! One clock for a whole cluster, its service and its bots: the machine's, moved forward when certificates shall expire.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DurationRound as _, TimeDelta};
use join_agent::clock::SystemClock;
use join_domain::Timestamp;

/// The machine's clock and how far it was moved. Clones move together.
#[derive(Debug, Clone, Default)]
pub struct SharedClock(Arc<AtomicI64>);

impl SharedClock {
    /// Moves it forward.
    pub fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_seconds(), Ordering::SeqCst);
    }

    /// The time, in the whole microseconds that PostgreSQL keeps.
    pub fn time(&self) -> Timestamp {
        let now = join_agent::clock::Clock::now(&SystemClock) + TimeDelta::seconds(self.0.load(Ordering::SeqCst));
        now.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(now)
    }
}

impl join_agent::clock::Clock for SharedClock {
    fn now(&self) -> Timestamp {
        self.time()
    }
}

impl join_ledger::Clock for SharedClock {
    fn now(&self) -> Timestamp {
        self.time()
    }
}

impl rustls::time_provider::TimeProvider for SharedClock {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let seconds = u64::try_from(self.time().timestamp()).ok()?;
        Some(rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}
