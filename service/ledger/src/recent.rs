//! What this node appended a moment ago, so that those who follow the log on it need not read it back.
//!
//! Only a follower gets it, and never on its word alone: the newest entry of what is taken from here is read from the
//! database in the same statement as all that comes after it. And only within one run of one server: a database that
//! failed over may have lost newest entries, and put others of the same versions in their place.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Indexed, LedgerError, LogPage,
    append::Row,
    log::{self, MAX_PAGE},
    row::ServerRun,
};

/// Bytes that envelopes take here, at most: most of a second of joins at full speed.
const MEMORY: usize = 8 * 1024 * 1024;
/// Places that are remembered, at most.
const MAX_PLACES: usize = 65_536;

/// An entry's stream, and the version of its first event.
pub(crate) type EntryKey = (Uuid, u64);

/// The newest appends of this node.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Where all this was written.
    server: Option<ServerRun>,
    /// Without their place, as index 0.
    appended: HashMap<EntryKey, Indexed>,
    bytes: usize,
    /// What stands in the log from `first` on, without a gap. Other nodes' appends have their place here, and nothing
    /// else.
    places: VecDeque<EntryKey>,
    first: u64,
}

impl Recent {
    /// Remembers what has become durable.
    pub(crate) fn appended(&self, server: ServerRun, row: Row) {
        let mut inner = self.on(server);
        let entry = Indexed {
            index: 0,
            stream: row.stream,
            first_version: row.first_version,
            last_version: row.last_version,
            recorded_at: row.recorded_at,
            envelope: row.envelope,
        };
        inner.bytes = inner.bytes.saturating_add(entry.envelope.capacity());
        inner.appended.insert((entry.stream.id, entry.first_version), entry);
        while inner.bytes > MEMORY {
            if !inner.forget_first() {
                // Others number, so nothing here gets a place.
                *inner = Inner { server: Some(server), ..Inner::default() };
            }
        }
    }

    /// Remembers what this node has numbered, from an index on.
    pub(crate) fn numbered(&self, server: ServerRun, first: u64, keys: Vec<EntryKey>) {
        let mut inner = self.on(server);
        if inner.end() != first {
            while inner.forget_first() {}
            inner.first = first;
        }
        inner.places.extend(keys);
        while inner.places.len() > MAX_PLACES {
            inner.forget_first();
        }
    }

    /// A page of the log, of which as little as possible is read.
    ///
    /// # Errors
    /// As [`log::page`].
    pub(crate) async fn page(
        &self,
        connection: &mut PgConnection,
        from: u64,
        limit: u32,
    ) -> Result<LogPage, LedgerError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let (server, mut known) = self.from(from, limit);
        let Some(newest) = known.pop() else {
            return log::page(connection, from, limit).await;
        };
        let rest = limit.saturating_sub(u32::try_from(known.len()).unwrap_or(u32::MAX));
        let read = log::page(connection, newest.index, rest).await?;
        if Some(read.server) != server || read.entries.first() != Some(&newest) {
            *self.inner() = Inner::default();
            return log::page(connection, from, limit).await;
        }
        known.extend(read.entries);
        Ok(LogPage { entries: known, ..read })
    }

    /// What is known from an index on, without a gap, and where it was written.
    fn from(&self, from: u64, limit: u32) -> (Option<ServerRun>, Vec<Indexed>) {
        let inner = self.inner();
        let skipped = from.checked_sub(inner.first).and_then(|skipped| usize::try_from(skipped).ok());
        let places = inner.places.iter().skip(skipped.unwrap_or(usize::MAX));
        let known = (from..).zip(places).map_while(|(index, key)| {
            let entry = inner.appended.get(key)?;
            Some(Indexed { index, ..entry.clone() })
        });
        (inner.server, known.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
    }

    /// What was written there; what was written elsewhere is forgotten.
    fn on(&self, server: ServerRun) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner();
        if inner.server != Some(server) {
            *inner = Inner { server: Some(server), ..Inner::default() };
        }
        inner
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The index after the last one here.
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.places.len()).unwrap_or(u64::MAX))
    }

    /// Forgets the oldest entry that has a place; false when there is none.
    fn forget_first(&mut self) -> bool {
        let Some(key) = self.places.pop_front() else { return false };
        self.first = self.first.saturating_add(1);
        if let Some(entry) = self.appended.remove(&key) {
            self.bytes = self.bytes.saturating_sub(entry.envelope.capacity());
        }
        true
    }
}
