//! What can have happened. Kinds and versions are written by hand: renaming a type never makes yesterday unreadable.
//!
//! Fields stand in the order of their names, here and in [`resource`](crate::resource): so the JSON of an event is canonical
//! (RFC 8785) as it is written, and nothing has to be sorted for each join. A test compares.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    id::{AttemptHash, BotId, ChallengeId, GrantId, InstanceId, LockId, Name, TokenId},
    key::PublicKey,
    proof::JoinStateError,
    refusal::Code,
    resource::{BotSpec, ExemptionKind, LockTarget, RecoveryMode, TokenSpec},
};

// Kind, version and data of an event stand in one line, so that they cannot differ.
macro_rules! catalogue {
    ($($(#[doc = $about:literal])+ $name:ident($data:ty) = $kind:literal v $schema:literal;)+) => {
        /// Something that happened.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $($(#[doc = $about])+ $name($data),)+
        }

        impl Event {
            /// Every kind that is written today.
            pub const KINDS: &'static [Kind] =
                &[$(Kind { name: $kind, schema: $schema, about: concat!($($about),+) },)+];

            /// Name and version of this event's kind.
            pub const fn kind(&self) -> (&'static str, u32) {
                match self { $(Self::$name(_) => ($kind, $schema),)+ }
            }

            /// Reads the data alone, in the shape of today; none when there is no such kind.
            pub(crate) fn read_data(kind: &str, data: &str) -> Option<Result<Self, serde_json::Error>> {
                Some(match kind {
                    $($kind => serde_json::from_str(data).map(Self::$name),)+
                    _ => return None,
                })
            }

            /// Writes the data alone.
            pub(crate) fn serialize_data<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$name(data) => data.serialize(serializer),)+ }
            }
        }
    };
}

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The stable name.
    pub name: &'static str,
    /// The version of its shape.
    pub schema: u32,
    /// What it says, in a sentence.
    pub about: &'static str,
}

catalogue! {
    /// A token was created.
    TokenCreated(TokenCreated) = "token.created" v 1;
    /// A token's specification was replaced.
    TokenUpdated(TokenUpdated) = "token.updated" v 1;
    /// A token was deleted; its binding ended with it.
    TokenDeleted(Nothing) = "token.deleted" v 1;
    /// A challenge was issued for one key.
    ChallengeIssued(ChallengeIssued) = "challenge.issued" v 1;
    /// The challenge was solved: possession of the key is proven.
    ChallengeSolved(ChallengeSolved) = "challenge.solved" v 1;
    /// The registration secret was used, and is good for nothing from now on.
    RegistrationSecretSpent(Nothing) = "registration_secret.spent" v 1;
    /// A key was bound to the token.
    KeypairBound(KeypairBound) = "keypair.bound" v 1;
    /// The bound key was replaced; the old one is retired for this token.
    KeypairRotated(KeypairRotated) = "keypair.rotated" v 1;
    /// A join without a live certificate used one of the token's recoveries.
    RecoveryConsumed(RecoveryConsumed) = "recovery.consumed" v 1;
    /// A renewal moved the generation counter.
    GenerationBumped(GenerationBumped) = "generation.bumped" v 1;
    /// A join was accepted; the credentials are signed from this record.
    JoinAccepted(Arc<JoinAccepted>) = "join.accepted" v 1;
    /// The recorded answer of the latest accepted join was given again to its own attempt.
    JoinResumed(JoinResumed) = "join.resumed" v 1;
    /// A join was refused after possession of the key or the secret was proven.
    JoinRefused(Box<JoinRefused>) = "join.refused" v 1;
    /// An exemption was granted.
    ExemptionGranted(ExemptionGranted) = "exemption.granted" v 1;
    /// An accepted join spent one use of an exemption.
    ExemptionConsumed(ExemptionRef) = "exemption.consumed" v 1;
    /// An exemption was revoked before it was spent.
    ExemptionRevoked(ExemptionRef) = "exemption.revoked" v 1;
    /// A locked token was reinstated: its own locks are released, and the next join is let pass.
    TokenReinstated(TokenReinstated) = "token.reinstated" v 1;
    /// A token was reopened: key and instance are unbound, and registration is open again.
    TokenReopened(TokenReopened) = "token.reopened" v 1;
    /// A bot was created.
    BotCreated(BotCreated) = "bot.created" v 1;
    /// A bot's specification was replaced.
    BotUpdated(BotUpdated) = "bot.updated" v 1;
    /// A bot was deleted.
    BotDeleted(Nothing) = "bot.deleted" v 1;
    /// A lock was created, by an administrator or by a rule.
    LockCreated(LockCreated) = "lock.created" v 1;
    /// A lock's message or expiry was replaced.
    LockUpdated(LockUpdated) = "lock.updated" v 1;
    /// A lock was removed.
    LockDeleted(LockDeleted) = "lock.deleted" v 1;
    /// The cluster was created.
    ClusterCreated(ClusterCreated) = "cluster.created" v 1;
    /// Refusals without proof of possession, summed over an interval.
    RefusalsSummarised(RefusalsSummarised) = "refusals.summarised" v 1;
    /// An administrator's identity was issued.
    AdministratorIssued(AdministratorIssued) = "administrator.issued" v 1;
    /// An administrator's identity was revoked: it is refused from then on.
    AdministratorRevoked(AdministratorRevoked) = "administrator.revoked" v 1;
    /// A key of the authority was made, or moved to another phase of its life.
    AuthorityKeyMoved(AuthorityKeyMoved) = "authority_key.moved" v 1;
    /// The authority's keys were sealed under another master key.
    MasterKeyChanged(Nothing) = "master_key.changed" v 1;
    /// The verifiable log of a name ended; this history goes on in a log of another name.
    LogEnded(LogEnded) = "log.ended" v 1;
    /// The stops of the verifiable log ended: somebody said that nothing had happened.
    LogResumed(LogResumed) = "log.resumed" v 1;
}

impl Event {
    /// The data alone, as it is stored.
    ///
    /// # Errors
    /// When it has no JSON form.
    pub fn data(&self) -> serde_json::Result<serde_json::Value> {
        self.serialize_data(serde_json::value::Serializer)
    }

    /// The attempt that it decides.
    pub fn attempt(&self) -> Option<AttemptHash> {
        match self {
            Self::JoinAccepted(accepted) => accepted.attempt,
            Self::JoinResumed(resumed) => Some(resumed.attempt),
            Self::JoinRefused(refused) => refused.attempt,
            _ => None,
        }
    }

    /// False for the events of every join, which leave names and keys alone: [claims](crate::state::State::claims) hash every
    /// key of a token, and renewals are many.
    pub const fn may_move_claims(&self) -> bool {
        !matches!(
            self,
            Self::ChallengeIssued(_)
                | Self::ChallengeSolved(_)
                | Self::RegistrationSecretSpent(_)
                | Self::RecoveryConsumed(_)
                | Self::GenerationBumped(_)
                | Self::JoinAccepted(_)
                | Self::JoinResumed(_)
                | Self::JoinRefused(_)
                | Self::ExemptionGranted(_)
                | Self::ExemptionConsumed(_)
                | Self::ExemptionRevoked(_)
        )
    }
}

/// An event that says all by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// The keyed hash (HMAC-SHA-256, hex) of a registration secret; the secret itself is never in an event.
pub type SecretHash = String;

/// `token.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The bot, by id.
    pub bot: BotId,
    /// Its name.
    pub name: Name,
    /// Of the registration secret, when there is one.
    pub secret: Option<SecretHash>,
    /// Its specification.
    pub spec: TokenSpec,
}

/// `token.updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUpdated {
    /// The bot, by id.
    pub bot: BotId,
    /// True when bot or roles changed: the old binding ended.
    pub rebind: bool,
    /// Of the registration secret, when there is one.
    pub secret: Option<SecretHash>,
    /// The new specification.
    pub spec: TokenSpec,
}

/// Why a key is challenged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengePurpose {
    /// It is the bound key.
    Bound,
    /// It was preregistered.
    Preregistered,
    /// It was sent after a registration secret.
    Registration,
    /// It is to replace the bound key.
    Rotation,
    /// A rotation retired it, and the client holds it still.
    Retired,
}

/// `challenge.issued`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeIssued {
    /// When.
    pub at: Timestamp,
    /// The challenge, by an id that does not show its nonce.
    pub challenge: ChallengeId,
    /// Fingerprint of the challenged key.
    pub key: String,
    /// Why this key.
    pub purpose: ChallengePurpose,
}

/// `challenge.solved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeSolved {
    /// The challenge.
    pub challenge: ChallengeId,
}

/// `keypair.bound`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeypairBound {
    /// The key.
    pub key: PublicKey,
}

/// `keypair.rotated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeypairRotated {
    /// The bound key.
    pub new: PublicKey,
    /// The retired key.
    pub old: PublicKey,
}

/// `recovery.consumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryConsumed {
    /// The recovery count after it.
    pub count: u32,
}

/// `generation.bumped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationBumped {
    /// The generation after it.
    pub generation: u64,
    /// The instance: from a first join or recovery to the next.
    pub instance: InstanceId,
}

/// Which of the cases a join was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinCase {
    /// The token had no key.
    FirstJoin,
    /// With a live certificate.
    Renewal,
    /// Without one.
    Recovery,
}

impl JoinCase {
    /// Every case.
    pub const ALL: [Self; 3] = [Self::FirstJoin, Self::Renewal, Self::Recovery];

    /// The case as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstJoin => "first_join",
            Self::Renewal => "renewal",
            Self::Recovery => "recovery",
        }
    }

    /// True for the cases that use a recovery and begin a new instance.
    pub const fn costs_recovery(self) -> bool {
        !matches!(self, Self::Renewal)
    }
}

/// A client certificate that was live when it was presented.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// The bot it names.
    pub bot: Name,
    /// Its place in the instance.
    pub generation: u64,
    /// Its instance.
    pub instance: InstanceId,
    /// X.509 serial number, hex.
    pub serial: String,
    /// The token it was issued for.
    pub token: TokenId,
}

/// What a client showed as its join state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinStateSeen {
    /// None.
    Missing,
    /// Something that is not this cluster's document.
    NotAuthentic(JoinStateError),
    /// A document of this cluster.
    Authentic {
        /// The bot it names.
        bot: String,
        /// The instance it names.
        instance: InstanceId,
        /// The recovery count it names.
        sequence: u32,
        /// The token it names.
        token: Option<TokenId>,
    },
}

/// What one client showed: kept with acceptances and refusals, so that two holders can be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Its live certificate, if any.
    pub certificate: Option<ClientCertificate>,
    /// Its join state.
    pub join_state: JoinStateSeen,
}

/// `join.accepted`: everything the credentials are signed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAccepted {
    /// Hash of the attempt id, when the client named one.
    pub attempt: Option<AttemptHash>,
    /// Which case it was.
    pub case: JoinCase,
    /// The generation in the certificate.
    pub generation: u64,
    /// The instance: from a first join or recovery to the next.
    pub instance: InstanceId,
    /// The bound key after the join, by fingerprint.
    pub key: String,
    /// End of the certificates.
    pub not_after: Timestamp,
    /// Beginning of the certificates.
    pub not_before: Timestamp,
    /// The instance before it, when this one is new.
    pub previous_instance: Option<InstanceId>,
    /// The SSH principals at that moment.
    pub principals: Vec<String>,
    /// The recovery count after the join.
    pub recovery_count: u32,
    /// The token's limit, for the join state.
    pub recovery_limit: u32,
    /// The token's mode, for the join state.
    pub recovery_mode: RecoveryMode,
    /// The bot's roles at that moment.
    pub roles: Vec<String>,
    /// What the client showed.
    pub seen: Sighting,
    /// X.509 serial number, hex.
    pub serial: String,
    /// Hash of the subject keys.
    pub subject_keys: String,
}

/// `join.resumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResumed {
    /// The attempt.
    pub attempt: AttemptHash,
    /// Serial number of the certificate that was issued again.
    pub serial: String,
}

/// `join.refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRefused {
    /// Hash of the attempt id, when the client named one.
    pub attempt: Option<AttemptHash>,
    /// The challenge that was solved, unless the proof was a secret.
    pub challenge: Option<ChallengeId>,
    /// The rule that refused.
    pub code: Code,
    /// The lock that this refusal created, or that refused.
    pub lock: Option<LockId>,
    /// The other holder: the latest accepted join of this token, when the refusal locks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_holder: Option<OtherHolder>,
    /// When that challenge can no longer be replayed.
    pub replayable_until: Option<Timestamp>,
    /// A retired key whose possession was proven, by fingerprint: it locks once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_key: Option<String>,
    /// What the client showed.
    pub seen: Sighting,
    /// The facts, in words.
    pub why: String,
}

/// The latest accepted join, as evidence beside a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherHolder {
    /// From where.
    pub address: Option<String>,
    /// When it was accepted.
    pub at: Timestamp,
    /// Its generation.
    pub generation: u64,
    /// Its instance.
    pub instance: InstanceId,
    /// Its certificate's serial number, hex.
    pub serial: String,
}

/// `exemption.granted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExemptionGranted {
    /// What it lets pass.
    pub exemption: ExemptionKind,
    /// When it ends.
    pub expires: Timestamp,
    /// The grant.
    pub grant: GrantId,
    /// Why.
    pub reason: String,
    /// How many joins may spend it.
    pub uses: u32,
}

/// `exemption.consumed`, `exemption.revoked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExemptionRef {
    /// The grant.
    pub grant: GrantId,
}

/// `token.reinstated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReinstated {
    /// Why.
    pub reason: String,
    /// The locks that were released with it.
    pub released: Vec<LockId>,
}

/// `token.reopened`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReopened {
    /// Why.
    pub reason: String,
    /// Of the new registration secret.
    pub secret: SecretHash,
}

/// `bot.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotCreated {
    /// Its name.
    pub name: Name,
    /// Its specification.
    pub spec: BotSpec,
}

/// `bot.updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotUpdated {
    /// The new specification.
    pub spec: BotSpec,
}

/// `lock.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockCreated {
    /// Who locked.
    pub by: String,
    /// The rule that locked; none when an administrator did.
    pub cause: Option<Code>,
    /// When the lock ends by itself.
    pub expires: Option<Timestamp>,
    /// Why, for people.
    pub message: String,
    /// What is locked.
    pub target: LockTarget,
}

/// `lock.updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockUpdated {
    /// When the lock ends by itself.
    pub expires: Option<Timestamp>,
    /// Why, for people.
    pub message: String,
}

/// `lock.deleted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockDeleted {
    /// Why, when it was more than a plain removal.
    pub reason: Option<String>,
}

/// `cluster.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterCreated {
    /// Key ids of the first keys, by purpose.
    pub keys: std::collections::BTreeMap<String, String>,
    /// The cluster's name: issuer and audience of every document.
    pub name: Name,
}

/// `refusals.summarised`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalsSummarised {
    /// The refusal.
    pub code: Code,
    /// How many.
    pub count: u64,
    /// Beginning of the interval.
    pub since: Timestamp,
    /// The token's name, when it exists; strangers' inventions are summed without one.
    pub token: Option<Name>,
    /// End of the interval.
    pub until: Timestamp,
}

/// `administrator.issued`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdministratorIssued {
    /// The administrator.
    pub name: String,
    /// End of the identity.
    pub not_after: Timestamp,
    /// `admin`, `operator` or `auditor`.
    pub role: String,
    /// X.509 serial number, hex.
    pub serial: String,
}

/// `administrator.revoked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdministratorRevoked {
    /// Why.
    pub reason: String,
}

/// `authority_key.moved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityKeyMoved {
    /// The key's id.
    pub kid: String,
    /// Where it stands now: `standby`, `active`, `retired`, `revoked`, or `forgotten` when it is gone.
    pub phase: String,
    /// What it is for: `x509-ca`, `ssh-ca` or `join-state`.
    pub purpose: String,
    /// Why, when somebody said so.
    pub reason: Option<String>,
}

/// `log.ended`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnded {
    /// The name under which the history is signed from now on.
    pub next: String,
    /// The name that ended.
    pub origin: String,
    /// Why.
    pub reason: String,
    /// Entries under the newest checkpoint that the database knew of; 0 for none.
    pub size: u64,
}

/// `log.resumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogResumed {
    /// Why.
    pub reason: String,
    /// What each node, by its name, had found.
    pub stops: std::collections::BTreeMap<String, String>,
}
