//! The append path of a join as `cqrs-es` with `postgres-es` has it: one aggregate for each token, four events for each
//! renewal, one view. `joinload` runs it beside the service's own append path, as a process of its own.
//!
//! `baseline-cqrs prepare URL TOKENS` makes tables and tokens; `baseline-cqrs run URL TOKENS WAITING SECONDS FIRST` renews,
//! closed loop, after a second of warm-up, and prints one JSON object. Joins are numbered from FIRST on, and the number says
//! whose token it is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use cqrs_es::{
    Aggregate, AggregateError, DomainEvent, EventEnvelope, View, event_sink::EventSink, persist::GenericQuery,
};
use hdrhistogram::Histogram;
use postgres_es::{PostgresCqrs, PostgresViewRepository, default_postgress_pool, postgres_cqrs};
use serde::{Deserialize, Serialize};

/// As in the service.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const WARM_UP: Duration = Duration::from_secs(1);

/// As the library's documentation has them.
const TABLES: &str = "
CREATE TABLE events (aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    sequence bigint CHECK (sequence >= 0) NOT NULL, event_type text NOT NULL, event_version text NOT NULL,
    payload json NOT NULL, metadata json NOT NULL, PRIMARY KEY (aggregate_type, aggregate_id, sequence));
CREATE TABLE token_view (view_id text NOT NULL, version bigint CHECK (version >= 0) NOT NULL, payload json NOT NULL,
    PRIMARY KEY (view_id));";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Token {
    generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Event {
    ChallengeIssued {
        challenge: String,
        key: String,
        purpose: String,
        at: String,
    },
    ChallengeSolved {
        challenge: String,
    },
    GenerationBumped {
        instance: String,
        generation: u64,
    },
    /// The fields of the service's own event.
    JoinAccepted(Box<Accepted>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Accepted {
    case: String,
    instance: String,
    generation: u64,
    recovery_count: u32,
    recovery_limit: u32,
    recovery_mode: String,
    key: String,
    serial: String,
    not_before: String,
    not_after: String,
    roles: Vec<String>,
    principals: Vec<String>,
    subject_keys: String,
    attempt: String,
    seen_token: String,
    seen_instance: String,
    seen_serial: String,
    seen_sequence: u32,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::ChallengeIssued { .. } => "challenge.issued",
            Self::ChallengeSolved { .. } => "challenge.solved",
            Self::GenerationBumped { .. } => "generation.bumped",
            Self::JoinAccepted(_) => "join.accepted",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

/// A renewal; the number makes its values its own.
struct Renew(u64);

#[derive(Debug)]
struct Never;

impl std::fmt::Display for Never {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("renewals are not refused here")
    }
}

impl std::error::Error for Never {}

impl Aggregate for Token {
    const TYPE: &'static str = "token";
    type Command = Renew;
    type Event = Event;
    type Error = Never;
    type Services = ();

    async fn handle(&mut self, Renew(number): Renew, (): &(), sink: &EventSink<Self>) -> Result<(), Never> {
        let id = |salt: u64| format!("{salt:08x}-0000-8000-8000-{number:012x}");
        let hash = |salt: u64| format!("{salt:016x}{number:048x}");
        let now = "2026-11-22T12:00:00.000000Z".to_owned();
        let generation = self.generation + 1;
        sink.write(
            Event::ChallengeIssued { challenge: id(1), key: hash(2), purpose: "bound".to_owned(), at: now.clone() },
            self,
        )
        .await;
        sink.write(Event::ChallengeSolved { challenge: id(1) }, self).await;
        sink.write(Event::GenerationBumped { instance: id(3), generation }, self).await;
        let accepted = Accepted {
            case: "renewal".to_owned(),
            instance: id(3),
            generation,
            recovery_count: 1,
            recovery_limit: 1,
            recovery_mode: "standard".to_owned(),
            key: hash(2),
            serial: format!("{number:032x}"),
            not_before: now.clone(),
            not_after: now,
            roles: vec!["Bot".to_owned()],
            principals: vec!["deploy".to_owned()],
            subject_keys: hash(4),
            attempt: hash(5),
            seen_token: id(6),
            seen_instance: id(3),
            seen_serial: format!("{number:032x}"),
            seen_sequence: 1,
        };
        sink.write(Event::JoinAccepted(Box::new(accepted)), self).await;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        if let Event::GenerationBumped { generation, .. } = event {
            self.generation = generation;
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct TokenView {
    generation: u64,
    serial: String,
    not_after: String,
}

impl View<Token> for TokenView {
    fn update(&mut self, event: &EventEnvelope<Token>) {
        if let Event::JoinAccepted(accepted) = &event.payload {
            self.generation = accepted.generation;
            self.serial.clone_from(&accepted.serial);
            self.not_after.clone_from(&accepted.not_after);
        }
    }
}

#[derive(Serialize)]
struct Outcome {
    /// In the measured time.
    joins: u64,
    joins_per_s: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    conflicts: u64,
    /// With the warm-up, conflicts included.
    all_joins: u64,
    /// With the warm-up, without conflicts.
    all_appended: u64,
    /// Of this process, with the warm-up.
    cpu_us: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["prepare", url, tokens] => prepare(url, tokens.parse()?).await,
        ["run", url, tokens, waiting, seconds, first] => {
            let measured = Duration::from_secs(seconds.parse()?);
            let outcome = run(url, tokens.parse()?, waiting.parse()?, measured, first.parse()?).await?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        _ => bail!("usage: baseline-cqrs prepare URL TOKENS | run URL TOKENS WAITING SECONDS FIRST"),
    }
}

/// Each token begins with one renewal, as the service's own do.
async fn prepare(url: &str, tokens: u64) -> anyhow::Result<()> {
    let pool = default_postgress_pool(url).await;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    let framework = framework(url).await;
    for token in 0..tokens.min(1) {
        framework.execute(&id_of(token), Renew(token)).await?;
    }
    // The library's own way would take minutes: the others are copies of the first.
    let first = id_of(0);
    for (table, columns) in [
        ("events", "aggregate_type, $2 || n, sequence, event_type, event_version, payload, metadata"),
        ("token_view", "$2 || n, version, payload"),
    ] {
        let key = if table == "events" { "aggregate_id" } else { "view_id" };
        let copy =
            format!("INSERT INTO {table} SELECT {columns} FROM {table}, generate_series(1, $3) n WHERE {key} = $1");
        sqlx::query(&copy).bind(&first).bind(id_prefix()).bind(i64::try_from(tokens)? - 1).execute(&pool).await?;
    }
    sqlx::raw_sql("VACUUM ANALYZE events, token_view").execute(&pool).await?;
    Ok(())
}

async fn run(url: &str, tokens: u64, waiting: u64, measured: Duration, first: u64) -> anyhow::Result<Outcome> {
    let framework = Arc::new(framework(url).await);
    let begin = Instant::now() + WARM_UP;
    let end = begin + measured;
    let workers: Vec<_> = (0..waiting)
        .map(|worker| tokio::spawn(renew(Arc::clone(&framework), first + worker, tokens, waiting, begin, end)))
        .collect();
    let mut sum = Joins::new()?;
    for worker in workers {
        let joins = worker.await??;
        sum.latencies.add(joins.latencies)?;
        sum.conflicts += joins.conflicts;
        sum.all += joins.all;
        sum.all_appended += joins.all_appended;
    }
    let Joins { latencies, conflicts, all: all_joins, all_appended } = sum;
    let joins = latencies.len();
    let ms = |micros: u64| f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0;
    Ok(Outcome {
        joins,
        joins_per_s: f64::from(u32::try_from(joins)?) / measured.as_secs_f64(),
        p50_ms: ms(latencies.value_at_quantile(0.5)),
        p90_ms: ms(latencies.value_at_quantile(0.9)),
        p99_ms: ms(latencies.value_at_quantile(0.99)),
        p999_ms: ms(latencies.value_at_quantile(0.999)),
        max_ms: ms(latencies.max()),
        conflicts,
        all_joins,
        all_appended,
        cpu_us: own_cpu_us()?,
    })
}

/// What joiners did.
struct Joins {
    /// Of joins in the measured time, µs.
    latencies: Histogram<u64>,
    /// In the measured time.
    conflicts: u64,
    /// With the warm-up.
    all: u64,
    /// The same, without conflicts.
    all_appended: u64,
}

impl Joins {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { latencies: Histogram::new(3)?, conflicts: 0, all: 0, all_appended: 0 })
    }
}

/// One joiner after another: each picks a token, by a generator that any run repeats.
async fn renew(
    framework: Arc<PostgresCqrs<Token>>,
    first: u64,
    tokens: u64,
    waiting: u64,
    begin: Instant,
    end: Instant,
) -> anyhow::Result<Joins> {
    let mut joins = Joins::new()?;
    let mut number = first;
    while Instant::now() < end {
        let token = id_of(scrambled(number) % tokens);
        let started = Instant::now();
        let outcome = framework.execute(&token, Renew(number)).await;
        // A join belongs where it ends, as in the closed loop of joinload.
        let ended = Instant::now();
        let measured = ended >= begin && ended < end;
        joins.all += 1;
        joins.all_appended += u64::from(outcome.is_ok());
        number += waiting;
        match outcome {
            Ok(()) if measured => joins.latencies.record(u64::try_from((ended - started).as_micros())?)?,
            Err(AggregateError::AggregateConflict) if measured => joins.conflicts += 1,
            Ok(()) | Err(AggregateError::AggregateConflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(joins)
}

async fn framework(url: &str) -> PostgresCqrs<Token> {
    let pool = default_postgress_pool(url).await;
    let views = Arc::new(PostgresViewRepository::<TokenView, Token>::new("token_view", pool.clone()));
    let mut query = GenericQuery::new(views);
    // Without a handler, the library drops errors of views.
    query.use_error_handler(Box::new(|error| eprintln!("the view failed: {error}")));
    postgres_cqrs(pool, vec![Box::new(query)], ())
}

fn id_prefix() -> &'static str {
    "00000000-0000-8000-8000-"
}

fn id_of(token: u64) -> String {
    format!("{}{token}", id_prefix())
}

/// SplitMix64: numbers that look drawn, the same in each run.
fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// User and system time (proc(5)), at the usual 100 ticks a second.
fn own_cpu_us() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("/proc/self/stat");
    Ok((ticks(11)? + ticks(12)?) * 10_000.0)
}
