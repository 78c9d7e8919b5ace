//! Those who proved nothing. They are counted, limited and summed up; they write nothing to a token's history.
//!
//! A limit is on failures, each minute, from one address and from one address on one token; never on a token alone, or
//! a stranger could shut a bot out. Whoever solves the challenge is never refused for it; what is limited of proven holders
//! is how many of their refusals are recorded one by one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use join_domain::{
    Timestamp,
    envelope::StreamId,
    event::{Event, RefusalsSummarised},
    id::Name,
    refusal::{Code, Refusal},
};
use join_ledger::{AppendError, Change, Ledger, StreamAppend};

use crate::{caller::Peer, cluster::system, config::Limits, telemetry::METRICS};

/// How many different tokens are told apart in one interval; the rest is summed up together.
const MAX_COUNTED: usize = 10_000;
/// How often a summary is appended again after a conflict.
const MAX_TRIES: usize = 16;

/// Counters and limits.
pub struct Strangers {
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    by_token_and_address: DefaultKeyedRateLimiter<(Name, IpAddr)>,
    guesses: DefaultKeyedRateLimiter<(Name, IpAddr)>,
    proven: DefaultKeyedRateLimiter<(Name, IpAddr)>,
    counted: Mutex<Counted>,
}

struct Counted {
    since: Timestamp,
    refusals: HashMap<(Option<Name>, Code), u64>,
}

impl Strangers {
    /// Nothing counted yet.
    pub fn new(limits: &Limits, now: Timestamp) -> Self {
        Self {
            by_address: RateLimiter::keyed(Quota::per_minute(limits.failures_per_address)),
            by_token_and_address: RateLimiter::keyed(Quota::per_minute(limits.failures_per_token_and_address)),
            guesses: RateLimiter::keyed(Quota::per_minute(limits.failures_per_token_and_address)),
            proven: RateLimiter::keyed(Quota::per_minute(limits.refusals_per_token_and_address)),
            counted: Mutex::new(Counted { since: now, refusals: HashMap::new() }),
        }
    }

    /// Counts a refusal for a name that is no token's: invented names are not told apart.
    pub fn refused_unknown(&self, peer: &Peer, refusal: Refusal) -> Refusal {
        let within = self.by_address.check_key(&network(peer.address.ip())).is_ok();
        self.count(None, if within { refusal } else { too_many() }, false)
    }

    /// Counts a refusal on a token; beyond the limits the answer is RATE_LIMITED.
    pub fn refused_from(&self, token: &Name, peer: &Peer, refusal: Refusal) -> Refusal {
        self.count(Some(token.clone()), self.told(token, peer, refusal), false)
    }

    /// What a stranger is told: the refusal, or beyond the limits RATE_LIMITED.
    pub fn told(&self, token: &Name, peer: &Peer, refusal: Refusal) -> Refusal {
        let address = network(peer.address.ip());
        let within = self.by_address.check_key(&address).is_ok()
            & self.by_token_and_address.check_key(&(token.clone(), address)).is_ok();
        if within { refusal } else { too_many() }
    }

    /// Limits guesses of a registration secret: before it is compared, so that no more are told apart than allowed.
    ///
    /// # Errors
    /// RATE_LIMITED.
    pub fn check_guess(&self, token: &Name, peer: &Peer) -> Result<(), Refusal> {
        match self.guesses.check_key(&(token.clone(), network(peer.address.ip()))) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.count(Some(token.clone()), too_many(), false)),
        }
    }

    /// Limits how many refusals of proven holders are recorded one by one, so that a copied key can't fill the disk. The
    /// others are summed up like those of strangers, and nothing else is decided about them.
    ///
    /// # Errors
    /// RATE_LIMITED.
    pub fn check_refusals(&self, token: &Name, peer: &Peer) -> Result<(), Refusal> {
        match self.proven.check_key(&(token.clone(), network(peer.address.ip()))) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.count(Some(token.clone()), too_many(), true)),
        }
    }

    fn count(&self, token: Option<Name>, refusal: Refusal, proven: bool) -> Refusal {
        METRICS.refused(refusal.code, proven);
        let mut counted = self.counted();
        let known = counted.refusals.len() < MAX_COUNTED;
        let key = (token.filter(|_| known), refusal.code);
        let count = counted.refusals.entry(key).or_default();
        *count = count.saturating_add(1);
        refusal
    }

    /// Appends what was counted since the last time: one event for each token and code.
    ///
    /// # Errors
    /// When the ledger can't take it; the counts are kept for the next time. So are those that it may have taken: the
    /// summaries may tell of more refusals than there were, never of fewer.
    pub async fn summarise(&self, ledger: &Ledger) -> Result<(), Refusal> {
        use super::OrRefuse as _;
        self.by_address.retain_recent();
        self.by_token_and_address.retain_recent();
        self.guesses.retain_recent();
        self.proven.retain_recent();
        let until = ledger.now();
        let (since, refusals) = {
            let mut counted = self.counted();
            (std::mem::replace(&mut counted.since, until), std::mem::take(&mut counted.refusals))
        };
        let summarised = |((token, code), count): (&(Option<Name>, Code), &u64)| RefusalsSummarised {
            token: token.clone(),
            code: *code,
            count: *count,
            since,
            until,
        };
        let mut events: Vec<RefusalsSummarised> = refusals.iter().map(summarised).collect();
        events.sort_by(|a, b| (&a.token, a.code).cmp(&(&b.token, b.code)));
        let mut left = events.chunks(200);
        while let Some(events) = left.next() {
            if let Err(error) = append(ledger, events, until).await {
                let mut counted = self.counted();
                counted.since = since;
                for unrecorded in events.iter().chain(left.flatten()) {
                    let count = counted.refusals.entry((unrecorded.token.clone(), unrecorded.code)).or_default();
                    *count = count.saturating_add(unrecorded.count);
                }
                return Err(error).or_refuse();
            }
        }
        Ok(())
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        // A panic while counting leaves numbers that are still numbers.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every node appends to the cluster's stream, each in its minute: a conflict is nothing unusual.
async fn append(ledger: &Ledger, events: &[RefusalsSummarised], at: Timestamp) -> Result<(), AppendError> {
    for _ in 0..MAX_TRIES {
        let loaded = ledger.load(StreamId::CLUSTER).await.map_err(AppendError::from)?;
        let Some(loaded) = loaded else { return Ok(()) };
        let change = Change {
            events: events.iter().cloned().map(Event::RefusalsSummarised).collect(),
            decided_at: at,
            origin: system(),
        };
        match ledger.append(StreamAppend::following(&loaded, change)).await {
            Ok(_) => return Ok(()),
            Err(AppendError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(AppendError::Conflict)
}

/// Limits are for networks: one host has a whole /64 of IPv6 addresses to itself.
fn network(address: IpAddr) -> IpAddr {
    prefix(address, 64)
}

/// What comes first in an address: so many bits of IPv6, or an IPv4 address as a whole.
pub(crate) fn prefix(address: IpAddr, bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !(u128::MAX >> bits)).into()),
        v4 => v4,
    }
}

fn too_many() -> Refusal {
    Refusal::new(Code::RateLimited, "too many failed attempts from this address: wait a little, then try again")
}
