//! Searching the log: which entries concern a token, a time, a kind of event.

use join_domain::{
    Timestamp,
    envelope::{Entry, StreamId, StreamKind},
    event::Event,
    id::Name,
    resource::LockTarget,
};
use uuid::Uuid;

use crate::{Indexed, Ledger, LedgerError, lease::in_time, log::IndexedRow, row::signed};

/// How far apart the clocks of two nodes may be, in seconds, for a search by time.
const CLOCK_SLACK: i64 = 60;
/// Entries that one page looks at, at most, when few of them fit.
const SCAN: u32 = 5000;

/// Kinds of events, such as `join.accepted`; one may end with `.*`. None named: any.
#[derive(Debug, Clone, Default)]
pub struct Kinds(pub Vec<String>);

impl Kinds {
    /// True for an event of such a kind.
    pub fn include(&self, kind: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|named| is_of(kind, named))
    }

    /// What was named although no event can be of it.
    pub fn unknown(&self) -> Option<&str> {
        let unknown = |named: &&String| !Event::KINDS.iter().any(|kind| is_of(kind.name, named));
        self.0.iter().find(unknown).map(String::as_str)
    }
}

fn is_of(kind: &str, named: &str) -> bool {
    named.strip_suffix('*').map_or(named == kind, |prefix| kind.starts_with(prefix))
}

/// Whose history.
#[derive(Debug, Clone, Default)]
pub enum Whose {
    /// Everybody's.
    #[default]
    All,
    /// That of all tokens that ever had this name, and of the locks on it.
    Token(Name),
    /// That of all bots that ever had this name.
    Bot(Name),
}

/// What to look for; everything that is given must fit.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    /// Of whom.
    pub whose: Whose,
    /// Recorded at this time or later.
    pub since: Option<Timestamp>,
    /// Recorded before this time.
    pub until: Option<Timestamp>,
    /// With an event of one of these kinds.
    pub kinds: Kinds,
}

/// A piece of a search, in the order of the log.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// What was found; may be empty although there is more to search.
    pub entries: Vec<(Indexed, Entry)>,
    /// Index to go on from. What is appended later comes later, so this never skips.
    pub next: u64,
    /// Where the log ended when this was read. Was the index that was asked for beyond that, a part of it was lost.
    pub settled: u64,
}

impl HistoryPage {
    /// True when the search has reached the log's end, as it was at that moment.
    pub fn is_end(&self) -> bool {
        self.next >= self.settled
    }
}

impl HistoryFilter {
    /// True when each entry of the streams that it names fits.
    fn takes_every_entry(&self) -> bool {
        self.since.is_none() && self.until.is_none() && self.kinds.0.is_empty()
    }

    fn fits(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| entry.recorded_at >= since)
            && self.until.is_none_or(|until| entry.recorded_at < until)
            && entry.events.iter().any(|event| self.kinds.include(event.kind().0))
    }
}

impl Ledger {
    /// Searches the log from index `from` on, for at most `limit` entries.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn history(&self, filter: &HistoryFilter, from: u64, limit: u32) -> Result<HistoryPage, LedgerError> {
        let limit = limit.clamp(1, 1000);
        let scan = if filter.takes_every_entry() { limit } else { SCAN };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let from = match filter.since {
            Some(since) if from == 0 => self.first_index_near(since).await?,
            _ => from,
        };
        // Before the streams are looked up: what gets its place later is for the next page, with the streams of then.
        let settled = self.settled().await?;
        if settled < from {
            return Ok(HistoryPage { entries: Vec::new(), next: from, settled });
        }
        let (candidates, end, settled) = match self.streams_of(&filter.whose).await? {
            Some(streams) => {
                let (entries, next) = self.log_of(&streams, from, settled, scan).await?;
                (entries, next, settled)
            }
            None => {
                let page = self.log(from, scan).await?;
                (page.entries, page.next, page.settled)
            }
        };
        let mut entries = Vec::new();
        for indexed in candidates {
            if entries.len() >= limit {
                return Ok(HistoryPage { entries, next: indexed.index, settled });
            }
            let entry = indexed.entry()?;
            if filter.fits(&entry) {
                entries.push((indexed, entry));
            }
        }
        Ok(HistoryPage { entries, next: end, settled })
    }

    /// The streams of whom is asked for; none when all are.
    async fn streams_of(&self, whose: &Whose) -> Result<Option<Vec<StreamId>>, LedgerError> {
        Ok(match whose {
            Whose::All => None,
            Whose::Token(name) => {
                let mut streams = self.namesakes(StreamKind::Token, name).await?;
                streams.extend(self.locks_ever_on(&LockTarget::JoinToken(name.clone())).await?);
                Some(streams)
            }
            Whose::Bot(name) => Some(self.namesakes(StreamKind::Bot, name).await?),
        })
    }

    /// Locks on a target, those that were removed too.
    async fn locks_ever_on(&self, target: &LockTarget) -> Result<Vec<StreamId>, LedgerError> {
        let ids = sqlx::query_scalar!(
            "SELECT stream_id FROM stream WHERE kind = 'lock' AND lock_target = $1",
            target.to_string()
        );
        let ids = in_time(ids.fetch_all(&mut *self.connection().await?)).await?;
        Ok(ids.into_iter().map(|id| StreamId { kind: StreamKind::Lock, id }).collect())
    }

    /// At most `limit` of the log's entries of some streams, from an index on and below `settled`, with the index to go on
    /// from.
    async fn log_of(
        &self,
        streams: &[StreamId],
        from: u64,
        settled: u64,
        limit: u32,
    ) -> Result<(Vec<Indexed>, u64), LedgerError> {
        let ids: Vec<Uuid> = streams.iter().map(|stream| stream.id).collect();
        let rows = sqlx::query_as!(
            IndexedRow,
            // LIMIT has the streams looked up one by one, and no further than the page goes: the planner would rather walk
            // the log until it has found so many. In a stream the log's order is that of its versions.
            "SELECT l.log_index, e.stream_id, e.first_version, e.last_version, e.stream_kind, e.recorded_at, e.envelope
             FROM (
                 SELECT o.* FROM unnest($1::uuid[]) AS s(id) CROSS JOIN LATERAL (
                     SELECT log_index, stream_id, first_version FROM log_entry
                     WHERE stream_id = s.id AND log_index >= $2 AND log_index < $3 ORDER BY first_version LIMIT $4
                 ) o ORDER BY log_index LIMIT $4
             ) l CROSS JOIN LATERAL (
                 SELECT * FROM entry WHERE stream_id = l.stream_id AND first_version = l.first_version OFFSET 0
             ) e ORDER BY l.log_index",
            &ids,
            signed(from),
            signed(settled),
            i64::from(limit)
        );
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        let entries = rows.into_iter().map(IndexedRow::indexed).collect::<Result<Vec<_>, _>>()?;
        let all = u32::try_from(entries.len()).is_ok_and(|count| count < limit);
        let after_last = entries.last().map_or(from, |last| last.index.saturating_add(1));
        Ok((entries, if all { settled.max(from) } else { after_last }))
    }

    /// An index before which everything was recorded earlier than `time`. The log's order follows time but for the
    /// differences of clocks and late commits, so halving finds it.
    async fn first_index_near(&self, time: Timestamp) -> Result<u64, LedgerError> {
        let time = time.checked_sub_signed(chrono::TimeDelta::seconds(CLOCK_SLACK)).unwrap_or(time);
        let (mut low, mut high) = (0, self.settled().await?);
        while low < high {
            let middle = low.midpoint(high);
            let recorded_at = sqlx::query_scalar!(
                "SELECT e.recorded_at FROM log_entry l JOIN entry e USING (stream_id, first_version)
                 WHERE l.log_index = $1",
                signed(middle)
            );
            if in_time(recorded_at.fetch_one(&mut *self.connection().await?)).await? < time {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}
