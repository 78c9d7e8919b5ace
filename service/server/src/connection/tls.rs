//! The TLS side of the one port. Any client certificate whose key the client holds passes the handshake; whether it
//! means anything is decided per request, by the authority's own keys and the database's time. So an expired or
//! foreign certificate counts as none instead of breaking the connection.

use std::sync::{Arc, PoisonError, RwLock};

use join_resource::MAX_SPEC;
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, SupportedCipherSuite,
    client::danger::HandshakeSignatureValid,
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms,
        aws_lc_rs::{
            self,
            cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256},
        },
    },
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

/// The most bytes of a client's certificate chain. Ours have about 1 KiB, and the roles of their bot.
const MAX_CHAIN: usize = 8 * 1024 + MAX_SPEC;

/// Accepts any certificate, but only with proof of its key.
#[derive(Debug)]
struct PossessionOnly(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for PossessionOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // It is kept for as long as the connection.
        let bytes: usize = std::iter::once(end_entity).chain(intermediates).map(|certificate| certificate.len()).sum();
        if bytes > MAX_CHAIN {
            return Err(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The server's own certificate, which can be replaced while connections are accepted.
#[derive(Debug)]
pub struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// Presents this chain until it is replaced.
    ///
    /// # Errors
    /// When the key does not fit the certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        Ok(Self(RwLock::new(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))))
    }

    /// Presents this chain from now on; open connections stay.
    ///
    /// # Errors
    /// When the key does not fit the certificate; the old chain is presented then.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), rustls::Error> {
        let next = Arc::new(CertifiedKey::from_der(chain, key, &provider())?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// In our order, whatever the client's: a handshake is mostly hashing beside its signatures, and processors have
/// instructions for SHA-256, where SHA-384 takes a seventh of the handshake.
const CIPHER_SUITES: [SupportedCipherSuite; 3] =
    [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];

/// The configuration for a server certificate. TLS 1.3 only; no session resumption: a renewal proves its newest
/// certificate in a full handshake, and for others a resumed handshake saves the server nothing.
///
/// # Errors
/// When the provider does not speak TLS 1.3; ours does.
pub fn server_config(certificate: Arc<ServerCertificate>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(CryptoProvider { cipher_suites: CIPHER_SUITES.to_vec(), ..provider() });
    let verifier = PossessionOnly(provider.signature_verification_algorithms);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(certificate);
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The one cryptography provider of this process.
pub fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_only_takes_memory_is_refused() {
        let verifier = PossessionOnly(aws_lc_rs::default_provider().signature_verification_algorithms);
        let of = |bytes: usize| CertificateDer::from(vec![0; bytes]);
        let verified = |own: usize, above: &[CertificateDer<'_>]| {
            verifier.verify_client_cert(&of(own), above, UnixTime::now()).is_ok()
        };
        assert!(verified(1000, &[]) && verified(1000, &[of(1000), of(2000)]));
        assert!(!verified(MAX_CHAIN + 1, &[]) && !verified(1000, &[of(MAX_CHAIN / 2), of(MAX_CHAIN / 2)]));
    }
}
