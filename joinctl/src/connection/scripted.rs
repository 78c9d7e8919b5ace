//! An authority that answers as a test tells it to.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body_util::Full;
use join_proto::v1::{cluster_server::ClusterServer, resources_server::ResourcesServer};
use prost_reflect::prost::{Message, bytes::Bytes};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    body::Body,
    server::NamedService,
    transport::{Endpoint, Server},
};
use tower::Service;

use super::Client;

/// The message of an answer, or why there is none.
pub(crate) type Answer = Result<Vec<u8>, Status>;

pub(crate) fn answer(message: &impl Message) -> Answer {
    Ok(message.encode_to_vec())
}

type Script = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A client of an authority whose script answers by the name of the method.
pub(crate) async fn authority(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script: Script = Arc::new(script);
    let served = Server::builder()
        .add_service(Scripted::<ResourcesServer<()>>(script.clone(), PhantomData))
        .add_service(Scripted::<ClusterServer<()>>(script, PhantomData));
    tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    Client::new(endpoint.connect().await.unwrap(), address.parse().unwrap())
}

/// In place of the service `S`.
#[derive(Clone)]
struct Scripted<S>(Script, PhantomData<S>);

impl<S: NamedService> NamedService for Scripted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Scripted<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        ready(Ok((self.0)(method).map_or_else(Status::into_http, |message| framed(&message))))
    }
}

/// One message that is not compressed, and the status OK.
fn framed(message: &[u8]) -> Response<Body> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frame = [&[0][..], &length, message].concat();
    let ok = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
    ok.body(Body::new(Full::new(Bytes::from(frame)))).unwrap()
}
