//! Pins: how a client that has nothing else recognises the authority.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Bytes that are not a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate in DER")]
pub struct NotACertificate;

/// The pin of a CA certificate: `sha256:` and the SHA-256 of its SubjectPublicKeyInfo (RFC 5280), in hex.
///
/// # Errors
/// [`NotACertificate`].
pub fn ca_pin(certificate: &[u8]) -> Result<String, NotACertificate> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| NotACertificate)?;
    let hash = digest(&SHA256, certificate.public_key().raw);
    Ok(format!("sha256:{}", hex::encode(hash)))
}
