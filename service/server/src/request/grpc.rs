//! One file per gRPC service.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use tonic::Status;

mod bulk;
pub mod ceremony;
pub mod cluster;
pub mod health;
pub mod join;
pub mod ledger;
mod replay;
pub mod resources;

/// Answers of a call that streams.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers that are made one after the other, from what the one before left; none ends them.
///
/// Each is begun when the one before it was taken by the connection. While a client leaves no room for that, nobody looks
/// at the next: once begun, it would keep a connection to the database for as long as the client likes.
fn one_by_one<S, T, F>(begin: S, make: impl Fn(S) -> F + Send + 'static) -> Answers<T>
where
    S: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Option<(Result<T, Status>, S)>> + Send,
{
    let answers = stream::unfold((begin, make), async |(state, make)| {
        tokio::task::yield_now().await;
        let (answer, next) = make(state).await?;
        Some((answer, (next, make)))
    });
    answers.boxed()
}
