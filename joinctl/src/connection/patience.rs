//! How long an answer is waited for: a server that accepts a call and never answers must not hold a script for ever.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Extensions, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use join_proto::DESCRIPTORS;
use tonic::{Status, body::Body, transport::Channel};
use tower::Service;

use super::client::MAX_ANSWER;

/// How long one answer may take, from the call to its last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for what walks over everything there is: it takes as long as there is much.
const WALK_TIMEOUT: Duration = Duration::from_secs(3600);

/// A channel that gives up waiting. Streams have no end that could be waited for; the keep-alive of the connection ends
/// those whose server is gone.
#[derive(Clone)]
pub(crate) struct Patient {
    channel: Channel,
    answer_timeout: Duration,
}

/// Marks a request whose answer takes as long as there is much.
#[derive(Clone, Copy)]
struct Walk;

/// A request of something that walks over everything there is, such as each token that a selector matches.
pub(crate) fn walk<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(Walk);
    request
}

impl Patient {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, answer_timeout: ANSWER_TIMEOUT }
    }

    /// How long the answer may take; none for a stream.
    fn timeout(&self, path: &str, extensions: &Extensions) -> Option<Duration> {
        if is_stream(path) {
            None
        } else if extensions.get::<Walk>().is_some() {
            Some(WALK_TIMEOUT)
        } else {
            Some(self.answer_timeout)
        }
    }
}

/// What the `.proto` says of the method that the path names; the log's files are none.
fn is_stream(path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.split_once('/')).and_then(|(service, method)| {
        DESCRIPTORS.get_service_by_name(service)?.methods().find(|known| known.name() == method)
    });
    method.is_some_and(|method| method.is_server_streaming())
}

impl Service<Request<Body>> for Patient {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(context).map_err(|error| Status::from_error(Box::new(error)))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let timeout = self.timeout(request.uri().path(), request.extensions());
        let begun = self.channel.call(request);
        let begun = async { begun.await.map_err(|error| Status::from_error(Box::new(error))) };
        let Some(timeout) = timeout else {
            return Box::pin(begun);
        };
        let whole = async {
            let (head, body) = begun.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(Status::from_error)?;
            Ok(Response::from_parts(head, Body::new(body)))
        };
        Box::pin(async move {
            let late = |_| Err(Status::deadline_exceeded(unanswered(timeout)));
            tokio::time::timeout(timeout, whole).await.unwrap_or_else(late)
        })
    }
}

fn unanswered(timeout: Duration) -> String {
    format!(
        "the authority gave no answer within {} s; a change may be done all the same: look before you repeat it",
        timeout.as_secs_f32()
    )
}

#[cfg(test)]
mod tests {
    use join_proto::v1::{Empty, ListEventsRequest, cluster_client::ClusterClient, ledger_client::LedgerClient};
    use tokio::{io::copy, net::TcpListener};
    use tonic::{Code, transport::Endpoint};

    use super::*;

    /// A channel to somebody who reads whatever comes, and says nothing.
    async fn silent() -> Patient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            copy(&mut connection, &mut tokio::io::sink()).await
        });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Patient { channel, answer_timeout: Duration::from_millis(50) }
    }

    #[tokio::test]
    async fn a_call_that_is_never_answered_ends() {
        let refused = ClusterClient::new(silent().await).get_status(Empty {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded);
        assert!(refused.message().starts_with("the authority gave no answer within 0.05 s"), "{refused}");
    }

    #[tokio::test]
    async fn a_stream_may_stay_silent() {
        let mut calls = LedgerClient::new(silent().await);
        let following = calls.follow_events(ListEventsRequest::default());
        assert!(tokio::time::timeout(Duration::from_millis(200), following).await.is_err(), "it is still open");
    }

    #[tokio::test]
    async fn what_walks_over_everything_has_longer() {
        let patient = silent().await;
        let path = "/joinauthority.v1.Cluster/VerifyViews";
        assert_eq!(patient.timeout(path, walk(Empty {}).extensions()), Some(WALK_TIMEOUT));
        assert_eq!(patient.timeout(path, &Extensions::new()), Some(patient.answer_timeout));
        assert_eq!(patient.timeout("/log/checkpoint", &Extensions::new()), Some(patient.answer_timeout));
        for stream in ["Ledger/FollowEvents", "Ledger/Export", "Cluster/WatchLocks"] {
            assert_eq!(patient.timeout(&format!("/joinauthority.v1.{stream}"), &Extensions::new()), None, "{stream}");
        }
    }
}
