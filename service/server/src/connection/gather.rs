//! A connection whose writes leave together.
//!
//! HTTP/2 flushes after each larger frame. Each flush would be a TLS record and a system call of its own, and a join's
//! answer has three; those of several streams come at the same moment. Here they are gathered while the connection is
//! polled, and sent when it waits, once whoever is ready to run has had its turn.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than this is not gathered, in bytes: what a TLS record holds.
const MOST: usize = 16 * 1024;
/// Room that a connection keeps for what it writes next, in bytes.
const KEPT: usize = 4 * 1024;

/// A handle on a stream; all clones are the same stream.
#[derive(Debug)]
pub struct Gathering<S>(Arc<Mutex<Stream<S>>>);

#[derive(Debug)]
struct Stream<S> {
    stream: S,
    gathered: BytesMut,
    /// True until the stream has flushed what it took.
    unflushed: bool,
    /// True while others may still add to what is gathered.
    lingers: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathering<S> {
    /// Gathers what is written to `stream`.
    pub fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Stream { stream, gathered: BytesMut::new(), unflushed: false, lingers: false })))
    }

    /// Polls a connection that reads and writes through this stream, and then sends what it wrote.
    ///
    /// # Errors
    /// The connection's own. A stream that broke is found by the connection, as it reads or writes next.
    pub fn poll_through<F: Future>(&self, connection: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        let polled = connection.poll(context);
        let mut stream = self.stream();
        stream.lingers = !stream.lingers && !stream.gathered.is_empty() && polled.is_pending();
        if stream.lingers {
            context.waker().wake_by_ref();
        } else {
            // Pending means that the task is woken when more can be sent.
            let _ = stream.poll_send(context);
        }
        polled
    }

    fn stream(&self) -> MutexGuard<'_, Stream<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for Gathering<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    /// Sends all that is gathered.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            self.unflushed = true;
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.gathered))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.gathered.advance(sent),
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
            if self.gathered.capacity() > KEPT {
                self.gathered = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream().stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream();
        if stream.gathered.len() >= MOST {
            ready!(stream.poll_send(context))?;
        }
        let taken = bytes.get(..MOST).unwrap_or(bytes);
        stream.gathered.extend_from_slice(taken);
        Poll::Ready(Ok(taken.len()))
    }

    /// Sent when the connection waits.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream();
        ready!(stream.poll_send(context))?;
        Pin::new(&mut stream.stream).poll_shutdown(context)
    }
}
