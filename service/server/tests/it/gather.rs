//! Writes that leave together.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use join_server::connection::gather::Gathering;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};

/// Remembers how long each write was.
struct Counted(DuplexStream, Arc<Mutex<Vec<usize>>>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = written {
            self.1.lock().unwrap().push(length);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn run<F: Future>(stream: &Gathering<Counted>, connection: F) -> F::Output {
    let mut connection = pin!(connection);
    poll_fn(|context| stream.poll_through(connection.as_mut(), context)).await
}

#[tokio::test]
async fn what_is_written_before_the_connection_waits_leaves_as_one() {
    let ((ours, mut theirs), writes) = (duplex(1 << 20), Arc::default());
    let stream = Gathering::new(Counted(ours, Arc::clone(&writes)));
    let mut io = stream.clone();
    let connection = run(&stream, async move {
        for frame in ["head", "challenge"] {
            io.write_all(frame.as_bytes()).await.unwrap();
            io.flush().await.unwrap();
        }
        let mut solution = [0; 8];
        io.read_exact(&mut solution).await.unwrap();
        io.write_all(b"credentials").await.unwrap();
        io.write_all(b"trailers").await.unwrap();
        io.shutdown().await.unwrap();
    });
    let peer = async {
        let mut got = [0; 13];
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"headchallenge");
        theirs.write_all(b"solution").await.unwrap();
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "credentialstrailers");
    };
    tokio::join!(connection, peer);
    assert_eq!(*writes.lock().unwrap(), [13, 19]);
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_the_connection_up() {
    let ((ours, mut theirs), writes) = (duplex(1000), Arc::default());
    let stream = Gathering::new(Counted(ours, Arc::clone(&writes)));
    let (mut io, taken) = (stream.clone(), Arc::new(Mutex::new(0)));
    let counted = Arc::clone(&taken);
    let connection = run(&stream, async move {
        for number in 0..1000_u32 {
            io.write_all(&number.to_be_bytes().repeat(100)).await.unwrap();
            *counted.lock().unwrap() += 400;
        }
        io.shutdown().await.unwrap();
    });
    let peer = async {
        tokio::task::yield_now().await;
        let held = *taken.lock().unwrap();
        assert!(held < 40_000, "{held} bytes were taken from a connection whose peer reads nothing");
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = tokio::join!(connection, peer);
    let sent: Vec<u8> = (0..1000_u32).flat_map(|number| number.to_be_bytes().repeat(100)).collect();
    assert!(got == sent, "it arrives as it was written");
}
