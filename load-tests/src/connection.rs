//! Connections to an authority: TLS 1.3 and HTTP/2, with as little in between as possible, because the generator stands
//! on the same cores as what it measures.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::SendRequest;
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use serde::Serialize;
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::TlsConnector;

/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// An authority, and how it is recognised.
pub(crate) struct Target {
    address: SocketAddr,
    name: ServerName<'static>,
    config: ClientConfig,
    resuming: ClientConfig,
}

/// One connection.
pub(crate) struct Connection {
    /// Sends requests; clones share the connection.
    pub(crate) requests: SendRequest<Bytes>,
    /// What the handshake was: full or resumed.
    pub(crate) handshake: HandshakeKind,
    driver: JoinHandle<()>,
}

/// Handshakes, as clients saw them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Handshakes {
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    /// Those of them that opened a kept connection again.
    pub(crate) reopened: u64,
}

impl Handshakes {
    /// Those since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            full: self.full - earlier.full,
            resumed: self.resumed - earlier.resumed,
            reopened: self.reopened - earlier.reopened,
        }
    }
}

impl Target {
    /// An authority at `address` whose server certificate is signed by one of `roots` for `name`.
    pub(crate) fn new(address: SocketAddr, name: &str, roots: &[CertificateDer<'static>]) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone()).context("the CA certificate is not one")?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { verifier, leaf: OnceLock::new() }))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let resuming = config.clone();
        config.resumption = Resumption::disabled();
        Ok(Self { address, name: ServerName::try_from(name.to_owned())?, config, resuming })
    }

    /// A new connection with a full handshake.
    pub(crate) async fn connect(&self, certificate: Option<&Arc<CertifiedKey>>) -> anyhow::Result<Connection> {
        let mut config = self.config.clone();
        if let Some(certificate) = certificate {
            config.client_auth_cert_resolver = Arc::new(Only(Arc::clone(certificate)));
        }
        self.connect_with(config).await
    }

    /// A new connection that resumes an earlier one, where the authority lets it.
    pub(crate) async fn resume(&self) -> anyhow::Result<Connection> {
        self.connect_with(self.resuming.clone()).await
    }

    async fn connect_with(&self, config: ClientConfig) -> anyhow::Result<Connection> {
        let connecting = async {
            let tcp = TcpStream::connect(self.address).await?;
            tcp.set_nodelay(true)?;
            let tls = TlsConnector::from(Arc::new(config)).connect(self.name.clone(), tcp).await?;
            let handshake = tls.get_ref().1.handshake_kind().context("the handshake is not over")?;
            let (requests, connection) = h2::client::handshake(tls).await?;
            // How it ends, each request learns for itself.
            let driver = tokio::spawn(async move { drop(connection.await) });
            anyhow::Ok(Connection { requests, handshake, driver })
        };
        tokio::time::timeout(CONNECT_TIME, connecting).await.context("connecting took too long")?
    }
}

impl Connection {
    /// True once the other side has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Presents one certificate.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesClientCert for Only {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Verifies the server's certificate once, and then knows it: a thousand bots are one process here. The signature of
/// each handshake is verified each time.
#[derive(Debug)]
struct Pinned {
    verifier: Arc<WebPkiServerVerifier>,
    leaf: OnceLock<CertificateDer<'static>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.leaf.get().is_some_and(|known| known == leaf) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.verifier.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        self.leaf.get_or_init(|| leaf.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
