//! Requests that don't end: what a client sends is kept only for so long.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

/// How long a client may take to send a whole request.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request's body, as long as it comes in time. A message is kept in memory until it is whole, and only then is it asked
/// who sent it; so nobody may leave one unfinished for long.
pub(crate) struct InTime {
    body: Incoming,
    late: Pin<Box<Sleep>>,
}

impl InTime {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, late: Box::pin(tokio::time::sleep(PATIENCE)) }
    }
}

impl Body for InTime {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.late.as_mut().poll(context).map(|()| Some(Err("the request was not sent in time".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
