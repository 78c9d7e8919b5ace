//! Keys of clients. Made, written and used here, without the service's own code for it.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    encoding::{AsBigEndian as _, AsDer as _},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::pki_types::PrivateKeyDer;

/// A private key and its public half.
#[derive(Clone)]
pub(crate) enum Key {
    Ed25519(Arc<Ed25519KeyPair>),
    P256(Arc<EcdsaKeyPair>),
}

impl Key {
    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Arc::new(Ed25519KeyPair::generate().unwrap()))
    }

    pub(crate) fn p256() -> Self {
        Self::P256(Arc::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()))
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Self {
        match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            Ok(key) => Self::P256(Arc::new(key)),
            Err(_) => Self::Ed25519(Arc::new(Ed25519KeyPair::from_pkcs8(der).unwrap())),
        }
    }

    /// One line of authorized_keys.
    pub(crate) fn line(&self) -> String {
        let kind = match self {
            Self::Ed25519(_) => "ssh-ed25519",
            Self::P256(_) => "ecdsa-sha2-nistp256",
        };
        format!("{kind} {}", STANDARD.encode(self.ssh_wire()))
    }

    /// RFC 4253, 6.6; RFC 8709, 4; RFC 5656, 3.1.
    pub(crate) fn ssh_wire(&self) -> Vec<u8> {
        let parts: &[&[u8]] = match self {
            Self::Ed25519(key) => &[b"ssh-ed25519", key.public_key().as_ref()],
            Self::P256(key) => &[b"ecdsa-sha2-nistp256", b"nistp256", key.public_key().as_ref()],
        };
        let framed = parts.iter().map(|part| [&u32::try_from(part.len()).unwrap().to_be_bytes(), *part].concat());
        framed.collect::<Vec<_>>().concat()
    }

    /// SubjectPublicKeyInfo, DER.
    pub(crate) fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::P256(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.to_pkcs8v1().unwrap().as_ref().to_vec(),
            Self::P256(key) => key.to_pkcs8v1().unwrap().as_ref().to_vec(),
        }
    }

    /// The private half itself: the seed of Ed25519, the number of P-256.
    pub(crate) fn secret(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.seed().unwrap().as_be_bytes().unwrap().as_ref().to_vec(),
            Self::P256(key) => key.private_key().as_be_bytes().unwrap().as_ref().to_vec(),
        }
    }

    pub(crate) fn for_tls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.pkcs8().into())
    }

    /// The `SHA256:…` fingerprint.
    pub(crate) fn fingerprint(&self) -> String {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.ssh_wire());
        format!("SHA256:{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(hash))
    }

    /// A compact JWS over a challenge (RFC 7515).
    pub(crate) fn solve(&self, document: &str) -> String {
        self.jws(&format!(r#"{{"alg":"{}","typ":"JWT"}}"#, self.algorithm()), document)
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
        }
    }

    pub(crate) fn jws(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = match self {
            Self::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
            Self::P256(key) => key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.ssh_wire() == other.ssh_wire()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

/// 128 random bits in hex.
pub(crate) fn attempt_id() -> String {
    let mut bits = [0; 16];
    aws_lc_rs::rand::fill(&mut bits).unwrap();
    hex::encode(bits)
}
