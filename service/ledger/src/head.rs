//! How far the verifiable log is, for its writer.

use std::collections::BTreeMap;

use join_domain::Timestamp;
use sqlx::{Connection as _, PgConnection, Postgres, postgres::PgArguments, query::Query, types::Json};
use uuid::Uuid;

use crate::{
    Indexed, Ledger, LedgerError, LogPage,
    lease::in_time,
    row::{ServerRun, signed, unsigned},
};

/// How far the verifiable log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// Entries that some node integrated into the tree.
    pub integrated: u64,
    /// Size of the newest signed checkpoint; 0 for none.
    pub signed: u64,
    /// That checkpoint, as it was signed.
    pub checkpoint: Option<String>,
    /// Why nothing may be signed.
    pub stops: Stops,
}

/// Stops that are kept, at most.
const MAX_STOPS: i64 = 100;

/// Nodes that hold proof that the history is not the one that was signed, each with what it found.
pub type Stops = BTreeMap<String, String>;

/// What tells an entry in the log from another one in its place, and from the same one after others. A server that took
/// over may have numbered again what it had, so a mark holds for one run of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryMark {
    stream_id: Uuid,
    first_version: i64,
    recorded_at: Timestamp,
    server: ServerRun,
}

impl LogPage {
    /// The mark of an entry of this page.
    pub fn mark(&self, entry: &Indexed) -> EntryMark {
        let (stream_id, first_version) = (entry.stream.id, signed(entry.first_version));
        EntryMark { stream_id, first_version, recorded_at: entry.recorded_at, server: self.server }
    }
}

/// What somebody decides about a log whose past is in doubt.
#[derive(Debug, Clone)]
pub enum LogDecision {
    /// The log that was signed as `origin` ends, and its stops: the head becomes its last, no checkpoint of it is ever
    /// recorded again, and the next one may be of another origin.
    End {
        /// The head that it was decided about.
        head: LogHead,
        /// The name that ends.
        origin: String,
        /// Why, for auditors of that log.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// All stops end, which are these.
    Resume {
        /// The stops that it was decided about.
        stops: Stops,
    },
}

/// What became of a signed checkpoint, or of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// It is recorded: a checkpoint may be shown, and after a stop none is recorded any more.
    Recorded,
    /// Another node was faster, the log is shorter than the checkpoint, was stopped or was ended: it must be forgotten.
    Overtaken,
    /// Entries that it follows from may not be those of the database: it must be forgotten, and they must be read again.
    Replaced,
}

impl Ledger {
    /// How far the verifiable log is.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn log_head(&self) -> Result<LogHead, LedgerError> {
        let row = sqlx::query!(
            r#"SELECT integrated_size, signed_size, signed_checkpoint, stops::text AS "stops!" FROM log_head"#
        );
        let row = in_time(row.fetch_one(&mut *self.connection().await?)).await?;
        Ok(LogHead {
            integrated: unsigned(row.integrated_size)?,
            signed: unsigned(row.signed_size)?,
            checkpoint: row.signed_checkpoint,
            stops: stops(&row.stops)?,
        })
    }

    /// Remembers that `size` entries are integrated; a smaller size than the one known changes nothing, and neither
    /// does one beyond the log's end, as a node has it that remembers more than a restored database.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn record_integrated(&self, size: u64) -> Result<(), LedgerError> {
        let update = sqlx::query!(
            "UPDATE log_head SET integrated_size = $1
             WHERE integrated_size < $1 AND $1 <= (SELECT next_index FROM sequencer)",
            signed(size)
        );
        in_time(update.execute(&mut *self.connection().await?)).await?;
        Ok(())
    }

    /// Records a signed checkpoint, before it goes anywhere else, if the newest one is still the one that `before`
    /// shows, all its entries exist, nobody stopped the log, and its origin did not end. `last` is what this node took for
    /// the last entry: a database that failed over may have lost it, and have another in its place.
    ///
    /// # Errors
    /// [`LedgerError`]; the checkpoint may have been recorded when the connection was lost.
    pub async fn record_signed(
        &self,
        before: &LogHead,
        size: u64,
        checkpoint: &str,
        last: Option<&EntryMark>,
    ) -> Result<Recording, LedgerError> {
        let update = sqlx::query!(
            "UPDATE log_head SET signed_size = $3, signed_checkpoint = $4
             WHERE signed_size = $1 AND signed_checkpoint IS NOT DISTINCT FROM $2
                 AND $3 >= signed_size AND $3 <= (SELECT next_index FROM sequencer) AND stops = '{}'
                 AND NOT EXISTS (SELECT FROM log_past WHERE origin = split_part($4, E'\\n', 1))",
            signed(before.signed),
            before.checkpoint.as_ref(),
            signed(size),
            checkpoint
        );
        self.record(size, last, update).await
    }

    /// Stops the log that is signed as `origin`: this node holds proof that its history is another one now. `size` and
    /// `last` are what it was found with, as for a checkpoint. Nothing is stopped for an origin that has ended. Pods have a
    /// new name each time they start, so only so many names are kept: a log that so many stopped needs somebody to look.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn stop_log(
        &self,
        origin: &str,
        found: &str,
        size: u64,
        last: Option<&EntryMark>,
    ) -> Result<Recording, LedgerError> {
        let update = sqlx::query!(
            "UPDATE log_head SET stops = stops || jsonb_build_object($1::text, $2::text)
             WHERE NOT EXISTS (SELECT FROM log_past WHERE origin = $3)
                 AND (stops ? $1 OR (SELECT count(*) FROM jsonb_object_keys(stops)) < $4)",
            self.node(),
            found,
            origin,
            MAX_STOPS
        );
        self.record(size, last, update).await
    }

    /// Updates the head, if the entry before `size` is the one that this node took for the last.
    async fn record(
        &self,
        size: u64,
        last: Option<&EntryMark>,
        update: Query<'_, Postgres, PgArguments>,
    ) -> Result<Recording, LedgerError> {
        let mut lease = self.connection().await?;
        in_time(async {
            let mut transaction = lease.begin().await?;
            if !holds_head(&mut transaction, size, last).await? {
                return Ok(transaction.rollback().await.map(|()| Recording::Replaced)?);
            }
            let done = update.execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(if done.rows_affected() == 1 { Recording::Recorded } else { Recording::Overtaken })
        })
        .await
    }

    /// Takes back what this node stopped the log for. Other nodes' stops stay.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn take_stop_back(&self) -> Result<(), LedgerError> {
        let update = sqlx::query!("UPDATE log_head SET stops = stops - $1::text", self.node());
        in_time(update.execute(&mut *self.connection().await?)).await?;
        Ok(())
    }

    /// Origins that no checkpoint may carry any more.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn ended_origins(&self) -> Result<Vec<String>, LedgerError> {
        let origins = sqlx::query_scalar!("SELECT origin FROM log_past ORDER BY ended_at, origin");
        Ok(in_time(origins.fetch_all(&mut *self.connection().await?)).await?)
    }
}

/// What somebody decided about the log, changed in the transaction of the append that tells of it. `false`: the head is not
/// the one that was decided about, or the origin has ended before.
pub(crate) async fn decide_log(connection: &mut PgConnection, decision: &LogDecision) -> Result<bool, sqlx::Error> {
    match decision {
        LogDecision::End { head, origin, reason, at } => {
            let forgotten = sqlx::query!(
                "UPDATE log_head SET integrated_size = 0, signed_size = 0, signed_checkpoint = NULL, stops = '{}'
                 WHERE signed_size = $1 AND signed_checkpoint IS NOT DISTINCT FROM $2",
                signed(head.signed),
                head.checkpoint.as_ref()
            );
            let forgotten = forgotten.execute(&mut *connection).await?;
            let remembered = sqlx::query!(
                "INSERT INTO log_past (origin, signed_size, signed_checkpoint, ended_at, reason) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
                origin,
                signed(head.signed),
                head.checkpoint.as_ref(),
                *at,
                reason
            );
            let remembered = remembered.execute(connection).await?;
            Ok(forgotten.rows_affected() == 1 && remembered.rows_affected() == 1)
        }
        LogDecision::Resume { stops } => {
            let update = sqlx::query!("UPDATE log_head SET stops = '{}' WHERE stops = $1", Json(stops) as _);
            Ok(update.execute(connection).await?.rows_affected() == 1)
        }
    }
}

/// Holds the head until the transaction ends, and says whether the entry before `size` is the one that somebody took for
/// the last, if there is any.
async fn holds_head(transaction: &mut PgConnection, size: u64, last: Option<&EntryMark>) -> Result<bool, LedgerError> {
    // First, so that what follows is looked at after any wait for it: an origin may be ending at this moment.
    sqlx::query("SELECT FROM log_head FOR UPDATE").execute(&mut *transaction).await?;
    let Some(last) = last else { return Ok(true) };
    let there = sqlx::query!(
        r#"SELECT l.stream_id, l.first_version, e.recorded_at, pg_postmaster_start_time() AS "server!"
         FROM log_entry l JOIN entry e USING (stream_id, first_version) WHERE l.log_index = $1"#,
        signed(size.saturating_sub(1))
    );
    let there = there.map(|row| EntryMark {
        stream_id: row.stream_id,
        first_version: row.first_version,
        recorded_at: row.recorded_at,
        server: ServerRun(row.server),
    });
    Ok(there.fetch_optional(transaction).await?.as_ref() == Some(last))
}

fn stops(json: &str) -> Result<Stops, LedgerError> {
    serde_json::from_str(json).map_err(|error| LedgerError::Corrupt(format!("who stopped the log: {error}")))
}
