//! The connection to the authority: one HTTP/2 channel over mutual TLS, for gRPC and for the log's static files.

mod client;
mod discover;
mod log_file;
mod patience;
#[cfg(test)]
pub(crate) mod scripted;

use std::{
    env,
    error::Error,
    fmt, io, iter,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use join_proto::{Address, for_another_host};
use rustls::{CertificateError, InvalidMessage};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) use self::{
    client::{Client, PAGE_SIZE, Selection, is_not_found},
    patience::walk,
};

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a quiet connection is tested, and how long the answer may take: a server that hangs is not waited for.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Options that say where the authority is and who calls.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// Address of the authority.
    #[arg(long, global = true, env = "JOINCTL_ADDR", value_name = "HOST:PORT", help_heading = "Global options")]
    addr: Option<String>,

    /// Directory with ca.crt, tls.crt and tls.key of an administrator or auditor.
    ///
    /// Without --addr and --identity, ./joind-data/env is read, as `joind dev` writes it, unless it belongs to another
    /// user than root or others can write it; then ~/.config/joinctl, which holds the three files and `addr`.
    #[arg(long, global = true, env = "JOINCTL_IDENTITY", value_name = "DIR", help_heading = "Global options")]
    identity: Option<PathBuf>,
}

impl Connection {
    /// Connects. Errors say where address and identity were looked for, or why the authority can't be reached
    /// ([`Unreachable`]).
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let home = env::home_dir().map(|home| home.join(".config/joinctl"));
        let places = discover::Places { dev_env: Path::new("joind-data/env"), home: home.as_deref() };
        // An empty variable is as good as none.
        let addr = self.addr.as_deref().filter(|addr| !addr.is_empty());
        let identity = self.identity.as_deref().filter(|identity| !identity.as_os_str().is_empty());
        let settings = discover::discover(addr, identity, &places)?;

        let identity = discover::Identity::read(&settings.identity)?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(identity.ca))
            .identity(Identity::from_pem(identity.cert, identity.key))
            // For connections that are made again later; the first is bounded as a whole.
            .timeout(CONNECT_TIMEOUT);
        let endpoint = Endpoint::from_shared(format!("https://{}", settings.address))?
            .user_agent(concat!("joinctl/", env!("CARGO_PKG_VERSION")))?
            .tls_config(tls)
            .map_err(|error| anyhow::anyhow!(root_cause(&error)))
            .with_context(|| format!("the identity {} can't be used", settings.identity.display()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let channel = open(&endpoint, CONNECT_TIMEOUT).await;
        let channel = channel.map_err(|cause| {
            if cause.ends_with("UnknownIssuer") {
                return anyhow::anyhow!(
                    "the server at {} is not of the CA in {}/ca.crt: it is another one, or that CA was revoked, and \
                     whoever runs the authority issues the identity anew with `joind admin issue`",
                    settings.address,
                    settings.identity.display()
                );
            }
            Unreachable { address: settings.address.clone(), cause }.into()
        })?;
        Ok(Client::new(channel, settings.address))
    }
}

/// Makes the connection, or says why there is none. A port that is open and silent is no authority.
async fn open(endpoint: &Endpoint, timeout: Duration) -> Result<Channel, String> {
    match tokio::time::timeout(timeout, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| cause(&error)),
        Err(_) => Err(format!(
            "no TLS connection within {} s; is that the authority's address, and does it run?",
            timeout.as_secs_f32()
        )),
    }
}

/// Why a connection failed, for people.
fn cause(error: &(dyn Error + 'static)) -> String {
    let tls =
        causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })) => {
            format!("a server answers, but its certificate {}", for_another_host(expected, presented))
        }
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "what answers there has no TLS: is it the port for metrics?".to_owned()
        }
        _ => root_cause(error),
    }
}

/// No connection came about.
#[derive(Debug)]
pub(crate) struct Unreachable {
    address: Address,
    cause: String,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not reach the authority at {}: {}", self.address, self.cause)
    }
}

impl Error for Unreachable {}

/// The innermost cause: the layers above it say no more than that a transport failed.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |error| (**error).source())
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_port_that_is_open_and_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authority = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.cert.pem()));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
        let cause = open(&endpoint, Duration::from_millis(50)).await.unwrap_err();
        assert!(cause.starts_with("no TLS connection within 0.05 s"), "{cause}");
    }

    #[tokio::test]
    async fn a_port_without_tls_is_told_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authority = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.cert.pem()));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        };
        let (opened, _stream) = tokio::join!(open(&endpoint, CONNECT_TIMEOUT), answer);
        assert_eq!(opened.unwrap_err(), "what answers there has no TLS: is it the port for metrics?");
    }

    #[test]
    fn a_certificate_for_other_hosts_is_told_with_these() {
        let expected = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let presented = ["DnsName(\"localhost\")", "IpAddress(::1)", "UniformResourceIdentifier(\"spiffe://c\")"];
        let presented = presented.map(str::to_owned).to_vec();
        let refused = CertificateError::NotValidForNameContext { expected, presented };
        let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(refused));
        let told = cause(&error);
        assert!(told.contains("is for localhost, ::1, not for 127.0.0.1: "), "{told}");
    }
}
