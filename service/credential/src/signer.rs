//! Private keys in the form that signs fast: parsed once, kept for every signature.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use ssh_key::public::{Ed25519PublicKey, KeyData};

/// A private key that can't be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the private key is not PKCS#8 of the expected kind")]
pub struct BadPrivateKey;

/// An ECDSA P-256 key that signs X.509.
#[derive(Debug)]
pub(crate) struct P256Signer(EcdsaKeyPair);

impl P256Signer {
    /// A new key, and its PKCS #8 form.
    pub(crate) fn generate() -> (Self, PrivatePkcs8KeyDer<'static>) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a P-256 key can be made");
        let written = key.to_pkcs8v1().expect("a new key can be written").as_ref().to_vec();
        (Self(key), written.into())
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, BadPrivateKey> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map(Self).map_err(|_| BadPrivateKey)
    }
}

impl rcgen::PublicKeyData for P256Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for P256Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// An Ed25519 key that signs SSH certificates or the log.
#[derive(Debug)]
pub struct Ed25519Signer(Ed25519KeyPair);

impl Ed25519Signer {
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, BadPrivateKey> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|_| BadPrivateKey)
    }

    /// The public key (RFC 8032).
    pub fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// Signs a message (RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl From<Ed25519Signer> for Ed25519KeyPair {
    /// The key pair itself, for those who sign with it in a form of their own.
    fn from(signer: Ed25519Signer) -> Self {
        signer.0
    }
}

impl From<&Ed25519Signer> for KeyData {
    fn from(signer: &Ed25519Signer) -> Self {
        Self::Ed25519(Ed25519PublicKey(signer.public_key()))
    }
}

// ssh-key's own Ed25519 takes six times as long.
impl signature::Signer<ssh_key::Signature> for Ed25519Signer {
    fn try_sign(&self, message: &[u8]) -> Result<ssh_key::Signature, signature::Error> {
        ssh_key::Signature::new(ssh_key::Algorithm::Ed25519, self.sign(message)).map_err(signature::Error::from_source)
    }
}
