//! Group reading: tokens that are asked for at the same moment are read by one statement. A node that was started anew, or
//! whose fleet is larger than its memory, reads every token that joins.

use std::{io, sync::Arc};

use join_domain::id::Name;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

use crate::{
    Clock, LedgerError,
    error::is_connection_lost,
    lease::{Lease, in_time},
    row::StreamRow,
};

/// Tokens of one statement: what is read of all of them is in memory at once.
const BATCH: usize = 32;
/// How many may wait; more are turned away.
const QUEUE: usize = 8192;
/// Statements at once: one that finds its connection silent does not hold up the next.
const AT_ONCE: usize = 2;

/// A token that somebody wants to know.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: Name,
    /// Targets, beside its own, whose locks concern the join.
    pub(crate) targets: Vec<String>,
    /// Whether this attempt was accepted is to be told as well.
    pub(crate) attempt: Option<Uuid>,
}

/// A stream that concerns it: the token itself, its bot, or a lock.
pub(crate) struct Found {
    pub(crate) row: StreamRow,
    /// Of the token: whether the attempt was accepted before.
    pub(crate) accepted: bool,
}

type Answer = Result<Vec<Found>, LedgerError>;

/// Reads what waits.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    wanted: Wanted,
    answer: oneshot::Sender<Answer>,
}

impl Reader {
    /// Starts a reader; it ends when this handle and its clones are gone.
    pub(crate) fn start(pool: PgPool, clock: Arc<dyn Clock>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(serve(receiver, Arc::new(Database { pool, clock })));
        Self { queue: sender }
    }

    /// Nothing for a token that is not there.
    pub(crate) async fn read(&self, wanted: Wanted) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { wanted, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => sqlx::Error::PoolTimedOut,
            mpsc::error::TrySendError::Closed(_) => sqlx::Error::PoolClosed,
        })?;
        in_time(async { answered.await.unwrap_or(Err(LedgerError::Unavailable(sqlx::Error::PoolClosed))) }).await
    }
}

/// Takes whatever waits when a statement may begin. Does not linger for more to come.
async fn serve(mut queue: mpsc::Receiver<Waiting>, database: Arc<Database>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    // A turn first: as long as there is none, more can join those who wait.
    while let Ok(turn) = Arc::clone(&turns).acquire_owned().await {
        let mut batch = Vec::new();
        if queue.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        // Who went away, or has waited for too long, does not need to know any more.
        batch.retain(|one| !one.answer.is_closed());
        let database = Arc::clone(&database);
        tokio::spawn(async move {
            database.answer(batch).await;
            drop(turn);
        });
    }
}

struct Database {
    pool: PgPool,
    clock: Arc<dyn Clock>,
}

impl Database {
    async fn answer(&self, batch: Vec<Waiting>) {
        let (wanted, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.wanted, one.answer)).unzip();
        let tell = |answer: oneshot::Sender<Answer>, read| drop(answer.send(read));
        match self.read(&wanted).await {
            Ok(found) => answers.into_iter().zip(found).for_each(|(answer, found)| tell(answer, Ok(found))),
            Err(LedgerError::Unavailable(why)) => {
                let away = || LedgerError::Unavailable(sqlx::Error::Io(io::Error::other(why.to_string())));
                answers.into_iter().for_each(|answer| tell(answer, Err(away())));
            }
            // What can't be read of one must not fail the others.
            Err(_) => {
                for (one, answer) in wanted.iter().zip(answers) {
                    let read = self.read(std::slice::from_ref(one)).await;
                    tell(answer, read.map(|found| found.into_iter().flatten().collect()));
                }
            }
        }
    }

    /// What is found of each.
    async fn read(&self, wanted: &[Wanted]) -> Result<Vec<Vec<Found>>, LedgerError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        in_time(async {
            // A connection that was in use a moment ago is taken as it is. If all of them broke since, all are found out.
            for _ in 0..self.pool.size() {
                let mut lease = Lease::of(&self.pool).await?;
                match self.read_over(&mut lease, wanted).await {
                    Err(LedgerError::Unavailable(error)) if is_connection_lost(&error) => {}
                    read => return read,
                }
            }
            self.read_over(&mut *Lease::of(&self.pool).await?, wanted).await
        })
        .await
    }

    async fn read_over(
        &self,
        connection: &mut PgConnection,
        wanted: &[Wanted],
    ) -> Result<Vec<Vec<Found>>, LedgerError> {
        let names: Vec<String> = wanted.iter().map(|one| one.name.to_string()).collect();
        let attempts: Vec<Option<Uuid>> = wanted.iter().map(|one| one.attempt).collect();
        let numbered = (1_i64..).zip(wanted);
        let targets = numbered.flat_map(|(number, one)| one.targets.iter().map(move |target| (number, target.clone())));
        let (numbers, targets): (Vec<i64>, Vec<String>) = targets.unzip();
        let load = sqlx::query_file!(
            "sql/load_tokens.sql",
            &names,
            &attempts as &[Option<Uuid>],
            &numbers,
            &targets,
            self.clock.now()
        );
        let mut found: Vec<Vec<Found>> = wanted.iter().map(|_| Vec::new()).collect();
        for row in load.fetch_all(connection).await? {
            let at = row.asked.checked_sub(1).and_then(|at| usize::try_from(at).ok()).and_then(|at| found.get_mut(at));
            let at = at.ok_or_else(|| LedgerError::Corrupt("a token was read that nobody asked for".to_owned()))?;
            let (stream_id, kind, version, fence, state) = (row.stream_id, row.kind, row.version, row.fence, row.state);
            let (snapshot_version, since, server) = (row.snapshot_version, row.since, row.server);
            let stream = StreamRow { stream_id, kind, version, fence, state, snapshot_version, since, server };
            at.push(Found { row: stream, accepted: row.accepted });
        }
        Ok(found)
    }
}
