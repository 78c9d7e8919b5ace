//! What clients know of the authority, and how they reach it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use join_credential::pin::ca_pin;
use join_ledger::{Clock as _, ManualClock};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption, WantsClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::key::Key;

/// A client certificate and the key that it is for.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    pub(crate) key: Key,
}

/// Where the nodes are, and how to know that they are the authority.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) pin: String,
    pub(crate) nodes: Mutex<Vec<SocketAddr>>,
}

impl Network {
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.nodes.lock().unwrap()[node]
    }

    /// One new connection.
    pub(crate) async fn connect(
        &self,
        node: usize,
        certificate: Option<&Certificate>,
        protocol: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let address = self.address(node);
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(Arc::new(self.tls(certificate, protocol)));
        tls.connect(ServerName::IpAddress(address.ip().into()), tcp).await
    }

    /// gRPC over one new connection, which is not made again when it ends.
    pub(crate) async fn grpc(&self, node: usize, certificate: Option<&Certificate>) -> io::Result<Channel> {
        let mut stream = Some(TokioIo::new(self.connect(node, certificate, "h2").await?));
        let origin = format!("https://{}", self.address(node)).parse().unwrap();
        Endpoint::from_static("http://connected.invalid")
            .origin(origin)
            .timeout(Duration::from_secs(30))
            .connect_with_connector(tower::service_fn(move |_| {
                let stream = stream.take();
                async move { stream.ok_or_else(|| io::Error::other("the connection was lost")) }
            }))
            .await
            .map_err(io::Error::other)
    }

    /// Of a client that has not heard of TLS 1.3.
    pub(crate) fn old_tls(&self) -> ClientConfig {
        self.verifying(&rustls::version::TLS12).with_no_client_auth()
    }

    /// Of a client that resumes a session when it can.
    pub(crate) fn resuming(&self, certificate: Option<&Certificate>) -> ClientConfig {
        let mut config = self.tls(certificate, "http/1.1");
        config.resumption = Resumption::default();
        config
    }

    fn verifying(&self, version: &'static SupportedProtocolVersion) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let provider = Arc::new(default_provider());
        let verifier = Pinned { pin: self.pin.clone(), provider: Arc::clone(&provider) };
        ClientConfig::builder_with_details(provider, Arc::new(Time(Arc::clone(&self.clock))))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    }

    fn tls(&self, certificate: Option<&Certificate>, protocol: &str) -> ClientConfig {
        let builder = self.verifying(&rustls::version::TLS13);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(shown) => builder.with_client_auth_cert(vec![shown.der.clone().into()], shown.key.for_tls()).unwrap(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        config
    }
}

#[derive(Debug)]
struct Time(Arc<ManualClock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Trusts a server whose chain ends in the CA that is pinned.
#[derive(Debug)]
struct Pinned {
    pin: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let mut roots = RootCertStore::empty();
        let pinned = chain.iter().filter(|ca| ca_pin(ca).is_ok_and(|pin| pin == self.pin));
        roots.add_parsable_certificates(pinned.map(|ca| ca.clone().into_owned()));
        WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider))
            .build()
            .map_err(|_| TlsError::InvalidCertificate(CertificateError::UnknownIssuer))?
            .verify_server_cert(server, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
