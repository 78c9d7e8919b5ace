//! Connections, before there is a request: the accept loop of the one TLS port, for gRPC, HTTP/2 and HTTP/1.1.

pub mod gather;
mod handshake;
pub mod office;
pub(crate) mod places;
mod slow;
pub mod tls;

use std::{convert::Infallible, future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, response::Response};
use http_body_util::BodyExt as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    app::App,
    caller::Connection,
    config::Limits,
    request::{grpc::join::JOIN_ROUTE, problem},
    telemetry::{METRICS, TurnedAway},
};

use self::{
    gather::Gathering,
    handshake::Handshakes,
    places::{ConnectionPlace, Places},
    slow::InTime,
};

/// How long a client may take to send the head of a request; the first one included.
const HEAD: Duration = Duration::from_secs(15);
/// How often an idle HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// How long open requests may go on once the service stops.
const GRACE: Duration = Duration::from_secs(10);
/// The most header bytes of a request; over HTTP/1.1 with its first line. Who sends no more than half of them keeps the
/// memory until its time is over, on as many connections as there may be.
const MAX_HEADERS: u32 = 16 * 1024;
/// The most bytes that a connection may send before somebody reads them.
const WINDOW: u32 = 64 * 1024;
/// The most bytes of an answer that are kept for a client that has room for them, by what it says, and reads none. There
/// are many streams to a connection, and strangers open them.
const UNSENT: usize = 32 * 1024;

/// What may be asked by anybody at any time, and keeps nothing: whether the node lives.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// What a listener serves.
#[derive(Clone)]
pub struct Served {
    /// Everything.
    pub router: Router,
    /// Knows who is no stranger.
    pub app: Arc<App>,
}

/// Why a connection ended before its time.
type Ended = Box<dyn std::error::Error + Send + Sync>;

/// Accepts connections until `stop`, then lets open requests finish for a while.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    served: Served,
    limits: &Limits,
    stop: CancellationToken,
) {
    let listening = Listening {
        handshakes: Handshakes::new(tls),
        served,
        protocol: Arc::new(protocol(limits)),
        stop: stop.clone(),
    };
    let places = Places::new(limits);
    let connections = TaskTracker::new();
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
        let Some(place) = places.connection(address.ip()) else {
            METRICS.turned_away(TurnedAway::Connection);
            continue;
        };
        let listening = listening.clone();
        connections.spawn(async move {
            METRICS.connections.inc();
            if let Err(error) = listening.receive(stream, address, place).await {
                tracing::debug!(%address, "connection ended: {error}");
            }
            METRICS.connections.dec();
        });
    }
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!("{} connections were cut off", connections.len());
    }
}

fn protocol(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection.get())
        .max_header_list_size(MAX_HEADERS)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_send_buf_size(UNSENT)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    builder
}

/// What each connection needs.
#[derive(Clone)]
struct Listening {
    handshakes: Handshakes,
    served: Served,
    protocol: Arc<auto::Builder<TokioExecutor>>,
    stop: CancellationToken,
}

impl Listening {
    async fn receive(self, stream: TcpStream, address: SocketAddr, place: Arc<ConnectionPlace>) -> Result<(), Ended> {
        stream.set_nodelay(true)?;
        let stream = self.handshakes.accept(stream).await?;
        let (_, session) = stream.get_ref();
        // Its own certificate; those above it are not looked at.
        let certificate =
            session.peer_certificates().and_then(|chain| chain.first()).map(|own| own.clone().into_owned());
        let connection = Arc::new(Connection { address, certificate });
        let app = Arc::clone(&self.served.app);
        let conversation = Box::pin(self.converse(stream, Arc::clone(&connection), place));
        match app.administers(&connection) {
            true => app.office.serve(conversation).await?,
            false => conversation.await,
        }
    }

    async fn converse(
        self,
        stream: TlsStream<TcpStream>,
        connection: Arc<Connection>,
        place: Arc<ConnectionPlace>,
    ) -> Result<(), Ended> {
        let Self { served, protocol, stop, .. } = self;
        let asked = Arc::clone(&place);
        let service = tower::service_fn(move |request| served.begin(request, &connection, &asked));
        let stream = Gathering::new(stream);
        let serving = protocol.serve_connection(TokioIo::new(stream.clone()), TowerToHyperService::new(service));
        tokio::pin!(serving);
        tokio::select! {
            ended = poll_fn(|context| stream.poll_through(serving.as_mut(), context)) => return ended,
            () = stop.cancelled() => {}
            () = place.idle() => {}
        }
        serving.as_mut().graceful_shutdown();
        match tokio::time::timeout(GRACE, poll_fn(|context| stream.poll_through(serving.as_mut(), context))).await {
            Ok(ended) => ended,
            Err(_) => Err("it did not end in time".into()),
        }
    }
}

impl Served {
    /// Gives a request its place, and begins to answer it.
    fn begin(
        &self,
        mut request: http::Request<hyper::body::Incoming>,
        connection: &Arc<Connection>,
        place: &Arc<ConnectionPlace>,
    ) -> impl Future<Output = Result<Response, Infallible>> + use<> {
        request.extensions_mut().insert(Arc::clone(connection));
        // A join is a conversation, and has times of its own.
        let is_join = request.uri().path() == JOIN_ROUTE;
        let open = match PROBES.contains(&request.uri().path()) {
            true => {
                place.probed();
                Ok(None)
            }
            false => place.request(is_join, || self.app.knows(connection)).map(|open| Some(Arc::new(open))),
        };
        if let Ok(Some(open)) = &open {
            request.extensions_mut().insert(Arc::clone(open));
        }
        let request = request.map(|body| if is_join { Body::new(body) } else { Body::new(InTime::new(body)) });
        let begun = match open {
            Ok(open) => Ok((open, self.router.clone().oneshot(request))),
            Err(refusal) => Err(problem::turn_away(&request, refusal)),
        };
        async move {
            let (open, answer) = match begun {
                Ok(begun) => begun,
                Err(answer) => return Ok(answer),
            };
            // A request is open until its answer has been sent, however long that streams.
            Ok(answer.await?.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _open = &open;
                    frame
                }))
            }))
        }
    }
}
