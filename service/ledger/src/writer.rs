//! Group commit: appends that wait at the same moment share one statement and one commit.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use join_domain::envelope::StreamId;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    AppendError,
    append::Row,
    clock::since_start,
    error::{append_refused, is_connection_lost, is_held, takes_nothing},
    lease::{ASK_AFTER, within},
    row::ServerRun,
    statement,
    transaction::taken_claim,
};

/// How long a statement may take before its connection is given up. The server gives it up before, if it can: a backend
/// that waits for a lock would not notice that nobody listens any more.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an append may wait until it is sent. What it says of its time is soon not true any more: the log would tell of
/// it behind what came later, as if it had been backdated.
const LATE: Duration = Duration::from_secs(20);
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a failed connection attempt answers for those that come after it: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The appends of streams that hash to it.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Waiting>,
}

/// An append whose caller waits.
struct Waiting {
    row: Row,
    /// When it was asked for, since the machine started.
    since: Duration,
    answer: oneshot::Sender<Result<(Row, ServerRun), AppendError>>,
}

impl Writer {
    /// Starts a writer; it ends when this handle and its clones are gone.
    pub(crate) fn start(options: PgConnectOptions, queue: usize, batch: usize) -> Self {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let connection = Connection { options, open: None, last_used: Instant::now(), failure: None };
        tokio::spawn(Loop { queue: receiver, later: VecDeque::new(), batch: batch.max(1), connection }.run());
        Self { queue: sender }
    }

    /// Appends one stream's row, and gives it back when it is durable, and where.
    pub(crate) async fn append(&self, row: Row) -> Result<(Row, ServerRun), AppendError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { row, since: since_start(), answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AppendError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => AppendError::Unavailable("the ledger is closed".to_owned()),
        })?;
        answered.await.unwrap_or_else(|_| Err(AppendError::OutcomeUnknown("the writer ended".to_owned())))
    }

    /// Appends that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.max_capacity().saturating_sub(self.queue.capacity())
    }
}

struct Loop {
    queue: mpsc::Receiver<Waiting>,
    /// Taken from the queue, but their stream was in the batch already.
    later: VecDeque<Waiting>,
    batch: usize,
    connection: Connection,
}

impl Loop {
    async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            self.append(batch).await;
        }
    }

    /// Whatever waits now, at most one append per stream. Does not linger for more to come.
    async fn next_batch(&mut self) -> Option<Vec<Waiting>> {
        let mut batch: Vec<Waiting> = Vec::new();
        let mut streams: HashSet<StreamId> = HashSet::new();
        let mut postponed = VecDeque::new();
        let mut candidate = match self.later.pop_front() {
            Some(waiting) => Some(waiting),
            None => Some(self.queue.recv().await?),
        };
        while let Some(waiting) = candidate {
            if waiting.is_late() {
                waiting.fail_as_late();
            } else if streams.insert(waiting.row.stream) {
                batch.push(waiting);
            } else {
                postponed.push_back(waiting);
            }
            // Many appends of one stream must not empty the queue into memory.
            let full = batch.len() >= self.batch || postponed.len() >= self.batch;
            candidate = if full { None } else { self.later.pop_front().or_else(|| self.queue.try_recv().ok()) };
        }
        postponed.append(&mut self.later);
        self.later = postponed;
        Some(batch)
    }

    /// Whoever holds one guard row for long, such as a node that froze with it, holds up the joins of that token, and of no
    /// other.
    async fn append(&mut self, batch: Vec<Waiting>) {
        if batch.is_empty() {
            return;
        }
        let Some(batch) = self.append_together(batch).await else { return };
        let (free, held) = self.free_ones(batch).await;
        held.into_iter().for_each(Waiting::fail_as_held);
        if free.is_empty() {
            return;
        }
        // It may be a name or key that is held, or a row that was taken since: who needs none goes on with the others.
        let Some(waiting) = self.append_together(free).await else { return };
        let claims = |one: &Waiting| !one.row.claimed.is_empty() || one.row.first_version == 1;
        let (claiming, plain): (Vec<_>, Vec<_>) = waiting.into_iter().partition(claims);
        let singly = claiming.into_iter().map(|one| vec![one]);
        for some in std::iter::once(plain).filter(|plain| !plain.is_empty()).chain(singly) {
            let held = self.append_together(some).await;
            held.into_iter().flatten().for_each(Waiting::fail_as_held);
        }
    }

    /// Those whose guard rows nobody holds, and the others.
    async fn free_ones(&mut self, batch: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
        let ids: Vec<Uuid> = batch.iter().map(|waiting| waiting.row.stream.id).collect();
        let free = match self.connection.get().await {
            Ok(connection) => {
                let free = "SELECT stream_id FROM stream WHERE stream_id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED";
                in_time(sqlx::query_scalar(free).bind(ids).fetch_all(connection)).await
            }
            Err(_) => Ok(Vec::new()),
        };
        let free = free.unwrap_or_else(|error| {
            tracing::warn!(%error, "a writer could not find out which rows are free");
            self.connection.open = None;
            Vec::new()
        });
        let free: HashSet<Uuid> = free.into_iter().collect();
        // One that begins has no row yet.
        batch.into_iter().partition(|one| one.row.first_version == 1 || free.contains(&one.row.stream.id))
    }

    /// Answers all of them; but when one waits too long for a row that somebody holds, nothing was appended, and they come
    /// back.
    async fn append_together(&mut self, batch: Vec<Waiting>) -> Option<Vec<Waiting>> {
        let connection = match self.connection.get().await {
            Ok(connection) => connection,
            Err(why) => {
                batch.into_iter().for_each(|waiting| waiting.fail(AppendError::Unavailable(why.clone())));
                return None;
            }
        };
        let rows: Vec<&Row> = batch.iter().map(|waiting| &waiting.row).collect();
        match in_time(statement::append(connection, &rows)).await {
            Ok(appended) => {
                for (waiting, done) in batch.into_iter().zip(appended) {
                    match done {
                        Some(server) => waiting.succeed(server),
                        None => waiting.fail(AppendError::Conflict),
                    }
                }
            }
            Err(error) if is_held(&error) => return Some(batch),
            Err(error) if is_connection_lost(&error) => self.lost(batch, &error),
            // Nothing that one of them could help.
            Err(error) if takes_nothing(&error) => {
                self.connection.open = None;
                batch.into_iter().for_each(|waiting| waiting.fail(append_refused(&error)));
            }
            // One bad row must not fail its batch.
            Err(error) => self.append_singly(batch, &error).await,
        }
        None
    }

    async fn append_singly(&mut self, batch: Vec<Waiting>, batch_error: &sqlx::Error) {
        if batch.len() > 1 {
            tracing::debug!(error = %batch_error, size = batch.len(), "a batch failed and is appended one by one");
        }
        let mut waiting = VecDeque::from(batch);
        while let Some(one) = waiting.pop_front() {
            if one.is_late() {
                one.fail_as_late();
                continue;
            }
            let connection = match self.connection.get().await {
                Ok(connection) => connection,
                Err(why) => {
                    one.fail(AppendError::Unavailable(why));
                    continue;
                }
            };
            match in_time(statement::append(connection, &[&one.row])).await {
                Ok(appended) => match appended.first() {
                    Some(Some(server)) => one.succeed(*server),
                    _ => one.fail(AppendError::Conflict),
                },
                Err(error) if is_connection_lost(&error) => self.lost(vec![one], &error),
                Err(error) => {
                    let refused = match taken_claim(connection, &[&one.row], &error).await {
                        Some(taken) => taken,
                        None => append_refused(&error),
                    };
                    one.fail(refused);
                }
            }
        }
    }

    /// The statement was under way: it may have been committed.
    fn lost(&mut self, batch: Vec<Waiting>, error: &sqlx::Error) {
        tracing::warn!(%error, appends = batch.len(), "a writer lost its connection");
        self.connection.open = None;
        let why = error.to_string();
        batch.into_iter().for_each(|waiting| waiting.fail(AppendError::OutcomeUnknown(why.clone())));
    }
}

async fn in_time<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    within(STATEMENT_TIMEOUT, statement).await
}

impl Waiting {
    // Who went away does not need to know.

    fn succeed(self, server: ServerRun) {
        let _ = self.answer.send(Ok((self.row, server)));
    }

    fn fail(self, error: AppendError) {
        let _ = self.answer.send(Err(error));
    }

    fn is_late(&self) -> bool {
        since_start().saturating_sub(self.since) > LATE
    }

    fn fail_as_late(self) {
        self.fail(AppendError::Unavailable(format!("it waited for more than {} s", LATE.as_secs())));
    }

    fn fail_as_held(self) {
        let why = format!("somebody holds {} for longer than appends wait", self.row.stream);
        tracing::warn!("an append gave up: {why}");
        self.fail(AppendError::Unavailable(why));
    }
}

/// The writer's own connection, opened when it is needed.
struct Connection {
    options: PgConnectOptions,
    open: Option<PgConnection>,
    last_used: Instant,
    failure: Option<Failure>,
}

struct Failure {
    why: String,
    at: Instant,
    backoff: Duration,
}

impl Connection {
    async fn get(&mut self) -> Result<&mut PgConnection, String> {
        let idle = std::mem::replace(&mut self.last_used, Instant::now()).elapsed();
        if let Some(mut open) = self.open.take()
            && (idle < ASK_AFTER || in_time(open.ping()).await.is_ok())
        {
            return Ok(self.open.insert(open));
        }
        if let Some(failure) = self.failure.as_ref().filter(|failure| failure.at.elapsed() < failure.backoff) {
            return Err(failure.why.clone());
        }
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options)).await;
        match attempt.map_err(|_| "no answer in time".to_owned()).and_then(|tried| tried.map_err(|e| e.to_string())) {
            Ok(connection) => {
                self.failure = None;
                Ok(self.open.insert(connection))
            }
            Err(why) => {
                let before = self.failure.as_ref().map_or(Duration::ZERO, |failure| failure.backoff);
                let backoff = before.saturating_mul(2).clamp(BACKOFF.0, BACKOFF.1);
                self.failure = Some(Failure { why: why.clone(), at: Instant::now(), backoff });
                Err(why)
            }
        }
    }
}
