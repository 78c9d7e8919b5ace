//! The keys of one cluster, and the sealed form in which they are stored.

use std::str::FromStr;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use join_domain::{Timestamp, id::Name, key::PublicKey};
use rcgen::PublicKeyData as _;
use secrecy::{ExposeSecret as _, SecretSlice};

use crate::{
    master::MasterKey,
    sealer::{Sealer, random},
    signer::{Ed25519Signer, P256Signer},
    x509,
};

/// What a key of the authority is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Signs X.509 certificates and revocation lists: ECDSA P-256.
    X509Ca,
    /// Signs SSH certificates: Ed25519.
    SshCa,
    /// Signs join state documents: Ed25519.
    JoinState,
    /// Signs checkpoints of the log: Ed25519.
    Log,
    /// Seals registration secrets and continuations, and hashes secrets: 256 random bits.
    Sealing,
}

/// Where a key stands between its creation and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Published and trusted, so that everybody learns of it; signs no credentials yet.
    Standby,
    /// Signs credentials; exactly one key of each purpose does.
    Active,
    /// Signs no more credentials; what it signed is still trusted.
    Retired,
    /// Compromised: nothing that it signed is trusted.
    Revoked,
}

/// A stored word that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a purpose nor a phase of a key that this version knows")]
pub struct UnknownWord(pub String);

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 5] = [Self::X509Ca, Self::SshCa, Self::JoinState, Self::Log, Self::Sealing];

    /// The purpose as it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X509Ca => "x509-ca",
            Self::SshCa => "ssh-ca",
            Self::JoinState => "join-state",
            Self::Log => "log",
            Self::Sealing => "sealing",
        }
    }
}

impl FromStr for Purpose {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == word).ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 4] = [Self::Standby, Self::Active, Self::Retired, Self::Revoked];

    /// The phase as it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }
}

impl FromStr for Phase {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word).ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

/// One key of the authority as it is stored: its private half is encrypted under the master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Its id, in headers of join states and subjects of CA certificates.
    pub kid: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Where it stands.
    pub phase: Phase,
    /// The public half; a sealing key has none.
    pub public: Option<PublicKey>,
    /// The private half, sealed.
    pub sealed: Vec<u8>,
    /// The self-signed certificate (DER) of an X.509 CA.
    pub certificate: Option<Vec<u8>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it is in this phase.
    pub phase_since: Timestamp,
}

/// One key of the authority, opened.
#[derive(Debug, Clone)]
pub struct AuthorityKey {
    pub(crate) kid: String,
    pub(crate) purpose: Purpose,
    pub(crate) phase: Phase,
    pub(crate) public: Option<PublicKey>,
    /// PKCS#8, or the 32 bytes of a sealing key.
    secret: SecretSlice<u8>,
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) created_at: Timestamp,
    pub(crate) phase_since: Timestamp,
}

/// Why keys can't be used or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// The master key is another one, or the row was changed.
    #[error(
        "the master key does not open `{0}`: the keys are sealed under another one, that of the last `joind keys reseal` \
         or, in a restored database, of the time of its backup"
    )]
    Sealed(String),
    /// The row opens, but its parts do not belong together.
    #[error("the key `{0}` is damaged: its private key, public key and certificate do not belong together")]
    Damaged(String),
    /// A purpose without an active key, or with several.
    #[error("the cluster must have exactly one active key for `{0}`, and has {1}")]
    NotOneActive(&'static str, usize),
    /// A key was to be made where there is one already.
    #[error("a new key for `{0}` is on standby already")]
    AlreadyOnStandby(&'static str),
    /// There is nothing to activate.
    #[error("there is no key for `{0}` on standby; prepare one first")]
    NothingOnStandby(&'static str),
    /// A key whose change would orphan what was made with it.
    #[error("the `{0}` key does not rotate: what was made with it needs it for ever")]
    NotRotatable(&'static str),
    /// No such key.
    #[error("there is no key `{0}`")]
    Unknown(String),
    /// The active key can't be taken away.
    #[error("`{0}` is the active key; activate another one first")]
    StillActive(String),
    /// Only a retired key can be forgotten; a revoked one must be known as such for ever.
    #[error("`{kid}` is {phase}; only a retired key can be forgotten", phase = .phase.as_str())]
    NotRetired {
        /// The key.
        kid: String,
        /// Where it stands.
        phase: Phase,
    },
    /// Documents under a join state key have no end.
    #[error(
        "`{0}` stays: documents that it signed have no end, and a bot that was away for long shows one; revoke it if \
             it is compromised"
    )]
    KeptForEver(String),
    /// What the key signed may still be in use.
    #[error("`{kid}` must stay trusted until {until}: certificates that it signed may live until then")]
    StillNeeded {
        /// The key.
        kid: String,
        /// When nothing that it signed is alive any more.
        until: Timestamp,
    },
}

impl AuthorityKey {
    pub(crate) fn generate(purpose: Purpose, phase: Phase, cluster: &Name, now: Timestamp) -> Self {
        let mut suffix = [0; 8];
        random(&mut suffix);
        let kid = format!("{}-{}", purpose.as_str(), hex::encode(suffix));
        let (public, secret, certificate) = match purpose {
            Purpose::X509Ca => {
                let (signer, secret) = P256Signer::generate();
                let public = p256(signer.der_bytes()).expect("a new key is on the curve");
                let certificate = x509::self_signed(cluster, &kid, &signer, now).expect("a CA can certify itself");
                (Some(public), secret.secret_pkcs8_der().to_vec(), Some(certificate))
            }
            Purpose::SshCa | Purpose::JoinState | Purpose::Log => {
                let key = Ed25519KeyPair::generate().expect("an Ed25519 key can be made");
                let secret = key.to_pkcs8v1().expect("a new key can be written").as_ref().to_vec();
                (Some(ed25519(&key)), secret, None)
            }
            Purpose::Sealing => (None, Sealer::generate().secret().to_vec(), None),
        };
        let secret = SecretSlice::from(secret);
        Self { kid, purpose, phase, public, secret, certificate, created_at: now, phase_since: now }
    }

    fn open(row: SealedKey, master: &MasterKey) -> Result<Self, KeysError> {
        let secret = master
            .sealer()
            .open(&seal_purpose(row.purpose), &row.kid, &row.sealed)
            .map_err(|_| KeysError::Sealed(row.kid.clone()))?;
        let key = Self {
            kid: row.kid,
            purpose: row.purpose,
            phase: row.phase,
            public: row.public,
            secret: SecretSlice::from(secret.to_vec()),
            certificate: row.certificate,
            created_at: row.created_at,
            phase_since: row.phase_since,
        };
        if key.is_whole() { Ok(key) } else { Err(KeysError::Damaged(key.kid)) }
    }

    fn seal(&self, master: &MasterKey) -> SealedKey {
        SealedKey {
            kid: self.kid.clone(),
            purpose: self.purpose,
            phase: self.phase,
            public: self.public.clone(),
            sealed: master.sealer().seal(&seal_purpose(self.purpose), &self.kid, self.secret.expose_secret()),
            certificate: self.certificate.clone(),
            created_at: self.created_at,
            phase_since: self.phase_since,
        }
    }

    fn moved_to(&self, phase: Phase, phase_since: Timestamp) -> Self {
        Self { phase, phase_since, ..self.clone() }
    }

    /// True when the public parts are those of the private key.
    fn is_whole(&self) -> bool {
        let secret = self.secret.expose_secret();
        match self.purpose {
            Purpose::X509Ca => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, secret).ok();
                let public = key.and_then(|key| p256(key.public_key().as_ref()));
                let certified = self.certificate.as_deref().and_then(x509::public_key);
                public.is_some() && self.public == public && certified == public
            }
            Purpose::SshCa | Purpose::JoinState | Purpose::Log => {
                let public = Ed25519KeyPair::from_pkcs8(secret).ok().map(|key| ed25519(&key));
                public.is_some() && self.public == public
            }
            Purpose::Sealing => secret.len() == 32,
        }
    }

    /// Its id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when it is in this phase.
    pub fn phase_since(&self) -> Timestamp {
        self.phase_since
    }

    /// The public half; a sealing key has none.
    pub fn public_key(&self) -> Option<&PublicKey> {
        self.public.as_ref()
    }

    /// The self-signed certificate (DER) of an X.509 CA.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    pub(crate) fn secret(&self) -> &[u8] {
        self.secret.expose_secret()
    }
}

/// The keys of one cluster.
#[derive(Debug)]
pub struct AuthorityKeys {
    pub(crate) cluster: Name,
    pub(crate) keys: Vec<AuthorityKey>,
    sealer: Sealer,
}

impl AuthorityKeys {
    /// The first keys of a new cluster: one active key for each purpose.
    pub fn generate(cluster: Name, now: Timestamp) -> Self {
        let new = |purpose| AuthorityKey::generate(purpose, Phase::Active, &cluster, now);
        let keys = Purpose::ALL.map(new).into();
        Self::assemble(cluster, keys).expect("new keys are complete")
    }

    /// Opens the stored keys of a cluster.
    ///
    /// # Errors
    /// [`KeysError::Sealed`] under another master key, [`KeysError::Damaged`], [`KeysError::NotOneActive`].
    pub fn open(cluster: Name, rows: Vec<SealedKey>, master: &MasterKey) -> Result<Self, KeysError> {
        let keys = rows.into_iter().map(|row| AuthorityKey::open(row, master)).collect::<Result<_, _>>()?;
        Self::assemble(cluster, keys)
    }

    /// The stored keys of the same cluster, later. What another master key sealed since can't be opened, but a key that is
    /// open already moves to the phase that is stored: a revocation counts here, too. Keys that were made since are left
    /// out, as nothing vouches for them. `false` says that there are such rows.
    ///
    /// # Errors
    /// [`KeysError::NotOneActive`] when the key that is to sign can't be opened, [`KeysError::Damaged`].
    pub fn follow(&self, rows: Vec<SealedKey>, master: &MasterKey) -> Result<(Self, bool), KeysError> {
        let (mut keys, mut complete) = (Vec::with_capacity(rows.len()), true);
        for row in rows {
            let open = self.keys.iter().find(|key| key.kid == row.kid && key.purpose == row.purpose);
            let moved = open.map(|key| key.moved_to(row.phase, row.phase_since));
            match AuthorityKey::open(row, master) {
                Ok(key) => keys.push(key),
                Err(KeysError::Sealed(_)) => {
                    complete = false;
                    keys.extend(moved);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((Self::assemble(self.cluster.clone(), keys)?, complete))
    }

    fn assemble(cluster: Name, keys: Vec<AuthorityKey>) -> Result<Self, KeysError> {
        for purpose in Purpose::ALL {
            match keys.iter().filter(|key| key.purpose == purpose && key.phase == Phase::Active).count() {
                1 => {}
                count => return Err(KeysError::NotOneActive(purpose.as_str(), count)),
            }
        }
        let sealing = keys.iter().find(|key| key.purpose == Purpose::Sealing);
        let secret = sealing.and_then(|key| key.secret().try_into().ok());
        let sealer = Sealer::new(secret.ok_or(KeysError::NotOneActive(Purpose::Sealing.as_str(), 0))?);
        Ok(Self { cluster, keys, sealer })
    }

    /// All keys in the form in which they are stored, sealed anew.
    pub fn seal(&self, master: &MasterKey) -> Vec<SealedKey> {
        self.keys.iter().map(|key| key.seal(master)).collect()
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &AuthorityKey> {
        self.keys.iter()
    }

    /// The key that signs.
    pub fn active(&self, purpose: Purpose) -> &AuthorityKey {
        self.keys
            .iter()
            .find(|key| key.purpose == purpose && key.phase == Phase::Active)
            .expect("every purpose has an active key; this is checked when keys are opened")
    }

    /// The keys whose signatures hold: the active one first, then those on standby and the retired ones.
    pub fn trusted(&self, purpose: Purpose) -> impl Iterator<Item = &AuthorityKey> {
        let others = self.keys.iter().filter(move |key| key.purpose == purpose);
        let others = others.filter(|key| matches!(key.phase, Phase::Standby | Phase::Retired));
        std::iter::once(self.active(purpose)).chain(others)
    }

    /// The public key of a join state document's `kid`; `None` when it is unknown or revoked.
    pub fn join_state_key(&self, kid: &str) -> Option<&PublicKey> {
        self.trusted(Purpose::JoinState).find(|key| key.kid == kid)?.public_key()
    }

    /// True when a join state document's `kid` is a revoked key: such a document counts as missing.
    pub fn is_revoked(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid == kid && key.phase == Phase::Revoked)
    }

    /// Seals and hashes for everything but the keys themselves.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The signer of the log's checkpoints.
    pub fn log_signer(&self) -> Ed25519Signer {
        self.ed25519_signer(Purpose::Log)
    }

    pub(crate) fn ed25519_signer(&self, purpose: Purpose) -> Ed25519Signer {
        Ed25519Signer::from_pkcs8(self.active(purpose).secret()).expect("keys are checked when they are opened")
    }
}

fn p256(point: &[u8]) -> Option<PublicKey> {
    PublicKey::from_p256(point.try_into().ok()?).ok()
}

fn ed25519(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey::from_ed25519(key.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"))
}

/// A private key opens only as what it was sealed for.
fn seal_purpose(purpose: Purpose) -> String {
    format!("authority key {}", purpose.as_str())
}
