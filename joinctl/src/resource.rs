//! Resources: their kinds, their names, and the commands that work on any of them.

pub(crate) mod apply;
pub(crate) mod columns;
pub(crate) mod create;
mod document;
pub(crate) mod edit;
pub(crate) mod ends;
pub(crate) mod get;
pub(crate) mod locks;
mod plan;
pub(crate) mod rm;
mod rules;
mod shape;
pub(crate) mod vain;
mod writer;

use std::{fmt, str::FromStr};

use join_domain::refusal::Refusal;
use join_proto::v1::{Bot, BotInstance, Exemption, Lock, Metadata, Token};
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage as _};
use serde_yaml_ng::Value;

use crate::output::tree;

/// The kinds, in the order in which they depend on each other: a token names its bot, a lock a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Bot,
    Token,
    BotInstance,
    Lock,
    Exemption,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Bot, Self::Token, Self::BotInstance, Self::Lock, Self::Exemption];
    /// The kinds that people write.
    pub(crate) const WRITABLE: [Self; 4] = [Self::Bot, Self::Token, Self::Lock, Self::Exemption];

    /// The word in `kind:`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Token => "token",
            Self::BotInstance => "bot_instance",
            Self::Lock => "lock",
            Self::Exemption => "exemption",
        }
    }

    /// Several of them, in a sentence.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Bot => "bots",
            Self::Token => "tokens",
            Self::BotInstance => "bot instances",
            Self::Lock => "locks",
            Self::Exemption => "exemptions",
        }
    }

    /// The word in `version:`.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Bot | Self::BotInstance | Self::Exemption => "v1",
            Self::Token | Self::Lock => "v2",
        }
    }

    pub(crate) fn descriptor(self) -> MessageDescriptor {
        match self {
            Self::Bot => Bot::default().descriptor(),
            Self::Token => Token::default().descriptor(),
            Self::BotInstance => BotInstance::default().descriptor(),
            Self::Lock => Lock::default().descriptor(),
            Self::Exemption => Exemption::default().descriptor(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why an exemption is not edited.
pub(crate) const GRANTED_FOR_GOOD: &str =
    "an exemption can't be changed once it is granted: `joinctl rm exemption/ID`, then grant another";

/// The names of kinds, for an error.
pub(crate) fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Kind {
    type Err = String;

    /// Plurals are taken too, and a dash for the underscore.
    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.to_ascii_lowercase().replace('-', "_");
        let singular = word.strip_suffix('s').unwrap_or(&word);
        let known = Self::ALL.into_iter().find(|kind| kind.name() == singular);
        known.ok_or_else(|| format!("unknown kind {text:?}; there are {}", names(&Self::ALL)))
    }
}

/// `KIND/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((kind, name)) if !name.is_empty() => Ok(Self { kind: kind.parse()?, name: name.to_owned() }),
            _ => Err("KIND/NAME is wanted, such as token/example".to_owned()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// One resource of any kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Resource {
    Bot(Bot),
    Token(Token),
    BotInstance(BotInstance),
    Lock(Lock),
    Exemption(Exemption),
}

impl Resource {
    /// Takes a message that has the descriptor of `kind`.
    fn from_dynamic(kind: Kind, message: &DynamicMessage) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Bot => Self::Bot(message.transcode_to()?),
            Kind::Token => Self::Token(message.transcode_to()?),
            Kind::BotInstance => Self::BotInstance(message.transcode_to()?),
            Kind::Lock => Self::Lock(message.transcode_to()?),
            Kind::Exemption => Self::Exemption(message.transcode_to()?),
        })
    }

    /// The resource as YAML and JSON show it.
    pub(crate) fn tree(&self) -> Value {
        match self {
            Self::Bot(bot) => tree::of(bot),
            Self::Token(token) => tree::of(token),
            Self::BotInstance(instance) => tree::of(instance),
            Self::Lock(lock) => tree::of(lock),
            Self::Exemption(exemption) => tree::of(exemption),
        }
    }

    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Bot(_) => Kind::Bot,
            Self::Token(_) => Kind::Token,
            Self::BotInstance(_) => Kind::BotInstance,
            Self::Lock(_) => Kind::Lock,
            Self::Exemption(_) => Kind::Exemption,
        }
    }

    pub(crate) const fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::Bot(bot) => bot.metadata.as_ref(),
            Self::Token(token) => token.metadata.as_ref(),
            Self::BotInstance(instance) => instance.metadata.as_ref(),
            Self::Lock(lock) => lock.metadata.as_ref(),
            Self::Exemption(exemption) => exemption.metadata.as_ref(),
        }
    }

    pub(crate) fn metadata_mut(&mut self) -> &mut Metadata {
        let metadata = match self {
            Self::Bot(bot) => &mut bot.metadata,
            Self::Token(token) => &mut token.metadata,
            Self::BotInstance(instance) => &mut instance.metadata,
            Self::Lock(lock) => &mut lock.metadata,
            Self::Exemption(exemption) => &mut exemption.metadata,
        };
        metadata.get_or_insert_default()
    }

    /// Refuses what the authority would refuse. Errors begin with the path of the field.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        rules::check(self)
    }

    /// Empty when the resource has no name yet.
    pub(crate) fn name(&self) -> &str {
        self.metadata().map_or("", |metadata| metadata.name.as_str())
    }

    pub(crate) fn revision(&self) -> &str {
        self.metadata().map_or("", |metadata| metadata.revision.as_str())
    }

    pub(crate) fn reference(&self) -> Reference {
        Reference { kind: self.kind(), name: self.name().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_in_singular_and_plural() {
        for text in ["bot_instance", "bot-instances", "BOT_INSTANCES"] {
            assert_eq!(text.parse(), Ok(Kind::BotInstance));
        }
        assert_eq!("tokens".parse(), Ok(Kind::Token));
        let unknown = "node".parse::<Kind>().unwrap_err();
        assert_eq!(unknown, r#"unknown kind "node"; there are bot, token, bot_instance, lock, exemption"#);
    }

    #[test]
    fn a_reference_has_a_kind_and_a_name() {
        let reference: Reference = "tokens/example".parse().unwrap();
        assert_eq!(reference.to_string(), "token/example");
        for wrong in ["token", "token/", "/example", "node/x"] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
