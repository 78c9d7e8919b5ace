//! The registration secret, which a first join needs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use zeroize::Zeroizing;

/// Where the registration secret is.
#[derive(Debug, Clone)]
pub enum RegistrationSecret {
    /// In the configuration.
    Given(SecretString),
    /// In a file. It is read when a join begins and not with the configuration: once the key is bound it may be gone,
    /// and a daemon finds the new secret there after its token was opened again.
    File(PathBuf),
}

/// A secret that can't be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "onboarding.bound_keypair.registration_secret_path: {problem}; write the registration secret into this file, or \
     remove this setting when the bot's key is preregistered"
)]
pub struct SecretError {
    problem: String,
    /// Whether its file is not there.
    pub(crate) is_missing: bool,
}

impl RegistrationSecret {
    /// The secret.
    ///
    /// # Errors
    /// When its file can't be read or is empty.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => read(path),
        }
    }
}

fn read(path: &Path) -> Result<SecretString, SecretError> {
    let text = fs::read_to_string(path).map_err(|error| SecretError {
        problem: format!("cannot read {}: {error}", path.display()),
        is_missing: error.kind() == io::ErrorKind::NotFound,
    })?;
    match Zeroizing::new(text).trim() {
        "" => Err(SecretError { problem: format!("{} is empty", path.display()), is_missing: false }),
        secret => Ok(secret.into()),
    }
}

impl From<String> for RegistrationSecret {
    fn from(secret: String) -> Self {
        Self::Given(secret.into())
    }
}

impl From<&str> for RegistrationSecret {
    fn from(secret: &str) -> Self {
        Self::Given(secret.into())
    }
}
