//! Group reading: tokens that are asked for at the same moment are read by one statement. A node that was started anew, or
//! whose fleet is larger than its memory, reads every token that joins.

use std::{io, sync::Arc};

use join_domain::id::Name;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    Clock, LedgerError,
    lease::{Lease, in_time},
    row::StreamRow,
};

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
    pub(crate) fn start(pool: PgPool, clock: Arc<dyn Clock>, queue: usize, batch: usize) -> Self {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        tokio::spawn(Loop { pool, clock, queue: receiver, batch: batch.max(1) }.run());
        Self { queue: sender }
    }

    /// Nothing for a token that is not there.
    pub(crate) async fn read(&self, wanted: Wanted) -> Answer {
        let (answer, answered) = oneshot::channel();
        let closed = || LedgerError::Unavailable(sqlx::Error::PoolClosed);
        self.queue.send(Waiting { wanted, answer }).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }
}

struct Loop {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    queue: mpsc::Receiver<Waiting>,
    batch: usize,
}

impl Loop {
    async fn run(mut self) {
        let mut batch = Vec::new();
        // Whatever waits now. Does not linger for more to come.
        while self.queue.recv_many(&mut batch, self.batch).await > 0 {
            self.answer(std::mem::take(&mut batch)).await;
        }
    }

    async fn answer(&self, batch: Vec<Waiting>) {
        let (wanted, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.wanted, one.answer)).unzip();
        // Who went away does not need to know.
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
        let rows = in_time(load.fetch_all(&mut *Lease::of(&self.pool).await?)).await?;
        let mut found: Vec<Vec<Found>> = wanted.iter().map(|_| Vec::new()).collect();
        for row in rows {
            let at = usize::try_from(row.asked - 1).ok().and_then(|at| found.get_mut(at));
            let at = at.ok_or_else(|| LedgerError::Corrupt("a token was read that nobody asked for".to_owned()))?;
            let (stream_id, kind, version, fence, state) = (row.stream_id, row.kind, row.version, row.fence, row.state);
            let (snapshot_version, since, server) = (row.snapshot_version, row.since, row.server);
            let stream = StreamRow { stream_id, kind, version, fence, state, snapshot_version, since, server };
            at.push(Found { row: stream, accepted: row.accepted });
        }
        Ok(found)
    }
}
