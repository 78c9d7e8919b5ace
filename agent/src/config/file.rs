//! The configuration file. Keys are those of `tbot` version 2; those that are not served have a place here too, so that
//! they are named in an error instead of being ignored.

use std::{
    fmt, fs,
    marker::PhantomData,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use join_domain::id::Name;
use join_proto::Address;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use zeroize::Zeroizing;

use super::{Config, ConfigError, Environment, Keypair, RegistrationSecret, StorageConfig, keypair_from};
use crate::{
    files,
    key::PrivateKey,
    output::Identity,
    trust::{Pin, Trust},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(rename = "version")]
    _version: Text<Version>,
    auth_server: Option<Text<Address>>,
    proxy_server: Option<Text<Address>>,
    #[serde(default)]
    ca_pins: Vec<Text<Pin>>,
    ca_path: Option<PathBuf>,
    onboarding: Onboarding,
    storage: Option<Storage>,
    certificate_ttl: Option<Text<Span>>,
    credential_ttl: Option<Text<Span>>,
    renewal_interval: Option<Text<Span>>,
    #[serde(default)]
    oneshot: bool,
    #[serde(default)]
    debug: bool,
    diag_addr: Option<SocketAddr>,
    #[serde(default)]
    outputs: Vec<Output>,
    #[serde(default)]
    services: Vec<Output>,
    #[serde(rename = "diag_socket_for_updater")]
    _diag_socket_for_updater: Option<Unserved>,
    #[serde(rename = "fips")]
    _fips: Option<Unserved>,
    #[serde(rename = "insecure")]
    _insecure: Option<Unserved>,
    #[serde(rename = "join_uri")]
    _join_uri: Option<Unserved>,
    #[serde(rename = "pid_file")]
    _pid_file: Option<Unserved>,
    #[serde(rename = "proxy_address")]
    _proxy_address: Option<Unserved>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Onboarding {
    #[serde(rename = "join_method")]
    _join_method: Text<JoinMethod>,
    token: Text<Name>,
    #[serde(default)]
    ca_pins: Vec<Text<Pin>>,
    ca_path: Option<PathBuf>,
    #[serde(default)]
    bound_keypair: BoundKeypair,
    #[serde(rename = "azure")]
    _azure: Option<Unserved>,
    #[serde(rename = "gitlab")]
    _gitlab: Option<Unserved>,
    #[serde(rename = "terraform")]
    _terraform: Option<Unserved>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BoundKeypair {
    registration_secret: Option<String>,
    registration_secret_path: Option<PathBuf>,
    static_private_key_path: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Storage {
    #[serde(rename = "type")]
    kind: Text<StorageKind>,
    path: Option<PathBuf>,
    #[serde(rename = "symlinks")]
    _symlinks: Option<Unserved>,
    #[serde(rename = "acls")]
    _acls: Option<Unserved>,
    #[serde(rename = "readers")]
    _readers: Option<Unserved>,
    #[serde(rename = "name")]
    _name: Option<Unserved>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    #[serde(rename = "type")]
    _kind: Text<OutputKind>,
    #[serde(rename = "name")]
    _name: Option<String>,
    destination: Storage,
    #[serde(rename = "roles")]
    _roles: Option<Unserved>,
    #[serde(rename = "cluster")]
    _cluster: Option<Unserved>,
    #[serde(rename = "ssh_config")]
    _ssh_config: Option<Unserved>,
    #[serde(rename = "allow_reissue")]
    _allow_reissue: Option<Unserved>,
    #[serde(rename = "credential_ttl")]
    _credential_ttl: Option<Unserved>,
    #[serde(rename = "renewal_interval")]
    _renewal_interval: Option<Unserved>,
}

/// A key whose presence is an error.
struct Unserved;

impl<'de> Deserialize<'de> for Unserved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Refuse;

        // Every `visit_` method that is not written refuses, and the error then carries the key's path.
        impl Visitor<'_> for Refuse {
            type Value = Unserved;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nothing, since joinbot does not serve this key of tbot yet; remove it")
            }
        }

        deserializer.deserialize_any(Refuse)
    }
}

/// A value with a text form of its own, whose error carries the key's path.
struct Text<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse<T>(PhantomData<T>);

        impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parse<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
                text.parse().map(Text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Parse(PhantomData))
    }
}

/// Words of which only some are served.
macro_rules! words {
    ($($name:ident { $($variant:ident = $text:literal),+ })+) => {$(
        enum $name { $($variant),+ }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(format!("`{other}` is not served; use {}", [$($text),+].join(" or "))),
                }
            }
        }
    )+};
}

words! {
    Version { V2 = "v2" }
    JoinMethod { BoundKeypair = "bound_keypair" }
    StorageKind { Directory = "directory", Memory = "memory" }
    OutputKind { Identity = "identity" }
}

/// A duration as people type it.
struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("`{text}` is not a duration such as 20m or 1h30m"))
    }
}

impl File {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        serde_yaml_ng::from_str(text).map_err(|error| ConfigError::new(plain(&error.to_string())))
    }

    pub(super) fn into_config(self, environment: Environment<'_>) -> Result<Config, ConfigError> {
        let authority = one_of("auth_server", self.auth_server, "proxy_server", self.proxy_server)?
            .ok_or_else(|| ConfigError::at("auth_server", "is missing: where is the authority?"))?;
        let trust = Trust {
            pins: self.ca_pins.into_iter().chain(self.onboarding.ca_pins).map(|Text(pin)| pin).collect(),
            cas: certificates(one_of("ca_path", self.ca_path, "onboarding.ca_path", self.onboarding.ca_path)?)?,
        };
        let ttl = one_of("certificate_ttl", self.certificate_ttl, "credential_ttl", self.credential_ttl)?;
        let static_key = self.onboarding.bound_keypair.static_private_key_path.clone();
        let mut config = Config::new(
            authority.0,
            trust,
            self.onboarding.token.0,
            self.onboarding.bound_keypair.keypair(environment)?,
        );
        config.warnings.extend(static_key.as_deref().and_then(open_to_others));
        config.oneshot = self.oneshot;
        config.debug = self.debug;
        config.diag_addr = self.diag_addr;
        config.set_times(ttl.map(|ttl| ttl.0.0), self.renewal_interval.map(|interval| interval.0.0))?;
        let storage = self
            .storage
            .ok_or_else(|| ConfigError::at("storage", "is missing: `{type: directory, path: …}` or `{type: memory}`"))?
            .place("storage")?;
        let mut outputs = Vec::new();
        for (n, output) in self.outputs.into_iter().chain(self.services).enumerate() {
            let key = format!("outputs[{n}].destination");
            let StorageConfig::Directory(path) = output.destination.place(&key)? else {
                return Err(ConfigError::at(&key, "memory is no place that other programs could read"));
            };
            outputs.push(Identity::new(&path).map_err(|error| ConfigError::at(&key, error))?);
        }
        config.set_places(storage, outputs)?;
        Ok(config)
    }

    /// Every path in the file, with its key.
    pub(super) fn paths(&self) -> Vec<(String, &Path)> {
        let Onboarding { ca_path, bound_keypair: keypair, .. } = &self.onboarding;
        let outputs = self.outputs.iter().chain(&self.services).enumerate();
        let outputs = outputs.map(|(n, output)| (format!("outputs[{n}].destination.path"), &output.destination.path));
        let others = [
            ("ca_path", &self.ca_path),
            ("onboarding.ca_path", ca_path),
            ("onboarding.bound_keypair.registration_secret_path", &keypair.registration_secret_path),
            ("onboarding.bound_keypair.static_private_key_path", &keypair.static_private_key_path),
            ("storage.path", self.storage.as_ref().map_or(&None, |storage| &storage.path)),
        ];
        let others = others.into_iter().map(|(key, path)| (key.to_owned(), path));
        others.chain(outputs).filter_map(|(key, path)| Some((key, path.as_deref()?))).collect()
    }
}

impl BoundKeypair {
    fn keypair(self, environment: Environment<'_>) -> Result<Keypair, ConfigError> {
        let given = self.registration_secret.filter(|secret| !secret.is_empty()).map(RegistrationSecret::from);
        let secret = match (given, self.registration_secret_path) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::at(
                    "onboarding.bound_keypair",
                    "registration_secret and registration_secret_path are both there; give one of them",
                ));
            }
            (given, path) => given.or(path.map(RegistrationSecret::File)),
        };
        match (secret, self.static_private_key_path) {
            (Some(_), Some(_)) => Err(ConfigError::at(
                "onboarding.bound_keypair.static_private_key_path",
                "a static key is preregistered, not registered with a secret; remove one of the two",
            )),
            (Some(secret), None) => Ok(Keypair::Managed { registration_secret: Some(secret) }),
            (None, Some(path)) => {
                let key = "onboarding.bound_keypair.static_private_key_path";
                let failed =
                    |error: &dyn fmt::Display| ConfigError::at(key, format_args!("{}: {error}", path.display()));
                let pem = Zeroizing::new(fs::read_to_string(&path).map_err(|error| failed(&error))?);
                PrivateKey::from_pem(&pem).map(Keypair::Static).map_err(|error| failed(&error))
            }
            (None, None) => keypair_from(environment),
        }
    }
}

impl Storage {
    fn place(self, key: &str) -> Result<StorageConfig, ConfigError> {
        match (self.kind.0, self.path) {
            (StorageKind::Directory, Some(path)) if !path.as_os_str().is_empty() => Ok(StorageConfig::Directory(path)),
            (StorageKind::Directory, _) => Err(ConfigError::at(&format!("{key}.path"), "is missing")),
            (StorageKind::Memory, None) => Ok(StorageConfig::Memory),
            (StorageKind::Memory, Some(_)) => Err(ConfigError::at(&format!("{key}.path"), "does not belong to memory")),
        }
    }
}

/// Says when others can read a private key. As with ssh, what its group may do counts only when the file is this process's
/// own: another's may be lent to it by that.
fn open_to_others(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let is_own = files::user().is_none_or(|user| user == found.uid());
    let (others, first) = if is_own { (0o044, "") } else { (0o004, "give it to this agent's user, and ") };
    let path = path.display();
    (found.mode() & others != 0)
        .then(|| format!("other users can read {path}, the bot's private key; {first}close it with `chmod go= {path}`"))
}

/// Keys that are not served have a place in the file too, so the list of keys that would be expected is left out.
fn plain(message: &str) -> String {
    match (message.find("unknown field"), message.rfind(", expected "), message.rfind(" at line ")) {
        (Some(_), Some(list), Some(place)) if list < place => {
            format!("{}{}", &message[..list], &message[place..]).replacen("unknown field", "unknown key", 1)
        }
        _ => message.to_owned(),
    }
}

fn one_of<T>(first: &str, a: Option<T>, second: &str, b: Option<T>) -> Result<Option<T>, ConfigError> {
    match (a, b) {
        (Some(_), Some(_)) => Err(ConfigError::at(second, format_args!("is the same as {first}; keep one of them"))),
        (a, b) => Ok(a.or(b)),
    }
}

fn certificates(path: Option<PathBuf>) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let failed = |error: &dyn fmt::Display| ConfigError::at("ca_path", format_args!("{}: {error}", path.display()));
    let pem = fs::read(&path).map_err(|error| failed(&error))?;
    let cas = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
    if cas.is_empty() { Err(failed(&"holds no certificate")) } else { Ok(cas) }
}
