//! The ledger of one node.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use join_domain::{Timestamp, envelope::StreamId, id::Name, state::State};
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use crate::{
    Append, AppendError, Clock, KnownToken, LedgerError, Settings, Stored, TokenSlot,
    append::{Prepared, PreparedAppend},
    cache::{self, Tokens},
    clock::DatabaseClock,
    fitness,
    lease::{self, ASK_AFTER, Lease},
    reader::Reader,
    recent::Recent,
    row::ServerRun,
    transaction,
    writer::Writer,
};

/// What PostgreSQL is told for each connection. When this node falls silent, locks that it holds must not stop the other
/// nodes for long. And nothing is compiled: for a page of the log that took half a second, and reading it 50 ms.
const SESSION: [(&str, &str); 5] = [
    ("jit", "off"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// A statement is planned once for each connection. Planning the one that reads a token takes five times as long as reading.
const GENERIC: (&str, &str) = ("plan_cache_mode", "force_generic_plan");

/// Connections of those who follow the log: the sequencer, and the views.
const FOLLOWERS: u32 = 2;

/// Connections, at most, of those who ask from another runtime than that of the joins. PostgreSQL gives as much to who reads
/// a whole history as to who joins, so few read at once.
const ELSEWHERE: u32 = 2;

/// How long who still asks for something is waited for at the end.
const TO_CLOSE: Duration = Duration::from_secs(5);

/// The ledger of one node. Clones share everything; when the last one is gone, all work in the background ends.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    /// Where it was connected, and joins are made.
    home: Handle,
    pool: PgPool,
    elsewhere: PgPool,
    followers: PgPool,
    reader: Reader,
    writers: Vec<Writer>,
    tokens: Tokens,
    recent: Recent,
    clock: Arc<dyn Clock>,
    node: String,
    appended: Arc<Notify>,
    settled: watch::Sender<u64>,
    stop: CancellationToken,
    _stop_at_drop: DropGuard,
}

impl Ledger {
    /// Connects as the service's role, and makes sure that database and privileges are fit.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] when there is no connection, [`LedgerError::Unfit`] says what to do first.
    pub async fn connect(options: PgConnectOptions, settings: Settings) -> Result<Self, LedgerError> {
        let options = options.application_name(&settings.node).options(SESSION);
        let mut connection = PgConnection::connect_with(&options).await?;
        fitness::check(&mut connection).await?;
        let measured = Arc::new(DatabaseClock::measure(&mut connection).await?);
        connection.close().await?;

        let pooled = |connections: u32| {
            PgPoolOptions::new().max_connections(connections.max(1)).acquire_timeout(settings.acquire_timeout)
        };
        let reading = options.clone().options([GENERIC]);
        let pool = pooled(settings.connections)
            // A connection that was in use a moment ago is taken as it is; if it broke since, the read fails, and is
            // made again: that of a join by the reader, others by who asked.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > ASK_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(reading.clone());
        let elsewhere = pooled(ELSEWHERE)
            .after_connect(|connection, _| Box::pin(lease::ends_with_us(connection)))
            .connect_lazy_with(reading);
        // A step looks for few rows in tables that may be large, whatever their statistics say: it goes by their indices.
        let by_index = options.clone().options([("enable_seqscan", "off")]);
        let followers = pooled(FOLLOWERS).connect_lazy_with(by_index);
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&measured).keep_fresh(pool.clone(), stop.clone()));

        // A plan made for one batch's values, or while tables were small, must not scan them for the next, and guard rows
        // are taken in the order of the arrays only when they are looked up one by one.
        let writing =
            options.options([GENERIC, ("enable_seqscan", "off"), ("statement_timeout", "8s"), ("lock_timeout", "1s")]);
        let clock = settings.clock.unwrap_or(measured);
        let start = |_| Writer::start(writing.clone(), settings.queue, settings.batch);
        let inner = Inner {
            writers: (0..settings.writers.max(1)).map(start).collect(),
            tokens: Tokens::new(settings.cache_bytes),
            recent: Recent::default(),
            reader: Reader::start(pool.clone(), Arc::clone(&clock)),
            clock,
            node: settings.node,
            appended: Arc::default(),
            settled: watch::Sender::new(0),
            home: Handle::current(),
            pool,
            elsewhere,
            followers,
            _stop_at_drop: stop.clone().drop_guard(),
            stop,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Ends the work in the background and closes connections, those that are in use as soon as they are not. Appends that
    /// wait are still made.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        let pools = [&self.inner.pool, &self.inner.elsewhere, &self.inner.followers];
        if tokio::time::timeout(TO_CLOSE, join_all(pools.map(PgPool::close))).await.is_err() {
            tracing::warn!("something is still being read from the database, which is not waited for");
        }
    }

    /// The time: the database's, which all nodes share.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Records changes, durably, all or none, and returns the streams after it in the order of the append's. Tokens on the
    /// join path are appended through their [`TokenSlot`].
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(&self, append: impl Into<Append>) -> Result<Vec<Stored>, AppendError> {
        let prepared = self.prepare(append.into())?;
        for part in &prepared.parts {
            if let State::Token(token) = &part.after.state {
                self.tokens().forget(&token.name);
            }
        }
        self.append_prepared(prepared).await
    }

    /// A token by name, for one decision at a time.
    ///
    /// # Errors
    /// [`LedgerError`] when it must be read and can't be.
    pub async fn token(&self, name: &Name) -> Result<TokenSlot, LedgerError> {
        TokenSlot::take(self, name).await
    }

    /// A token as this node remembers it; none when it does not. It may be outdated.
    pub fn remembered_token(&self, name: &Name) -> Option<Arc<KnownToken>> {
        self.tokens().remembered(name)
    }

    /// A token as it is now, for whoever decides nothing about it yet; none when there is no live token of that name.
    ///
    /// # Errors
    /// [`LedgerError`] when it can't be read.
    pub async fn read_token(&self, name: &Name) -> Result<Option<Arc<KnownToken>>, LedgerError> {
        cache::read(self, name).await
    }

    /// Has a token read again when it is needed next, as what this node remembers may be outdated; what was read within
    /// the last second is not.
    pub fn doubt_token(&self, name: &Name) {
        self.tokens().doubt(name);
    }

    /// Appends that wait for a writer.
    pub fn appends_waiting(&self) -> usize {
        self.inner.writers.iter().map(Writer::waiting).sum()
    }

    /// Tokens that this node remembers, about.
    pub fn tokens_cached(&self) -> usize {
        self.tokens().len()
    }

    /// How often a token was read from the database since this ledger was connected: as it was not remembered, or before a
    /// refusal.
    pub fn token_reads(&self) -> u64 {
        self.tokens().reads()
    }

    pub(crate) fn prepare(&self, append: Append) -> Result<PreparedAppend, AppendError> {
        append.prepare(self.now())
    }

    pub(crate) async fn append_prepared(&self, mut append: PreparedAppend) -> Result<Vec<Stored>, AppendError> {
        let recorded = if transaction::is_needed(&append) {
            let mut streams = HashSet::new();
            if !append.parts.iter().all(|part| streams.insert(part.after.stream)) {
                return Err(AppendError::Malformed("one stream stands in it twice".to_owned()));
            }
            let (append, server) = self.at_home(append).await?;
            let recorded = append.parts.into_iter().map(|Prepared { row, after, .. }| {
                self.recent().appended(server, row);
                Stored { server: Some(server), ..after }
            });
            recorded.collect()
        } else {
            let Some(Prepared { row, after, .. }) = append.parts.pop() else {
                return Err(AppendError::Malformed("it is empty".to_owned()));
            };
            let (row, server) = self.writer(after.stream)?.append(row).await?;
            self.recent().appended(server, row);
            vec![Stored { server: Some(server), ..after }]
        };
        self.inner.appended.notify_one();
        Ok(recorded)
    }

    /// Makes a transaction where joins are made: they wait for the rows that it locks, and must not wait for threads that
    /// have other things to do.
    async fn at_home(&self, mut append: PreparedAppend) -> Result<(PreparedAppend, ServerRun), AppendError> {
        let pool = self.inner.pool.clone();
        let made = self.inner.home.spawn(async move {
            let server = transaction::append(&pool, &mut append).await?;
            Ok((append, server))
        });
        AbortOnDropHandle::new(made).await.map_err(|stopped| AppendError::OutcomeUnknown(stopped.to_string()))?
    }

    /// Told after each append of this node.
    pub(crate) fn appended(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.appended)
    }

    /// Where the log ends, as far as this node knows, and told when it grows: a hint for those who follow the log.
    /// Other nodes' work becomes known when this node looks.
    pub fn settled_hint(&self) -> watch::Receiver<u64> {
        self.inner.settled.subscribe()
    }

    pub(crate) fn announce(&self, settled: u64) {
        self.inner.settled.send_if_modified(|known| std::mem::replace(known, settled.max(*known)) < settled);
    }

    /// A connection for the runtime that asks: it belongs to the one where it was opened, whose threads must have time for
    /// it.
    pub(crate) async fn connection(&self) -> Result<Lease, sqlx::Error> {
        let is_home = Handle::current().id() == self.inner.home.id();
        Lease::of(if is_home { &self.inner.pool } else { &self.inner.elsewhere }).await
    }

    /// A connection for who follows the log.
    pub(crate) async fn follower(&self) -> Result<Lease, sqlx::Error> {
        Lease::of(&self.inner.followers).await
    }

    /// How to connect beside the pools.
    pub(crate) fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.inner.pool.connect_options()
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.inner.reader
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }

    pub(crate) fn recent(&self) -> &Recent {
        &self.inner.recent
    }

    /// What this node is called.
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// A stream always has the same writer, so that its appends don't race on this node.
    fn writer(&self, stream: StreamId) -> Result<&Writer, AppendError> {
        let mut hasher = DefaultHasher::new();
        stream.id.hash(&mut hasher);
        let count = u64::try_from(self.inner.writers.len()).unwrap_or(u64::MAX);
        let index = hasher.finish().checked_rem(count).and_then(|index| usize::try_from(index).ok());
        let writer = index.and_then(|index| self.inner.writers.get(index));
        writer.ok_or_else(|| AppendError::Malformed("there is no writer".to_owned()))
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("node", &self.inner.node).finish_non_exhaustive()
    }
}
