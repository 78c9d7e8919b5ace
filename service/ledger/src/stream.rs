//! Reading one stream: its entries, and what follows from them.

use std::collections::HashMap;

use join_domain::{
    envelope::{Entry, StreamId},
    state::State,
};
use sqlx::PgConnection;

use crate::{
    Ledger, LedgerError,
    lease::in_time,
    row::{signed, unsigned},
};

/// Entries that are read at once.
const PAGE: u32 = 500;

/// A piece of a stream.
#[derive(Debug, Clone)]
pub struct StreamPage {
    /// In the order of versions, without a gap.
    pub entries: Vec<Entry>,
    /// First version of the next piece; none when this piece reaches the stream's end.
    pub next: Option<u64>,
}

impl Ledger {
    /// Entries of a stream from a version on, at most `limit` of them. A stream that does not exist is empty.
    ///
    /// # Errors
    /// [`LedgerError`]; `Corrupt` when a version is missing, also the last one.
    pub async fn stream(&self, stream: StreamId, from: u64, limit: u32) -> Result<StreamPage, LedgerError> {
        in_time(entries(&mut *self.connection().await?, stream, from.max(1), limit.clamp(1, 10_000))).await
    }

    /// The log indices of a stream's entries between two versions, by their first version; those that wait for one lack.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn places(&self, stream: StreamId, from: u64, to: u64) -> Result<HashMap<u64, u64>, LedgerError> {
        let rows = sqlx::query!(
            "SELECT first_version, log_index FROM log_entry WHERE stream_id = $1 AND first_version BETWEEN $2 AND $3",
            stream.id,
            signed(from),
            signed(to)
        );
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        rows.into_iter().map(|row| Ok((unsigned(row.first_version)?, unsigned(row.log_index)?))).collect()
    }

    /// The whole history of a stream, entry by entry, up to its end.
    ///
    /// # Errors
    /// [`LedgerError`], or what `each` returns; [`LedgerError::Corrupt`] when a version is missing, also the last one.
    pub async fn replay<E: From<LedgerError>>(
        &self,
        stream: StreamId,
        each: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        self.replay_while(stream, |_| true, each).await
    }

    /// The same, up to the first entry that does not belong to it.
    pub(crate) async fn replay_while<E: From<LedgerError>>(
        &self,
        stream: StreamId,
        belongs: impl Fn(&Entry) -> bool,
        mut each: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = Some(1);
        while let Some(version) = from {
            let page = self.stream(stream, version, PAGE).await?;
            for entry in page.entries {
                if !belongs(&entry) {
                    return Ok(());
                }
                each(entry)?;
            }
            from = page.next;
        }
        Ok(())
    }

    /// The state and version to which a stream's entries lead, up to the first that does not belong to it.
    pub(crate) async fn fold_while(
        &self,
        stream: StreamId,
        belongs: impl Fn(&Entry) -> bool,
    ) -> Result<Option<(State, u64)>, LedgerError> {
        let mut folded: Option<(State, u64)> = None;
        self.replay_while(stream, belongs, |entry| {
            let before = folded.take().map(|(state, _)| state);
            folded = Some((State::after(before, &entry)?, entry.last_version()));
            Ok::<_, LedgerError>(())
        })
        .await?;
        Ok(folded)
    }
}

async fn entries(
    connection: &mut PgConnection,
    stream: StreamId,
    from: u64,
    limit: u32,
) -> Result<StreamPage, LedgerError> {
    // The stream's end and its entries in one statement, thus of one moment.
    let page = sqlx::query_file!("sql/stream_page.sql", stream.id, signed(from), i64::from(limit));
    let rows = page.fetch_all(connection).await?;
    let version = rows.first().map_or(Ok(0), |row| unsigned(row.version))?;
    let mut expected = from;
    let mut found = Vec::with_capacity(rows.len());
    for envelope in rows.into_iter().filter_map(|row| row.envelope) {
        let entry = Entry::from_envelope(&envelope)?;
        if entry.first_version != expected || entry.stream != stream {
            return Err(LedgerError::Corrupt(format!(
                "{stream} lacks version {expected}: {} of {} was found in its place",
                entry.first_version, entry.stream
            )));
        }
        expected = entry.last_version().saturating_add(1);
        found.push(entry);
    }
    let cut_off = u32::try_from(found.len()).is_ok_and(|count| count < limit) && expected <= version;
    if cut_off {
        return Err(LedgerError::Corrupt(format!(
            "{stream} ends before version {expected}, although it was at version {version}"
        )));
    }
    Ok(StreamPage { entries: found, next: (expected <= version).then_some(expected) })
}
