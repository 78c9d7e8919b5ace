//! Proof that everything but the entries follows from them: compare it with a fresh fold, or make it anew.

mod aside;
mod cursor;
mod fold;
pub(crate) mod guard;
pub(crate) mod views;

use sqlx::{AssertSqlSafe, PgConnection};

use crate::{Ledger, LedgerError};

/// Differences that a comparison tells, at most; the rest are only counted.
const TOLD: usize = 100;

/// How far a comparison or rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Entries that were read.
    pub done: u64,
    /// Entries in all, about.
    pub total: u64,
}

/// What a comparison or rebuild goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Guard rows, stream by stream.
    Guard,
    /// Views, in the order of the log.
    Views,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Entries that were folded.
    pub entries: u64,
    /// Streams that they belong to.
    pub streams: u64,
    /// How many rows differ.
    pub count: u64,
    /// The first hundred of them.
    pub differences: Vec<Difference>,
}

/// A row that does not follow from the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// Which row.
    pub row: String,
    /// What is wrong with it.
    pub what: String,
}

impl Comparison {
    fn differs(&mut self, table: &'static str, row: String, what: impl Into<String>) {
        self.count = self.count.saturating_add(1);
        if self.differences.len() < TOLD {
            self.differences.push(Difference { table, row, what: what.into() });
        }
    }

    /// True when everything follows from the entries.
    pub fn is_equal(&self) -> bool {
        self.count == 0
    }
}

impl Ledger {
    /// Compares guard rows, claims and views with what the entries say, all as of one moment. Disturbs nobody.
    ///
    /// # Errors
    /// [`LedgerError`]; `Corrupt` when the entries themselves don't fit together.
    pub async fn check(&self, mut progress: impl FnMut(Progress) + Send) -> Result<Comparison, LedgerError> {
        let mut comparison = guard::compare(self, &mut progress).await?;
        views::compare(self, &mut comparison, &mut progress).await?;
        Ok(comparison)
    }

    /// Drops guard rows, claims and views, and makes them anew from the entries. Appends wait meanwhile. Every token
    /// gets another fence, so that no node's cache survives it.
    ///
    /// # Errors
    /// [`LedgerError`]; guard rows, and then views, are as before or as rebuilt, never in between.
    pub async fn rebuild(&self, mut progress: impl FnMut(Progress) + Send) -> Result<(), LedgerError> {
        guard::rebuild(self, &mut progress).await?;
        views::rebuild(self, &mut progress).await
    }
}

/// Waits until nobody rebuilds these tables, and lets nobody begin before the transaction ends. It has to be the first
/// statement of a transaction that sees one moment only: the first that reads chooses the moment, and to who waits for a
/// rebuild after that, tables that were emptied meanwhile are empty.
async fn share(connection: &mut PgConnection, tables: &str) -> Result<(), LedgerError> {
    let lock = format!("LOCK TABLE {tables} IN ACCESS SHARE MODE");
    sqlx::query(AssertSqlSafe(lock)).execute(connection).await?;
    Ok(())
}
