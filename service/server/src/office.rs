//! Where administrators are served: by threads of their own, which give way to those of the joins.
//!
//! A page of the history or a piece of an export takes tens of milliseconds to make. Among the joins, each of them would
//! hold up all that the same thread has in hand.

use std::{io, sync::Arc};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinError,
};
use tokio_util::task::AbortOnDropHandle;

/// Two, so that who asks for little does not wait for an export's next piece.
const THREADS: usize = 2;
/// How much they give way, as in nice(1): beside joins that need all of a processor they get a quarter of it.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

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
        let threads = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("administration")
            .on_thread_start(give_way)
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

/// On Linux a thread has a priority of its own. Elsewhere it is the process that has one, and keeps it.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("administration does not give way to joins: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn administration_gives_way_to_joins() {
        let office = Office::open().unwrap();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let (here, there) = (priority(), office.serve(async move { priority() }).await.unwrap());
        assert_eq!(there, here.max(NICE));
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
