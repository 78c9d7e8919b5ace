//! The sequencer: gives committed entries their place in the log.
//!
//! Any node may run it, all of them at once: whoever finds the sequencer's row unlocked makes a step. A step is one
//! statement, so nobody can hold the row while being away, and `next_index` is read and moved under its lock: two nodes
//! never give the same index. When one node dies, the next step is simply made by another.
//!
//! # Why every stream keeps its order
//!
//! A statement that appends leaves its note in the same commit as its entries, at most one of each stream. The next append
//! of that stream finds the guard row's new version only after that commit, so its own note gets a later position
//! (positions are drawn from one sequence, without caching), and becomes visible later. Hence every snapshot that shows
//! the later note shows the earlier one too, or finds it numbered already; and the earlier one stands before it in the
//! order of positions, also when only the first so many notes are taken.
//!
//! # Why nothing is skipped
//!
//! A note leaves the outbox only when it is numbered. A commit that comes late shows its note late, behind indices that
//! were given meanwhile, and the note is numbered then. Readers go by index, and indices have no gaps.
//!
//! # Why a step does not slow down
//!
//! Rows of notes that were taken stay in the table until a vacuum, and a search from the beginning would wade through
//! them. So a note carries its transaction's number, and the sequencer's row a horizon: transactions below it had ended
//! when a step took all notes that it saw, hence nothing is left of them and nothing will come.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    Ledger, LedgerError,
    lease::in_time,
    recent::EntryKey,
    row::{ServerRun, unsigned},
};

/// How long to wait for work of other nodes.
const POLL: Duration = Duration::from_millis(100);
/// How long to let notes gather after a step.
const GATHER: Duration = Duration::from_millis(50);
/// How long to wait after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A step ends with the note that brings it to so many entries.
const STEP: u32 = 4096;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Entries that got their index.
    pub entries: u64,
    /// Where the log ends now; or did, when another node was at work.
    pub settled: u64,
}

impl Ledger {
    /// Gives committed entries their index, note by note until there are `limit` or no more, unless another node is doing
    /// so at this moment.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing has happened then, or all of it.
    pub async fn sequence_once(&self, limit: u32) -> Result<Assigned, LedgerError> {
        let number = sqlx::query_file!("sql/number.sql", i64::from(limit), self.node(), self.now());
        let numbered = in_time(number.fetch_one(&mut *self.follower().await?)).await?;
        let first = unsigned(numbered.first)?;
        let keys = numbered.stream_ids.into_iter().zip(numbered.first_versions);
        let keys = keys.map(|(stream, version)| Ok((stream, unsigned(version)?)));
        let keys = keys.collect::<Result<Vec<EntryKey>, LedgerError>>()?;
        let entries = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        let settled = first.saturating_add(entries);
        if entries > 0 {
            self.recent().numbered(ServerRun(numbered.server), first, keys);
        }
        self.announce(settled);
        Ok(Assigned { entries, settled })
    }

    /// Keeps numbering until `stop`. Every node runs this.
    pub async fn run_sequencer(&self, stop: CancellationToken) {
        let hint = self.appended();
        loop {
            let pause = match self.sequence_once(STEP).await {
                Ok(Assigned { entries, .. }) if entries >= u64::from(STEP) => Duration::ZERO,
                Ok(_) => GATHER,
                Err(error) => {
                    tracing::warn!(%error, "entries could not be given their index; trying again");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = async {
                    tokio::time::sleep(pause).await;
                    if pause == GATHER {
                        let _ = tokio::time::timeout(POLL, hint.notified()).await;
                    }
                } => {}
            }
        }
    }
}
