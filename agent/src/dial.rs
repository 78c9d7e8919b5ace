//! Connecting to a host by any of its addresses. They are tried beside each other (RFC 8305, in short), so that one that
//! swallows what it is sent takes nothing from the others.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// How long an address has before the next one is tried too.
const HEAD_START: Duration = Duration::from_millis(300);

/// Connects to the address that answers first; they begin in the resolver's order.
///
/// # Errors
/// When none has answered by the deadline: what each of them said.
pub(crate) async fn dial(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "its name was not resolved in time");
    let addresses: Vec<_> = timeout_at(deadline, lookup_host((host, port))).await.map_err(late)??.collect();
    race(&addresses, deadline).await.map_err(|said| {
        let said = addresses.iter().zip(said).map(|(address, error)| match host.parse::<IpAddr>() {
            // There is this one address, and the message names it already.
            Ok(_) => error,
            Err(_) => format!("{}: {error}", address.ip()),
        });
        io::Error::other(said.collect::<Vec<_>>().join("; "))
    })
}

/// The next one begins after the head start of the one before, or at once when one has failed.
async fn race(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Vec<String>> {
    let mut said = vec!["no answer in time".to_owned(); addresses.len()];
    let mut left = addresses.iter().copied().enumerate();
    // Dropped, it ends those that are still under way.
    let mut tries = JoinSet::new();
    loop {
        if let Some((n, address)) = left.next() {
            tries.spawn(async move { TcpStream::connect(address).await.map_err(|error| (n, error)) });
        }
        let next = if left.len() == 0 { deadline } else { deadline.min(Instant::now() + HEAD_START) };
        match timeout_at(next, tries.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err((n, error))))) => said[n] = error.to_string(),
            Ok(Some(Err(broken))) => std::panic::resume_unwind(broken.into_panic()),
            Ok(None) => return Err(said),
            Err(_) if Instant::now() >= deadline => return Err(said),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        net::{TcpListener, TcpSocket},
        time::timeout,
    };

    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";

    fn within(time: Duration) -> Instant {
        Instant::now() + time
    }

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address where nobody listens any more.
    async fn refusing() -> SocketAddr {
        listening().await.1
    }

    /// An address that answers nobody: its queue is full, and nobody accepts. It is one for as long as the rest is held.
    async fn silent() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(LOOPBACK.parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queue.push(connected.unwrap());
            assert!(queue.len() < 100, "a queue of one is full at last");
        }
        (address, listener, queue)
    }

    #[tokio::test]
    async fn the_next_address_is_tried_at_once_when_one_refuses() {
        let (_listener, address) = listening().await;
        let began = Instant::now();
        let stream =
            race(&[refusing().await, refusing().await, address], within(Duration::from_secs(10))).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!(began.elapsed() < 2 * HEAD_START, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_keep_the_next_from_being_tried() {
        let ((hole, _held, _queue), (_listener, address)) = (silent().await, listening().await);
        let began = Instant::now();
        let stream = race(&[hole, address], within(Duration::from_secs(10))).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!(began.elapsed() >= HEAD_START, "it had its time: {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn what_each_address_said_is_told_in_their_order() {
        let (hole, _held, _queue) = silent().await;
        let said = race(&[hole, refusing().await], within(2 * HEAD_START)).await.unwrap_err();
        assert_eq!(said[0], "no answer in time");
        assert!(said[1].contains("refused"), "{said:?}");
    }

    #[tokio::test]
    async fn a_name_is_told_with_its_addresses_and_an_address_is_not_repeated() {
        let port = refusing().await.port();
        let dialled = async |host| dial(host, port, within(Duration::from_secs(5))).await.unwrap_err().to_string();
        let said = dialled("localhost").await;
        assert!(said.contains("127.0.0.1: ") && said.contains("refused"), "{said}");
        let said = dialled("127.0.0.1").await;
        assert!(said.starts_with("Connection refused"), "{said}");
    }
}
