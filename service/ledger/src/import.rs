//! An archive on its way into an empty database: all of it in one transaction, so that an interruption leaves nothing.
//!
//! The copy is a fork of the log that it was taken from, as soon as anything is appended to either of them. So the name
//! under which the archive was signed is ended in the copy, which signs under another one or not at all. Names that ended
//! before, as its history says, stay ended.

use join_domain::{
    Timestamp,
    envelope::Entry,
    event::{Event, LogEnded},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::{
    Clock as _, LedgerError, Progress,
    clock::DatabaseClock,
    copy::{Field, Rows},
    error::is_held,
    fitness,
    rebuild::{guard, views},
    row::signed,
};

/// Tables that history is in, or that follow from it.
const HISTORY: &str = "entry, log_entry, outbox, stream, snapshot, claim, lineage, sequencer, log_head, log_past, \
    view_checkpoint, token_view, instance_view, certificate_view";

const IS_EMPTY: &str = "
SELECT NOT EXISTS (SELECT FROM entry) AND NOT EXISTS (SELECT FROM outbox) AND NOT EXISTS (SELECT FROM log_past)
    AND (SELECT next_index FROM sequencer) = 0 AND (SELECT signed_checkpoint FROM log_head) IS NULL";

/// A name stands once in a stream's attempts: a join that was accepted again did not use its attempt up again.
const SPENT_ONCE: &str = "
UPDATE entry SET attempt = NULL WHERE (stream_id, first_version) IN (
    SELECT stream_id, first_version FROM (
        SELECT stream_id, first_version, row_number() OVER (PARTITION BY stream_id, attempt ORDER BY first_version)
        FROM entry WHERE attempt IS NOT NULL) AS spent
    WHERE row_number > 1)";

/// An import under way. Dropping it leaves the database as it was.
#[derive(Debug)]
pub struct Import {
    connection: PgConnection,
    attempts: String,
    now: Timestamp,
    next: u64,
    /// Names that ended in this history, and when.
    ended: Vec<(LogEnded, Timestamp)>,
}

impl Import {
    /// Takes an empty, migrated database for itself, as the role that owns it.
    ///
    /// # Errors
    /// [`LedgerError::Unfit`] when it is not empty, not migrated, in use, or another role's.
    pub async fn begin(owner: &PgConnectOptions) -> Result<Self, LedgerError> {
        let mut connection = PgConnection::connect_with(&owner.clone().options([("jit", "off")])).await?;
        fitness::check_owner(&mut connection).await?;
        let now = DatabaseClock::measure(&mut connection).await?.now();
        let lock = format!("LOCK TABLE {HISTORY} IN ACCESS EXCLUSIVE MODE NOWAIT");
        // Verifying an archive may take its time, in the middle of the transaction.
        for sql in ["BEGIN", "SET LOCAL idle_in_transaction_session_timeout = 0"] {
            sqlx::query(sql).execute(&mut connection).await?;
        }
        sqlx::query(AssertSqlSafe(lock)).execute(&mut connection).await.map_err(|error| {
            if is_held(&error) {
                let in_use = "somebody is working with this database: stop every node before an import";
                LedgerError::Unfit(in_use.to_owned())
            } else {
                error.into()
            }
        })?;
        if !sqlx::query_scalar::<_, bool>(IS_EMPTY).fetch_one(&mut connection).await? {
            return Err(LedgerError::Unfit(
                "this database holds history already, and an archive goes into an empty one only: create another \
                 database, and run `joind migrate`"
                    .to_owned(),
            ));
        }
        // Rows that come into a table emptied by the same transaction need no second look by vacuum; and an index that
        // is made at the end is made in one go.
        let attempts = sqlx::query_scalar("SELECT pg_get_indexdef('entry_attempt'::regclass)");
        let attempts = attempts.fetch_one(&mut connection).await?;
        for sql in ["TRUNCATE entry, log_entry", "DROP INDEX entry_attempt"] {
            sqlx::query(sql).execute(&mut connection).await?;
        }
        Ok(Self { connection, attempts, now, next: 0, ended: Vec::new() })
    }

    /// The log index of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Adds envelopes, the next ones of the log, in its order.
    ///
    /// # Errors
    /// [`LedgerError::Corrupt`] for what is no envelope; the import can't go on after an error.
    pub async fn append(&mut self, envelopes: &[String]) -> Result<(), LedgerError> {
        let (mut entries, mut order) = (Rows::new(), Rows::new());
        for envelope in envelopes {
            let entry = Entry::from_envelope(envelope)
                .map_err(|error| LedgerError::Corrupt(format!("entry {} of the archive: {error}", self.next)))?;
            let attempt = entry.accepted().and_then(|join| join.attempt).map(|attempt| attempt.key());
            let (id, first_version) = (Field::Uuid(entry.stream.id), Field::Int(signed(entry.first_version)));
            entries.push([
                id,
                first_version,
                Field::Int(signed(entry.last_version())),
                Field::Text(entry.stream.kind.as_str()),
                Field::Time(entry.recorded_at),
                Field::Text(envelope),
                Field::or_null(attempt, Field::Uuid),
            ]);
            order.push([Field::Int(signed(self.next)), id, first_version]);
            self.ended.extend(entry.events.iter().filter_map(|event| match event {
                Event::LogEnded(ended) => Some((ended.clone(), entry.recorded_at)),
                _ => None,
            }));
            self.next = self.next.saturating_add(1);
        }
        let into = "COPY entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope, attempt)
            FROM STDIN (FORMAT binary, FREEZE)";
        entries.send(&mut self.connection, into).await?;
        let into = "COPY log_entry (log_index, stream_id, first_version) FROM STDIN (FORMAT binary, FREEZE)";
        order.send(&mut self.connection, into).await
    }

    /// Makes all that follows from the entries, ends `origin`, under which `checkpoint` was signed, and commits.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was imported then, unless the connection was lost at the very end.
    pub async fn finish(
        mut self,
        origin: &str,
        checkpoint: &str,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(), LedgerError> {
        let end = signed(self.next);
        let connection = &mut self.connection;
        sqlx::query(SPENT_ONCE).execute(&mut *connection).await?;
        sqlx::query(AssertSqlSafe(self.attempts)).execute(&mut *connection).await?;
        sqlx::query("UPDATE sequencer SET next_index = $1").bind(end).execute(&mut *connection).await?;
        sqlx::query(
            "INSERT INTO log_past (origin, signed_size, signed_checkpoint, ended_at, reason)
             VALUES ($1, $2, $3, $4, 'imported from an archive')",
        )
        .bind(origin)
        .bind(end)
        .bind(checkpoint)
        .bind(self.now)
        .execute(&mut *connection)
        .await?;
        for (LogEnded { origin, reason, size, .. }, at) in &self.ended {
            sqlx::query(
                "INSERT INTO log_past (origin, signed_size, ended_at, reason) VALUES ($1, $2, $3, $4)
                 ON CONFLICT DO NOTHING",
            )
            .bind(origin)
            .bind(signed(*size))
            .bind(at)
            .bind(reason)
            .execute(&mut *connection)
            .await?;
        }
        sqlx::query("ANALYZE entry, log_entry").execute(&mut *connection).await?;
        guard::fill(connection, self.now, &mut progress).await?;
        views::fill(connection, self.next, &mut progress).await?;
        sqlx::query("COMMIT").execute(connection).await?;
        Ok(self.connection.close().await?)
    }
}
