//! JSON over HTTP/1.1 and TLS, as `curl` speaks it: for the administrator, and for bots without gRPC.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock::SharedClock;

/// What a client trusts, and the time that it goes by.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The cluster's CA certificates.
    pub cas: Vec<CertificateDer<'static>>,
    /// The time.
    pub clock: SharedClock,
}

/// A client certificate and its key.
pub type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// One connection.
pub struct Http {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

/// An error answer.
#[derive(Debug, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct Refused {
    /// HTTP's word.
    pub status: StatusCode,
    /// The stable code.
    pub code: String,
    /// The words for people.
    pub message: String,
}

impl Http {
    /// Connects, with a full handshake.
    ///
    /// # Errors
    /// When the server can't be reached or is not trusted.
    pub async fn connect(address: SocketAddr, trust: &Trust, identity: Option<Identity>) -> Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(Arc::new(config(trust, identity)?));
        let stream = tls.connect(ServerName::IpAddress(address.ip().into()), tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How it ended, the requests on it find out.
        tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, host: address.to_string() })
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// [`Refused`], or that the connection was lost.
    pub async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json");
        let body = body.map(Value::to_string).unwrap_or_default();
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request.body(Full::from(body))?).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&body)
            .with_context(|| format!("{}: {}", head.status, String::from_utf8_lossy(&body)))?;
        if head.status.is_success() {
            return Ok(answer);
        }
        let text = |name: &str| answer["error"][name].as_str().unwrap_or_default().to_owned();
        bail!(Refused { status: head.status, code: text("code"), message: text("message") })
    }
}

fn config(trust: &Trust, identity: Option<Identity>) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(trust.cas.iter().cloned());
    ensure!(added > 0, "no CA to trust");
    let builder = ClientConfig::builder_with_details(provider, Arc::new(trust.clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key)?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
