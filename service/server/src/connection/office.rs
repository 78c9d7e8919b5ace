//! Where administrators are served: by threads of their own, which give way to those of the joins.
//!
//! A page of the history or a piece of an export takes tens of milliseconds to make. Among the joins, each of them would
//! hold up all that the same thread has in hand. What joins wait for is not done here: the ledger has connections for each
//! side, and makes transactions on the joins' side.

use std::{io, sync::Arc};

use rustix::process::{getpriority_process, setpriority_process};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinError,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{
    Dispatch,
    dispatcher::{get_default, set_default},
    subscriber::NoSubscriber,
};

/// Two, so that who asks for little does not wait for an export's next piece.
const THREADS: usize = 2;
/// How much they give way, as in nice(1): beside joins that need all of a processor they get a quarter of it.
const NICER: i32 = 5;
/// Nobody gives way more.
const NICEST: i32 = 19;

/// The threads for administrators. Clones share them; with the last one they end.
#[derive(Clone)]
pub struct Office {
    desks: Handle,
    _threads: Arc<Threads>,
}

/// Where they end nobody may wait for them, so they are taken out for that.
struct Threads(Option<Runtime>);

impl Office {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn open() -> io::Result<Self> {
        let priority = getpriority_process(None)?.saturating_add(NICER).min(NICEST);
        let listener = get_default(Dispatch::clone);
        let begin = move || {
            listened_to_by(&listener);
            give_way(priority);
        };
        let threads = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("administration")
            .on_thread_start(begin)
            .enable_all()
            .build()?;
        Ok(Self { desks: threads.handle().clone(), _threads: Arc::new(Threads(Some(threads))) })
    }

    /// Does some work here, for as long as somebody waits for it.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn serve<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        AbortOnDropHandle::new(self.desks.spawn(work)).await
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(threads) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

/// Who listens to one thread only, and not to the whole process, hears the threads that are started there, too.
fn listened_to_by(listener: &Dispatch) {
    if get_default(Dispatch::is::<NoSubscriber>) {
        std::mem::forget(set_default(listener));
    }
}

/// On Linux a thread has a priority of its own. Elsewhere it is the process that has one, and keeps it.
fn give_way(priority: i32) {
    if cfg!(target_os = "linux")
        && let Err(error) = setpriority_process(None, priority)
    {
        tracing::warn!("threads for administrators don't give way to joins, as their priority can't be set: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn administration_gives_way_to_joins() {
        let office = Office::open().unwrap();
        let priority = || getpriority_process(None).unwrap();
        let (here, there) = (priority(), office.serve(async move { priority() }).await.unwrap());
        assert_eq!(there, if cfg!(target_os = "linux") { (here + NICER).min(NICEST) } else { here });
    }

    #[tokio::test]
    async fn work_ends_with_who_waits_for_it() {
        let office = Office::open().unwrap();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (held, is_gone) = tokio::sync::oneshot::channel::<()>();
        let waiting = tokio::spawn(async move {
            let work = async {
                begun.send(()).unwrap();
                std::future::pending::<()>().await;
                drop(held);
            };
            office.serve(work).await
        });
        begins.await.unwrap();
        waiting.abort();
        assert!(is_gone.await.is_err(), "its work went on");
    }
}
