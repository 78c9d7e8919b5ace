//! A cluster of its own: a database, the service in this process or in one of its own, and an administrator.

use std::{fs, num::NonZero, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chrono::TimeDelta;
use join_agent::trust::Pin;
use join_credential::{Issuer, MasterKey, Role};
use join_domain::{envelope::StreamKind, id::Name};
use join_ledger::{Ledger, ListFilter, PgConnectOptions};
use join_server::{
    administrators, cluster,
    config::Limits,
    service::{self, Node, Parts},
};
use tempfile::TempDir;

use crate::{
    administrator::Administrator, clock::SharedClock, database::Database, history::once_back, joind::Joind,
    proxy::Upstream,
};

/// The cluster's name.
pub const CLUSTER: &str = "faults.example";
/// A life of certificates that is soon over, the shortest that is served, and one that is not.
pub const SHORT_LIFE: Duration = Duration::from_secs(10);
/// Longer than anything here takes.
pub const LONG_LIFE: Duration = Duration::from_secs(12 * 60 * 60);

/// The cluster.
pub struct World {
    /// Its database.
    pub database: Database,
    /// Its time.
    pub clock: SharedClock,
    /// Its history, read past the service.
    pub ledger: Ledger,
    /// Its administrator.
    pub admin: Administrator,
    /// Where its service is.
    pub upstream: Upstream,
    /// How its CA is known.
    pub pin: Pin,
    service: Service,
    real_time: bool,
    folder: TempDir,
}

enum Service {
    Here(Node),
    Process(Joind),
}

impl World {
    /// With the service in this process. `way` leads to the database for it.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn here(database: Database, way: Option<&Path>) -> Result<Self> {
        let options = match way {
            None => database.roles.service.clone(),
            Some(directory) => database.roles.service.clone().socket(directory),
        };
        Self::start(database, async |found| Ok(Service::Here(found.serve(options).await?))).await
    }

    /// With the service in this process, for agents that are processes and go by the machine's clock.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn here_by_real_time(database: Database) -> Result<Self> {
        Ok(Self { real_time: true, ..Self::here(database, None).await? })
    }

    /// With the service as a process: `joind serve`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn of_process(database: Database) -> Result<Self> {
        let serve = async |found: &Founded<'_>| {
            Ok(Service::Process(Joind::start(found.folder, &found.database.name, &found.database.server).await?))
        };
        Ok(Self { real_time: true, ..Self::start(database, serve).await? })
    }

    async fn start(database: Database, serve: impl AsyncFnOnce(&Founded<'_>) -> Result<Service>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let clock = SharedClock::default();
        let ledger = database.ledger(database.roles.service.clone(), &clock, "observer").await?;
        let pin = found(&ledger, folder.path()).await?;
        let service = serve(&Founded { database: &database, clock: &clock, folder: folder.path() }).await?;
        let upstream = Upstream::new(match &service {
            Service::Here(node) => node.address,
            Service::Process(joind) => joind.address(),
        });
        let admin = Administrator::new(&folder.path().join("identity"), upstream.clone(), clock.clone())?;
        Ok(Self { admin, upstream, clock, ledger, pin, service, real_time: false, folder, database })
    }

    /// The process of the service.
    ///
    /// # Errors
    /// When it is this one.
    pub fn joind(&self) -> Result<&Joind> {
        match &self.service {
            Service::Process(joind) => Ok(joind),
            Service::Here(_) => anyhow::bail!("the service is in this process"),
        }
    }

    /// Starts the service's process again after it was killed.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        if let Service::Process(joind) = &mut self.service {
            *joind = Joind::start(self.folder.path(), &self.database.name, &self.database.server).await?;
            self.upstream.moved(joind.address());
        }
        Ok(())
    }

    /// Lets certificates of a short life expire: moves the clock, or waits where a process goes by the real one.
    pub async fn let_expire(&self) {
        if self.real_time {
            tokio::time::sleep(SHORT_LIFE + Duration::from_secs(1)).await;
        } else {
            self.clock.advance(TimeDelta::minutes(1));
        }
    }

    /// Live state equals rebuilt state.
    ///
    /// # Errors
    /// Says what differs.
    pub async fn check(&self) -> Result<()> {
        let comparison = once_back(async || Ok(self.ledger.check(|_| {}).await?)).await?;
        ensure!(comparison.is_equal(), "live state differs from rebuilt state: {:#?}", comparison.differences);
        Ok(())
    }

    /// The end of a world in which nobody was locked: all of its history has its place in the log, the views have seen
    /// all of it, no lock exists, and live state equals rebuilt state.
    ///
    /// # Errors
    /// Says what is wrong.
    pub async fn close(self) -> Result<()> {
        let locks = self.ledger.list(StreamKind::Lock, &ListFilter { limit: 10, ..ListFilter::default() }).await?;
        ensure!(locks.streams.is_empty(), "there are locks: {:?}", locks.streams);
        self.close_with_locks().await
    }

    /// The same where locks are as it should be.
    ///
    /// # Errors
    /// Says what is wrong.
    pub async fn close_with_locks(self) -> Result<()> {
        self.settle().await?;
        self.check().await?;
        if let Service::Here(node) = self.service {
            node.stop().await;
        }
        self.ledger.close().await;
        self.database.remove().await
    }

    async fn settle(&self) -> Result<()> {
        for _ in 0..1000 {
            self.ledger.sequence_once(4096).await?;
            self.ledger.project_once(4096).await?;
            let positions = self.ledger.positions().await?;
            if positions.unsequenced == 0 && positions.views == positions.next_index {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("log and views don't come to rest: {:?}", self.ledger.positions().await?)
    }
}

/// A cluster without a service.
struct Founded<'f> {
    database: &'f Database,
    clock: &'f SharedClock,
    folder: &'f Path,
}

impl Founded<'_> {
    async fn serve(&self, options: PgConnectOptions) -> Result<Node> {
        let ledger = self.database.ledger(options, self.clock, "service").await?;
        let master = MasterKey::read(&self.folder.join("master.key"))?;
        service::start(Parts {
            cluster: Some(CLUSTER.parse()?),
            limits: Limits { failures_per_address: NonZero::<u32>::MAX, ..Limits::default() },
            ..Parts::on_loopback(ledger, master)
        })
        .await
    }
}

/// Creates the cluster, its master key and its administrator, as `joind init` does; returns the pin of its CA.
async fn found(ledger: &Ledger, folder: &Path) -> Result<Pin> {
    let master = MasterKey::create(&folder.join("master.key"))?;
    let name: Name = CLUSTER.parse()?;
    cluster::create(ledger, &name, &master).await?;
    let identity = folder.join("identity");
    fs::create_dir(&identity)?;
    let admin = "ada".parse()?;
    administrators::issue(ledger, &master, &admin, Role::Admin, &identity).await?;
    let issuer = Issuer::new(&cluster::open_keys(ledger, &master).await?)?;
    let ca = issuer.tls_ca_certificates().first().context("the cluster has a CA")?;
    Ok(join_credential::pin::ca_pin(ca)?.parse()?)
}
