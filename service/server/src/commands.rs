//! The commands of `joind`.

mod admin;
mod dev;
mod import;
mod init;
mod keys;
mod log;
mod rebuild;
mod serve;
mod terminal;

use std::{io, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use join_credential::{MasterKey, Purpose, Role, Serial};
use join_domain::{
    id::Name,
    resource::{MAX_TEXT, is_text},
};
use join_ledger::{Ledger, PgConnectOptions, Settings};

pub use self::terminal::say_error;
use crate::config::{Config, Telemetry, listening};

/// The join authority: admits bots that prove possession of a bound key, and keeps an append-only history of it.
#[derive(Debug, Parser)]
#[command(name = "joind", version = env!("VERSION_AND_COMMIT"), arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything on this machine, with a private PostgreSQL: for trying out, development and tests.
    Dev(DevArgs),
    /// Serves a cluster. Any number of nodes may share one database.
    Serve(ServeArgs),
    /// Creates the cluster, once, and writes the first administrator's identity.
    Init {
        #[command(flatten)]
        config: ConfigFile,
        /// Where to write the identity: `ca.crt`, `tls.crt` and `tls.key`.
        #[arg(long, value_name = "DIR")]
        admin_identity: PathBuf,
    },
    /// Brings the schema to this version's. Needs database.owner_url.
    Migrate(ConfigFile),
    /// Drops guard rows and views, and rebuilds them from the events.
    Rebuild {
        #[command(flatten)]
        place: Place,
        /// Only compares, and exits with 3 when something differs.
        #[arg(long)]
        check: bool,
    },
    /// Fills an empty database with an archive, as `joinctl audit export` makes it. Needs database.owner_url.
    Import {
        #[command(flatten)]
        config: ConfigFile,
        /// The archive. It is verified before anything is stored.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Whose signatures to demand (c2sp.org/tlog-policy); by default those of the archive's own policy.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// The verifiable log.
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Checks or shows the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Administrators' identities. Run it on the server's host: it needs the master key.
    Admin {
        #[command(subcommand)]
        command: AdminCommand,
    },
    /// The authority's own keys, and their rotation in phases. Run it on the server's host: it needs the master key.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
}

/// `joind dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where database, keys and identity are kept; they survive restarts.
    #[arg(long, value_name = "DIR", default_value = "./joind-data")]
    data_dir: PathBuf,
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3025", value_parser = listening)]
    listen: SocketAddr,
    /// Where to serve metrics and health; by default on a free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = listening)]
    metrics_listen: SocketAddr,
}

/// `joind serve`.
#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Where to serve metrics and health, without TLS; in place of the configuration's metrics_listen.
    #[arg(long, value_name = "ADDR", value_parser = listening)]
    metrics_listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration.
    #[arg(id = "config", short, long = "config", value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Says whether the configuration is usable.
    Check(ConfigFile),
    /// Shows the effective values, passwords masked.
    Show(ConfigFile),
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Decides that this history goes on under another name, after the log lost entries that it had signed.
    ///
    /// The log that was signed so far ends: no checkpoint is ever signed under its name again. Set log.origin to a name
    /// that was never used, and log.directory to an empty directory, in the configuration of every node before.
    Begin {
        #[command(flatten)]
        config: ConfigFile,
        /// Why; auditors of the old log will ask.
        #[arg(long, value_parser = reason)]
        reason: String,
        /// The name that ends; by default that of the checkpoint which the database knows.
        #[arg(long, value_name = "ORIGIN")]
        ended: Option<String>,
    },
    /// Lets nodes sign again, after one of them stopped the log and was wrong, or is gone.
    ///
    /// A node that finds a contradiction to what was signed stops all nodes, and takes that back when it finds none any
    /// more. Who has found out that there is none, or has lost that node, decides it here. Whatever is signed then can't be
    /// unsigned: if the database was restored from an older backup, use `joind log begin`. A node that still finds the
    /// contradiction stops the log again.
    Resume {
        #[command(flatten)]
        config: ConfigFile,
        /// Why; auditors of this log will ask.
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Lists the identities that were issued and not revoked.
    Ls {
        #[command(flatten)]
        place: Place,
        /// Those that were revoked too.
        #[arg(long)]
        all: bool,
    },
    /// Revokes identities: they are refused at once, on every node.
    Revoke {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        whose: Whose,
        /// Why; it stands in the history.
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Issues an identity for joinctl.
    Issue {
        #[command(flatten)]
        place: Place,
        /// admin (everything), operator (locks, exemptions, reading) or auditor (reading).
        #[arg(long)]
        role: Role,
        /// Who: it stands in every event that they cause.
        #[arg(long)]
        name: Name,
        /// Where to write the identity.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// What somebody says of what they do here: it is recorded, and shown to who reads the history.
fn reason(said: &str) -> Result<String, String> {
    match said.trim() {
        "" => Err("it is empty: say why, for those who read the history".to_owned()),
        said if is_text(said) => Ok(said.to_owned()),
        _ => Err(format!("it may have up to {MAX_TEXT} printable bytes")),
    }
}

/// Which identities.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// All that this administrator has.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// The one whose certificate has this serial number.
    #[arg(long, value_name = "SERIAL")]
    serial: Option<Serial>,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Lists the keys, each with its phase.
    Ls {
        #[command(flatten)]
        place: Place,
    },
    /// Makes a new key on standby: it is published and trusted, and does not sign yet.
    Prepare {
        #[command(flatten)]
        place: Place,
        /// What for.
        #[arg(value_parser = rotatable())]
        purpose: Purpose,
    },
    /// Lets the key on standby sign from now on, and retires the one before it, which stays trusted.
    Activate {
        #[command(flatten)]
        place: Place,
        /// What for.
        #[arg(value_parser = rotatable())]
        purpose: Purpose,
    },
    /// Ends the trust in a compromised key that no longer signs. What it signed is refused by every node within 5 s.
    Revoke {
        #[command(flatten)]
        place: Place,
        /// The key's id.
        kid: String,
        /// Why; it stands in the history.
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Removes a retired key, once nothing that it signed is alive.
    Forget {
        #[command(flatten)]
        place: Place,
        /// The key's id.
        kid: String,
    },
    /// Seals all keys under another master key. Nodes that run go on; give them the new one before they start again.
    Reseal {
        #[command(flatten)]
        place: Place,
        /// The file with the new master key.
        #[arg(long, value_name = "FILE")]
        new_master_key: PathBuf,
    },
}

/// The purposes whose keys rotate.
fn rotatable() -> impl clap::builder::TypedValueParser<Value = Purpose> {
    use clap::builder::TypedValueParser as _;
    let purposes = [Purpose::X509Ca, Purpose::SshCa, Purpose::JoinState].map(Purpose::as_str);
    clap::builder::PossibleValuesParser::new(purposes).try_map(|word| word.parse::<Purpose>())
}

/// Which cluster: that of a configuration, or that of `joind dev`.
#[derive(Debug, Args)]
#[group(required = false, multiple = false)]
struct Place {
    /// The configuration of `joind serve`.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory of a running `joind dev`.
    #[arg(long, value_name = "DIR", default_value = "./joind-data")]
    data_dir: PathBuf,
}

impl Cli {
    /// How this command logs.
    ///
    /// # Errors
    /// When the configuration can't be read.
    pub fn telemetry(&self) -> anyhow::Result<Telemetry> {
        let text = Telemetry { log_format: crate::config::LogFormat::Text, ..Telemetry::default() };
        Ok(match &self.command {
            Command::Serve(args) => args.read()?.telemetry,
            Command::Dev(_) => Telemetry { log_level: "warn,join_server=info".to_owned(), ..text },
            _ => Telemetry { log_level: "warn".to_owned(), ..text },
        })
    }

    /// Runs the command; the number is the exit status.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Dev(args) => dev::run(&args).await,
            Command::Serve(args) => serve::run(args.read()?).await,
            Command::Init { config, admin_identity } => init::run(&config.read()?, &admin_identity).await,
            Command::Migrate(config) => init::migrate(&config.read()?).await,
            Command::Rebuild { place, check } => rebuild::run(&place, check).await,
            Command::Import { config, from, policy } => import::run(&config.read()?, &from, policy.as_deref()).await,
            Command::Log { command: LogCommand::Begin { config, reason, ended } } => {
                log::begin(&config.read()?, &reason, ended.as_deref()).await
            }
            Command::Log { command: LogCommand::Resume { config, reason } } => {
                log::resume(&config.read()?, &reason).await
            }
            Command::Config { command: ConfigCommand::Check(config) } => {
                config.read()?.master_key.open().await?;
                terminal::line(format_args!("{} is usable", config.file.display()))?;
                Ok(0)
            }
            Command::Config { command: ConfigCommand::Show(config) } => {
                terminal::print(&config.read()?.to_masked_yaml()?)?;
                Ok(0)
            }
            Command::Admin { command: AdminCommand::Issue { place, role, name, out } } => {
                admin::issue(&place, role, &name, &out).await
            }
            Command::Admin { command: AdminCommand::Ls { place, all } } => admin::ls(&place, all).await,
            Command::Admin { command: AdminCommand::Revoke { place, whose, reason } } => {
                admin::revoke(&place, &whose, &reason).await
            }
            Command::Keys { command } => keys::run(&command).await,
        }
    }
}

impl ConfigFile {
    fn read(&self) -> anyhow::Result<Config> {
        Config::read(&self.file)
    }
}

impl ServeArgs {
    /// The configuration, with what the command line says instead.
    fn read(&self) -> anyhow::Result<Config> {
        let mut config = self.config.read()?;
        if let Some(address) = self.metrics_listen {
            config.metrics_listen = address;
        }
        Ok(config)
    }
}

impl Place {
    /// Its ledger, as the service's role, and its master key.
    async fn ledger(&self) -> anyhow::Result<(Ledger, MasterKey)> {
        match &self.config {
            Some(file) => {
                let config = Config::read(file)?;
                Ok((ledger(&config).await?, config.master_key.open().await?))
            }
            None => dev::running(&self.data_dir).await,
        }
    }
}

/// The pin by which agents know the CA that signs now.
fn ca_pin(node: &crate::service::Node) -> anyhow::Result<String> {
    let keyring = node.app.ceremonies.keyring.get();
    let authority = keyring.issuer.tls_ca_certificates().first().context("the cluster has no CA")?;
    Ok(join_credential::pin::ca_pin(authority)?)
}

/// Ends with the first Ctrl-C or SIGTERM from now on, before it is waited for, too.
fn interrupted() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The ledger of a configuration, as the service's role.
async fn ledger(config: &Config) -> anyhow::Result<Ledger> {
    let options: PgConnectOptions = config
        .database
        .service_url
        .parse()
        .map_err(|error| anyhow::anyhow!("database.service_url is not a PostgreSQL URL: {error}"))?;
    let settings = Settings {
        writers: config.database.writers,
        connections: config.database.max_connections,
        cache_bytes: config.database.cache_mb << 20,
        // Many listen on 0.0.0.0:3025, and none may be taken for another.
        node: format!("joind {} {}", rustix::system::uname().nodename().to_string_lossy(), config.listen),
        ..Settings::default()
    };
    Ok(Ledger::connect(options, settings).await?)
}

/// Connection options of the owner's role.
fn owner(config: &Config) -> anyhow::Result<PgConnectOptions> {
    let url = config.database.owner_url.as_deref().ok_or_else(|| {
        anyhow::anyhow!("database.owner_url is missing: this command needs the role that owns the schema")
    })?;
    url.parse().map_err(|error| anyhow::anyhow!("database.owner_url is not a PostgreSQL URL: {error}"))
}
