//! Folds all streams, one after another, in constant memory: while one batch is folded, the one before it is written or
//! compared, and the next is read, all on one connection.

use join_domain::{
    Timestamp,
    envelope::{Entry, StreamId},
    event::Event,
    resource::RecoveryMode,
    state::State,
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{Progress, Stage, aside, cursor};
use crate::{LedgerError, row::unsigned};

/// A stream as its entries leave it.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) stream: StreamId,
    pub(super) version: u64,
    pub(super) state: State,
    /// Versions of entries whose rows say another time or another used-up attempt than they do.
    pub(super) misfiled: Vec<u64>,
}

/// What becomes of folded streams.
pub(super) trait Sink {
    /// Takes some, in the order of ids.
    fn take(
        &mut self,
        connection: &mut PgConnection,
        streams: Vec<Folded>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;
}

/// What was folded.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) entries: u64,
    pub(super) streams: u64,
}

/// Folds every stream that `connection`'s transaction shows, and hands them over in batches.
///
/// Every committed entry has a place in the log or a note in the outbox: when fewer are found, the read was cut off or
/// history is missing, and it is an error.
pub(super) async fn all(
    connection: &mut PgConnection,
    progress: &mut (impl FnMut(Progress) + Send),
    sink: &mut (impl Sink + Send),
) -> Result<Sums, LedgerError> {
    let total = sqlx::query_scalar(
        "SELECT (SELECT next_index FROM sequencer) + (SELECT coalesce(sum(cardinality(stream_ids)), 0) FROM outbox)",
    );
    let total = unsigned(total.fetch_one(&mut *connection).await?)?;
    let select = "SELECT stream_id, envelope, recorded_at, attempt FROM entry ORDER BY stream_id, first_version";
    cursor::open(connection, select).await?;
    let mut folding = Folding::default();
    let mut folded = Vec::new();
    let mut rows = cursor::fetch(connection).await?;
    while !rows.is_empty() {
        let batch = aside::begin(move || folding.fold(&rows));
        sink.take(connection, std::mem::take(&mut folded)).await?;
        rows = cursor::fetch(connection).await?;
        (folding, folded) = batch.done().await?;
        progress(Progress { stage: Stage::Guard, done: folding.sums.entries, total });
    }
    folded.extend(folding.current.take());
    sink.take(connection, folded).await?;
    cursor::close(connection).await?;
    let sums = folding.sums;
    if sums.entries != total {
        return Err(LedgerError::Corrupt(format!("{total} entries were committed, {} are there", sums.entries)));
    }
    progress(Progress { stage: Stage::Guard, done: sums.entries, total });
    Ok(sums)
}

/// Where the fold is: in the middle of a stream, as a rule.
#[derive(Debug, Default)]
struct Folding {
    current: Option<Folded>,
    sums: Sums,
}

impl Folding {
    /// Goes on with these entries, and returns the streams that they end.
    fn fold(mut self, rows: &[PgRow]) -> Result<(Self, Vec<Folded>), LedgerError> {
        let mut ended = Vec::new();
        for row in rows {
            let entry = Entry::from_envelope(row.try_get("envelope")?)?;
            let id: Uuid = row.try_get("stream_id")?;
            if self.current.as_ref().is_some_and(|folded| folded.stream.id != id) {
                ended.extend(self.current.take());
            }
            if self.current.is_none() {
                self.sums.streams = self.sums.streams.saturating_add(1);
            }
            let before = self.current.take();
            let is_filed = entry.recorded_at == row.try_get::<Timestamp, _>("recorded_at")?
                && uses_up(before.as_ref(), &entry, row.try_get("attempt")?);
            let mut after = follow(before, id, &entry)?;
            if !is_filed {
                after.misfiled.push(entry.first_version);
            }
            self.current = Some(after);
            self.sums.entries = self.sums.entries.saturating_add(1);
        }
        Ok((self, ended))
    }
}

/// Whether the entry uses up this attempt. One that had been accepted before is not used up again.
fn uses_up(before: Option<&Folded>, entry: &Entry, stored: Option<Uuid>) -> bool {
    let accepted = entry.accepted().and_then(|join| join.attempt);
    let again = || {
        let Some(State::Token(token)) = before.map(|before| &before.state) else { return false };
        let latest = token.latest().and_then(|latest| latest.join.attempt);
        // An older one comes back by an exemption, or where many hosts share one key.
        latest == accepted
            || token.spec.recovery.mode == RecoveryMode::Insecure
            || entry.events.iter().any(|event| matches!(event, Event::ExemptionConsumed(_)))
    };
    match (accepted, stored) {
        (None, stored) => stored.is_none(),
        (Some(accepted), Some(stored)) => accepted.key() == stored,
        (Some(_), None) => again(),
    }
}

fn follow(before: Option<Folded>, id: Uuid, entry: &Entry) -> Result<Folded, LedgerError> {
    let (version, state, misfiled) =
        before.map_or((0, None, Vec::new()), |folded| (folded.version, Some(folded.state), folded.misfiled));
    if entry.stream.id != id || entry.first_version != version.saturating_add(1) {
        return Err(LedgerError::Corrupt(format!(
            "stream {id} goes on after version {version} with version {} of {}",
            entry.first_version, entry.stream
        )));
    }
    Ok(Folded { stream: entry.stream, version: entry.last_version(), state: State::after(state, entry)?, misfiled })
}
