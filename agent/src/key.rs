//! Private keys: the bound keypair and the keys that certificates are issued for.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use join_domain::{
    key::{Algorithm, PublicKey},
    proof::{SigningError, SigningKey},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const GENERATES: &str = "the cryptographic library generates keys of kinds that it has";

/// A private key that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    /// OpenSSH's own private key format.
    #[error("the key is in OpenSSH's format; convert a copy with `ssh-keygen -p -m PKCS8 -f FILE`")]
    OpenSsh,
    /// Not a PKCS#8 PEM.
    #[error(
        "not a private key in PKCS#8 PEM form (`-----BEGIN PRIVATE KEY-----`); make one with `joinbot keypair create --static`"
    )]
    NotPem,
    /// A key of another kind.
    #[error("not an Ed25519 or ECDSA P-256 key; make one with `joinbot keypair create --static`")]
    Unsupported,
}

/// An Ed25519 or P-256 private key. Its text form is PKCS#8 PEM; it is wiped from memory when dropped.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrivateKey {
    der: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
    public: PublicKey,
}

impl PrivateKey {
    /// A new Ed25519 key: the default for a bound keypair.
    pub fn generate_ed25519() -> Self {
        let der = Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1()).expect(GENERATES);
        Self::from_der(der.as_ref()).expect(GENERATES)
    }

    /// A new P-256 key: the one subject key for TLS and SSH.
    pub fn generate_p256() -> Self {
        let der = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).and_then(|key| key.to_pkcs8v1());
        Self::from_der(der.expect(GENERATES).as_ref()).expect(GENERATES)
    }

    /// Reads a PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyFormatError`] says what it is instead, and how to get a key that fits.
    pub fn from_pem(text: &str) -> Result<Self, KeyFormatError> {
        let pem = pem::parse(text).map_err(|_| KeyFormatError::NotPem)?;
        match pem.tag() {
            "PRIVATE KEY" => Self::from_der(pem.contents()),
            "OPENSSH PRIVATE KEY" => Err(KeyFormatError::OpenSsh),
            _ => Err(KeyFormatError::NotPem),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyFormatError> {
        let (public, spki) = if let Ok(key) = Ed25519KeyPair::from_pkcs8(der) {
            let raw = key.public_key().as_ref().try_into().map_err(|_| KeyFormatError::Unsupported)?;
            (PublicKey::from_ed25519(raw), x509(key.public_key()))
        } else if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            let raw = key.public_key().as_ref().try_into().map_err(|_| KeyFormatError::Unsupported)?;
            (PublicKey::from_p256(raw).map_err(|_| KeyFormatError::Unsupported)?, x509(key.public_key()))
        } else {
            return Err(KeyFormatError::Unsupported);
        };
        Ok(Self { der: Zeroizing::new(der.to_vec()), spki, public })
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        Zeroizing::new(pem::encode_config(&pem::Pem::new("PRIVATE KEY", self.der.to_vec()), config))
    }

    /// The key as PKCS#8 DER.
    pub fn to_der(&self) -> &[u8] {
        &self.der
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The public half as SubjectPublicKeyInfo DER (RFC 5280, 4.1).
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The public half in SSH wire form (RFC 4253, 6.6).
    pub fn ssh_wire(&self) -> Vec<u8> {
        ssh_key::PublicKey::from_openssh(&self.public.to_authorized_key())
            .and_then(|key| key.to_bytes())
            .expect("a public key that was parsed can be written")
    }

    /// Signs a challenge that was read and found to be this client's own.
    ///
    /// # Errors
    /// [`SigningError`] when the document is not JSON.
    pub fn solve(&self, document: &str) -> Result<String, SigningError> {
        let algorithm: Algorithm = self.public.algorithm();
        SigningKey::from_pkcs8(&self.der, algorithm).solve(document)
    }
}

fn x509(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
    key.as_der().expect("a public key that was parsed can be written").as_ref().to_vec()
}

impl PartialEq for PrivateKey {
    /// Two keys are equal when their public halves are.
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl fmt::Debug for PrivateKey {
    /// Shows the public half's fingerprint only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "private half of {:?}", self.public)
    }
}

impl TryFrom<String> for PrivateKey {
    type Error = KeyFormatError;

    fn try_from(text: String) -> Result<Self, KeyFormatError> {
        Self::from_pem(&Zeroizing::new(text))
    }
}

impl From<PrivateKey> for String {
    fn from(key: PrivateKey) -> Self {
        (*key.to_pem()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_form() {
        for key in [PrivateKey::generate_ed25519(), PrivateKey::generate_p256()] {
            let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
            assert_eq!(again.to_der(), key.to_der());
            assert_eq!(again.public(), key.public());
        }
    }

    #[test]
    fn the_debug_form_holds_no_private_half() {
        let key = PrivateKey::generate_ed25519();
        assert_eq!(format!("{key:?}"), format!("private half of {}", key.public().fingerprint()));
    }

    #[test]
    fn other_formats_are_named() {
        let openssh = pem::encode(&pem::Pem::new("OPENSSH PRIVATE KEY", vec![1, 2, 3]));
        assert_eq!(PrivateKey::from_pem(&openssh).unwrap_err(), KeyFormatError::OpenSsh);
        assert_eq!(PrivateKey::from_pem("hello").unwrap_err(), KeyFormatError::NotPem);
        let other = pem::encode(&pem::Pem::new("PRIVATE KEY", vec![1, 2, 3]));
        assert_eq!(PrivateKey::from_pem(&other).unwrap_err(), KeyFormatError::Unsupported);
    }
}
