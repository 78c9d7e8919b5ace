//! A bot's host: a clock that can be set, a disk that can fail, and agents that come and go on it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use join_agent::{
    Agent,
    clock::{Clock, SystemClock},
    config::{Config, Keypair},
    entropy::{Entropy, SystemEntropy},
    storage::{Memory, Storage},
    trust::Trust,
};

use crate::authority::{Authority, SECRET};

/// The machine's clock, moved forward.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(crate) fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_seconds(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::seconds(self.0.load(Ordering::SeqCst))
    }
}

/// The system's randomness, but always the shortest delay.
#[derive(Debug)]
struct Impatient;

impl Entropy for Impatient {
    fn bits(&self) -> [u8; 16] {
        SystemEntropy.bits()
    }

    fn fraction(&self) -> f64 {
        0.0
    }
}

/// One host and the authority that it joins.
pub(crate) struct Host {
    pub(crate) clock: TestClock,
    pub(crate) authority: Authority,
    pub(crate) disk: Arc<dyn Storage>,
    pub(crate) config: Config,
}

impl Host {
    pub(crate) async fn new() -> Self {
        Self::with_disk(Arc::new(Memory::default())).await
    }

    pub(crate) async fn with_disk(disk: Arc<dyn Storage>) -> Self {
        let clock = TestClock::default();
        let authority = Authority::start(clock.clone()).await;
        let config = config(&authority);
        Self { clock, authority, disk, config }
    }

    /// A process that has just started.
    pub(crate) fn agent(&self) -> Agent {
        self.agent_on(self.disk.clone())
    }

    /// A process that has just started, with another view of the disk.
    pub(crate) fn agent_on(&self, disk: Arc<dyn Storage>) -> Agent {
        Agent::new(self.config.clone(), disk, self.clock.clone(), Impatient)
    }

    /// A process on a host whose clock is another.
    pub(crate) fn agent_by(&self, clock: TestClock) -> Agent {
        Agent::new(self.config.clone(), self.disk.clone(), clock, Impatient)
    }

    pub(crate) fn let_certificate_expire(&self) {
        self.clock.advance(TimeDelta::hours(2));
    }
}

/// Gives a file to another user, whose id is returned. Only root can: else the rest of a test is skipped, and that is said.
pub(crate) fn given_away(path: &Path) -> Option<u32> {
    let other = fs::metadata(path).unwrap().uid() + 1;
    if chown(path, Some(other), None).is_ok() {
        return Some(other);
    }
    // Not with `eprintln!`: of a test that passes, nobody would see it.
    let word = b"SKIPPED: only root can give a file to another user, so another user's was not looked at\n";
    std::io::stderr().write_all(word).unwrap();
    None
}

pub(crate) fn config(authority: &Authority) -> Config {
    let trust = Trust { pins: vec![authority.pin()], cas: Vec::new() };
    let keypair = Keypair::Managed { registration_secret: Some(SECRET.into()) };
    Config::new(authority.address.to_string().parse().unwrap(), trust, "example".parse().unwrap(), keypair)
}
