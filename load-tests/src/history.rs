//! A long history: renewals of tokens that nobody joins with any more, made inside PostgreSQL from one that is written
//! as the service writes them.
//!
//! Each has a place of its own in its stream and in the log and has used up an attempt, so that these two tables and all
//! their indices are as large as real ones. The guard rows and views stay where they are, so `joind rebuild --check` is not
//! for such a database.

use anyhow::Context as _;
use join_domain::{
    envelope::{Entry, Origin, StreamId, StreamKind},
    event::{ChallengeSolved, Event, GenerationBumped},
    id::{ChallengeId, InstanceId},
};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

/// Events of an entry, as a renewal has them.
const EVENTS: u64 = 4;
/// Entries that are made at once.
const CHUNK: u64 = 250_000;
/// Entries of a stream.
const LIFE: u64 = 72;

/// Makes about so many events.
pub(crate) async fn fill(superuser: &PgConnectOptions, events: u64) -> anyhow::Result<()> {
    let entries = events / EVENTS;
    if entries == 0 {
        return Ok(());
    }
    let mut connection = PgConnection::connect_with(superuser).await?;
    // What a crash would lose is made again.
    sqlx::query("SET synchronous_commit = off").execute(&mut connection).await?;
    let first: i64 = sqlx::query_scalar("SELECT next_index FROM sequencer").fetch_one(&mut connection).await?;
    let envelope = example()?;
    let bar = indicatif::ProgressBar::new(entries);
    bar.set_style(indicatif::ProgressStyle::with_template("making history [{bar:30}] {human_pos} entries {per_sec}")?);
    let begun = std::time::Instant::now();
    let mut done = 0;
    while done < entries {
        let until = entries.min(done + CHUNK);
        // Streams end after some entries, and others begin: their ids are hashes, spread as random ones are.
        let made = "
            WITH n AS (
                SELECT i, md5('history ' || i / $4)::uuid AS stream_id, (i % $4) * $5 + 1 AS version
                FROM generate_series($1::bigint, $2::bigint - 1) i
            ), entries AS (
                INSERT INTO entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope, attempt)
                SELECT stream_id, version, version + $5 - 1, 'token', now(),
                    replace(replace($6, '00000000-0000-0000-0000-000000000000', stream_id::text),
                        '\"first_version\":1', '\"first_version\":' || version),
                    md5('attempt ' || i)::uuid
                FROM n
            )
            INSERT INTO log_entry (log_index, stream_id, first_version) SELECT $3 + i, stream_id, version FROM n";
        sqlx::query(made)
            .bind(i64::try_from(done)?)
            .bind(i64::try_from(until)?)
            .bind(first)
            .bind(i64::try_from(LIFE)?)
            .bind(i64::try_from(EVENTS)?)
            .bind(&envelope)
            .execute(&mut connection)
            .await
            .context("history can't be made")?;
        done = until;
        bar.set_position(done);
    }
    bar.finish_and_clear();
    eprintln!("history: {entries} entries in {:.1} s", begun.elapsed().as_secs_f64());
    // Views begin after it: they would only learn of tokens that are gone.
    let next = first + i64::try_from(entries)?;
    for update in ["UPDATE sequencer SET next_index = $1", "UPDATE view_checkpoint SET next_index = $1"] {
        sqlx::query(update).bind(next).execute(&mut connection).await?;
    }
    sqlx::query("VACUUM ANALYZE entry, log_entry").execute(&mut connection).await?;
    sqlx::query("CHECKPOINT").execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Events of the ledger: of each entry, from its first version to its last.
pub(crate) async fn count(superuser: &PgConnectOptions) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect_with(superuser).await?;
    let count: i64 = sqlx::query_scalar("SELECT sum(last_version - first_version + 1)::bigint FROM entry")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(u64::try_from(count)?)
}

/// An envelope of a renewal's size; its `join.accepted` is stood in for by its length.
fn example() -> anyhow::Result<String> {
    let challenge = ChallengeId(Uuid::from_u128(1));
    let instance = InstanceId(Uuid::from_u128(2));
    let events = vec![
        Event::ChallengeSolved(ChallengeSolved { challenge }),
        Event::ChallengeSolved(ChallengeSolved { challenge }),
        Event::ChallengeSolved(ChallengeSolved { challenge }),
        Event::GenerationBumped(GenerationBumped { instance, generation: 2 }),
    ];
    let now = chrono::Utc::now();
    // The address is as long as the rest of a real one: 1 624 bytes in all, as the mean of a fleet's history.
    let origin = Origin { actor: "bot-fleet".to_owned(), address: Some("x".repeat(960)), ..Origin::default() };
    let stream = StreamId { kind: StreamKind::Token, id: Uuid::nil() };
    Ok(Entry { stream, first_version: 1, events, decided_at: now, recorded_at: now, origin }.to_envelope()?)
}
