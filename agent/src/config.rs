//! The effective configuration, from a file, a joining URI, or code.

mod file;
mod secret;
mod uri;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use join_domain::{decision::join::Policy, id::Name};
use join_proto::Address;
use zeroize::Zeroizing;

pub use self::{
    secret::{RegistrationSecret, SecretError},
    uri::JoinUri,
};
use crate::{files, key::PrivateKey, output::Identity, trust::Trust};

/// How long certificates are asked for, when nothing else is said.
pub const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);
/// How often credentials are renewed, when nothing else is said and they live that long.
pub const DEFAULT_RENEWAL: Duration = Duration::from_secs(20 * 60);

/// Where a registration secret is looked for when the configuration has none.
const SECRET_VARIABLES: [&str; 2] = ["JOINBOT_REGISTRATION_SECRET", "TBOT_REGISTRATION_SECRET"];
/// Where a static key (base64 of its PEM) is looked for when the configuration has none.
const STATIC_KEY_VARIABLES: [&str; 3] = ["JOINBOT_STATIC_KEY", "TBOT_STATIC_KEY", "TBOT_BOUND_KEYPAIR_STATIC_KEY"];

/// What the agent needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the authority is.
    pub authority: Address,
    /// How it is known.
    pub trust: Trust,
    /// The token's name.
    pub token: Name,
    /// Which keypair is bound.
    pub keypair: Keypair,
    /// Where the state is kept.
    pub storage: StorageConfig,
    /// How long certificates are asked for; the authority caps it.
    pub certificate_ttl: Duration,
    /// How often credentials are renewed.
    pub renewal_interval: Duration,
    /// Join once and end.
    pub oneshot: bool,
    /// Where `/livez`, `/readyz` and `/metrics` are served, if at all.
    pub diag_addr: Option<SocketAddr>,
    /// What other programs read.
    pub outputs: Vec<Identity>,
    /// Log more.
    pub debug: bool,
    /// Whether it comes from a joining URI: errors then name what is wrong with that.
    pub from_uri: bool,
    /// What is wrong though it can be used.
    pub warnings: Vec<String>,
}

/// The keypair to be bound.
#[derive(Debug, Clone)]
pub enum Keypair {
    /// Made, kept and rotated by the agent.
    Managed {
        /// For a first join, unless the key is preregistered.
        registration_secret: Option<RegistrationSecret>,
    },
    /// Given, and never changed by the agent.
    Static(PrivateKey),
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageConfig {
    /// In a directory of its own.
    Directory(PathBuf),
    /// Nowhere: each start of the agent joins anew.
    Memory,
}

/// A configuration that can't be used. The message names the key and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn at(key: &str, problem: impl std::fmt::Display) -> Self {
        Self(format!("{key}: {problem}"))
    }
}

/// Variables of the environment, by name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Config {
    /// A configuration with nothing but defaults around the necessary: state in memory, no outputs.
    pub fn new(authority: Address, trust: Trust, token: Name, keypair: Keypair) -> Self {
        Self {
            authority,
            trust,
            token,
            keypair,
            storage: StorageConfig::Memory,
            certificate_ttl: DEFAULT_TTL,
            renewal_interval: DEFAULT_RENEWAL,
            oneshot: false,
            diag_addr: None,
            outputs: Vec::new(),
            debug: false,
            from_uri: false,
            warnings: Vec::new(),
        }
    }

    /// True when no key outlives the process: none is given, and none is kept.
    pub(crate) fn is_without_key(&self) -> bool {
        self.storage == StorageConfig::Memory && matches!(self.keypair, Keypair::Managed { .. })
    }

    /// Reads a configuration file: YAML as of `tbot`, version 2.
    ///
    /// # Errors
    /// [`ConfigError`] names the key that is unknown, not served, missing or wrong.
    pub fn from_yaml(text: &str, environment: Environment<'_>) -> Result<Self, ConfigError> {
        file::File::parse(text)?.into_config(environment)
    }

    /// Takes everything from a joining URI.
    ///
    /// # Errors
    /// [`ConfigError`] when the environment names a key that can't be read.
    pub fn from_uri(uri: JoinUri, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let trust = Trust { pins: uri.pins, cas: Vec::new() };
        let keypair = match uri.secret {
            Some(secret) => Keypair::Managed { registration_secret: Some(RegistrationSecret::Given(secret)) },
            None => keypair_from(environment)?,
        };
        Ok(Self { from_uri: true, ..Self::new(uri.authority, trust, uri.token, keypair) })
    }

    /// Refuses a configuration file with a relative path: a program that is not started by hand has another working
    /// directory than whoever wrote it.
    ///
    /// # Errors
    /// [`ConfigError`] names the first key with such a path.
    pub fn refuse_relative_paths(text: &str) -> Result<(), ConfigError> {
        let file = file::File::parse(text)?;
        match file.paths().into_iter().find(|(_, path)| path.is_relative()) {
            Some((key, path)) => Err(ConfigError::at(
                &key,
                format_args!(
                    "`{}` is relative, and a unit is not started in your working directory; write an absolute path",
                    path.display()
                ),
            )),
            None => Ok(()),
        }
    }

    /// Sets where the state is kept and where credentials are written.
    ///
    /// # Errors
    /// When credentials would be written into the storage: it holds this bot's keys, and other programs would have to read
    /// there.
    pub fn set_places(&mut self, storage: StorageConfig, outputs: Vec<Identity>) -> Result<(), ConfigError> {
        if let StorageConfig::Directory(path) = &storage {
            let resolved = |path: &Path| {
                files::resolved(path).map_err(|error| ConfigError::new(format!("{}: {error}", path.display())))
            };
            let kept = resolved(path)?;
            for output in outputs.iter().map(Identity::directory) {
                let place = resolved(output)?;
                if place == kept {
                    return Err(ConfigError::new(format!(
                        "the destination {} is the storage directory, which is for this agent alone; give it a \
                         directory of its own",
                        output.display()
                    )));
                }
            }
        }
        self.storage = storage;
        self.outputs = outputs;
        Ok(())
    }

    /// Sets how long certificates live and how often they are renewed. Whether they are renewed in time is checked
    /// where that is known: [`Config::check_renewal`].
    ///
    /// # Errors
    /// When one of them is too short.
    pub fn set_times(&mut self, ttl: Option<Duration>, renewal: Option<Duration>) -> Result<(), ConfigError> {
        let ttl = ttl.unwrap_or(DEFAULT_TTL);
        let shortest = Policy::default().min_life.to_std().unwrap_or_default();
        if ttl < shortest {
            let least = humantime::format_duration(shortest);
            return Err(ConfigError::at("certificate_ttl", format_args!("must be at least {least}")));
        }
        if renewal.is_some_and(|renewal| renewal.is_zero()) {
            return Err(ConfigError::at("renewal_interval", "must not be zero"));
        }
        self.certificate_ttl = ttl;
        self.renewal_interval = renewal.unwrap_or_else(|| DEFAULT_RENEWAL.min(ttl / 3));
        Ok(())
    }

    /// Makes sure that certificates are renewed before they end, once it is known whether they are renewed at all.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_renewal(&self) -> Result<(), ConfigError> {
        if self.oneshot || self.renewal_interval < self.certificate_ttl {
            return Ok(());
        }
        Err(ConfigError::at(
            "renewal_interval",
            format_args!(
                "{} is not shorter than certificate_ttl ({}): certificates would end before they are renewed",
                humantime::format_duration(self.renewal_interval),
                humantime::format_duration(self.certificate_ttl)
            ),
        ))
    }
}

/// The keypair as the environment gives it.
fn keypair_from(environment: Environment<'_>) -> Result<Keypair, ConfigError> {
    let first = |names: &[&'static str]| names.iter().find_map(|name| Some((*name, environment(name)?)));
    if let Some((name, encoded)) = first(&STATIC_KEY_VARIABLES) {
        let mut encoded = Zeroizing::new(encoded);
        // Plain `base64` breaks its lines.
        encoded.retain(|c| !c.is_ascii_whitespace());
        let pem = STANDARD
            .decode(encoded.as_bytes())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Zeroizing::new)
            .ok_or_else(|| ConfigError::at(name, "is not base64 of a PEM"))?;
        return PrivateKey::from_pem(&pem).map(Keypair::Static).map_err(|error| ConfigError::at(name, error));
    }
    Ok(Keypair::Managed { registration_secret: first(&SECRET_VARIABLES).map(|(_, secret)| secret.into()) })
}
