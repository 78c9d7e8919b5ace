//! TLS handshakes, in turn: in a rush, joins that have begun are finished before others begin.
//!
//! A connection that waits for its handshake holds a few kilobytes, and fifty once it is open. If all that come were
//! let in together, they would all be open before the first one is answered.

use std::{io, num::NonZero, pin::pin, sync::Arc, time::Duration};

use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Handshakes that have their turn at once, for each processor.
const AT_ONCE: usize = 32;
/// How long a turn is at most: a client that is far away, or does not mean to finish, keeps no other waiting for longer.
const TURN: Duration = Duration::from_millis(50);
/// How long a connection waits for its turn: there may be ten thousand that don't mean to finish.
const WAIT: Duration = Duration::from_secs(1);
/// How long a handshake may take that lost its turn, or got none.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Where handshakes wait for their turn. Clones are the same place.
#[derive(Clone)]
pub(crate) struct Handshakes {
    acceptor: TlsAcceptor,
    turns: Arc<Semaphore>,
}

impl Handshakes {
    pub(crate) fn new(tls: Arc<rustls::ServerConfig>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { acceptor: TlsAcceptor::from(tls), turns: Arc::new(Semaphore::new(AT_ONCE * processors)) }
    }

    /// The handshake of one connection, when its turn has come, or after a second.
    ///
    /// # Errors
    /// The client's, or that it took too long.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let turn = timeout(WAIT, self.turns.acquire()).await;
        let mut handshake = pin!(self.acceptor.accept(stream));
        if turn.is_ok()
            && let Ok(done) = timeout(TURN, handshake.as_mut()).await
        {
            return done;
        }
        drop(turn);
        timeout(HANDSHAKE, handshake).await?
    }
}
