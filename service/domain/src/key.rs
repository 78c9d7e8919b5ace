//! Public keys that can be bound: Ed25519 and ECDSA P-256, in SSH authorized_keys form (RFC 4253, RFC 8709, RFC 5656).

use std::fmt;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use ssh_key::{
    HashAlg,
    public::{EcdsaPublicKey, KeyData},
};

/// Why a key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not one line of authorized_keys.
    #[error("not a public key in authorized_keys form (`ssh-ed25519 AAAA…`)")]
    Malformed,
    /// Not the fingerprint of a key.
    #[error("not the fingerprint of a key: `SHA256:` and 43 characters of base64, as `ssh-keygen -l` prints it")]
    Fingerprint,
    /// A key, but not of a kind that can be bound.
    #[error("`{0}` keys are not accepted: use Ed25519 (the default) or ECDSA P-256")]
    Unsupported(String),
}

/// The longest authorized_keys line that is looked at, in bytes.
pub const MAX_KEY_LINE: usize = 1024;

/// A key that is bound, or can be. Comments are dropped, so equal keys are equal.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(Material);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Material {
    /// The 32 bytes of RFC 8032.
    Ed25519([u8; 32]),
    /// The uncompressed point of SEC 1: 0x04, x, y.
    P256([u8; 65]),
}

/// The JOSE algorithm that fits a key (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `EdDSA` with Ed25519.
    EdDsa,
    /// `ES256` with P-256.
    Es256,
}

impl PublicKey {
    /// Reads one authorized_keys line.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when it is none, [`KeyError::Unsupported`] when its kind can't be bound.
    pub fn from_authorized_key(line: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(line).map_err(|_| KeyError::Malformed)?.trim();
        if text.len() > MAX_KEY_LINE || text.contains('\n') {
            return Err(KeyError::Malformed);
        }
        let key = ssh_key::PublicKey::from_openssh(text).map_err(|_| match text.split_whitespace().next() {
            Some(kind) if text.split_whitespace().count() > 1 && KNOWN_KINDS.contains(&kind) => {
                KeyError::Unsupported(kind.to_owned())
            }
            _ => KeyError::Malformed,
        })?;
        match key.key_data() {
            KeyData::Ed25519(key) => Ok(Self::from_ed25519(key.0)),
            KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => {
                let bytes = point.as_bytes().try_into().map_err(|_| KeyError::Malformed)?;
                Self::from_p256(bytes)
            }
            other => Err(KeyError::Unsupported(other.algorithm().to_string())),
        }
    }

    /// The key of the 32 bytes of RFC 8032.
    pub fn from_ed25519(bytes: [u8; 32]) -> Self {
        Self(Material::Ed25519(bytes))
    }

    /// The key of an uncompressed SEC 1 point.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when the point is not on the curve.
    pub fn from_p256(point: [u8; 65]) -> Result<Self, KeyError> {
        aws_lc_rs::signature::ParsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point)
            .map_err(|_| KeyError::Malformed)?;
        Ok(Self(Material::P256(point)))
    }

    /// The authorized_keys line, without a comment.
    pub fn to_authorized_key(&self) -> String {
        // Both kinds have one encoding, which cannot fail for values of the right length.
        self.ssh().to_openssh().unwrap_or_default()
    }

    /// The `SHA256:…` fingerprint, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.ssh().fingerprint(HashAlg::Sha256).to_string()
    }

    /// The RFC 7638 thumbprint (SHA-256, base64url without padding).
    pub fn thumbprint(&self) -> String {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = match &self.0 {
            Material::Ed25519(key) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64(key)),
            Material::P256(point) => {
                let (x, y) = split_point(point);
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, b64(x), b64(y))
            }
        };
        b64(digest::digest(&digest::SHA256, jwk.as_bytes()).as_ref())
    }

    /// The signature algorithm that fits.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Material::Ed25519(_) => Algorithm::EdDsa,
            Material::P256(_) => Algorithm::Es256,
        }
    }

    /// The raw key as the signature library takes it: 32 bytes, or an uncompressed point.
    pub fn raw(&self) -> &[u8] {
        match &self.0 {
            Material::Ed25519(key) => key,
            Material::P256(point) => point,
        }
    }

    fn ssh(&self) -> ssh_key::PublicKey {
        let data = match &self.0 {
            Material::Ed25519(key) => KeyData::Ed25519(ssh_key::public::Ed25519PublicKey(*key)),
            Material::P256(point) => match ssh_key::sec1::EncodedPoint::from_bytes(point) {
                Ok(point) => KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)),
                // Not reached: the point was parsed before it got here.
                Err(_) => KeyData::Ed25519(ssh_key::public::Ed25519PublicKey([0; 32])),
            },
        };
        ssh_key::PublicKey::new(data, "")
    }
}

/// Kinds that exist, so that they get "not accepted" rather than "not a key".
const KNOWN_KINDS: [&str; 7] = [
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-ed448",
];

fn split_point(point: &[u8; 65]) -> (&[u8], &[u8]) {
    let (_, coordinates) = point.split_at(1);
    coordinates.split_at(32)
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(line: String) -> Result<Self, KeyError> {
        Self::from_authorized_key(line.as_bytes())
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_authorized_key()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_authorized_key())
    }
}
