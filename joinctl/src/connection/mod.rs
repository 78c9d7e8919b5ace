//! The connection to the authority: one HTTP/2 channel over mutual TLS, for gRPC and for the log's static files.

mod client;
mod discover;
mod log_file;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

pub(crate) use self::{
    client::{Client, PAGE_SIZE, Selection},
    discover::Address,
};

/// How long a connection may take to be made.
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
    /// Without --addr and --identity, ./joind-data/env is read, as `joind dev` writes it; then ~/.config/joinctl,
    /// which holds the three files and `addr`.
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
            .identity(Identity::from_pem(identity.cert, identity.key));
        let channel = Endpoint::from_shared(format!("https://{}", settings.address))?
            .user_agent(concat!("joinctl/", env!("CARGO_PKG_VERSION")))?
            .tls_config(tls)
            .map_err(|error| anyhow::anyhow!(root_cause(&error)))
            .with_context(|| format!("the identity {} can't be used", settings.identity.display()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .connect()
            .await
            .map_err(|error| Unreachable { address: settings.address.clone(), cause: root_cause(&error) })?;
        Ok(Client::new(channel, settings.address))
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

impl std::error::Error for Unreachable {}

/// The innermost cause: the layers above it say no more than that a transport failed.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}
