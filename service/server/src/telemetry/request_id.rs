//! Which request is running.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

use crate::entropy::Entropy;

tokio::task_local! {
    static REQUEST: Arc<str>;
}

/// Runs a request under its id, so that whatever is said of it, or fails inside, can name it.
pub fn with_request<F: Future>(id: Arc<str>, work: F) -> impl Future<Output = F::Output> {
    REQUEST.scope(id, work)
}

/// As [`with_request`], for what does not wait.
pub fn in_request<T>(id: Arc<str>, work: impl FnOnce() -> T) -> T {
    REQUEST.sync_scope(id, work)
}

/// The id of the request that is running; none outside of one.
pub fn current_request() -> Option<Arc<str>> {
    REQUEST.try_with(Arc::clone).ok()
}

/// An id for a request: unique in this process and, with its start, in practice everywhere. It is no secret.
pub fn new_request_id() -> Arc<str> {
    static PROCESS: LazyLock<u32> = LazyLock::new(|| u32::from_be_bytes(Entropy::default().bytes()));
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!("{:08x}-{:06x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed)).into()
}
