//! What administrators write: specifications of bots, tokens, locks and exemptions (protocol, section 2).

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    id::{InstanceId, Name},
    key::{KeyError, PublicKey},
};

/// The most entries of a list or map in a resource.
pub const MAX_ITEMS: usize = 100;
/// The longest label, name of a trait, or value of a list, in bytes.
pub const MAX_VALUE: usize = 253;
/// The longest registration secret that somebody writes, in bytes.
pub const MAX_SECRET: usize = 256;
/// The longest reason or message, in bytes. Each byte that is not ASCII takes three where gRPC sends it, beside a copy in
/// the details, and all of it must fit into the 16 KiB of headers that clients take.
pub const MAX_TEXT: usize = 2000;

/// True for a label: a selector is written `key=value,key=value`.
pub fn is_label(key: &str, value: &str) -> bool {
    is_value(key) && !key.contains(['=', ',']) && value.len() <= MAX_VALUE && is_printable(value)
}

/// True for a value of a list, and for the name of a trait.
pub fn is_value(value: &str) -> bool {
    (1..=MAX_VALUE).contains(&value.len()) && is_printable(value)
}

/// True for a registration secret that somebody writes.
pub fn is_secret(secret: &str) -> bool {
    (1..=MAX_SECRET).contains(&secret.len()) && is_printable(secret)
}

/// True for what a person is told or gives as a reason, which may have lines.
pub fn is_text(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.split(['\n', '\t']).all(is_printable)
}

/// What is stored is JSON in a database that takes no NUL, and is shown on terminals.
fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Labels, by which many resources are selected at once.
pub type Labels = BTreeMap<String, String>;

/// What a bot may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotSpec {
    /// When the bot ends.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// Labels.
    #[serde(default)]
    pub labels: Labels,
    /// Roles of the cluster, recorded in certificates.
    pub roles: Vec<String>,
    /// Named lists, such as `logins`.
    pub traits: BTreeMap<String, Vec<String>>,
}

impl BotSpec {
    /// The SSH principals: the `logins` trait. Empty means that no host grants anything.
    pub fn logins(&self) -> &[String] {
        self.traits.get("logins").map_or(&[], Vec::as_slice)
    }
}

/// Who may join with a token, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSpec {
    /// The bot that joins.
    pub bot_name: Name,
    /// A token past it admits nobody.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// A key that is bound at the first join, instead of a registration secret.
    pub initial_public_key: Option<PublicKey>,
    /// Labels.
    #[serde(default)]
    pub labels: Labels,
    /// A registration secret is refused after it.
    pub must_register_before: Option<Timestamp>,
    /// Limits on joins without a live certificate.
    pub recovery: Recovery,
    /// System roles; `Bot` for everything served here.
    pub roles: Vec<String>,
    /// A new key is asked for at the first join past it.
    pub rotate_after: Option<Timestamp>,
}

/// How far a token may be recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Recoveries in all, the first join included.
    pub limit: u32,
    /// Which rules hold.
    pub mode: RecoveryMode,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { mode: RecoveryMode::Standard, limit: 1 }
    }
}

/// Which of the recovery rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryMode {
    /// Limit and join state.
    Standard,
    /// Join state only.
    Relaxed,
    /// Neither: static keys, CI.
    Insecure,
}

impl RecoveryMode {
    /// The mode as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Relaxed => "relaxed",
            Self::Insecure => "insecure",
        }
    }
}

impl FromStr for RecoveryMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Standard, Self::Relaxed, Self::Insecure]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a recovery mode: use standard, relaxed or insecure"))
    }
}

/// What a lock stops.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockTarget {
    /// A bot's user, `bot-<name>`, by the bot's name.
    User(Name),
    /// One lineage.
    BotInstanceId(InstanceId),
    /// A token, by name.
    JoinToken(Name),
    /// A key, by its `SHA256:` fingerprint.
    PublicKey(String),
}

impl LockTarget {
    /// The target of a user name, which must be a bot's.
    ///
    /// # Errors
    /// A sentence that says what a user name looks like.
    pub fn user(user: &str) -> Result<Self, String> {
        user.strip_prefix("bot-")
            .and_then(|name| name.parse().ok())
            .map(Self::User)
            .ok_or_else(|| format!("`{user}` is not a bot's user name: use `bot-<name>`"))
    }

    /// The target of a key, given as an authorized_keys line or as a `SHA256:` fingerprint.
    ///
    /// # Errors
    /// [`KeyError`] when it is neither.
    pub fn public_key(text: &str) -> Result<Self, KeyError> {
        let fingerprint = match text.strip_prefix("SHA256:") {
            Some(hash) if is_sha256(hash) => text.to_owned(),
            Some(_) => return Err(KeyError::Fingerprint),
            None => PublicKey::from_authorized_key(text.as_bytes())?.fingerprint(),
        };
        Ok(Self::PublicKey(fingerprint))
    }
}

/// True for the one form in which `ssh-keygen` prints a SHA-256 hash: base64 without padding.
fn is_sha256(hash: &str) -> bool {
    STANDARD_NO_PAD.decode(hash).is_ok_and(|bytes| bytes.len() == 32)
}

impl fmt::Display for LockTarget {
    /// One text for each target, by which locks are found: `join_token:example`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:bot-{name}"),
            Self::BotInstanceId(id) => write!(f, "bot_instance_id:{id}"),
            Self::JoinToken(name) => write!(f, "join_token:{name}"),
            Self::PublicKey(fingerprint) => write!(f, "public_key:{fingerprint}"),
        }
    }
}

/// What an exemption lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExemptionKind {
    /// Further recoveries after the limit is used up.
    Recoveries,
    /// A join state that is missing, older or newer.
    JoinState,
    /// A generation that is not the stored one.
    Generation,
    /// All three as one bundle, which the next accepted join spends whole.
    Reinstatement,
}

impl ExemptionKind {
    /// The kind as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recoveries => "recoveries",
            Self::JoinState => "join_state",
            Self::Generation => "generation",
            Self::Reinstatement => "reinstatement",
        }
    }
}

impl FromStr for ExemptionKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Recoveries, Self::JoinState, Self::Generation]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not an exemption: use recoveries, join_state or generation"))
    }
}
