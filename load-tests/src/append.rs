//! The append path alone, at 256 joins waiting: the service's own, one transaction for each join in two forms, and
//! `cqrs-es` with `postgres-es` in a process of its own. The content of a join is the same in all of them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use chrono::TimeDelta;
use join_domain::{
    envelope::{Entry, Origin, StreamId},
    event::{
        ChallengeIssued, ChallengePurpose, ChallengeSolved, ClientCertificate, Event, GenerationBumped, JoinAccepted,
        JoinCase, JoinStateSeen, Sighting,
    },
    id::{AttemptHash, ChallengeId, Name},
    state::{State, TokenState},
};
use join_embedded::Cluster;
use join_ledger::{AppendError, Change, Ledger, PgConnectOptions, Settings, provision};
use serde::Deserialize;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _, postgres::PgPoolOptions};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use crate::{
    authority::{postgres_of, postgres_settings, private_postgres, superuser},
    ceremony::JoinError,
    import::{Import, import, token_id, token_name},
    key::scrambled,
    measured::{Cpu, Measured},
    pace::{Load, Plan, Watched, drive},
    process::to_f64,
};

const SEED: u64 = 11;
/// Streams that joins are drawn from.
pub(crate) const TOKENS: u64 = 20_000;
/// Joins that wait at once.
pub(crate) const WAITING: u64 = 256;
/// Events of a renewal.
const EVENTS: u64 = 4;
/// Connections of those that don't group.
const CONNECTIONS: u32 = 16;

/// A PostgreSQL with a database to copy for each run: every run begins with the same tokens and no joins, in memory
/// that the run before has given back.
pub(crate) struct Bench {
    cluster: Cluster,
    /// Where the numbers of joins begin, which say whose token is next: the same in each run of a seed.
    first: u64,
    /// The baseline's program, when it was built.
    baseline: Option<PathBuf>,
    /// Events of the tokens that each run begins with: the ledger's, and the library's.
    events: [u64; 2],
}

/// How many events there are, in the ledger's entries and in the library's table.
const COUNT: [&str; 2] =
    ["SELECT sum(last_version - first_version + 1)::bigint FROM entry", "SELECT count(*) FROM events"];

/// What the databases of runs are copied from: the ledger with tokens, the same with each state in its guard row, the
/// library's tables with tokens, one table.
const LEDGER: &str = "ledger_template";
const ONE_ROW: &str = "one_row_template";
const LIBRARY: &str = "library_template";
const PGBENCH: &str = "pgbench_template";
/// The database of a run.
const RUN: &str = "run";

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// The ledger's group commit.
    Ledger {
        /// How many writers.
        writers: usize,
        /// True when order and views follow meanwhile, as in the service.
        followed: bool,
    },
    /// One transaction for each join: the guard row read, a row for each event, the guard row written.
    OneTransaction,
    /// One transaction for each join, with exactly the ledger's rows.
    OneTransactionSameRows,
}

impl Bench {
    pub(crate) async fn prepare(baseline: Option<PathBuf>, seed: u64) -> anyhow::Result<Self> {
        // Twelve hexadecimal digits hold it and all that follow.
        let first = scrambled(seed) >> 24;
        let mut bench =
            Self { cluster: private_postgres(&postgres_settings()).await?, first, baseline, events: [0; 2] };
        provision::provision(&bench.superuser("postgres"), LEDGER).await?;
        let tokens = Import { seed: SEED, first: 0, count: TOKENS, joined: true };
        import(&bench.superuser(LEDGER), tokens).await?;
        bench.bring_views_forward().await?;
        bench.events[0] = bench.count(LEDGER, COUNT[0]).await?;
        bench.administer(&[format!("CREATE DATABASE {LIBRARY}"), format!("CREATE DATABASE {PGBENCH}")]).await?;
        let mut pgbench = PgConnection::connect_with(&bench.superuser(PGBENCH)).await?;
        let table = "CREATE TABLE row (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text NOT NULL)";
        sqlx::query(table).execute(&mut pgbench).await?;
        pgbench.close().await?;
        bench.put_states_into_guard_rows().await?;
        if let Some(program) = &bench.baseline {
            let url = bench.cluster.address().url("postgres", LIBRARY);
            let made = Command::new(program).args(["prepare", &url, &TOKENS.to_string()]).status()?;
            ensure!(made.success(), "the baseline can't make its tables");
            bench.events[1] = bench.count(LIBRARY, COUNT[1]).await?;
        }
        Ok(bench)
    }

    async fn count(&self, database: &str, query: &'static str) -> anyhow::Result<u64> {
        let mut connection = PgConnection::connect_with(&self.superuser(database)).await?;
        let count: i64 = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(u64::try_from(count)?)
    }

    /// The books of a run: all events of each join that was acknowledged are stored, and no others.
    async fn verify(&self, what: &str, [before, acknowledged]: [u64; 2], query: &'static str) -> anyhow::Result<()> {
        let added = self.count(RUN, query).await? - before;
        let expected = acknowledged * EVENTS;
        ensure!(added == expected, "{what}: {added} events were added, and {expected} were acknowledged");
        Ok(())
    }

    /// What was imported is in the views before anything is measured.
    async fn bring_views_forward(&self) -> anyhow::Result<()> {
        let ledger = self.ledger(LEDGER, 1).await?;
        let stop = CancellationToken::new();
        let [order, views] = follow(&ledger, &stop);
        loop {
            let positions = ledger.positions().await?;
            if positions.unsequenced == 0 && positions.views == positions.next_index {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.cancel();
        tokio::try_join!(order, views)?;
        ledger.close().await;
        Ok(())
    }

    async fn ledger(&self, database: &str, writers: usize) -> anyhow::Result<Ledger> {
        let options = self.superuser(database).username(provision::SERVICE);
        Ok(Ledger::connect(options, Settings { writers, ..Settings::default() }).await?)
    }

    /// Who appends one by one reads the state for each join and writes it with each, so it stands where version and state
    /// are one row.
    async fn put_states_into_guard_rows(&self) -> anyhow::Result<()> {
        self.administer(&[format!("CREATE DATABASE {ONE_ROW} TEMPLATE {LEDGER} OWNER {}", provision::OWNER)]).await?;
        let mut connection = PgConnection::connect_with(&self.superuser(ONE_ROW)).await?;
        for statement in [
            "ALTER TABLE stream ADD COLUMN state text",
            "UPDATE stream s SET state = p.state FROM snapshot p WHERE p.stream_id = s.stream_id",
            "VACUUM FULL stream",
        ] {
            sqlx::query(statement).execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    }

    fn superuser(&self, database: &str) -> PgConnectOptions {
        superuser(&self.cluster, database)
    }

    async fn administer(&self, statements: &[String]) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect_with(&self.superuser("postgres")).await?;
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    }

    /// The database of a run in place of the last one's, just after a checkpoint.
    async fn begin(&self, template: &str) -> anyhow::Result<()> {
        let drop = format!("DROP DATABASE IF EXISTS {RUN} WITH (FORCE)");
        let create = format!("CREATE DATABASE {RUN} TEMPLATE {template} OWNER {}", provision::OWNER);
        self.administer(&[drop, create, "CHECKPOINT".to_owned()]).await
    }

    fn watched(&self) -> anyhow::Result<Watched> {
        Ok(Watched { postgres: Some(postgres_of(&self.cluster)?), ..Watched::default() })
    }

    /// One run of one strategy.
    pub(crate) async fn run(&self, strategy: Strategy, measured: Duration) -> anyhow::Result<Measured> {
        let plan = Plan { load: Load::Closed(WAITING), warm_up: Duration::from_secs(1), measured };
        let watched = self.watched()?;
        let first = self.first;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&acknowledged);
        let count = move |outcome: Result<(), JoinError>| {
            counted.fetch_add(u64::from(outcome.is_ok()), Ordering::Relaxed);
            outcome
        };
        self.begin(if matches!(strategy, Strategy::Ledger { .. }) { LEDGER } else { ONE_ROW }).await?;
        let done = match strategy {
            Strategy::Ledger { writers, followed } => {
                let ledger = self.ledger(RUN, writers).await?;
                // What is measured is the append, of tokens that the node knows.
                for number in 0..TOKENS {
                    ledger.token(&token_name(number).parse()?).await?;
                }
                let stop = CancellationToken::new();
                let followers = if followed { follow(&ledger, &stop).into() } else { Vec::new() };
                let appender = ledger.clone();
                let writers = if writers == 1 { "1 writer".to_owned() } else { format!("{writers} writers") };
                let views = if followed { ", with its views" } else { "" };
                let what = format!("append: the ledger, {writers}{views}");
                let done = drive(&what, plan, &watched, move |number| {
                    let (ledger, count) = (appender.clone(), count.clone());
                    async move { count(append(&ledger, first + number).await) }
                })
                .await?;
                stop.cancel();
                for follower in followers {
                    follower.await?;
                }
                ledger.close().await;
                done
            }
            Strategy::OneTransaction | Strategy::OneTransactionSameRows => {
                let same_rows = strategy == Strategy::OneTransactionSameRows;
                let what = if same_rows { "append: one transaction, same rows" } else { "append: one transaction" };
                // As the ledger's own pool, it takes a connection as it is.
                let pool = PgPoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false);
                let pool = pool.acquire_timeout(Duration::from_secs(30)).connect_with(self.superuser(RUN)).await?;
                let appender = pool.clone();
                let done = drive(what, plan, &watched, move |number| {
                    let (pool, count) = (appender.clone(), count.clone());
                    async move { count(transact(&pool, first + number, same_rows).await) }
                })
                .await?;
                pool.close().await;
                done
            }
        };
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        self.verify(&done.what, [self.events[0], acknowledged], COUNT[0]).await?;
        Ok(done)
    }

    /// One run of the baseline; none when it was not built.
    pub(crate) async fn run_baseline(&self, measured: Duration) -> anyhow::Result<Option<Measured>> {
        let Some(program) = self.baseline.clone() else { return Ok(None) };
        self.begin(LIBRARY).await?;
        let postgres = postgres_of(&self.cluster)?;
        let url = self.cluster.address().url("postgres", RUN);
        let before = postgres.cpu_us();
        let first = self.first;
        let run = move || {
            let numbers = [TOKENS, WAITING, measured.as_secs(), first].map(|number| number.to_string());
            Command::new(program).arg("run").arg(url).args(numbers).stderr(Stdio::inherit()).output()
        };
        let output = tokio::task::spawn_blocking(run).await??;
        ensure!(output.status.success(), "the baseline failed");
        let outcome: BaselineOutcome = serde_json::from_slice(&output.stdout).context("what the baseline prints")?;
        let what = "append: cqrs-es and postgres-es";
        self.verify(what, [self.events[1], outcome.all_appended], COUNT[1]).await?;
        let joins = to_f64(outcome.all_joins.max(1));
        let refusals = [("CONFLICT".to_owned(), outcome.conflicts)];
        Ok(Some(Measured {
            what: what.to_owned(),
            load: format!("closed, {WAITING} at once"),
            seconds: measured.as_secs_f64(),
            joins: outcome.joins,
            joins_per_s: outcome.joins_per_s,
            p50_ms: outcome.p50_ms,
            p90_ms: outcome.p90_ms,
            p99_ms: outcome.p99_ms,
            p999_ms: outcome.p999_ms,
            max_ms: outcome.max_ms,
            refusals: refusals.into_iter().filter(|(_, count)| *count > 0).collect(),
            made: outcome.all_joins,
            handshakes: None,
            cpu: Cpu {
                joind_us: None,
                postgres_us: Some((postgres.cpu_us() - before) / joins),
                generator_us: Some(outcome.cpu_us / joins),
            },
            timeline: Vec::new(),
            percentiles: Vec::new(),
        }))
    }

    /// pgbench: durable inserts of one row of a join's size; transactions a second. None when there is no pgbench.
    pub(crate) async fn run_pgbench(&self, measured: Duration, program: &Path) -> anyhow::Result<Option<f64>> {
        self.begin(PGBENCH).await?;
        let directory = tempfile::tempdir()?;
        let script = directory.path().join("insert.sql");
        std::fs::write(&script, "INSERT INTO row (payload) VALUES (repeat('x', 1800));\n")?;
        let address = self.cluster.address();
        let mut command = Command::new(program);
        command
            .args(["--no-vacuum", "--protocol=prepared", "--client=16", "--jobs=2", "--username=postgres"])
            .arg(format!("--time={}", measured.as_secs()))
            .arg(format!("--host={}", address.socket_dir().display()))
            .arg(format!("--port={}", address.port()))
            .arg("--file")
            .arg(&script)
            .arg(RUN);
        let output = match tokio::task::spawn_blocking(move || command.output()).await? {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        Ok(Some(rate.with_context(|| format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)))?))
    }
}

#[derive(Deserialize)]
struct BaselineOutcome {
    joins: u64,
    joins_per_s: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    conflicts: u64,
    all_joins: u64,
    all_appended: u64,
    cpu_us: f64,
}

/// The log's order and the views follow, as in the service.
fn follow(ledger: &Ledger, stop: &CancellationToken) -> [AbortOnDropHandle<()>; 2] {
    let (ordered, viewed) = (ledger.clone(), ledger.clone());
    let (stop_order, stop_views) = (stop.clone(), stop.clone());
    let order = tokio::spawn(async move { ordered.run_sequencer(stop_order).await });
    let views = tokio::spawn(async move { viewed.run_views(stop_views).await });
    [order, views].map(AbortOnDropHandle::new)
}

/// Through the ledger, as the service appends a renewal.
async fn append(ledger: &Ledger, number: u64) -> Result<(), JoinError> {
    let broken = |error: &dyn std::fmt::Display| JoinError::Broken(error.to_string());
    let name: Name = token_name(drawn(number)).parse().map_err(|error| broken(&error))?;
    let mut slot = ledger.token(&name).await.map_err(|error| broken(&error))?;
    let known = slot.known().ok_or_else(|| broken(&"an imported token is missing"))?;
    let (events, attempt) = renewal(&known.token, number);
    let change = Change { events, decided_at: ledger.now(), origin: origin(attempt) };
    let append = known.following(change).using_up(Some(attempt));
    match slot.append(append).await {
        Ok(_) => Ok(()),
        Err(AppendError::Conflict) => Err(JoinError::Refused("CONFLICT".to_owned())),
        Err(error) => Err(broken(&error)),
    }
}

/// In a transaction of its own, as event stores without groups do it.
async fn transact(pool: &PgPool, number: u64, same_rows: bool) -> Result<(), JoinError> {
    match try_transact(pool, number, same_rows).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(JoinError::Refused("CONFLICT".to_owned())),
        Err(error) if is_conflict(&error) => Err(JoinError::Refused("CONFLICT".to_owned())),
        Err(error) => Err(JoinError::Broken(format!("{error:#}"))),
    }
}

/// Another join of the stream was first: its version exists by now, or PostgreSQL chose it.
fn is_conflict(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref().and_then(sqlx::Error::as_database_error).and_then(|error| error.code());
    code.is_some_and(|code| ["23505", "40001", "40P01"].contains(&code.as_ref()))
}

async fn try_transact(pool: &PgPool, number: u64, same_rows: bool) -> anyhow::Result<bool> {
    let stream = StreamId::from(token_id(SEED, drawn(number)));
    let mut transaction = pool.begin().await?;
    let row = sqlx::query("SELECT version, state FROM stream WHERE stream_id = $1");
    let row = row.bind(stream.id).fetch_one(&mut *transaction).await?;
    let (version, text): (i64, String) = (row.try_get("version")?, row.try_get("state")?);
    let before: State = serde_json::from_str(&text)?;
    let State::Token(token) = &before else { anyhow::bail!("{stream} is no token") };
    let (events, attempt) = renewal(token, number);
    let first_version = u64::try_from(version)? + 1;
    let now = chrono::Utc::now();
    let entry = Entry { stream, first_version, events, decided_at: now, recorded_at: now, origin: origin(attempt) };
    let instance = token.instance().map(|instance| instance.0);
    let after = State::after(Some(before), &entry)?;
    let last_version = i64::try_from(entry.last_version())?;

    let parts = if same_rows { vec![entry] } else { one_by_one(&entry) };
    for part in &parts {
        let used_up = part.events.iter().any(|event| matches!(event, Event::JoinAccepted(_)));
        sqlx::query(
            "INSERT INTO entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope, attempt)
             VALUES ($1, $2, $3, 'token', $4, $5, $6)",
        )
        .bind(stream.id)
        .bind(i64::try_from(part.first_version)?)
        .bind(i64::try_from(part.last_version())?)
        .bind(now)
        .bind(part.to_envelope()?)
        .bind(used_up.then(|| attempt.key()))
        .execute(&mut *transaction)
        .await?;
    }
    if same_rows {
        let note = sqlx::query("INSERT INTO outbox (stream_ids, first_versions) VALUES (ARRAY[$1], ARRAY[$2])");
        note.bind(stream.id).bind(i64::try_from(first_version)?).execute(&mut *transaction).await?;
    }
    let moved = sqlx::query(
        "UPDATE stream SET version = $3, instance_id = $4, state = $5 WHERE stream_id = $1 AND version = $2",
    )
    .bind(stream.id)
    .bind(version)
    .bind(last_version)
    .bind(instance)
    .bind(serde_json::to_string(&after)?)
    .execute(&mut *transaction)
    .await;
    match moved {
        Ok(done) if done.rows_affected() == 1 => {
            transaction.commit().await?;
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn one_by_one(entry: &Entry) -> Vec<Entry> {
    (entry.first_version..)
        .zip(&entry.events)
        .map(|(first_version, event)| Entry { first_version, events: vec![event.clone()], ..entry.clone() })
        .collect()
}

fn origin(attempt: AttemptHash) -> Origin {
    Origin {
        actor: "bot-fleet".to_owned(),
        address: Some("127.0.0.1:40000".to_owned()),
        attempt: Some(attempt),
        request: Some("00000000-000001".to_owned()),
        trace: None,
    }
}

/// The events of a renewal.
fn renewal(token: &TokenState, number: u64) -> (Vec<Event>, AttemptHash) {
    let now = chrono::Utc::now();
    let attempt =
        AttemptHash::from_bytes([[0; 8], [0; 8], [0; 8], number.to_be_bytes()].concat().try_into().expect("32 bytes"));
    let challenge = ChallengeId(Uuid::from_u64_pair(number, scrambled(number)));
    let latest = &token.latest().expect("imported tokens have joined").join;
    let generation = latest.generation + 1;
    let certificate = ClientCertificate {
        token: token.id,
        bot: token.spec.bot_name.clone(),
        instance: latest.instance,
        generation: latest.generation,
        serial: latest.serial.clone(),
    };
    let join_state = JoinStateSeen::Authentic {
        bot: token.spec.bot_name.to_string(),
        token: Some(token.id),
        instance: latest.instance,
        sequence: token.recovery_count,
    };
    let accepted = JoinAccepted {
        case: JoinCase::Renewal,
        generation,
        previous_instance: None,
        serial: hex::encode(u128::from(number).to_be_bytes()),
        not_before: now,
        not_after: now + TimeDelta::hours(1),
        subject_keys: "J5DU8jBZ2oW6LhXfQx1o2q0u7l3k9m4nJ5DU8jBZ2oW".to_owned(),
        attempt: Some(attempt),
        seen: Sighting { certificate: Some(certificate), join_state },
        ..JoinAccepted::clone(latest)
    };
    let issued = ChallengeIssued { challenge, key: accepted.key.clone(), purpose: ChallengePurpose::Bound, at: now };
    let events = vec![
        Event::ChallengeIssued(issued),
        Event::ChallengeSolved(ChallengeSolved { challenge }),
        Event::GenerationBumped(GenerationBumped { instance: latest.instance, generation }),
        Event::JoinAccepted(accepted.into()),
    ];
    (events, attempt)
}

/// The token of a join: uniform, and the same in each run.
fn drawn(number: u64) -> u64 {
    scrambled(number) % TOKENS
}

/// The program pgbench beside PostgreSQL's own.
pub(crate) fn pgbench_program() -> PathBuf {
    match join_embedded::Binaries::find() {
        Ok(binaries) => binaries.directory().join("pgbench"),
        Err(_) => PathBuf::from("pgbench"),
    }
}
