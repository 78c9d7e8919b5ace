//! Whether a server is the authority: its chain must end in a CA that is pinned or known, and it must name the cluster.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::credentials::uri_names;

/// Where people find a pin.
pub(crate) const SOURCE_OF_PINS: &str = "`joind dev` and `joind serve` print the pin as `ca-pin=sha256:…` in their line \
                                         `ready`, and it stands in every joining URI";

/// The SHA-256 of a CA's SubjectPublicKeyInfo; `sha256:` and 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a certificate's key.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        digest(&SHA256, certificate.public_key().raw).as_ref().try_into().ok().map(Self)
    }
}

/// A pin that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a CA pin, `sha256:` and 64 hex digits: {SOURCE_OF_PINS}")]
pub struct PinError(String);

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let mut hash = [0; 32];
        let hex = text.strip_prefix("sha256:").ok_or_else(|| PinError(text.to_owned()))?;
        hex::decode_to_slice(hex, &mut hash).map_err(|_| PinError(text.to_owned()))?;
        Ok(Self(hash))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a server's certificate may be traced to. Any one of these is enough.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Keys of CAs; the CA's certificate must be among those that the server presents.
    pub pins: Vec<Pin>,
    /// CA certificates.
    pub cas: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Whether nothing at all is trusted.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.cas.is_empty()
    }
}

/// Why a server is not the authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// No CA of the chain is pinned or known.
    #[error(
        "the server presents no CA that is pinned or known; it presents {}: compare before you change the pin, since \
         {SOURCE_OF_PINS}", presented(.0)
    )]
    UnknownCa(Vec<Pin>),
    /// The certificate is not an authority's.
    #[error(
        "the server's certificate names no cluster (URI `spiffe://CLUSTER/authority`): this is not a join authority"
    )]
    NotAnAuthority,
}

fn presented(pins: &[Pin]) -> String {
    match pins {
        [] => "none".to_owned(),
        pins => pins.iter().map(Pin::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// The cluster that an authority's certificate names.
pub(crate) fn cluster_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    uri_names(&certificate)
        .into_iter()
        .find_map(|uri| uri.strip_prefix("spiffe://")?.strip_suffix("/authority").map(str::to_owned))
        .filter(|cluster| !cluster.is_empty() && !cluster.contains('/'))
}

/// Verifies chain, validity, name of the host, and that it is an authority at all.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) trust: Trust,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let pinned = |ca: &&CertificateDer<'_>| Pin::of(ca).is_some_and(|pin| self.trust.pins.contains(&pin));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.trust.cas.iter().cloned());
        roots.add_parsable_certificates(intermediates.iter().filter(pinned).map(|ca| ca.clone().into_owned()));
        let unknown_ca = || Untrusted::UnknownCa(intermediates.iter().filter_map(Pin::of).collect());

        WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone())
            .build()
            .map_err(|_| refuse(unknown_ca()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| match error {
                TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => refuse(unknown_ca()),
                other => other,
            })?;
        cluster_of(end_entity).ok_or_else(|| refuse(Untrusted::NotAnAuthority))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refuse(why: Untrusted) -> TlsError {
    TlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}
