//! A way between two parties on which one thing goes wrong.
//!
//! It passes everything on, message by message, and counts the messages of the connections that are watched. When the
//! fault that it is armed with is due, it happens, once.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream, tcp, unix},
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    fault::{Act, Blow, Counts, Fault, How, Moment, Side},
    framing::Framing,
};

/// How long a server that has nothing more to say is silent. Longer than any of its answers takes on a busy machine.
const SILENCE: Duration = Duration::from_millis(250);
/// How long the other end may take to notice that a connection has ended.
const FAREWELL: Duration = Duration::from_millis(200);

/// Where the service is; after a restart it is somewhere else.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Mutex<SocketAddr>>);

impl Upstream {
    /// At this address for now.
    pub fn new(address: SocketAddr) -> Self {
        Self(Arc::new(Mutex::new(address)))
    }

    /// Where it is now.
    pub fn address(&self) -> SocketAddr {
        *lock(&self.0)
    }

    /// It has moved.
    pub fn moved(&self, address: SocketAddr) {
        *lock(&self.0) = address;
    }
}

/// The proxy; it ends when this is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Shared {
    plan: Mutex<Plan>,
    held: Mutex<Option<Held>>,
    /// From where it has connected.
    origins: Mutex<HashSet<SocketAddr>>,
    /// Ends the connections that there are.
    cut: Arc<Notify>,
}

#[derive(Default)]
struct Plan {
    /// True until a connection that is to be watched comes.
    wanting: bool,
    fault: Option<Fault>,
    counts: Counts,
    happened: bool,
}

/// A message that is still on the way.
struct Held {
    message: Bytes,
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A way to the service. The first connection after [`Proxy::arm`] is watched. Returns where it begins.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn to_service(upstream: Upstream) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let accepting = accept_tcp(listener, upstream, Arc::clone(&shared));
        Ok((Self { shared, _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)) }, address))
    }

    /// A way to a PostgreSQL server, through a socket in `directory`. Connections that append are watched.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn to_database(directory: &Path, server: PathBuf) -> io::Result<Self> {
        let listener = UnixListener::bind(directory.join(SOCKET))?;
        let shared = Arc::<Shared>::default();
        let accepting = accept_unix(listener, server.join(SOCKET), Arc::clone(&shared));
        Ok(Self { shared, _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)) })
    }

    /// Counts from zero, and lets `fault` happen when it is due.
    pub fn arm(&self, fault: Option<Fault>) {
        *lock(&self.shared.plan) = Plan { wanting: true, fault, counts: Counts::default(), happened: false };
    }

    /// Lets nothing happen any more.
    pub fn disarm(&self) {
        let mut plan = lock(&self.shared.plan);
        plan.fault = None;
        plan.wanting = false;
    }

    /// Messages since it was armed.
    pub fn counts(&self) -> Counts {
        lock(&self.shared.plan).counts
    }

    /// Whether the fault happened. A blow that hit nobody is none.
    pub fn happened(&self) -> bool {
        lock(&self.shared.plan).happened
    }

    /// Ends the connections that there are when it is called, as when a client's process ends.
    pub fn cutter(&self) -> Arc<dyn Fn() + Send + Sync> {
        let cut = Arc::clone(&self.shared.cut);
        Arc::new(move || cut.notify_waiters())
    }

    /// Whether a connection came from here.
    pub fn is_origin(&self, address: &str) -> bool {
        address.parse().is_ok_and(|address| lock(&self.shared.origins).contains(&address))
    }

    /// Lets the message that was held arrive, late, and waits for what the server makes of it.
    ///
    /// Returns whether one was held.
    pub async fn release(&self) -> bool {
        let held = lock(&self.shared.held).take();
        let Some(Held { message, mut reader, mut writer }) = held else { return false };
        // A server that has lost its patience answers nothing any more.
        drop(writer.write_all(&message).await);
        swallow_until_silent(&mut reader).await;
        true
    }
}

/// The name of PostgreSQL's socket in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

async fn accept_tcp(listener: TcpListener, upstream: Upstream, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let watched = std::mem::take(&mut lock(&shared.plan).wanting);
        let (upstream, shared) = (upstream.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(upstream.address()).await else { return };
            if let Ok(origin) = server.local_addr() {
                lock(&shared.origins).insert(origin);
            }
            drop((client.set_nodelay(true), server.set_nodelay(true)));
            let link = Link { shared, watched, framings: [Framing::Tls, Framing::Tls] };
            link.run(client.into_split(), server.into_split()).await;
        });
    }
}

async fn accept_unix(listener: UnixListener, server: PathBuf, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (server, shared) = (server.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(server) = UnixStream::connect(server).await else { return };
            let framings = [Framing::Frontend(false), Framing::Backend(false)];
            Link { shared, watched: false, framings }.run(client.into_split(), server.into_split()).await;
        });
    }
}

/// One connection through the proxy.
struct Link {
    shared: Arc<Shared>,
    watched: bool,
    framings: [Framing; 2],
}

/// How one direction ended.
enum End {
    /// The sender has ended it, or the receiver is gone.
    Closed,
    Cut(How),
    Deafened,
    Held(Bytes),
}

impl Link {
    async fn run<R: Reader, W: Writer>(self, client: (R, W), server: (R, W)) {
        let (mut from_client, mut to_client) = client;
        let (mut from_server, mut to_server) = server;
        let Self { shared, watched, framings: [client_framing, server_framing] } = self;
        let watched = std::sync::atomic::AtomicBool::new(watched);
        let direction =
            |side, framing| Direction { side, framing, buffer: BytesMut::new(), shared: &shared, watched: &watched };
        let (mut up, mut down) = (direction(Side::Client, client_framing), direction(Side::Server, server_framing));
        let ended = tokio::select! {
            () = shared.cut.notified() => (Side::Client, End::Cut(How::End)),
            end = up.pass(&mut from_client, &mut to_server) => (Side::Client, end),
            end = down.pass(&mut from_server, &mut to_client) => (Side::Server, end),
        };
        let end = match ended {
            (Side::Client, End::Closed) => {
                drop(to_server.shutdown().await);
                down.pass(&mut from_server, &mut to_client).await
            }
            (Side::Server, End::Closed) => {
                drop(to_client.shutdown().await);
                up.pass(&mut from_client, &mut to_server).await
            }
            (_, end) => end,
        };
        match end {
            End::Closed | End::Cut(How::End) => {}
            End::Cut(How::Reset) => {
                to_client.reset();
                to_server.reset();
                return;
            }
            End::Deafened => swallow_until_silent(&mut from_server).await,
            End::Held(message) => {
                let held = Held { message, reader: Box::new(from_server), writer: Box::new(to_server) };
                *lock(&shared.held) = Some(held);
                drop(to_client.shutdown().await);
                drop(timeout(FAREWELL, swallow(&mut from_client)).await);
                return;
            }
        }
        // What was passed on must arrive: whoever closes with something unread sends a reset instead.
        drop((to_client.shutdown().await, to_server.shutdown().await));
        let farewell = async { tokio::join!(swallow(&mut from_client), swallow(&mut from_server)) };
        drop(timeout(FAREWELL, farewell).await);
    }
}

struct Direction<'l> {
    side: Side,
    framing: Framing,
    buffer: BytesMut,
    shared: &'l Shared,
    watched: &'l std::sync::atomic::AtomicBool,
}

impl Direction<'_> {
    async fn pass(&mut self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> End {
        loop {
            while let Some(message) = self.framing.next(&mut self.buffer) {
                let due = self.due(&message);
                match &due {
                    None | Some(Act::Cut(Moment::After, _) | Act::Strike { moment: Moment::After, .. }) => {}
                    Some(Act::Cut(Moment::Before, how)) => return End::Cut(*how),
                    Some(Act::Deafen) => return End::Deafened,
                    Some(Act::Hold) => return End::Held(message),
                    Some(Act::Strike { moment: Moment::Before, blow, goes_on }) => {
                        self.strike(blow);
                        if !goes_on {
                            return End::Cut(How::End);
                        }
                    }
                }
                if to.write_all(&message).await.is_err() {
                    return End::Closed;
                }
                match due {
                    Some(Act::Cut(Moment::After, how)) => return End::Cut(how),
                    Some(Act::Strike { moment: Moment::After, blow, .. }) => self.strike(&blow),
                    _ => {}
                }
            }
            match from.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return End::Closed,
                Ok(_) => {}
            }
        }
    }

    fn strike(&self, blow: &Blow) {
        if !(blow.0)() {
            lock(&self.shared.plan).happened = false;
        }
    }

    /// What happens to this message.
    fn due(&mut self, message: &[u8]) -> Option<Act> {
        use std::sync::atomic::Ordering;
        if is_writer(&self.framing, message) {
            self.watched.store(true, Ordering::Relaxed);
            return None;
        }
        if !self.watched.load(Ordering::Relaxed) {
            return None;
        }
        let mut plan = lock(&self.shared.plan);
        let number = plan.counts.add(self.side);
        let is_due = |fault: &mut Fault| fault.side == self.side && fault.message == number;
        let due = plan.fault.take_if(is_due)?;
        plan.happened = true;
        Some(due.act)
    }
}

/// True for the first message of a connection that appends: only those ask for generic plans.
fn is_writer(framing: &Framing, message: &[u8]) -> bool {
    const ASKED: &[u8] = b"plan_cache_mode";
    matches!(framing, Framing::Frontend(_))
        && message.first() == Some(&0)
        && message.windows(ASKED.len()).any(|at| at == ASKED)
}

/// Reads until nothing has come for a while.
async fn swallow_until_silent(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    while let Ok(Ok(1..)) = timeout(SILENCE, from.read(&mut buffer)).await {}
}

async fn swallow(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = from.read(&mut buffer).await {}
    // Both directions are awaited together: one that has failed must not spin.
    sleep(Duration::ZERO).await;
}

trait Reader: AsyncRead + Send + Sync + Unpin + 'static {}
impl Reader for tcp::OwnedReadHalf {}
impl Reader for unix::OwnedReadHalf {}

trait Writer: AsyncWrite + Send + Sync + Unpin + 'static {
    /// Ends the connection without a word.
    fn reset(self);
}

impl Writer for tcp::OwnedWriteHalf {
    fn reset(self) {
        drop(self.as_ref().set_zero_linger());
        self.forget();
    }
}

impl Writer for unix::OwnedWriteHalf {
    fn reset(self) {
        self.forget();
    }
}
