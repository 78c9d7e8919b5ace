//! The keys for which certificates are asked.

use join_domain::{key::PublicKey, proof::SubjectKeys};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use x509_parser::{
    asn1_rs::Tag,
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
    /// No TLS key.
    #[error("public_tls_key: missing: a public key in PKIX form is wanted (SubjectPublicKeyInfo, DER)")]
    MissingTls,
    /// No SSH key.
    #[error("public_ssh_key: missing: a public key in SSH wire form is wanted")]
    MissingSsh,
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
        if keys.tls.is_empty() {
            return Err(SubjectError::MissingTls);
        }
        if keys.ssh.is_empty() {
            return Err(SubjectError::MissingSsh);
        }
        let tls = TlsKey::from_spki(&keys.tls)?;
        let checked = match &tls {
            TlsKey::P256(point) => Some(point.as_slice()),
            TlsKey::Ed25519(_) => None,
        };
        let ssh = ssh_key(&keys.ssh, checked)?;
        Ok(Self { tls, ssh })
    }
}

/// The public key of an X.509 certificate to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsKey {
    /// An uncompressed point.
    P256([u8; 65]),
    /// The 32 bytes of RFC 8032.
    Ed25519([u8; 32]),
}

/// What stands before the point in the one DER form of a P-256 key (RFC 5480, section 2).
const P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// What stands before the key in the one DER form of an Ed25519 key (RFC 8410, section 4).
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

impl TlsKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280, section 4.1). Each key has one DER form, and no other is taken: its
    /// certificate holds these bytes.
    fn from_spki(der: &[u8]) -> Result<Self, SubjectError> {
        if let Some(point) = der.strip_prefix(P256) {
            let point = point.try_into().map_err(|_| SubjectError::MalformedTls)?;
            check_point(point, SubjectError::MalformedTls)?;
            Ok(Self::P256(*point))
        } else if let Some(key) = der.strip_prefix(ED25519) {
            key.try_into().map(Self::Ed25519).map_err(|_| SubjectError::MalformedTls)
        } else if is_of_another_kind(der) {
            Err(SubjectError::UnsupportedTls)
        } else {
            Err(SubjectError::MalformedTls)
        }
    }
}

/// True for a key that can be read, but is neither of P-256 nor of Ed25519.
fn is_of_another_kind(der: &[u8]) -> bool {
    let Some(Ok(([], spki))) = (der.len() <= MAX_SUBJECT_KEY).then(|| SubjectPublicKeyInfo::from_der(der)) else {
        return false;
    };
    let parameters = spki.algorithm.parameters;
    let is_p256 = spki.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && parameters.as_ref().is_some_and(|curve| curve.tag() == Tag::Oid && curve.as_oid() == Ok(OID_EC_P256));
    let is_ed25519 = spki.algorithm.algorithm == OID_SIG_ED25519 && parameters.is_none();
    !is_p256 && !is_ed25519
}

impl rcgen::PublicKeyData for TlsKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::P256(point) => point,
            Self::Ed25519(key) => key,
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::P256(_) => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::Ed25519(_) => &rcgen::PKCS_ED25519,
        }
    }
}

/// Most clients have one key for both certificates: a point that was checked is not checked again.
fn ssh_key(wire: &[u8], checked: Option<&[u8]>) -> Result<KeyData, SubjectError> {
    if wire.len() > MAX_SUBJECT_KEY {
        return Err(SubjectError::MalformedSsh);
    }
    let key = ssh_key::PublicKey::from_bytes(wire).map_err(|_| SubjectError::MalformedSsh)?;
    match key.key_data() {
        KeyData::Ed25519(_) => {}
        KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) if Some(point.as_bytes()) == checked => {}
        KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => {
            let point = point.as_bytes().try_into().map_err(|_| SubjectError::MalformedSsh)?;
            check_point(point, SubjectError::MalformedSsh)?;
        }
        _ => return Err(SubjectError::UnsupportedSsh),
    }
    Ok(key.key_data().clone())
}

/// Neither rcgen nor ssh-key looks whether a point is on the curve.
fn check_point(point: &[u8; 65], malformed: SubjectError) -> Result<(), SubjectError> {
    PublicKey::from_p256(*point).map(drop).map_err(|_| malformed)
}
