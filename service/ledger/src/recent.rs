//! What this node appended a moment ago, so that those who follow the log on it need not read it back.
//!
//! Only a follower gets it, and never on its word alone: the newest entry of what is taken from here is read from the
//! database in the same statement as all that comes after it. And only within one run of one server: a database that
//! failed over may have lost newest entries, and put others of the same versions in their place.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use join_domain::envelope::Entry;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Indexed, LedgerError, LogPage,
    append::Row,
    log::{self, MAX_PAGE},
    row::ServerRun,
};

/// Bytes that envelopes take here, at most: two thirds of a second of joins at full speed.
const MEMORY: usize = 8 * 1024 * 1024;
/// Entries that are kept as they were decided, at most, each about as large as its envelope: views are a tenth of a
/// second or two behind.
const MAX_DECIDED: usize = 2048;
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
    appended: HashMap<EntryKey, Appended>,
    /// Bytes of their envelopes.
    bytes: usize,
    /// The newest of them, in the order in which they were appended.
    decided: VecDeque<EntryKey>,
    /// What stands in the log from `first` on, without a gap. Other nodes' appends have their place here, and nothing
    /// else.
    places: VecDeque<EntryKey>,
    first: u64,
}

#[derive(Debug)]
struct Appended {
    /// Without its place, as index 0.
    indexed: Indexed,
    /// What the envelope says, until the views have taken it or newer ones have come.
    entry: Option<Box<Entry>>,
}

impl Recent {
    /// Remembers what has become durable.
    pub(crate) fn appended(&self, server: ServerRun, row: Row) {
        let mut inner = self.on(server);
        let indexed = Indexed {
            index: 0,
            stream: row.stream,
            first_version: row.first_version,
            last_version: row.last_version,
            recorded_at: row.recorded_at,
            envelope: row.envelope,
        };
        let key = (row.stream.id, row.first_version);
        inner.bytes = inner.bytes.saturating_add(indexed.envelope.capacity());
        inner.appended.insert(key, Appended { indexed, entry: Some(Box::new(row.entry)) });
        inner.decided.push_back(key);
        inner.keep_newest_decided();
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
        let copy = |index, appended: &mut Appended| Indexed { index, ..appended.indexed.clone() };
        let (mut known, read) = self.known_and_read(connection, from, limit, copy).await?;
        known.extend(read.entries);
        Ok(LogPage { entries: known, ..read })
    }

    /// The entries of a page, and where to go on. For one follower: who comes second has envelopes to read.
    ///
    /// # Errors
    /// As [`log::page`] and [`Indexed::entry`].
    pub(crate) async fn entries(
        &self,
        connection: &mut PgConnection,
        from: u64,
        limit: u32,
    ) -> Result<(Vec<Entry>, u64), LedgerError> {
        let take = |index, appended: &mut Appended| match appended.entry.take() {
            Some(entry) => Ok(*entry),
            None => Err(Indexed { index, ..appended.indexed.clone() }),
        };
        let (known, read) = self.known_and_read(connection, from, limit, take).await?;
        let known = known.into_iter().map(|taken| taken.or_else(|indexed| indexed.entry()));
        let entries = known.chain(read.entries.iter().map(Indexed::entry)).collect::<Result<_, _>>()?;
        Ok((entries, read.next))
    }

    /// What `each` makes of entries that are known from an index on, without a gap, or takes of them; and a page of what
    /// follows them.
    async fn known_and_read<T>(
        &self,
        connection: &mut PgConnection,
        from: u64,
        limit: u32,
        each: impl Fn(u64, &mut Appended) -> T,
    ) -> Result<(Vec<T>, LogPage), LedgerError> {
        let limit = limit.clamp(1, MAX_PAGE);
        if let Some((server, newest)) = self.newest_known(from, limit) {
            let before_newest = newest.index.saturating_sub(from);
            let rest = limit.saturating_sub(u32::try_from(before_newest).unwrap_or(u32::MAX));
            let mut read = log::page(connection, newest.index, rest).await?;
            if read.server != server || read.entries.first() != Some(&newest) {
                *self.inner() = Inner::default();
            } else if let Some(known) = self.known(server, from..newest.index.saturating_add(1), each) {
                read.entries.remove(0);
                return Ok((known, read));
            }
        }
        Ok((Vec::new(), log::page(connection, from, limit).await?))
    }

    /// The last of what is known from an index on, without a gap, and where that was written.
    fn newest_known(&self, from: u64, limit: u32) -> Option<(ServerRun, Indexed)> {
        let inner = self.inner();
        let places = places_from(&inner.places, inner.first, from).take(usize::try_from(limit).unwrap_or(usize::MAX));
        let known = (from..).zip(places).map_while(|(index, key)| Some((index, inner.appended.get(key)?)));
        let (index, newest) = known.last()?;
        Some((inner.server?, Indexed { index, ..newest.indexed.clone() }))
    }

    /// What `each` makes of the entries with these indices; none when one of them was forgotten meanwhile.
    fn known<T>(&self, server: ServerRun, range: Range<u64>, each: impl Fn(u64, &mut Appended) -> T) -> Option<Vec<T>> {
        let mut inner = self.inner();
        let Inner { server: written, appended, places, first, .. } = &mut *inner;
        if *written != Some(server) {
            return None;
        }
        let known = range.clone().zip(places_from(places, *first, range.start));
        let known = known.map(|(index, key)| Some(each(index, appended.get_mut(key)?))).collect::<Option<Vec<_>>>()?;
        (u64::try_from(known.len()).ok() == range.end.checked_sub(range.start)).then_some(known)
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
        if let Some(appended) = self.appended.remove(&key) {
            self.bytes = self.bytes.saturating_sub(appended.indexed.envelope.capacity());
        }
        true
    }

    fn keep_newest_decided(&mut self) {
        while self.decided.len() > MAX_DECIDED {
            let oldest = self.decided.pop_front().and_then(|key| self.appended.get_mut(&key));
            if let Some(oldest) = oldest {
                oldest.entry = None;
            }
        }
    }
}

/// Places from an index on, of those that begin with `first`.
fn places_from(places: &VecDeque<EntryKey>, first: u64, index: u64) -> impl Iterator<Item = &EntryKey> {
    let skipped = index.checked_sub(first).and_then(|skipped| usize::try_from(skipped).ok());
    places.iter().skip(skipped.unwrap_or(usize::MAX))
}
