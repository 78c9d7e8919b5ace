//! A bot's host: a disk that outlives processes, a way to the service, and one join at a time.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use join_agent::{
    Agent,
    config::{Config, Keypair},
    entropy::SystemEntropy,
    error::{JoinError, Next},
    state::State,
    storage::{Directory, Storage, StorageError},
    trust::Trust,
    vault::Vault,
};

use crate::{
    clock::SharedClock,
    disk::MemoryDisk,
    http,
    json_bot::JsonBot,
    proxy::Proxy,
    world::{LONG_LIFE, World},
};

/// How often a join is tried before it counts as stuck, and how long to wait in between: at first, and at most.
const TRIES: u32 = 10;
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How a bot speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// The agent, over gRPC.
    Grpc,
    /// A small client, JSON over HTTP.
    Json,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::Json => "json",
        })
    }
}

/// What a host keeps when its processes end.
#[derive(Clone)]
pub enum Disk {
    /// In memory.
    Memory(Arc<MemoryDisk>),
    /// In a directory, as in production.
    Directory(PathBuf),
}

/// Why a join did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Trying again is all there is to do.
    #[error("{0}")]
    Again(String),
    /// An administrator would have to do something.
    #[error("{0}")]
    Stuck(String),
}

/// The host.
pub struct Host {
    /// Of its bot and its token.
    pub name: String,
    /// How it speaks.
    pub client: Client,
    /// What its agent is told.
    pub config: Config,
    /// What it keeps.
    pub disk: Disk,
    /// Its way to the service.
    pub proxy: Proxy,
    /// Where that begins.
    pub way: SocketAddr,
    /// The registration secret, if there was one.
    pub secret: Option<String>,
    clock: SharedClock,
    trust: http::Trust,
}

impl Host {
    /// A host that knows the registration secret, or none.
    ///
    /// # Errors
    /// When its way can't be laid.
    pub async fn new(
        world: &World,
        name: &str,
        client: Client,
        disk: Disk,
        secret: Option<String>,
        life: Duration,
    ) -> Result<Self> {
        let (proxy, way) = Proxy::to_service(world.upstream.clone()).await?;
        let keypair = Keypair::Managed { registration_secret: secret.clone().map(Into::into) };
        let trust = Trust { pins: vec![world.pin], cas: Vec::new() };
        let mut config = Config::new(way.to_string().parse()?, trust, name.parse()?, keypair);
        config.certificate_ttl = life;
        Ok(Self {
            name: name.to_owned(),
            client,
            config,
            disk,
            proxy,
            way,
            secret,
            clock: world.clock.clone(),
            trust: world.admin.trust.clone(),
        })
    }

    /// Certificates live long from now on.
    pub fn live_long(&mut self) {
        self.config.certificate_ttl = LONG_LIFE;
    }

    /// The disk, for one process.
    ///
    /// # Errors
    /// When another process has it.
    pub fn storage(&self) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(match &self.disk {
            Disk::Memory(memory) => Arc::clone(memory) as Arc<dyn Storage>,
            Disk::Directory(path) => Arc::new(Directory::open(path)?),
        })
    }

    /// What is stored.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn state(&self) -> Result<State, StorageError> {
        let storage: Arc<dyn Storage> = match &self.disk {
            Disk::Memory(memory) => Arc::clone(memory) as Arc<dyn Storage>,
            Disk::Directory(path) => Arc::new(Directory::look(path)),
        };
        Vault::open(storage).map(|vault| vault.state().clone())
    }

    /// One try of a process that has just started.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn join(&self) -> Result<(), Failure> {
        let storage = self.storage().map_err(|error| Failure::Stuck(error.to_string()))?;
        self.join_on(storage).await
    }

    /// The same with another view of the disk.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn join_on(&self, storage: Arc<dyn Storage>) -> Result<(), Failure> {
        match self.client {
            Client::Grpc => {
                let mut agent = Agent::new(self.config.clone(), storage, self.clock.clone(), SystemEntropy);
                agent.join_once().await.map(drop).map_err(Failure::from)
            }
            Client::Json => {
                let bot = JsonBot {
                    token: self.config.token.clone(),
                    secret: self.secret.clone().unwrap_or_default(),
                    life: self.config.certificate_ttl,
                    way: self.way,
                    trust: self.trust.clone(),
                };
                bot.join_once(storage).await
            }
        }
    }

    /// Tries until it has joined, as a process that is started again and again.
    ///
    /// # Errors
    /// When an administrator would have to do something, or it takes too many tries.
    pub async fn join_at_last(&self) -> Result<()> {
        let mut pause = PAUSE.0;
        let mut failures = Vec::new();
        for _ in 0..TRIES {
            match self.join().await {
                Ok(()) => return Ok(()),
                Err(Failure::Stuck(why)) => bail!("it needs an administrator: {why}; before that: {failures:?}"),
                Err(Failure::Again(why)) => failures.push(why),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        bail!("it did not join in {TRIES} tries: {failures:?}")
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error.next() {
            Next::Retry | Next::RetryAfter(_) => Self::Again(error.to_string()),
            Next::RetrySlowly | Next::Stop => Self::Stuck(error.to_string()),
        }
    }
}
