//! Databases, ledgers, and the events of bots and tokens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use join_domain::{
    Timestamp,
    envelope::{Origin, StreamId},
    event::{
        BotCreated, Event, GenerationBumped, JoinAccepted, JoinCase, JoinStateSeen, KeypairBound, LockCreated,
        Sighting, TokenCreated,
    },
    id::{AttemptHash, BotId, InstanceId, LockId, Name, TokenId},
    key::PublicKey,
    resource::{BotSpec, LockTarget, Recovery, RecoveryMode, TokenSpec},
};
use join_ledger::{
    AppendError, Change, Ledger, PgConnectOptions, Settings, StreamAppend, TokenSlot,
    provision::{self, Provisioned},
};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

/// When something that takes a moment must have happened, so that a test which would wait for ever fails.
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn begin() -> Self {
        Self(Instant::now() + Duration::from_secs(60))
    }

    /// Before one looks again.
    pub(crate) async fn wait_for(&self, what: &str) {
        assert!(Instant::now() < self.0, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A database of one test; it goes when this does.
pub(crate) struct Database {
    superuser: PgConnectOptions,
    name: String,
    pub(crate) roles: Provisioned,
}

impl Database {
    pub(crate) async fn fresh() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let address = tokio::task::spawn_blocking(join_embedded::for_tests).await.unwrap();
        let superuser: PgConnectOptions = address.url("postgres", "postgres").parse().unwrap();
        let name = format!("ledger_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let roles = provision::fresh(&superuser, &name).await.unwrap();
        Self { superuser, name, roles }
    }

    /// Without any table.
    pub(crate) async fn without_schema() -> Self {
        let database = Self::fresh().await;
        let mut owner = PgConnection::connect_with(&database.superuser()).await.unwrap();
        for sql in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION pg_database_owner"] {
            sqlx::query(sql).execute(&mut owner).await.unwrap();
        }
        sqlx::query("GRANT USAGE ON SCHEMA public TO PUBLIC").execute(&mut owner).await.unwrap();
        database
    }

    pub(crate) async fn ledger(&self) -> Ledger {
        self.ledger_with(Settings::default()).await
    }

    pub(crate) async fn ledger_with(&self, settings: Settings) -> Ledger {
        Ledger::connect(self.roles.service.clone(), Settings { connections: 4, ..settings }).await.unwrap()
    }

    /// A connection past all privileges, for what only a test does.
    pub(crate) fn superuser(&self) -> PgConnectOptions {
        self.superuser.clone().database(&self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (superuser, name) = (self.superuser.clone(), self.name.clone());
        // The test's runtime is about to end: one of its own finishes the work.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(provision::remove(&superuser, &name))
        });
        let _ = removal.join();
    }
}

/// Ends a ledger, and waits until the server has counted what its connections did.
pub(crate) async fn until_counted(ledger: Ledger, superuser: &mut PgConnection) {
    ledger.close().await;
    drop(ledger);
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let deadline = Deadline::begin();
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut *superuser).await.unwrap() > 0 {
        deadline.wait_for("the server has counted").await;
    }
}

/// Has the server forget what it counted.
pub(crate) async fn count_anew(superuser: &mut PgConnection) {
    for sql in ["SELECT pg_stat_force_next_flush()", "SELECT pg_stat_reset()"] {
        sqlx::query(sql).execute(&mut *superuser).await.unwrap();
    }
}

/// Pages of a table and its indices that were looked at since.
pub(crate) async fn pages_of(table: &str, superuser: &mut PgConnection) -> i64 {
    let pages = "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_user_tables
                 WHERE relname = $1";
    sqlx::query_scalar(pages).bind(table).fetch_one(superuser).await.unwrap()
}

/// A clock that a test moves.
pub(crate) struct ManualClock(Arc<join_ledger::ManualClock>);

impl ManualClock {
    pub(crate) fn at(time: &str) -> Self {
        Self(Arc::new(join_ledger::ManualClock::new(time.parse().unwrap())))
    }

    pub(crate) fn advance_minutes(&self, minutes: i64) {
        self.0.advance(chrono::TimeDelta::minutes(minutes));
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { clock: Some(Arc::<join_ledger::ManualClock>::clone(&self.0)), ..Settings::default() }
    }
}

/// A guard row that a transaction of somebody else holds.
pub(crate) struct Blocked {
    connection: PgConnection,
    superuser: PgConnectOptions,
}

impl Blocked {
    pub(crate) async fn stream(database: &Database, id: Uuid) -> Self {
        let mut blocked = Self::begin(database).await;
        let lock = sqlx::query("SELECT FROM stream WHERE stream_id = $1 FOR UPDATE");
        lock.bind(id).execute(&mut blocked.connection).await.unwrap();
        blocked
    }

    /// Whatever the test takes in this transaction.
    pub(crate) async fn begin(database: &Database) -> Self {
        let superuser = database.superuser();
        let mut connection = PgConnection::connect_with(&superuser).await.unwrap();
        sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
        Self { connection, superuser }
    }

    pub(crate) async fn take(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(sql).execute(&mut self.connection).await.map(drop)
    }

    /// How many wait for a row, this one or another.
    pub(crate) async fn waiters(&self) -> i64 {
        let mut other = PgConnection::connect_with(&self.superuser).await.unwrap();
        let waiting = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        );
        waiting.fetch_one(&mut other).await.unwrap()
    }

    /// Waits until somebody waits for the row.
    pub(crate) async fn until_waiting(&self) {
        let deadline = Deadline::begin();
        while self.waiters().await == 0 {
            deadline.wait_for("somebody waits for the row").await;
        }
    }

    pub(crate) async fn release(mut self) {
        sqlx::query("COMMIT").execute(&mut self.connection).await.unwrap();
    }
}

/// Ids that a test can repeat.
pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn key(number: u8) -> PublicKey {
    PublicKey::from_ed25519([number; 32])
}

pub(crate) fn change(ledger: &Ledger, events: Vec<Event>) -> Change {
    let origin = Origin { actor: "admin/test".to_owned(), ..Origin::default() };
    Change { events, decided_at: ledger.now(), origin }
}

pub(crate) fn token_spec(bot: &str) -> TokenSpec {
    TokenSpec {
        roles: vec!["Bot".to_owned()],
        bot_name: name(bot),
        initial_public_key: None,
        must_register_before: None,
        recovery: Recovery::default(),
        rotate_after: None,
        labels: [("team".to_owned(), "infra".to_owned())].into(),
        expires: None,
    }
}

pub(crate) async fn create_bot(ledger: &Ledger, bot: &str, number: u128) -> BotId {
    let created = Event::BotCreated(BotCreated { name: name(bot), spec: BotSpec::default() });
    let bot = BotId(id(number));
    ledger.append(StreamAppend::begin(bot.into(), change(ledger, vec![created]))).await.unwrap();
    bot
}

pub(crate) fn token_created(ledger: &Ledger, token: &str, number: u128, bot: (&str, BotId)) -> StreamAppend {
    let spec = token_spec(bot.0);
    let created = Event::TokenCreated(TokenCreated { name: name(token), bot: bot.1, spec, secret: None });
    StreamAppend::begin(TokenId(id(number)).into(), change(ledger, vec![created]))
}

pub(crate) async fn create_token(ledger: &Ledger, token: &str, number: u128, bot: (&str, BotId)) -> TokenId {
    ledger.append(token_created(ledger, token, number, bot)).await.unwrap();
    TokenId(id(number))
}

/// A bot `example` with a token `example`, as most tests need them.
pub(crate) async fn example(ledger: &Ledger) -> TokenId {
    let bot = create_bot(ledger, "example", 1).await;
    create_token(ledger, "example", 2, ("example", bot)).await
}

pub(crate) fn attempt(number: u64) -> AttemptHash {
    AttemptHash::from_bytes([[0; 8], [0; 8], [0; 8], number.to_be_bytes()].concat().try_into().unwrap())
}

pub(crate) fn accepted(at: Timestamp, instance: u128, generation: u64, attempt: Option<AttemptHash>) -> Event {
    Event::JoinAccepted(Arc::new(JoinAccepted {
        case: if generation == 1 { JoinCase::FirstJoin } else { JoinCase::Renewal },
        instance: InstanceId(id(instance)),
        previous_instance: None,
        generation,
        recovery_count: 1,
        recovery_limit: 1,
        recovery_mode: RecoveryMode::Standard,
        key: key(1).fingerprint(),
        serial: format!("{instance:016x}{generation:016x}"),
        not_before: at,
        not_after: at + chrono::TimeDelta::hours(1),
        roles: vec!["deploy".to_owned()],
        principals: vec!["deploy".to_owned()],
        subject_keys: "subject".to_owned(),
        attempt,
        seen: Sighting { certificate: None, join_state: JoinStateSeen::Missing },
    }))
}

/// The first join of a token: it binds a key and begins an instance.
pub(crate) async fn first_join(ledger: &Ledger, token: &str, key: PublicKey, instance: u128) {
    let mut slot = ledger.token(&name(token)).await.unwrap();
    let events = vec![Event::KeypairBound(KeypairBound { key }), accepted(ledger.now(), instance, 1, None)];
    let append = slot.known().unwrap().following(change(ledger, events));
    slot.append(append).await.unwrap();
}

/// A renewal, as the slot knows the token.
pub(crate) async fn renew(ledger: &Ledger, slot: &mut TokenSlot, by: Option<AttemptHash>) -> Result<u64, AppendError> {
    let known = slot.known().unwrap();
    let latest = known.token.latest().unwrap();
    let generation = latest.join.generation + 1;
    let bumped = GenerationBumped { instance: latest.join.instance, generation };
    let joined = accepted(ledger.now(), latest.join.instance.0.as_u128(), generation, by);
    let append = known.following(change(ledger, vec![Event::GenerationBumped(bumped), joined])).using_up(by);
    slot.append(append).await.map(|_| generation)
}

/// All that locks the first join of the example, instance 77 with key 1.
pub(crate) fn every_target() -> [LockTarget; 4] {
    [
        LockTarget::JoinToken(name("example")),
        LockTarget::User(name("example")),
        LockTarget::BotInstanceId(InstanceId(id(77))),
        LockTarget::PublicKey(key(1).fingerprint()),
    ]
}

pub(crate) fn lock_created(ledger: &Ledger, number: u128, target: LockTarget) -> StreamAppend {
    let created = Event::LockCreated(LockCreated {
        target,
        message: "because".to_owned(),
        expires: None,
        cause: None,
        by: "admin/test".to_owned(),
    });
    StreamAppend::begin(LockId(id(number)).into(), change(ledger, vec![created]))
}

pub(crate) fn stream(token: TokenId) -> StreamId {
    token.into()
}
