//! The authority's keys as this node has opened them, with what is made of them once. It follows the database: a key that
//! is moved to another phase anywhere counts here a few seconds later.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use join_credential::{AuthorityKeys, ClientCertificates, Issuer, MasterKey, SealedKey};
use join_domain::id::Name;
use join_ledger::Ledger;
use tokio::sync::Mutex;

use crate::cluster;

/// How old what is known may be when somebody shows a signature by an unknown key. Keys are on standby for much longer
/// before they sign, so a key that was not known a second ago is none; and strangers can't make us look all the time.
const FRESH: Duration = Duration::from_secs(1);

/// Keys, and what is made of them.
pub struct Opened {
    /// The keys.
    pub keys: AuthorityKeys,
    /// Signs what was recorded.
    pub issuer: Issuer,
    /// Reads client certificates.
    pub certificates: ClientCertificates,
    stored: Vec<SealedKey>,
}

/// The keys in use.
pub struct Keyring {
    cluster: Name,
    master: MasterKey,
    opened: RwLock<Arc<Opened>>,
    /// When the database was last asked.
    followed: Mutex<Option<Instant>>,
}

impl Keyring {
    /// Opens the keys of a cluster.
    ///
    /// # Errors
    /// When the master key is another one, or the keys are damaged.
    pub fn open(cluster: Name, stored: Vec<SealedKey>, master: MasterKey) -> anyhow::Result<Self> {
        let opened = RwLock::new(Arc::new(Opened::new(&cluster, stored, &master)?));
        Ok(Self { cluster, master, opened, followed: Mutex::default() })
    }

    /// The keys as they are now. Whoever does several things with them asks once.
    pub fn get(&self) -> Arc<Opened> {
        Arc::clone(&self.opened.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the keys again if they were changed.
    ///
    /// # Errors
    /// When they can't be read or opened. The ones before stay in use.
    pub async fn follow(&self, ledger: &Ledger) -> anyhow::Result<()> {
        let mut followed = self.followed.lock().await;
        let asked = Instant::now();
        let stored = cluster::keys(ledger).await?;
        if self.get().stored != stored {
            let opened = Arc::new(Opened::new(&self.cluster, stored, &self.master)?);
            *self.opened.write().unwrap_or_else(PoisonError::into_inner) = opened;
        }
        *followed = Some(asked);
        Ok(())
    }

    /// The keys as they are now, or were a moment ago: for somebody who shows a signature by a key that is not known.
    ///
    /// # Errors
    /// When they can't be read or opened.
    pub async fn newest(&self, ledger: &Ledger) -> anyhow::Result<Arc<Opened>> {
        let is_fresh = self.followed.lock().await.is_some_and(|followed| followed.elapsed() < FRESH);
        if !is_fresh {
            self.follow(ledger).await?;
        }
        Ok(self.get())
    }
}

impl Opened {
    fn new(cluster: &Name, stored: Vec<SealedKey>, master: &MasterKey) -> anyhow::Result<Self> {
        let keys = AuthorityKeys::open(cluster.clone(), stored.clone(), master)?;
        Ok(Self {
            issuer: Issuer::new(&keys)?,
            certificates: ClientCertificates::new(&keys).context("the CA certificates cannot be read")?,
            keys,
            stored,
        })
    }
}
