//! How many connections and requests are open, of everybody and of each network: memory stays flat, and no host takes the
//! places of all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use join_domain::refusal::{Code, Refusal};

use crate::{ceremony::strangers::network, config::Limits};

/// How often it is looked whether a connection is idle. The first request must come within this time.
const LOOK: Duration = Duration::from_secs(15);
/// How long a connection may be open without a request.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// The places of a node.
pub(crate) struct Places {
    everybody: Rooms,
    /// Those with open connections.
    networks: Mutex<HashMap<IpAddr, Rooms>>,
    most_of_network: (usize, usize),
}

/// Room for connections and for requests.
#[derive(Clone)]
struct Rooms {
    connections: Arc<Room>,
    requests: Arc<Room>,
}

struct Room {
    most: usize,
    taken: AtomicUsize,
}

/// A place in a room, until it is dropped.
struct Place(Arc<Room>);

/// An open connection.
pub(crate) struct ConnectionPlace {
    places: Arc<Places>,
    network: IpAddr,
    rooms: Rooms,
    _taken: [Place; 2],
    begun: AtomicUsize,
    open: AtomicUsize,
}

/// An open request.
pub(crate) struct RequestPlace {
    connection: Arc<ConnectionPlace>,
    _taken: [Place; 2],
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            everybody: Rooms::new(limits.connections, limits.streams),
            networks: Mutex::default(),
            most_of_network: (limits.connections_per_address, limits.streams_per_address),
        })
    }

    /// A place for a connection; none when all are taken.
    pub(crate) fn connection(self: &Arc<Self>, address: IpAddr) -> Option<Arc<ConnectionPlace>> {
        let network = network(address);
        let everybody = Place::take(&self.everybody.connections)?;
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let (connections, requests) = self.most_of_network;
        let rooms = networks.entry(network).or_insert_with(|| Rooms::new(connections, requests)).clone();
        Some(Arc::new(ConnectionPlace {
            places: Arc::clone(self),
            network,
            _taken: [everybody, Place::take(&rooms.connections)?],
            rooms,
            begun: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        }))
    }
}

impl Rooms {
    fn new(connections: usize, requests: usize) -> Self {
        let room = |most| Arc::new(Room { most, taken: AtomicUsize::new(0) });
        Self { connections: room(connections), requests: room(requests) }
    }
}

impl Place {
    fn take(room: &Arc<Room>) -> Option<Self> {
        let place = Self(Arc::clone(room));
        (room.taken.fetch_add(1, Ordering::Relaxed) < room.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionPlace {
    /// A place for a request.
    ///
    /// # Errors
    /// RATE_LIMITED when too many are open from this network, UNAVAILABLE when too many are open at all.
    pub(crate) fn request(self: &Arc<Self>) -> Result<RequestPlace, Refusal> {
        let of_network = Place::take(&self.rooms.requests)
            .ok_or_else(|| Refusal::new(Code::RateLimited, "too many requests are open from this address"))?;
        let of_everybody = Place::take(&self.places.everybody.requests).ok_or_else(|| {
            Refusal::new(Code::Unavailable, "too many requests are open: try again, or at another node")
        })?;
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(RequestPlace { connection: Arc::clone(self), _taken: [of_network, of_everybody] })
    }

    /// Returns once nothing was asked for too long: a client that is only there takes the place of others.
    pub(crate) async fn idle(&self) {
        let (mut since, mut last) = (Instant::now(), 0);
        loop {
            tokio::time::sleep(LOOK).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun != last || self.open.load(Ordering::Relaxed) > 0 {
                (since, last) = (Instant::now(), begun);
            } else if begun == 0 || since.elapsed() >= IDLE {
                return;
            }
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut networks = self.places.networks.lock().unwrap_or_else(PoisonError::into_inner);
        // Ours, which is about to be given back, is the last.
        if self.rooms.connections.taken.load(Ordering::Relaxed) == 1 {
            networks.remove(&self.network);
        }
    }
}

impl Drop for RequestPlace {
    fn drop(&mut self) {
        self.connection.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(limits: Limits) -> Arc<Places> {
        Places::new(&limits)
    }

    fn host(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn one_network_takes_only_its_own_connections() {
        let places = places(Limits { connections: 3, connections_per_address: 2, ..Limits::default() });
        let of_first: Vec<_> = (0..3).filter_map(|_| places.connection(host(1))).collect();
        assert_eq!(of_first.len(), 2);
        let of_second = places.connection(host(2)).expect("the third place of all");
        assert!(places.connection(host(3)).is_none(), "all are taken");

        drop(of_first);
        assert!(places.connection(host(3)).is_some());
        drop(of_second);
        assert!(places.networks.lock().unwrap().is_empty(), "nothing is kept of networks that left");
    }

    #[test]
    fn requests_count_over_all_connections() {
        let places = places(Limits { streams: 3, streams_per_address: 2, ..Limits::default() });
        let [first, again, second, third] = [1, 1, 2, 3].map(|last| places.connection(host(last)).unwrap());
        let open = [first.request().unwrap(), again.request().unwrap()];
        assert_eq!(first.request().err().unwrap().code, Code::RateLimited);
        let last = second.request().unwrap();
        assert_eq!(third.request().err().unwrap().code, Code::Unavailable);

        drop(open);
        assert!(third.request().is_ok() && first.request().is_ok());
        drop(last);
    }
}
