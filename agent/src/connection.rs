//! One connection to the authority, new for every join and never resumed: its client certificate is the newest.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use join_proto::{Address, for_another_host};
use rustls::{CertificateError, ClientConfig, Error as TlsError, InvalidMessage, client::Resumption};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::{
    clock::{Clock, TlsClock},
    credentials::Credentials,
    dial::dial,
    error::JoinError,
    trust::{Trust, Untrusted, Verifier, cluster_of},
};

/// How long connecting may take, TLS and HTTP/2 included.
const CONNECT_TIME: Duration = Duration::from_secs(10);

pub(crate) struct Connection {
    pub(crate) channel: Channel,
    /// The cluster that the verified server certificate names.
    pub(crate) cluster: String,
}

pub(crate) async fn open(
    address: &Address,
    trust: Trust,
    certificate: Option<&Credentials>,
    clock: Arc<dyn Clock>,
) -> Result<Connection, JoinError> {
    let tls = TlsConnector::from(Arc::new(client_config(trust, certificate, clock)?));
    let unreachable = |error: io::Error| JoinError::Network(format!("cannot reach {address}: {error}"));
    let deadline = Instant::now() + CONNECT_TIME;
    let tcp = dial(&address.host, address.port, deadline).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let connecting = async {
        let stream = tls.connect(address.server_name(), tcp).await.map_err(|error| handshake_error(address, error))?;
        let server = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let cluster = server.and_then(cluster_of).ok_or(JoinError::Untrusted(Untrusted::NotAnAuthority))?;
        let channel = channel(address, stream).await;
        let channel = channel.map_err(|error| JoinError::Network(format!("{address}: {error}")))?;
        Ok(Connection { channel, cluster })
    };
    let silent = |_| JoinError::Network(format!("cannot reach {address}: no answer for {} s", CONNECT_TIME.as_secs()));
    timeout_at(deadline, connecting).await.map_err(silent)?
}

fn client_config(
    trust: Trust,
    certificate: Option<&Credentials>,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, JoinError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier { trust, provider: provider.clone() });
    let builder = ClientConfig::builder_with_details(provider, Arc::new(TlsClock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has the cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let presented = certificate.and_then(|credentials| Some((credentials.certificate_der()?, &credentials.key)));
    let mut config = match presented {
        None => builder.with_no_client_auth(),
        // Expired or not: what is live is the server's to decide.
        Some((certificate, key)) => builder
            .with_client_auth_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.to_der().to_vec().into()))
            .map_err(|error| JoinError::Unexpected(format!("the stored certificate does not fit its key: {error}")))?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn handshake_error(address: &Address, error: io::Error) -> JoinError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match tls {
        Some(TlsError::InvalidCertificate(CertificateError::Other(other))) => match other.0.downcast_ref::<Untrusted>()
        {
            Some(why) => JoinError::Untrusted(why.clone()),
            None => JoinError::Certificate(format!("{address}: {other}")),
        },
        Some(TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })) => {
            JoinError::Certificate(format!("{address}: it {}", for_another_host(expected, presented)))
        }
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => JoinError::Network(format!(
            "no TLS connection to {address}: what answers there has no TLS: is it the port for metrics?"
        )),
        Some(TlsError::InvalidCertificate(why)) => JoinError::Certificate(format!("{address}: {why}")),
        _ => JoinError::Network(format!("no TLS connection to {address}: {error}")),
    }
}

/// HTTP/2 over the one stream there is: a channel that loses it fails, and does not connect again by itself.
async fn channel(address: &Address, stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let origin = format!("https://{address}").parse().expect("an address makes an origin");
    let mut stream = Some(TokioIo::new(stream));
    Endpoint::from_static("http://connected.invalid")
        .origin(origin)
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = stream.take();
            async move { stream.ok_or_else(|| io::Error::other("the connection was lost")) }
        }))
        .await
}
