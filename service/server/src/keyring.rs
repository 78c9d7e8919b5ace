//! The authority's keys as this node has opened them, with what is made of them once. It follows the database: a key that
//! is moved to another phase anywhere counts here a few seconds later.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use join_credential::{AuthorityKeys, CertificateReader, Issuer, KeyedHash, MasterKey, SealedKey};
use join_domain::{
    id::Name,
    refusal::{Code, Refusal},
};
use join_ledger::Ledger;
use tokio::sync::Mutex;

use crate::{
    ceremony::{secret::REGISTRATION_SECRET, unavailable},
    cluster,
};

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
    pub certificates: CertificateReader,
    /// Hashes registration secrets.
    pub secrets: KeyedHash,
    /// When the certificate of the CA that signs ends, in seconds since the epoch.
    pub ca_ends: i64,
    stored: Vec<SealedKey>,
    /// False when another master key sealed some of them.
    complete: bool,
}

/// The last time that the database was asked for the keys.
struct Followed {
    at: Instant,
    came: bool,
}

/// The keys in use.
pub struct Keyring {
    master: MasterKey,
    held: RwLock<Held>,
    followed: Arc<Mutex<Option<Followed>>>,
}

/// What this node holds: one value, so that nobody is handed keys for which it is shut out.
struct Held {
    opened: Arc<Opened>,
    /// True while the key that signs can't be opened here: this node must not go on with the one before.
    shut_out: bool,
}

impl Keyring {
    /// Opens the keys of a cluster.
    ///
    /// # Errors
    /// When the master key is another one, or the keys are damaged.
    pub fn open(cluster: Name, stored: Vec<SealedKey>, master: MasterKey) -> anyhow::Result<Self> {
        let opened = Arc::new(Opened::new(&cluster, stored, &master)?);
        Ok(Self { master, held: RwLock::new(Held { opened, shut_out: false }), followed: Arc::default() })
    }

    /// The keys as they are now. Whoever does several things with them asks once.
    pub fn get(&self) -> Arc<Opened> {
        Arc::clone(&self.held().opened)
    }

    /// The keys as they are now, for all that signs or trusts by them.
    ///
    /// # Errors
    /// UNAVAILABLE when this node is shut out: it knows of no revocation that came since.
    pub fn usable(&self) -> Result<Arc<Opened>, Refusal> {
        let held = self.held();
        match held.shut_out {
            true => Err(Refusal::new(
                Code::Unavailable,
                "this node was not given the authority's new master key: retry the same attempt",
            )),
            false => Ok(Arc::clone(&held.opened)),
        }
    }

    /// True when nothing may be signed here, and nobody trusted: the key that is to sign was sealed under a master key that
    /// this node was not given.
    pub fn is_shut_out(&self) -> bool {
        self.held().shut_out
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the keys that are stored. `false`: some can't be opened, as another master key sealed them; those that
    /// were open before count in the phase in which they are now.
    ///
    /// # Errors
    /// When they can't be read, or the one that is to sign can't be opened. The ones before stay as they were.
    pub async fn follow(&self, ledger: &Ledger) -> anyhow::Result<bool> {
        let mut followed = self.followed.lock().await;
        self.ask(ledger, &mut followed).await
    }

    async fn ask(&self, ledger: &Ledger, followed: &mut Option<Followed>) -> anyhow::Result<bool> {
        let asked = Instant::now();
        let opened = self.open_stored(ledger).await;
        // What came was true when it was asked for. What failed is not tried again by each of those who waited meanwhile.
        let at = if opened.is_ok() { asked } else { Instant::now() };
        *followed = Some(Followed { at, came: opened.is_ok() });
        opened
    }

    async fn open_stored(&self, ledger: &Ledger) -> anyhow::Result<bool> {
        let stored = cluster::keys(ledger).await?;
        let before = self.get();
        if before.stored != stored || self.is_shut_out() {
            let opened = before.follow(stored, &self.master);
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            held.shut_out = opened.is_err();
            held.opened = Arc::new(opened?);
        }
        Ok(self.get().complete)
    }

    /// The keys as they are now, or were a moment ago: for somebody who shows a signature by a key that is not known.
    ///
    /// # Errors
    /// UNAVAILABLE when they can't be read, or this node is shut out.
    pub async fn newest(self: &Arc<Self>, ledger: &Ledger) -> Result<Arc<Opened>, Refusal> {
        let mut followed = Arc::clone(&self.followed).lock_owned().await;
        let came = match &*followed {
            Some(last) if last.at.elapsed() < FRESH => {
                last.came.then_some(()).context("they could not be read a moment ago")
            }
            _ => {
                // A task, which ends whatever becomes of who asks: a stranger who goes away must not have us forget that
                // we asked, and ask once more for the next.
                let (keyring, ledger) = (Arc::clone(self), ledger.clone());
                let asked = tokio::spawn(async move { keyring.ask(&ledger, &mut followed).await.map(drop) });
                asked.await.unwrap_or_else(|stopped| Err(stopped.into()))
            }
        };
        match came {
            Ok(()) => self.usable(),
            Err(error) => {
                self.usable()?;
                Err(unavailable(error))
            }
        }
    }
}

impl Opened {
    fn new(cluster: &Name, stored: Vec<SealedKey>, master: &MasterKey) -> anyhow::Result<Self> {
        Self::of(AuthorityKeys::open(cluster.clone(), stored.clone(), master)?, stored, true)
    }

    fn follow(&self, stored: Vec<SealedKey>, master: &MasterKey) -> anyhow::Result<Self> {
        let (keys, complete) = self.keys.follow(stored.clone(), master)?;
        Self::of(keys, stored, complete)
    }

    fn of(keys: AuthorityKeys, stored: Vec<SealedKey>, complete: bool) -> anyhow::Result<Self> {
        let issuer = Issuer::new(&keys)?;
        let ca = issuer.tls_ca_certificates().first().context("there is no CA")?;
        let (_, ca) = x509_parser::parse_x509_certificate(ca).context("the CA's certificate cannot be read")?;
        Ok(Self {
            secrets: keys.sealer().keyed_hash(REGISTRATION_SECRET),
            ca_ends: ca.validity().not_after.timestamp(),
            issuer,
            certificates: CertificateReader::new(&keys).context("the CA certificates cannot be read")?,
            keys,
            stored,
            complete,
        })
    }
}
