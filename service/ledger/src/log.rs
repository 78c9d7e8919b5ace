//! Reading the log: entries of all streams in one order, without gaps.
//!
//! What is read says where the log ended at that moment, so that a reader knows whether it is at the end, and a read
//! that was cut off is an error instead of a short history.

use join_domain::{
    Timestamp,
    envelope::{Entry, StreamId},
};
use sqlx::{FromRow as _, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Ledger, LedgerError,
    lease::in_time,
    row::{ServerRun, kind, signed, unsigned},
};

/// An entry in its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// Its index, from 0.
    pub index: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Version of its first event.
    pub first_version: u64,
    /// Version of its last event.
    pub last_version: u64,
    /// When it was handed to the database.
    pub recorded_at: Timestamp,
    /// The envelope as it is stored: the leaf of the verifiable log.
    pub envelope: String,
}

impl Indexed {
    /// Reads the envelope.
    ///
    /// # Errors
    /// [`LedgerError::Corrupt`] when it does not read, or is of another stream or version than its row says.
    pub fn entry(&self) -> Result<Entry, LedgerError> {
        let entry = Entry::from_envelope(&self.envelope)?;
        let same = entry.stream == self.stream
            && entry.first_version == self.first_version
            && entry.last_version() == self.last_version;
        if same {
            Ok(entry)
        } else {
            Err(LedgerError::Corrupt(format!(
                "entry {} of {} holds an envelope of {} from {}",
                self.first_version, self.stream, entry.stream, entry.first_version
            )))
        }
    }

    pub(crate) fn from_row(row: &PgRow) -> Result<Self, LedgerError> {
        IndexedRow::from_row(row)?.indexed()
    }
}

/// What is read of an entry and its place.
#[derive(sqlx::FromRow)]
pub(crate) struct IndexedRow {
    pub(crate) log_index: i64,
    pub(crate) stream_id: Uuid,
    pub(crate) first_version: i64,
    pub(crate) last_version: i64,
    pub(crate) stream_kind: String,
    pub(crate) recorded_at: Timestamp,
    pub(crate) envelope: String,
}

impl IndexedRow {
    pub(crate) fn indexed(self) -> Result<Indexed, LedgerError> {
        Ok(Indexed {
            index: unsigned(self.log_index)?,
            stream: StreamId { kind: kind(&self.stream_kind)?, id: self.stream_id },
            first_version: unsigned(self.first_version)?,
            last_version: unsigned(self.last_version)?,
            recorded_at: self.recorded_at,
            envelope: self.envelope,
        })
    }
}

/// Entries of a page, at most.
pub(crate) const MAX_PAGE: u32 = 10_000;

/// A piece of the log.
#[derive(Debug, Clone)]
pub struct LogPage {
    /// In the order of the log, without a gap.
    pub entries: Vec<Indexed>,
    /// Where to go on.
    pub next: u64,
    /// Where the log ended when this was read: entries with an index below it exist.
    pub settled: u64,
    /// Where it was read.
    pub(crate) server: ServerRun,
}

impl LogPage {
    /// True when nothing followed at that moment.
    pub fn is_end(&self) -> bool {
        self.next >= self.settled
    }
}

impl Ledger {
    /// Entries from an index on, at most `limit` (and at most 10 000).
    ///
    /// # Errors
    /// [`LedgerError`]; `Corrupt` when an index is missing.
    pub async fn log(&self, from: u64, limit: u32) -> Result<LogPage, LedgerError> {
        in_time(page(&mut *self.connection().await?, from, limit)).await
    }

    /// The same for who keeps up with the log on this node: what it appended itself a moment ago is not read again.
    ///
    /// # Errors
    /// As [`Ledger::log`].
    pub async fn follow(&self, from: u64, limit: u32) -> Result<LogPage, LedgerError> {
        in_time(self.recent().page(&mut *self.connection().await?, from, limit)).await
    }

    /// Where the log ends now.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn settled(&self) -> Result<u64, LedgerError> {
        let next = sqlx::query_scalar!("SELECT next_index FROM sequencer");
        unsigned(in_time(next.fetch_one(&mut *self.connection().await?)).await?)
    }
}

pub(crate) async fn page(connection: &mut sqlx::PgConnection, from: u64, limit: u32) -> Result<LogPage, LedgerError> {
    let limit = u64::from(limit.clamp(1, MAX_PAGE));
    // End and entries in one statement, thus of one moment.
    let page = sqlx::query_file!("sql/log_page.sql", signed(from), signed(limit));
    let rows = page.fetch_all(connection).await?;
    let (settled, server) = match rows.first() {
        Some(row) => (unsigned(row.next_index)?, ServerRun(row.server)),
        None => return Err(LedgerError::Corrupt("the sequencer's row is missing".to_owned())),
    };
    // An index whose entry is missing is as bad as a missing index.
    let entries = rows.into_iter().filter_map(|row| {
        Some(IndexedRow {
            log_index: row.log_index?,
            stream_id: row.stream_id?,
            first_version: row.first_version?,
            last_version: row.last_version?,
            stream_kind: row.stream_kind?,
            recorded_at: row.recorded_at?,
            envelope: row.envelope?,
        })
    });
    let entries = entries.map(IndexedRow::indexed).collect::<Result<Vec<_>, _>>()?;
    let expected = from..settled.min(from.saturating_add(limit)).max(from);
    if !entries.iter().map(|entry| entry.index).eq(expected.clone()) {
        return Err(LedgerError::Corrupt(format!(
            "the log should hold every index from {} to {}, and does not: {} of them were found",
            expected.start,
            expected.end.saturating_sub(1),
            entries.len()
        )));
    }
    Ok(LogPage { entries, next: expected.end, settled, server })
}
