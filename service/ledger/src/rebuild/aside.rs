//! Work that keeps a processor busy, beside what waits for the database.

/// Begins work where it may take its time.
pub(super) fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Aside<T> {
    Aside(tokio::task::spawn_blocking(work))
}

/// Work that is under way.
pub(super) struct Aside<T>(tokio::task::JoinHandle<T>);

impl<T> Aside<T> {
    pub(super) async fn done(self) -> T {
        self.0.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }
}
