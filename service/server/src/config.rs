//! The configuration of `joind serve`: one YAML file, overridden by `JOIND_…` variables; unknown keys are refused.
//!
//! `JOIND_DATABASE__SERVICE_URL` is `database.service_url`. `JOIND_MASTER_KEY` is left alone: it may hold the key itself.

mod database;
mod human_duration;
mod mask;
mod master_key;

use std::{collections::BTreeMap, net::SocketAddr, num::NonZero, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use chrono::TimeDelta;
use figment::{
    Figment,
    providers::{Env, Format as _, Yaml},
};
use join_domain::{decision::join::Policy, id::Name};
use join_log::{VerifierKey, note};
use reqwest::Url;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny},
};

pub use self::{database::Database, mask::mask_password, master_key::MasterKeySource};

/// The whole configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster's name: issuer and audience of every document. It can't be changed after `joind init`.
    pub cluster_name: Name,
    /// Where gRPC and HTTP are served, over TLS.
    #[serde(default = "default_listen", deserialize_with = "deserialize_listening")]
    pub listen: SocketAddr,
    /// Where metrics and health are served, without TLS.
    #[serde(default = "default_metrics_listen", deserialize_with = "deserialize_listening")]
    pub metrics_listen: SocketAddr,
    /// Host names and addresses under which clients reach this node; they stand in the server certificate.
    pub public_addresses: Vec<String>,
    /// The database.
    pub database: Database,
    /// The key under which the authority's keys are encrypted.
    #[serde(with = "serde_yaml_ng::with::singleton_map")]
    pub master_key: MasterKeySource,
    /// The verifiable log.
    #[serde(default)]
    pub log: Log,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
}

/// The verifiable log.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Where tiles and checkpoints are written; none: this node serves no log files.
    pub directory: Option<PathBuf>,
    /// Name of the log in checkpoints; by default `<cluster>/log`. A restored or forked database needs another.
    pub origin: Option<String>,
    /// Witnesses that are asked to cosign each checkpoint; only with a directory.
    pub witnesses: Vec<Witness>,
}

/// A witness of the log (c2sp.org/tlog-witness).
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Its verifier key, `name+id+base64`.
    pub key: String,
    /// Its submission prefix, such as `https://witness.example.com`.
    pub url: String,
}

/// Logs and traces.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// OTLP collector (gRPC), such as `http://127.0.0.1:4317`; none: no traces are sent.
    pub otlp_endpoint: Option<String>,
    /// `json` or `text`.
    pub log_format: LogFormat,
    /// A level, or directives as `RUST_LOG` has them.
    pub log_level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Limits on credentials and on what strangers may do. None is 0: then nobody would be served.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Life of certificates when the client does not ask.
    #[serde(with = "human_duration")]
    pub certificate_ttl_default: Duration,
    /// The longest life a client gets.
    #[serde(with = "human_duration")]
    pub certificate_ttl_max: Duration,
    /// Failed joins without proof from one address, each minute, before they are answered RATE_LIMITED.
    pub failures_per_address: NonZero<u32>,
    /// The same from one address on one token.
    pub failures_per_token_and_address: NonZero<u32>,
    /// Refused joins with proof from one address on one token, each minute, that are recorded one by one.
    pub refusals_per_token_and_address: NonZero<u32>,
    /// Open connections.
    pub connections: NonZero<usize>,
    /// Open connections from one address (a /56 of IPv6).
    pub connections_per_address: NonZero<usize>,
    /// Streams open at once on one connection.
    pub streams_per_connection: NonZero<u32>,
    /// Streams (requests that are not answered yet) open at once from one address (a /56 of IPv6).
    pub streams_per_address: NonZero<usize>,
    /// Streams open at once.
    pub streams: NonZero<usize>,
}

fn default_listen() -> SocketAddr {
    ([0, 0, 0, 0], 3025).into()
}

fn default_metrics_listen() -> SocketAddr {
    ([127, 0, 0, 1], 3026).into()
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp_endpoint: None, log_format: LogFormat::Json, log_level: "info".to_owned() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const {
            Self {
                certificate_ttl_default: Duration::from_secs(60 * 60),
                certificate_ttl_max: Duration::from_secs(24 * 60 * 60),
                failures_per_address: NonZero::new(120).unwrap(),
                failures_per_token_and_address: NonZero::new(30).unwrap(),
                refusals_per_token_and_address: NonZero::new(600).unwrap(),
                connections: NonZero::new(10_000).unwrap(),
                connections_per_address: NonZero::new(2000).unwrap(),
                streams_per_connection: NonZero::new(128).unwrap(),
                streams_per_address: NonZero::new(1000).unwrap(),
                streams: NonZero::new(4000).unwrap(),
            }
        }
    }
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Names the key that is unknown, missing or wrong.
    pub fn read(path: &std::path::Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the configuration {} can't be read", path.display()))?;
        let merged =
            Figment::from(Yaml::string(&text)).merge(Env::prefixed("JOIND_").split("__").ignore(&["master_key"]));
        if let Ok(sources) = merged.extract_inner::<BTreeMap<String, IgnoredAny>>("master_key")
            && sources.len() > 1
        {
            let sources: Vec<_> = sources.into_keys().collect();
            bail!(
                "{}: master_key comes from several places, {}: leave it out of the file when JOIND_MASTER_KEY__… names it",
                path.display(),
                sources.join(" and ")
            );
        }
        let config: Self = merged
            .extract()
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.to_string().replace("default.", "")))?;
        config.check().with_context(|| format!("{} is not usable", path.display()))?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.public_addresses.is_empty() {
            bail!("public_addresses is empty: name the hosts under which clients reach this node");
        }
        for name in &self.public_addresses {
            if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
                bail!("public_addresses: `{name}` is neither a host name nor an IP address");
            }
        }
        if self.listen == self.metrics_listen && self.listen.port() != 0 {
            bail!("metrics_listen is {}, as listen is: give one of them another port", self.listen);
        }
        self.database.check()?;
        self.log.check()?;
        self.telemetry.check()?;
        let Limits { certificate_ttl_default: default, certificate_ttl_max: max, .. } = self.limits;
        let min = Policy::default().min_life.to_std()?;
        if !(min..=max).contains(&default) {
            let min = humantime::format_duration(min);
            bail!("limits.certificate_ttl_default must be from {min} to limits.certificate_ttl_max");
        }
        Ok(())
    }

    /// The effective values as YAML, passwords masked.
    ///
    /// # Errors
    /// When a value has no YAML form; none of ours has.
    pub fn to_masked_yaml(&self) -> anyhow::Result<String> {
        let mut shown = self.clone();
        shown.database = shown.database.masked();
        for witness in &mut shown.log.witnesses {
            witness.url = mask_password(&witness.url);
        }
        shown.telemetry.otlp_endpoint = shown.telemetry.otlp_endpoint.as_deref().map(mask_password);
        Ok(serde_yaml_ng::to_string(&shown)?)
    }
}

impl Log {
    /// What a node would refuse only once it has connected.
    fn check(&self) -> anyhow::Result<()> {
        if let Some(origin) = &self.origin {
            note::check_name(origin).with_context(|| format!("log.origin: `{origin}` can't be signed under"))?;
        }
        if self.directory.is_none() && !self.witnesses.is_empty() {
            bail!(
                "log.witnesses cosign what this node signs, and without log.directory it signs nothing: set that, or \
                 take the witnesses out"
            );
        }
        self.witnesses.iter().try_for_each(|witness| witness.parsed().map(drop))
    }
}

impl Witness {
    /// Its key and URL.
    ///
    /// # Errors
    /// Names the one that is none.
    pub fn parsed(&self) -> anyhow::Result<(VerifierKey, Url)> {
        let Self { key, url } = self;
        let verifier = key.parse().with_context(|| format!("log.witnesses: `{key}` is not a verifier key"))?;
        let shown = mask_password(url);
        let parsed: Url = url.parse().with_context(|| format!("log.witnesses: `{shown}` is not a URL"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            bail!("log.witnesses: `{shown}` does not begin with https:// or http://");
        }
        Ok((verifier, parsed))
    }
}

impl Telemetry {
    /// A word that is no level would be taken for the name of a module, and then nothing is logged.
    fn check(&self) -> anyhow::Result<()> {
        for directive in self.log_level.split(',').map(str::trim) {
            let level = directive.rsplit('=').next().unwrap_or_default();
            if level.parse::<tracing_subscriber::filter::LevelFilter>().is_err() {
                bail!("telemetry.log_level: `{level}` is none of off, error, warn, info, debug, trace");
            }
        }
        Ok(())
    }
}

impl Limits {
    /// Lives of certificates.
    pub fn policy(&self) -> Policy {
        let delta = |duration: Duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::hours(1));
        Policy {
            default_life: delta(self.certificate_ttl_default),
            max_life: delta(self.certificate_ttl_max),
            ..Policy::default()
        }
    }
}

/// Reads where to listen.
///
/// # Errors
/// Says how it is written; a name is none, as it may stand for several addresses.
pub fn listening(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let wanted = "an IP address and a port are wanted, such as 127.0.0.1:3025 or [::1]:3025";
        match text.parse::<std::net::IpAddr>() {
            Ok(_) => format!("`{text}` has no port: {wanted}"),
            Err(_) => format!("`{text}` is no address to listen on: {wanted}"),
        }
    })
}

fn deserialize_listening<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    listening(&String::deserialize(from)?).map_err(D::Error::custom)
}
