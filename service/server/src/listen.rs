//! The accept loop of the one TLS port: gRPC, HTTP/2 and HTTP/1.1.

use std::{
    collections::HashMap,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, response::Response};
use http_body_util::BodyExt as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    ceremony::strangers::network,
    config::Limits,
    gather::Gathering,
    request::{caller::Connection, grpc::join::JOIN_ROUTE},
    slow::InTime,
    telemetry::METRICS,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request; the first one included.
const HEAD: Duration = Duration::from_secs(15);
/// How long a connection may be open without a request.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// How often an idle HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// How long open requests may go on once the service stops.
const GRACE: Duration = Duration::from_secs(10);
/// The most header bytes of a request.
const MAX_HEADERS: u32 = 16 * 1024;

/// Accepts connections until `stop`, then lets open requests finish for a while.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    limits: &Limits,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(limits.connections));
    let hosts = Arc::new(Hosts { most: limits.connections_per_address, open: Mutex::default() });
    let connections = TaskTracker::new();
    let protocol = Arc::new(protocol(limits));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: give connections a moment to end.
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Beyond the limit a connection is closed at once: memory stays flat, and the client retries.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let Some(place) = hosts.admit(address.ip()).map(|of_host| (place, of_host)) else { continue };
        let (acceptor, router, protocol, stop) =
            (acceptor.clone(), router.clone(), Arc::clone(&protocol), stop.clone());
        connections.spawn(async move {
            METRICS.connections.inc();
            if let Err(error) = converse(stream, address, &acceptor, router, &protocol, stop).await {
                tracing::debug!(%address, "connection ended: {error}");
            }
            METRICS.connections.dec();
            drop(place);
        });
    }
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!("{} connections were cut off", connections.len());
    }
}

fn protocol(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(MAX_HEADERS)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    builder
}

async fn converse(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    router: Router,
    protocol: &auto::Builder<TokioExecutor>,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().unwrap_or_default().iter().map(|one| one.clone().into_owned());
    let connection = Arc::new(Connection { address, certificates: certificates.collect() });
    let requests = Arc::new(Requests::default());
    let counted = Arc::clone(&requests);
    let service = tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(&connection));
        // A join is a conversation, and has times of its own.
        let is_join = request.uri().path() == JOIN_ROUTE;
        let request = request.map(|body| if is_join { Body::new(body) } else { Body::new(InTime::new(body)) });
        let (open, answer) = (Requests::begin(&counted), router.clone().oneshot(request));
        async move {
            let answer: Response = answer.await?;
            // A request is open until its answer has been sent, however long that streams.
            Ok::<_, std::convert::Infallible>(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _open = &open;
                    frame
                }))
            }))
        }
    });
    let stream = Gathering::new(stream);
    let serving = protocol.serve_connection(TokioIo::new(stream.clone()), TowerToHyperService::new(service));
    tokio::pin!(serving);
    tokio::select! {
        ended = poll_fn(|context| stream.poll_through(serving.as_mut(), context)) => return ended,
        () = stop.cancelled() => {}
        () = requests.idle() => {}
    }
    serving.as_mut().graceful_shutdown();
    match tokio::time::timeout(GRACE, poll_fn(|context| stream.poll_through(serving.as_mut(), context))).await {
        Ok(ended) => ended,
        Err(_) => Err("it did not end in time".into()),
    }
}

/// The requests of one connection.
#[derive(Default)]
struct Requests {
    begun: AtomicUsize,
    open: AtomicUsize,
}

/// An open request.
struct Open(Arc<Requests>);

impl Requests {
    fn begin(requests: &Arc<Self>) -> Open {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        requests.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(requests))
    }

    /// Returns once nothing was asked for too long: a client that is only there takes the place of others.
    async fn idle(&self) {
        let (mut since, mut last) = (Instant::now(), 0);
        loop {
            tokio::time::sleep(HEAD).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun != last || self.open.load(Ordering::Relaxed) > 0 {
                (since, last) = (Instant::now(), begun);
            } else if begun == 0 || since.elapsed() >= IDLE {
                return;
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Open connections of each network, so that one host can't take the places of all.
struct Hosts {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A place that a connection of a network takes.
struct Place {
    hosts: Arc<Hosts>,
    network: IpAddr,
}

impl Hosts {
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { hosts: Arc::clone(self), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.hosts.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}
