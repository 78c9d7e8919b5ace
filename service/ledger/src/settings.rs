//! Settings and their defaults.

use std::{sync::Arc, time::Duration};

use crate::Clock;

/// What a ledger can be told.
#[derive(Clone)]
pub struct Settings {
    /// Writer tasks, each with a connection. One is enough until PostgreSQL has cores of its own.
    pub writers: usize,
    /// Appends that may wait for one writer before further ones are turned away.
    pub queue: usize,
    /// Appends that share one statement, at most.
    pub batch: usize,
    /// Connections beside the writers' and the two that follow the log: reads, administration.
    pub connections: u32,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// How much memory cached tokens may take, in bytes, roughly.
    pub cache_bytes: u64,
    /// Another clock than the database's, for tests.
    pub clock: Option<Arc<dyn Clock>>,
    /// What this node is called in `pg_stat_activity`, as holder of the sequencer, and as who stopped the log: its own
    /// name for as long as there is this node, as it may take back what it stopped for.
    pub node: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            writers: 1,
            queue: 4096,
            batch: 256,
            connections: 8,
            acquire_timeout: Duration::from_secs(3),
            cache_bytes: 64 * 1024 * 1024,
            clock: None,
            node: "joind".to_owned(),
        }
    }
}
