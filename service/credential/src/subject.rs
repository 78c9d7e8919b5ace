//! The keys for which certificates are asked.

use join_domain::{key::PublicKey, proof::SubjectKeys};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use x509_parser::{
    asn1_rs::{Any, Tag},
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519},
    prelude::FromDer as _,
    x509::SubjectPublicKeyInfo,
};

/// The longest subject key that is looked at, in bytes.
pub const MAX_SUBJECT_KEY: usize = 1024;

/// Subject keys that were checked: ECDSA P-256 or Ed25519, each in the form its certificate needs.
///
/// RSA is not accepted: its keys and verifications have no natural bound, and no client of this protocol needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub(crate) tls: TlsKey,
    pub(crate) ssh: KeyData,
}

/// A subject key that gets no certificate. The field is named as in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not a TLS key at all, or too long.
    #[error("public_tls_key: not a public key in PKIX form (SubjectPublicKeyInfo, DER)")]
    MalformedTls,
    /// Not an SSH key at all, or too long.
    #[error("public_ssh_key: not a public key in SSH wire form")]
    MalformedSsh,
    /// A TLS key of another kind.
    #[error("public_tls_key: this kind of key is not accepted: use ECDSA P-256 or Ed25519")]
    UnsupportedTls,
    /// An SSH key of another kind.
    #[error("public_ssh_key: this kind of key is not accepted: use ECDSA P-256 or Ed25519")]
    UnsupportedSsh,
}

impl Subject {
    /// Checks the keys of a request.
    ///
    /// # Errors
    /// [`SubjectError`] names the field.
    pub fn read(keys: &SubjectKeys) -> Result<Self, SubjectError> {
        let tls = TlsKey::from_spki(&keys.tls)?;
        let ssh = ssh_key(&keys.ssh, &tls.raw)?;
        Ok(Self { tls, ssh })
    }
}

/// The public key of an X.509 certificate to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsKey {
    algorithm: &'static rcgen::SignatureAlgorithm,
    /// What the subjectPublicKey holds: an uncompressed point, or the 32 bytes of RFC 8032.
    raw: Vec<u8>,
}

impl TlsKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280, section 4.1; RFC 5480 and RFC 8410 for the two kinds).
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, SubjectError> {
        if der.len() > MAX_SUBJECT_KEY {
            return Err(SubjectError::MalformedTls);
        }
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| SubjectError::MalformedTls)?;
        if !rest.is_empty() {
            return Err(SubjectError::MalformedTls);
        }
        let kind = &spki.algorithm;
        let curve = OID_EC_P256;
        let p256 = Any::from_tag_and_data(Tag::Oid, curve.as_bytes());
        let raw = spki.subject_public_key.as_ref();
        let algorithm = if kind.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && kind.parameters == Some(p256) {
            check_point(raw, SubjectError::MalformedTls)?;
            &rcgen::PKCS_ECDSA_P256_SHA256
        } else if kind.algorithm != OID_SIG_ED25519 || kind.parameters.is_some() {
            return Err(SubjectError::UnsupportedTls);
        } else if raw.len() != 32 {
            return Err(SubjectError::MalformedTls);
        } else {
            &rcgen::PKCS_ED25519
        };
        Ok(Self { algorithm, raw: raw.to_vec() })
    }
}

impl rcgen::PublicKeyData for TlsKey {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

/// Most clients have one key for both certificates: a point that was checked is not checked again.
fn ssh_key(wire: &[u8], checked: &[u8]) -> Result<KeyData, SubjectError> {
    if wire.len() > MAX_SUBJECT_KEY {
        return Err(SubjectError::MalformedSsh);
    }
    let key = ssh_key::PublicKey::from_bytes(wire).map_err(|_| SubjectError::MalformedSsh)?;
    match key.key_data() {
        KeyData::Ed25519(_) => {}
        KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) if point.as_bytes() == checked => {}
        KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => check_point(point.as_bytes(), SubjectError::MalformedSsh)?,
        _ => return Err(SubjectError::UnsupportedSsh),
    }
    Ok(key.key_data().clone())
}

/// Neither rcgen nor ssh-key looks whether a point is on the curve.
fn check_point(point: &[u8], malformed: SubjectError) -> Result<(), SubjectError> {
    let point = point.try_into().map_err(|_| malformed)?;
    PublicKey::from_p256(point).map(drop).map_err(|_| malformed)
}
