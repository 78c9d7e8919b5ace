//! Time, as a value that is put in.

use std::fmt;

use chrono::{DateTime, Utc};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// What tells the agent the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where the agent asks for the time")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// The same clock, as TLS wants it: certificates are judged by it too.
#[derive(Debug)]
pub(crate) struct TlsClock(pub(crate) std::sync::Arc<dyn Clock>);

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}
