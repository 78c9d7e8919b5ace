//! The master key: it encrypts the authority's keys at rest, and is all that has to be kept outside the database.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use crate::sealer::Sealer;

/// The longest file that is read as a master key, in bytes.
const MAX_FILE: u64 = 4096;

/// 256 random bits that encrypt the authority's keys.
#[derive(Debug)]
pub struct MasterKey(Sealer);

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The text is not 32 bytes in hex or base64. It is not repeated: it may be a secret in another form.
    #[error("not a master key: 32 random bytes in hex or base64 (`openssl rand -hex 32` makes one)")]
    Malformed,
    /// The environment variable is not set, or not text.
    #[error("the environment variable {0} with the master key is not set")]
    NotSet(String),
    /// The file can't be read or made.
    #[error("the master key file {path} can't be used", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the master key file {path} does not hold 32 random bytes in hex or base64", path = .0.display())]
    FileMalformed(PathBuf),
}

impl MasterKey {
    /// A new random key.
    pub fn generate() -> Self {
        Self(Sealer::generate())
    }

    /// Reads 32 bytes in hex or base64 (either alphabet, padded or not); white space around them is ignored.
    ///
    /// # Errors
    /// [`MasterKeyError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let text = text.trim();
        let mut bytes = Zeroizing::new([0; 32]);
        if hex::decode_to_slice(text, bytes.as_mut_slice()).is_ok() {
            return Ok(Self(Sealer::new(&bytes)));
        }
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = [STANDARD, URL_SAFE]
            .iter()
            .find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok().map(Zeroizing::new))
            .ok_or(MasterKeyError::Malformed)?;
        let bytes: &[u8; 32] = decoded.as_slice().try_into().map_err(|_| MasterKeyError::Malformed)?;
        Ok(Self(Sealer::new(bytes)))
    }

    /// Reads the key from a file.
    ///
    /// # Errors
    /// [`MasterKeyError::File`] or [`MasterKeyError::FileMalformed`].
    pub fn read(path: &Path) -> Result<Self, MasterKeyError> {
        let file = |source| MasterKeyError::File { path: path.to_owned(), source };
        let malformed = || MasterKeyError::FileMalformed(path.to_owned());
        if fs::metadata(path).map_err(file)?.len() > MAX_FILE {
            return Err(malformed());
        }
        let bytes = Zeroizing::new(fs::read(path).map_err(file)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        Self::parse(text).map_err(|_| malformed())
    }

    /// Reads the key from an environment variable.
    ///
    /// # Errors
    /// [`MasterKeyError::NotSet`] or [`MasterKeyError::Malformed`].
    pub fn from_env(variable: &str) -> Result<Self, MasterKeyError> {
        let text = env::var(variable).map_err(|_| MasterKeyError::NotSet(variable.to_owned()))?;
        Self::parse(&Zeroizing::new(text))
    }

    /// Makes a new key and writes it to a new file that only its owner can read; never overwrites one.
    ///
    /// # Errors
    /// [`MasterKeyError::File`], also when the file exists.
    pub fn create(path: &Path) -> Result<Self, MasterKeyError> {
        let file = |source| MasterKeyError::File { path: path.to_owned(), source };
        let key = Self::generate();
        let mut text = Zeroizing::new(hex::encode(key.0.secret()));
        text.push('\n');
        let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(file)?;
        let written = opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(path))).map_err(file)?;
        Ok(key)
    }

    pub(crate) fn sealer(&self) -> &Sealer {
        &self.0
    }
}
