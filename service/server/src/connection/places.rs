//! How many connections and requests are open, of everybody and of each network: memory stays flat, and no host takes the
//! places of all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use join_domain::refusal::{Code, Refusal};

use crate::{ceremony::strangers::prefix, config::Limits};

/// How often a connection is checked for idleness and late requests. The first request must
/// come within this time.
const LOOK: Duration = Duration::from_secs(15);
/// How many looks a stranger's request may take, until its answer has been read. A client that reads nothing, and lives,
/// would keep its place for ever.
const REQUEST: usize = 5;
/// The same for a join, whose steps have times of their own.
const JOIN: usize = 24;
/// More looks than any request may take.
const RING: usize = 32;
/// How long a connection may be open without a request.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// The bits of an IPv6 address that its network is known by. A household has a /56: with places for each host's /64, it
/// could take those of all.
const NETWORK: u32 = 56;

/// The places of a node.
pub(crate) struct Places {
    everybody: Rooms,
    /// As much room again for requests with a live certificate, when strangers took the other.
    known: Arc<Room>,
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
    _of_everybody: Place,
    /// Given back while the networks are locked.
    of_network: Option<Place>,
    begun: AtomicUsize,
    open: AtomicUsize,
    /// Looks so far.
    looks: AtomicUsize,
    /// Open requests by the look at which they are late, modulo the ring.
    due: [AtomicUsize; RING],
}

/// An open request.
pub(crate) struct RequestPlace {
    connection: Arc<ConnectionPlace>,
    due: usize,
    may_take_long: AtomicBool,
    _taken: (Place, Option<Place>),
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            everybody: Rooms::new(limits.connections.get(), limits.streams.get()),
            known: Room::new(limits.streams.get()),
            networks: Mutex::default(),
            most_of_network: (limits.connections_per_address.get(), limits.streams_per_address.get()),
        })
    }

    /// A place for a connection; none when all are taken.
    pub(crate) fn connection(self: &Arc<Self>, address: IpAddr) -> Option<Arc<ConnectionPlace>> {
        let network = prefix(address, NETWORK);
        let everybody = Place::take(&self.everybody.connections)?;
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let (connections, requests) = self.most_of_network;
        let rooms = networks.entry(network).or_insert_with(|| Rooms::new(connections, requests)).clone();
        Some(Arc::new(ConnectionPlace {
            places: Arc::clone(self),
            network,
            _of_everybody: everybody,
            of_network: Some(Place::take(&rooms.connections)?),
            rooms,
            begun: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            due: [const { AtomicUsize::new(0) }; RING],
        }))
    }
}

impl Rooms {
    fn new(connections: usize, requests: usize) -> Self {
        Self { connections: Room::new(connections), requests: Room::new(requests) }
    }
}

impl Room {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: AtomicUsize::new(0) })
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
    /// A place for a request, of a join or another one. Who is known (that is asked when there is no other) finds one even
    /// if strangers took all.
    ///
    /// # Errors
    /// RATE_LIMITED when too many are open from this network, UNAVAILABLE when too many are open at all.
    pub(crate) fn request(
        self: &Arc<Self>,
        is_join: bool,
        is_known: impl FnOnce() -> bool,
    ) -> Result<RequestPlace, Refusal> {
        let taken = match self.among_everybody() {
            Ok((of_network, of_everybody)) => (of_everybody, Some(of_network)),
            Err(refusal) if is_known() => (Place::take(&self.places.known).ok_or(refusal)?, None),
            Err(refusal) => return Err(refusal),
        };
        let looks = if is_join { JOIN } else { REQUEST };
        let due = self.looks.load(Ordering::Relaxed).wrapping_add(looks) % RING;
        self.due[due].fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(RequestPlace { connection: Arc::clone(self), due, may_take_long: AtomicBool::new(false), _taken: taken })
    }

    /// Something was asked that takes no place.
    pub(crate) fn probed(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    fn among_everybody(&self) -> Result<(Place, Place), Refusal> {
        let of_network = Place::take(&self.rooms.requests)
            .ok_or_else(|| Refusal::new(Code::RateLimited, "too many requests are open from this address"))?;
        let of_everybody = Place::take(&self.places.everybody.requests).ok_or_else(|| {
            Refusal::new(Code::Unavailable, "too many requests are open: try again, or at another node")
        })?;
        Ok((of_network, of_everybody))
    }

    /// One more look: true when a request is still open that should be over by now.
    fn is_late(&self) -> bool {
        let look = self.looks.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.due[look % RING].load(Ordering::Relaxed) > 0
    }

    /// Returns once nothing was asked for too long, or a request is not over in time: a client that is only there takes
    /// the place of others.
    pub(crate) async fn idle(&self) {
        let (mut since, mut last) = (Instant::now(), 0);
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_late() {
                return;
            }
            let begun = self.begun.load(Ordering::Relaxed);
            if begun != last || self.open.load(Ordering::Relaxed) > 0 {
                (since, last) = (Instant::now(), begun);
            } else if begun == 0 || since.elapsed() >= IDLE {
                return;
            }
        }
    }
}

impl RequestPlace {
    /// From now on it is no stranger's.
    pub(crate) fn may_take_long(&self) {
        if !self.may_take_long.swap(true, Ordering::Relaxed) {
            self.connection.due[self.due].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut networks = self.places.networks.lock().unwrap_or_else(PoisonError::into_inner);
        self.of_network = None;
        if self.rooms.connections.taken.load(Ordering::Relaxed) == 0 {
            networks.remove(&self.network);
        }
    }
}

impl Drop for RequestPlace {
    fn drop(&mut self) {
        self.may_take_long();
        self.connection.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    fn places(limits: Limits) -> Arc<Places> {
        Places::new(&limits)
    }

    fn few(limit: usize) -> NonZero<usize> {
        NonZero::new(limit).unwrap()
    }

    fn host(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn one_network_takes_only_its_own_connections() {
        let places = places(Limits { connections: few(3), connections_per_address: few(2), ..Limits::default() });
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
    fn a_household_is_one_network() {
        let places = places(Limits { connections_per_address: few(1), ..Limits::default() });
        let come = |address: &str| places.connection(address.parse().unwrap());
        let first = come("2001:db8:0:4200::1").unwrap();
        assert!(come("2001:db8:0:42ff::2").is_none());
        let of_others = ["2001:db8:0:4300::1", "192.0.2.1", "::ffff:192.0.2.2"].map(|address| come(address).unwrap());
        assert!(come("192.0.2.2").is_none(), "the same in another form");
        drop((first, of_others));
    }

    fn ask(connection: &Arc<ConnectionPlace>) -> Result<RequestPlace, Refusal> {
        connection.request(false, || false)
    }

    #[test]
    fn requests_count_over_all_connections() {
        let places = places(Limits { streams: few(3), streams_per_address: few(2), ..Limits::default() });
        let [first, again, second, third] = [1, 1, 2, 3].map(|last| places.connection(host(last)).unwrap());
        let open = [ask(&first).unwrap(), ask(&again).unwrap()];
        assert_eq!(ask(&first).err().unwrap().code, Code::RateLimited);
        let last = ask(&second).unwrap();
        assert_eq!(ask(&third).err().unwrap().code, Code::Unavailable);

        drop(open);
        assert!(ask(&third).is_ok() && ask(&first).is_ok());
        drop(last);
    }

    #[test]
    fn strangers_leave_room_for_who_is_known() {
        let places = places(Limits { streams: few(2), streams_per_address: few(2), ..Limits::default() });
        let connection = places.connection(host(1)).unwrap();
        let strangers = [ask(&connection).unwrap(), ask(&connection).unwrap()];
        assert!(ask(&connection).is_err());
        let known = [(); 2].map(|()| connection.request(true, || true).unwrap());
        assert!(connection.request(true, || true).is_err(), "that has an end, too");
        drop((strangers, known));
        assert!(connection.request(true, || unreachable!("there is room for everybody")).is_ok());
    }

    #[test]
    fn a_strangers_request_is_late_when_it_is_not_over_in_time() {
        let places = places(Limits::default());
        let connection = places.connection(host(1)).unwrap();
        let late_after = |most: usize| (1..=most).find(|_| connection.is_late());
        drop(ask(&connection));
        let long = ask(&connection).unwrap();
        long.may_take_long();
        assert_eq!(late_after(3 * RING), None, "one is over, one may take long");
        let request = ask(&connection).unwrap();
        assert_eq!(late_after(RING), Some(REQUEST));
        drop(request);
        let join = connection.request(true, || false).unwrap();
        assert_eq!(late_after(RING), Some(JOIN));
        drop(join);
        assert_eq!(late_after(3 * RING), None);
    }
}
