//! Tokens in bulk, written into the ledger's tables as the service itself would have left them: entries, guard rows,
//! snapshots, claims and the log's order. `joind rebuild --check` finds no difference.

use anyhow::{Context as _, ensure};
use aws_lc_rs::digest;
use chrono::{SubsecRound as _, TimeDelta};
use join_domain::{
    Timestamp,
    envelope::{Entry, Origin, StreamId},
    event::{
        BotCreated, Event, JoinAccepted, JoinCase, JoinStateSeen, KeypairBound, RecoveryConsumed, Sighting,
        TokenCreated,
    },
    id::{BotId, InstanceId, Name, TokenId},
    key::PublicKey,
    resource::{BotSpec, Recovery, RecoveryMode, TokenSpec},
    state::State,
};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::key::BoundKey;

/// Tokens of one bot.
const TOKENS_OF_A_BOT: u64 = 1000;
/// Streams that are sent to PostgreSQL at once.
const CHUNK: u64 = 5000;

/// Which tokens are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Import {
    pub(crate) seed: u64,
    /// Number of the first; tokens of two imports must not meet.
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// True when they have joined once, though nobody has their certificates: for the append path alone.
    pub(crate) joined: bool,
}

/// The name of a token.
pub(crate) fn token_name(number: u64) -> String {
    format!("t{number:08}")
}

/// The id of a token.
pub(crate) fn token_id(seed: u64, number: u64) -> TokenId {
    TokenId(uuid_of("token", seed, number))
}

fn uuid_of(what: &str, seed: u64, number: u64) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(what.as_bytes());
    context.update(&seed.to_be_bytes());
    context.update(&number.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Rows of the tables, in PostgreSQL's text form.
#[derive(Default)]
struct Rows {
    entries: String,
    streams: String,
    snapshots: String,
    claims: String,
    log: String,
}

/// Makes them.
pub(crate) async fn import(superuser: &PgConnectOptions, import: Import) -> anyhow::Result<()> {
    ensure!(import.first.is_multiple_of(TOKENS_OF_A_BOT), "tokens are imported in whole bots");
    let mut connection = PgConnection::connect_with(superuser).await?;
    let bar = indicatif::ProgressBar::new(import.count);
    bar.set_style(indicatif::ProgressStyle::with_template("importing tokens [{bar:30}] {human_pos} {per_sec}")?);
    let mut number = import.first;
    let end = import.first + import.count;
    while number < end {
        let until = end.min(number + CHUNK);
        let mut transaction = connection.begin().await?;
        // Whoever holds this row gives places in the log; a node that runs waits for it.
        let lock = sqlx::query_scalar("SELECT next_index FROM sequencer FOR UPDATE");
        let index: i64 = lock.fetch_one(&mut *transaction).await?;
        let (rows, index) = tokio::task::spawn_blocking(move || rows(import, number, until, index)).await??;
        for (copy, text) in [
            (
                "COPY entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope) FROM STDIN",
                rows.entries,
            ),
            ("COPY stream (stream_id, kind, version, fence, name, live, bot_id, instance_id) FROM STDIN", rows.streams),
            ("COPY snapshot (stream_id, version, state) FROM STDIN", rows.snapshots),
            ("COPY claim (namespace, value, stream_id) FROM STDIN", rows.claims),
            ("COPY log_entry (log_index, stream_id, first_version) FROM STDIN", rows.log),
        ] {
            let mut sink = transaction.copy_in_raw(copy).await?;
            sink.send(text.as_bytes()).await?;
            sink.finish().await?;
        }
        sqlx::query("UPDATE sequencer SET next_index = $1").bind(index).execute(&mut *transaction).await?;
        transaction.commit().await?;
        number = until;
        bar.set_position(number - import.first);
    }
    bar.finish_and_clear();
    sqlx::query("VACUUM ANALYZE entry, stream, snapshot, claim, log_entry").execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

fn rows(import: Import, from: u64, until: u64, mut index: i64) -> anyhow::Result<(Rows, i64)> {
    let mut rows = Rows::default();
    // Entries know microseconds, and the state is their fold.
    let now = chrono::Utc::now().trunc_subsecs(6);
    for number in from..until {
        let bot_number = number / TOKENS_OF_A_BOT;
        let bot = BotId(uuid_of("bot", import.seed, bot_number));
        let bot_name: Name = format!("fleet-{bot_number:05}").parse()?;
        if number.is_multiple_of(TOKENS_OF_A_BOT) {
            let created = BotCreated {
                name: bot_name.clone(),
                spec: BotSpec {
                    roles: vec!["deployer".to_owned()],
                    traits: [("logins".to_owned(), vec!["deploy".to_owned()])].into(),
                    ..BotSpec::default()
                },
            };
            rows.push(bot.into(), vec![Event::BotCreated(created)], now, &mut index)?;
        }
        let key = PublicKey::from_ed25519(BoundKey::of(import.seed, number, 0)?.public());
        let mut events = vec![Event::TokenCreated(TokenCreated {
            name: token_name(number).parse()?,
            bot,
            spec: token_spec(bot_name, key.clone()),
            secret: None,
        })];
        if import.joined {
            let instance = InstanceId(uuid_of("instance", import.seed, number));
            events.extend(first_join(key, instance, now));
        }
        rows.push(token_id(import.seed, number).into(), events, now, &mut index)?;
    }
    Ok((rows, index))
}

/// Its key is preregistered, and it may recover as often as a run wants.
fn token_spec(bot_name: Name, key: PublicKey) -> TokenSpec {
    TokenSpec {
        roles: vec!["Bot".to_owned()],
        bot_name,
        initial_public_key: Some(key),
        must_register_before: None,
        recovery: Recovery { mode: RecoveryMode::Standard, limit: 1_000_000 },
        rotate_after: None,
        labels: [("fleet".to_owned(), "load".to_owned())].into(),
        expires: None,
    }
}

fn first_join(key: PublicKey, instance: InstanceId, now: Timestamp) -> [Event; 3] {
    let accepted = JoinAccepted {
        case: JoinCase::FirstJoin,
        instance,
        previous_instance: None,
        generation: 1,
        recovery_count: 1,
        recovery_limit: 1_000_000,
        recovery_mode: RecoveryMode::Standard,
        key: key.fingerprint(),
        serial: instance.0.simple().to_string(),
        not_before: now,
        not_after: now + TimeDelta::hours(1),
        roles: vec!["deployer".to_owned()],
        principals: vec!["deploy".to_owned()],
        subject_keys: String::new(),
        attempt: None,
        seen: Sighting { certificate: None, join_state: JoinStateSeen::Missing },
    };
    [
        Event::KeypairBound(KeypairBound { key }),
        Event::RecoveryConsumed(RecoveryConsumed { count: 1 }),
        Event::JoinAccepted(accepted.into()),
    ]
}

impl Rows {
    fn push(&mut self, stream: StreamId, events: Vec<Event>, now: Timestamp, index: &mut i64) -> anyhow::Result<()> {
        use std::fmt::Write as _;
        let origin = Origin { actor: "admin/joinload".to_owned(), ..Origin::default() };
        let entry = Entry { stream, first_version: 1, events, decided_at: now, recorded_at: now, origin };
        let state = State::after(None, &entry)?;
        let (bot, instance) = match &state {
            State::Token(token) => (Some(token.bot.0), token.instance().map(|instance| instance.0)),
            _ => (None, None),
        };
        let or_null = |id: Option<Uuid>| id.map_or_else(|| r"\N".to_owned(), |id| id.to_string());
        let (id, kind, version) = (stream.id, stream.kind.as_str(), entry.last_version());
        let time = now.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let envelope = escaped(&entry.to_envelope()?);
        writeln!(self.entries, "{id}\t1\t{version}\t{kind}\t{time}\t{envelope}")?;
        let name = state.name().context("what is imported has a name")?;
        let json = escaped(&serde_json::to_string(&state)?);
        let (bot, instance) = (or_null(bot), or_null(instance));
        writeln!(self.streams, "{id}\t{kind}\t{version}\t0\t{name}\tt\t{bot}\t{instance}")?;
        writeln!(self.snapshots, "{id}\t{version}\t{json}")?;
        for claim in state.claims() {
            writeln!(self.claims, "{}\t{}\t{id}", claim.namespace.as_str(), claim.value)?;
        }
        writeln!(self.log, "{index}\t{id}\t1")?;
        *index += 1;
        Ok(())
    }
}

/// Text as COPY takes it.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('\t', r"\t").replace('\n', r"\n").replace('\r', r"\r")
}
