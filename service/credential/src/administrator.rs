//! Identities of administrators: client certificates that name a role.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use join_domain::{Timestamp, id::Name};
use rcgen::ExtendedKeyUsagePurpose;
use zeroize::Zeroizing;

use crate::{
    issuer::{IssueError, Issuer},
    serial::Serial,
    signer::P256Signer,
    x509::{Leaf, pem},
};

/// What an administrator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Locks, exemptions, and reading.
    Operator,
    /// Reading.
    Auditor,
}

/// A word that is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: use admin, operator or auditor")]
pub struct UnknownRole(pub String);

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::Auditor];

    /// The role as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(word: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == word).ok_or_else(|| UnknownRole(word.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an administrator's certificate says.
#[derive(Debug, Clone)]
pub struct AdministratorGrant<'a> {
    /// Who: the common name.
    pub name: &'a Name,
    /// The role.
    pub role: Role,
    /// The serial number.
    pub serial: Serial,
    /// Beginning.
    pub not_before: Timestamp,
    /// End.
    pub not_after: Timestamp,
}

/// A directory's worth of identity, as `joinctl` reads it. All PEM.
pub struct AdministratorIdentity {
    /// `ca.crt`: the CA certificates that are trusted.
    pub ca: String,
    /// `tls.crt`.
    pub certificate: String,
    key: Zeroizing<String>,
}

/// Why an identity was not written. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is an identity already.
    #[error("{path} exists; an identity is never overwritten: choose another directory, or remove it first",
        path = .0.display())]
    Exists(PathBuf),
    /// The system refused.
    #[error("{path} can't be written", path = .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Issuer {
    /// Generates a key and signs an administrator's certificate for it.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn generate_administrator(&self, grant: &AdministratorGrant<'_>) -> Result<AdministratorIdentity, IssueError> {
        let (signer, key) = P256Signer::generate();
        let leaf = Leaf {
            name: grant.name.as_str(),
            uri: format!("spiffe://{}/admin/{}/{}", self.cluster, grant.role, grant.name),
            serial: grant.serial,
            not_before: grant.not_before,
            not_after: grant.not_after,
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let certificate = self.authority().sign(&leaf.params()?, &signer)?;
        Ok(AdministratorIdentity {
            ca: self.ca_bundle(),
            certificate: pem("CERTIFICATE", &certificate),
            key: Zeroizing::new(pem("PRIVATE KEY", key.secret_pkcs8_der())),
        })
    }
}

/// The files of an identity, in the order in which they are written.
const FILES: [&str; 3] = ["tls.key", "tls.crt", "ca.crt"];

impl AdministratorIdentity {
    /// `tls.key`, PKCS#8.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Makes a directory that only its owner can enter, when it does not exist, and makes sure that it has room for an
    /// identity and takes files: so that one is recorded only if it can be written.
    ///
    /// # Errors
    /// [`WriteError::Exists`] when one of the files is there already, and what the system says when it can't be written.
    pub fn prepare(directory: &Path) -> Result<(), WriteError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| WriteError::Io { path: directory.to_owned(), source })?;
        let found = FILES.iter().map(|name| directory.join(name)).find(|path| path.exists());
        if let Some(path) = found {
            return Err(WriteError::Exists(path));
        }
        let tried = directory.join(".writable");
        let written = fs::write(&tried, "").and_then(|()| fs::remove_file(&tried));
        written.map_err(|source| WriteError::Io { path: directory.to_owned(), source })
    }

    /// Writes `ca.crt`, `tls.crt` and `tls.key` into a directory that only its owner can enter. The directory is made
    /// when it does not exist.
    ///
    /// # Errors
    /// [`WriteError::Exists`] when one of the files is there already. Whatever fails, what was written is removed.
    pub fn write(&self, directory: &Path) -> Result<(), WriteError> {
        Self::prepare(directory)?;
        let files = [(self.key(), 0o600), (&*self.certificate, 0o644), (&*self.ca, 0o644)];
        let mut written = Vec::new();
        for (name, (text, mode)) in FILES.iter().zip(files) {
            let path = directory.join(name);
            if let Err(source) = write_new(&path, text, mode) {
                // What can't be removed is no worse than what was found.
                written.iter().for_each(|path| drop(fs::remove_file(path)));
                return Err(match source.kind() {
                    io::ErrorKind::AlreadyExists => WriteError::Exists(path),
                    _ => WriteError::Io { path, source },
                });
            }
            written.push(path);
        }
        Ok(())
    }
}

impl fmt::Debug for AdministratorIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdministratorIdentity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(path)))
}
