//! A database of one cluster's own, and PostgreSQL servers that can be killed.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, Result};
use join_embedded::{Address, Cluster, Options};
use join_ledger::{
    Ledger, PgConnectOptions, Settings,
    provision::{self, Provisioned},
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::{clock::SharedClock, process};

/// A database; [`Database::remove`] ends it.
pub struct Database {
    /// The server.
    pub server: Address,
    /// How to connect in each role.
    pub roles: Provisioned,
    /// Its name.
    pub name: String,
}

impl Database {
    /// On the server that all tests of this process share.
    ///
    /// # Errors
    /// When it can't be made.
    pub async fn shared() -> Result<Self> {
        Self::on(spawn_blocking(join_embedded::for_tests).await?).await
    }

    /// On a server.
    ///
    /// # Errors
    /// When it can't be made.
    pub async fn on(server: &Address) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("faults_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let roles = provision::fresh(&superuser(server)?, &name).await.context("the database cannot be made")?;
        Ok(Self { server: server.clone(), roles, name })
    }

    /// The ledger in it.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn ledger(&self, options: PgConnectOptions, clock: &SharedClock, node: &str) -> Result<Ledger> {
        let settings = Settings {
            connections: 6,
            clock: Some(Arc::new(clock.clone())),
            node: node.to_owned(),
            ..Settings::default()
        };
        Ok(Ledger::connect(options, settings).await?)
    }

    /// Removes it.
    ///
    /// # Errors
    /// When the server is gone.
    pub async fn remove(self) -> Result<()> {
        Ok(provision::remove(&superuser(&self.server)?, &self.name).await?)
    }
}

fn superuser(server: &Address) -> Result<PgConnectOptions> {
    Ok(server.url("postgres", "postgres").parse()?)
}

/// A PostgreSQL server that can be killed and started again. What it has committed survives that, as in production.
pub struct Server {
    cluster: Option<Cluster>,
    // Removed after the server has ended, also when whoever waits for its start has gone.
    directory: Arc<TempDir>,
}

impl Server {
    /// Starts one of its own.
    ///
    /// # Errors
    /// When PostgreSQL does not start.
    pub async fn start() -> Result<Self> {
        // As root PostgreSQL runs as another user, who has to pass through.
        let directory = tempfile::Builder::new().prefix("pg-").permissions(Permissions::from_mode(0o755)).tempdir()?;
        Self::launch(Arc::new(directory)).await
    }

    /// Where it can be reached, also after it was started again.
    pub fn address(&self) -> &Address {
        self.cluster.as_ref().expect("a server is there but while it starts again").address()
    }

    /// Its processes, to be killed.
    pub fn processes(&self) -> Processes {
        Processes { pid_file: self.directory.path().join("cluster/data/postmaster.pid") }
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop(self) -> Result<()> {
        if let Some(cluster) = self.cluster {
            spawn_blocking(move || cluster.stop()).await??;
        }
        Ok(())
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// When PostgreSQL does not start.
    pub async fn restart(&mut self) -> Result<()> {
        let killed = self.cluster.take();
        spawn_blocking(move || drop(killed)).await?;
        *self = Self::launch(Arc::clone(&self.directory)).await?;
        Ok(())
    }

    async fn launch(directory: Arc<TempDir>) -> Result<Self> {
        let launch = move || {
            let cluster = Cluster::start(&directory.path().join("cluster"), &Options::durable())?;
            Ok(Self { cluster: Some(cluster), directory })
        };
        spawn_blocking(launch).await?
    }
}

/// The processes of a server.
#[derive(Debug, Clone)]
pub struct Processes {
    pid_file: PathBuf,
}

impl Processes {
    /// SIGKILL for the postmaster and every process that it has started; returns whether it lived.
    pub fn kill_all(&self) -> bool {
        let Some(postmaster) = self.postmaster() else { return false };
        let children = process::children(postmaster);
        let lived = process::kill(postmaster);
        for child in children {
            process::kill(child);
        }
        lived
    }

    /// SIGKILL for one process that serves the service in `database`; PostgreSQL then ends all others and recovers.
    /// Returns whether there was one.
    pub fn kill_backend(&self, database: &str) -> bool {
        let serves = |pid: &i32| process::title(*pid).contains(&format!("{} {database} ", provision::SERVICE));
        let children = self.postmaster().map(process::children).unwrap_or_default();
        children.into_iter().find(serves).is_some_and(process::kill)
    }

    fn postmaster(&self) -> Option<i32> {
        std::fs::read_to_string(&self.pid_file).ok()?.lines().next()?.trim().parse().ok()
    }
}
