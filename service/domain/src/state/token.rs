//! A token: one keypair bound to one bot instance.
//!
//! ```text
//!              keypair.bound                     keypair.rotated, generation.bumped, join.accepted
//!  ┌─────────┐ join.accepted  ┌────────┐ ◀──┐
//!  │ unbound │ ─────────────▶ │ bound  │ ───┘
//!  └─────────┘                └────────┘
//!       ▲   token.reopened, token.updated with another bot   │
//!       └────────────────────────────────────────────────────┘
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Claim, Namespace, Recorded};
use crate::{
    Timestamp,
    event::{Event, ExemptionGranted, JoinAccepted, JoinRefused, OtherHolder, SecretHash},
    id::{AttemptHash, BotId, ChallengeId, GrantId, InstanceId, Name, TokenId},
    key::PublicKey,
    refusal::Code,
    resource::{ExemptionKind, RecoveryMode, TokenSpec},
};

/// How many exemptions that ended are kept to be shown; all are in the history.
pub const ENDED_GRANTS_KEPT: usize = 16;

/// How many refused challenges are remembered one by one: a holder of the key, who is refused as often as it likes, can't
/// make the state grow without end.
pub const REFUSED_CHALLENGES_KEPT: usize = 256;

/// How long a refusal after proof shows in the health word, in hours.
pub const CONTESTED_HOURS: i64 = 24;

/// A token as its events leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenState {
    /// Its id.
    pub id: TokenId,
    /// Its name.
    pub name: Name,
    /// The bot it joins, by id.
    pub bot: BotId,
    /// Who may join, and how.
    pub spec: TokenSpec,
    /// False once deleted.
    pub live: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// Version of the event that wrote the specification last: joins don't outdate an administrator's edit.
    pub revision: u64,
    /// Keyed hash of the registration secret that can still be used.
    pub secret: Option<SecretHash>,
    /// Keyed hash of the one that was used last: whoever shows it again is worth a record.
    pub spent_secret: Option<SecretHash>,
    /// The bound key and its lineage.
    pub binding: Option<Binding>,
    /// Recoveries so far, the first join included.
    pub recovery_count: u32,
    /// When the last recovery was.
    pub last_recovered_at: Option<Timestamp>,
    /// When the key was last rotated; a first join does not count.
    pub last_rotated_at: Option<Timestamp>,
    /// How often the token was joined, bound, reinstated or reopened, or its registration secret replaced. A challenge
    /// remembers it: evidence has an age.
    pub evidence: u64,
    /// Attempts are remembered within an era; it ends when they are forgotten.
    pub era: u64,
    /// Keys that this token had.
    pub retired: Vec<RetiredKey>,
    /// Exemptions: all that are open, and the newest of those that ended.
    pub grants: Vec<Grant>,
    /// When a proven holder was last refused.
    pub contested_at: Option<Timestamp>,
    /// Challenges that were solved and refused, until they can't be replayed any more.
    pub refused_challenges: Vec<RefusedChallenge>,
    /// Challenges that can be replayed no longer than until then count as refused: there were too many to remember each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_until: Option<Timestamp>,
}

/// A bound key and its lineage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The key.
    pub key: PublicKey,
    /// The latest accepted join; none only between `keypair.bound` and `join.accepted` of one entry.
    pub latest: Option<Accepted>,
    /// True when the latest attempt can be resumed: a reinstatement forgets it.
    pub resumable: bool,
}

/// The latest accepted join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What was recorded; a resume is signed anew from it.
    pub join: Arc<JoinAccepted>,
    /// When.
    pub at: Timestamp,
    /// From where.
    pub address: Option<String>,
}

/// A key that this token had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredKey {
    /// The key.
    pub key: PublicKey,
    /// True while possession of it is evidence of a second holder: it was rotated away, has not locked yet, and the
    /// token was not reinstated since.
    #[serde(rename = "evidence")]
    pub is_evidence: bool,
}

/// An exemption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// What it lets pass.
    pub kind: ExemptionKind,
    /// How many joins could spend it when it was granted.
    pub uses: u32,
    /// How many joins may spend it still.
    pub uses_left: u32,
    /// When it ends.
    pub expires: Timestamp,
    /// Why.
    pub reason: String,
    /// Who granted it.
    pub granted_by: String,
    /// When.
    pub granted_at: Timestamp,
    /// True when an administrator took it back, or ended the binding that it was for.
    pub revoked: bool,
}

impl Grant {
    /// True while a join may spend it.
    pub fn is_open(&self, now: Timestamp) -> bool {
        !self.revoked && self.uses_left > 0 && now < self.expires
    }
}

/// A challenge that was decided once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedChallenge {
    /// The challenge.
    pub challenge: ChallengeId,
    /// When it can't be replayed any more.
    pub until: Timestamp,
}

impl TokenState {
    pub(super) fn begin(id: TokenId, event: &Event, recorded: Recorded<'_>) -> Option<Self> {
        let Event::TokenCreated(created) = event else { return None };
        Some(Self {
            id,
            name: created.name.clone(),
            bot: created.bot,
            spec: created.spec.clone(),
            live: true,
            created_at: recorded.at,
            revision: 1,
            secret: created.secret.clone(),
            spent_secret: None,
            binding: None,
            recovery_count: 0,
            last_recovered_at: None,
            last_rotated_at: None,
            evidence: 0,
            era: 1,
            retired: Vec::new(),
            grants: Vec::new(),
            contested_at: None,
            refused_challenges: Vec::new(),
            refused_until: None,
        })
    }

    pub(super) fn apply(&mut self, version: u64, event: &Event, recorded: Recorded<'_>) -> Option<()> {
        if !self.live && !is_refusal(event) {
            return None;
        }
        match event {
            Event::TokenUpdated(updated) => {
                if updated.rebind {
                    self.unbind();
                } else if self.binding.is_none() && self.secret != updated.secret {
                    self.outdate_evidence();
                }
                self.bot = updated.bot;
                self.spec = updated.spec.clone();
                self.secret.clone_from(&updated.secret);
                self.revision = version;
            }
            Event::TokenDeleted(_) => {
                self.unbind();
                self.secret = None;
                self.live = false;
            }
            Event::ChallengeIssued(_) | Event::ChallengeSolved(_) | Event::JoinResumed(_) => {}
            Event::RegistrationSecretSpent(_) => self.spent_secret = self.secret.take(),
            Event::KeypairBound(bound) => {
                self.binding = Some(Binding { key: bound.key.clone(), latest: None, resumable: false });
            }
            Event::KeypairRotated(rotated) => {
                let binding = self.binding.as_mut()?;
                binding.key = rotated.new.clone();
                self.retired.push(RetiredKey { key: rotated.old.clone(), is_evidence: true });
                self.last_rotated_at = Some(recorded.at);
            }
            Event::RecoveryConsumed(consumed) => {
                self.recovery_count = consumed.count;
                self.last_recovered_at = Some(recorded.at);
            }
            Event::GenerationBumped(_) => {}
            Event::JoinAccepted(join) => self.accept(join, recorded)?,
            Event::JoinRefused(refused) => self.refuse(refused, recorded),
            Event::ExemptionGranted(granted) => self.grant(granted, recorded),
            Event::ExemptionConsumed(spent) => {
                let grant = self.grants.iter_mut().find(|grant| grant.id == spent.grant)?;
                grant.uses_left = grant.uses_left.checked_sub(1)?;
            }
            Event::ExemptionRevoked(revoked) => {
                self.grants.iter_mut().find(|grant| grant.id == revoked.grant)?.revoked = true;
            }
            Event::TokenReinstated(_) => {
                self.forget_attempts();
                self.outdate_evidence();
                self.retired.iter_mut().for_each(|key| key.is_evidence = false);
                self.contested_at = None;
            }
            Event::TokenReopened(reopened) => {
                self.unbind();
                self.secret = Some(reopened.secret.clone());
                self.spec.initial_public_key = None;
                self.spec.must_register_before = None;
                self.revision = version;
            }
            _ => return None,
        }
        Some(())
    }

    fn accept(&mut self, join: &Arc<JoinAccepted>, recorded: Recorded<'_>) -> Option<()> {
        let binding = self.binding.as_mut()?;
        binding.latest =
            Some(Accepted { join: Arc::clone(join), at: recorded.at, address: recorded.address.map(str::to_owned) });
        binding.resumable = true;
        self.outdate_evidence();
        self.forget_replays(recorded.at);
        Some(())
    }

    fn refuse(&mut self, refused: &JoinRefused, recorded: Recorded<'_>) {
        self.forget_replays(recorded.at);
        if let (Some(challenge), Some(until)) = (refused.challenge, refused.replayable_until) {
            self.remember_refused(RefusedChallenge { challenge, until });
        }
        // Whoever shows the secret beside old credentials, after a reopening, has only to leave them out.
        if !matches!(refused.code, Code::Conflict | Code::Locked | Code::BindingNotAllowed) {
            self.contested_at = Some(recorded.at);
        }
        if let Some(fingerprint) = &refused.retired_key {
            let shown = self.retired.iter_mut().filter(|key| key.key.fingerprint() == *fingerprint);
            shown.for_each(|key| key.is_evidence = false);
        }
    }

    fn remember_refused(&mut self, refused: RefusedChallenge) {
        self.refused_challenges.push(refused);
        if self.refused_challenges.len() > REFUSED_CHALLENGES_KEPT
            && let Some(first) = self.refused_challenges.iter().map(|old| old.until).min()
        {
            self.refused_until = self.refused_until.max(Some(first));
            self.refused_challenges.retain(|old| old.until > first);
        }
    }

    fn forget_replays(&mut self, now: Timestamp) {
        self.refused_challenges.retain(|old| now <= old.until);
        self.refused_until = self.refused_until.filter(|until| now <= *until);
    }

    fn grant(&mut self, granted: &ExemptionGranted, recorded: Recorded<'_>) {
        let ended = self.grants.iter().filter(|grant| !grant.is_open(recorded.at)).count();
        let mut surplus = ended.saturating_sub(ENDED_GRANTS_KEPT);
        self.grants.retain(|grant| {
            let forget = surplus > 0 && !grant.is_open(recorded.at);
            surplus = surplus.saturating_sub(usize::from(forget));
            !forget
        });
        self.grants.push(Grant {
            id: granted.grant,
            kind: granted.exemption,
            uses: granted.uses,
            uses_left: granted.uses,
            expires: granted.expires,
            reason: granted.reason.clone(),
            granted_by: recorded.actor.to_owned(),
            granted_at: recorded.at,
            revoked: false,
        });
    }

    /// Ends the binding: reopen, deletion, another bot. The key can't come back to this token, and what was granted to
    /// its holder, or held against it, ends with it.
    fn unbind(&mut self) {
        self.grants.iter_mut().filter(|grant| grant.uses_left > 0).for_each(|grant| grant.revoked = true);
        if let Some(binding) = self.binding.take() {
            self.retired.push(RetiredKey { key: binding.key, is_evidence: false });
        }
        self.retired.iter_mut().for_each(|key| key.is_evidence = false);
        self.recovery_count = 0;
        self.last_recovered_at = None;
        self.last_rotated_at = None;
        self.contested_at = None;
        self.outdate_evidence();
        self.forget_attempts();
    }

    /// A challenge that is open now decides nothing any more, unless it is a resume.
    fn outdate_evidence(&mut self) {
        self.evidence = self.evidence.saturating_add(1);
    }

    fn forget_attempts(&mut self) {
        self.era = self.era.saturating_add(1);
        if let Some(binding) = self.binding.as_mut() {
            binding.resumable = false;
        }
    }

    /// True while somebody may join with it.
    pub fn admits(&self, now: Timestamp) -> bool {
        self.live && self.spec.expires.is_none_or(|end| now < end)
    }

    /// The latest accepted join of the present binding.
    pub fn latest(&self) -> Option<&Accepted> {
        self.binding.as_ref().and_then(|binding| binding.latest.as_ref())
    }

    /// The bound instance.
    pub fn instance(&self) -> Option<InstanceId> {
        self.latest().map(|latest| latest.join.instance)
    }

    /// The latest accepted join as evidence of a holder.
    pub fn other_holder(&self) -> Option<OtherHolder> {
        self.latest().map(|latest| OtherHolder {
            at: latest.at,
            address: latest.address.clone(),
            serial: latest.join.serial.clone(),
            instance: latest.join.instance,
            generation: latest.join.generation,
        })
    }

    /// True when `attempt` is the latest accepted one, for the same subject keys.
    pub fn is_latest_attempt(&self, attempt: Option<AttemptHash>, subject_keys: &str) -> bool {
        let resumable = self.binding.as_ref().filter(|binding| binding.resumable);
        let latest = resumable.and_then(|binding| binding.latest.as_ref());
        latest.is_some_and(|latest| {
            attempt.is_some() && latest.join.attempt == attempt && latest.join.subject_keys == subject_keys
        })
    }

    /// An open exemption of one kind that is in force.
    pub fn open_grant(&self, kind: ExemptionKind, now: Timestamp) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.kind == kind && grant.is_open(now))
    }

    /// True when a challenge, which can be replayed until then, was decided already with a refusal, or counts as that.
    pub fn has_refused(&self, challenge: ChallengeId, replayable_until: Timestamp) -> bool {
        self.refused_until.is_some_and(|until| replayable_until <= until)
            || self.refused_challenges.iter().any(|old| old.challenge == challenge)
    }

    /// True while it has a registration secret that can still be used.
    pub fn takes_secret(&self, now: Timestamp) -> bool {
        self.secret.is_some() && self.spec.must_register_before.is_none_or(|end| now < end)
    }

    /// True when a new key is due.
    pub fn rotation_due(&self, now: Timestamp) -> bool {
        self.spec
            .rotate_after
            .is_some_and(|after| after <= now && self.last_rotated_at.is_none_or(|rotated| rotated < after))
    }

    /// True when the limit is enforced and used up.
    pub fn limit_used_up(&self) -> bool {
        self.spec.recovery.mode == RecoveryMode::Standard && self.recovery_count >= self.spec.recovery.limit
    }

    pub(super) fn claims(&self) -> Vec<Claim> {
        if !self.live {
            return Vec::new();
        }
        let key = |key: &PublicKey| Claim { namespace: Namespace::Key, value: key.fingerprint() };
        let mut claims = vec![Claim { namespace: Namespace::TokenName, value: self.name.to_string() }];
        claims.extend(self.binding.as_ref().map(|binding| key(&binding.key)));
        claims.extend(self.spec.initial_public_key.as_ref().map(key));
        claims.extend(self.retired.iter().map(|retired| key(&retired.key)));
        claims.sort();
        claims.dedup();
        claims
    }
}

/// What may still be recorded of a deleted token: a ceremony that was under way ends with a refusal.
fn is_refusal(event: &Event) -> bool {
    matches!(event, Event::ChallengeIssued(_) | Event::ChallengeSolved(_) | Event::JoinRefused(_))
}
