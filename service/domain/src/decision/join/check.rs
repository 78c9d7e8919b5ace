//! The checks of a join, each of which lets it go on or refuses by name. Their order is the caller's.

use super::{Answer, Judgement, Record, Spent, Step, Verdict, shown_targets};
use crate::{
    event::{ChallengePurpose, JoinStateSeen},
    key::PublicKey,
    refusal::{Code, Refusal},
    resource::{ExemptionKind, LockTarget, RecoveryMode},
    state::LockState,
};

impl Judgement<'_> {
    /// The challenged key must still be the one that counts; a retired one is evidence of a second holder.
    pub(super) fn check_key(&self) -> Step<()> {
        let token = self.known.token;
        let solved = &self.proven.solved;
        if solved.purpose == ChallengePurpose::Retired {
            return Err(self.judge_retired_key());
        }
        let stands = match &token.binding {
            Some(binding) => binding.key == solved.key,
            None => match solved.purpose {
                ChallengePurpose::Preregistered => token.spec.initial_public_key.as_ref() == Some(&solved.key),
                ChallengePurpose::Registration => {
                    token.takes_secret(self.now) && token.spec.initial_public_key.is_none()
                }
                _ => false,
            },
        };
        if stands { Ok(()) } else { Err(self.conflict("another key is bound, or asked for, by now")) }
    }

    fn judge_retired_key(&self) -> Box<Verdict> {
        let token = self.known.token;
        let counts = token.retired.iter().any(|retired| retired.is_evidence && retired.key == self.proven.solved.key);
        if !counts || self.proven.evidence != token.evidence {
            return self.conflict("the key no longer tells anything");
        }
        let sequence = match &self.proven.seen.join_state {
            JoinStateSeen::Authentic { token: id, bot, sequence, .. }
                if *id == Some(token.id) && *bot == token.spec.bot_name.as_str() =>
            {
                *sequence
            }
            _ => {
                return self.refuse(Refusal::new(
                    Code::ChallengeFailed,
                    "the key was replaced by a rotation, and no join state of this token was shown",
                ));
            }
        };
        if sequence > token.recovery_count || self.certificate_is_ahead() {
            // Nobody can renew or recover with a retired key, so the store forgot the join that this is from. No grant
            // can give the client a key back that it deleted.
            return self.behind(
                format!(
                    "the evidence that was shown is newer than the store, which has key {} as retired",
                    self.fingerprint
                ),
                &format!("joinctl reopen {}", token.name),
            );
        }
        self.lock(
            Code::RetiredKey,
            "a key that a rotation of this token retired is still in use by a second holder",
            Some(self.fingerprint.clone()),
        )
    }

    pub(super) fn check_locks(&self) -> Step<()> {
        let token = self.known.token;
        let concerns = |lock: &&LockState| {
            lock.in_force(self.now)
                && match &lock.target {
                    LockTarget::JoinToken(name) => *name == token.name,
                    LockTarget::User(name) => *name == token.spec.bot_name,
                    LockTarget::BotInstanceId(id) if token.instance() == Some(*id) => true,
                    shown => shown_targets(self.proven).contains(shown),
                }
        };
        match self.known.locks.iter().find(concerns) {
            None => Ok(()),
            Some(lock) => Err(self.refuse(Refusal {
                code: Code::Locked,
                message: match lock.message.as_str() {
                    "" => format!("lock {} on {} is in force", lock.id, lock.target),
                    why => format!("lock {} on {} is in force: {why}", lock.id, lock.target),
                },
                lock: Some(lock.id),
            })),
        }
    }

    /// An attempt that was accepted earlier, and is no longer the latest, means two holders.
    pub(super) fn check_earlier_attempt(&self, spent: &mut Spent) -> Step<()> {
        let latest = self.known.token.latest().and_then(|latest| latest.join.attempt);
        let superseded = self.known.attempt_accepted_before && self.attempt != latest;
        // In insecure mode many hosts share one key on purpose; each retries attempts of its own.
        if !superseded || self.mode() == RecoveryMode::Insecure {
            return Ok(());
        }
        self.exempt(ExemptionKind::JoinState, spent, || {
            self.lock(
                Code::JoinStateInvalid,
                "an attempt came back that was accepted earlier and is no longer the latest: two holders",
                None,
            )
        })
    }

    /// Judges the join state; true when an exemption let it pass.
    pub(super) fn check_join_state(&self, spent: &mut Spent) -> Step<bool> {
        let token = self.known.token;
        let (Some(bound), false) = (token.instance(), self.mode() == RecoveryMode::Insecure) else {
            return Ok(false);
        };
        if token.recovery_count == 0 {
            return Ok(false);
        }
        let otherwise = match &self.proven.seen.join_state {
            JoinStateSeen::Missing => self.refuse(Refusal::new(
                Code::JoinStateRequired,
                "the join state of the last accepted join is needed and was not sent",
            )),
            JoinStateSeen::NotAuthentic(error) => {
                return Err(self.lock(
                    Code::JoinStateInvalid,
                    format!("the join state that was sent is not authentic: {error}"),
                    None,
                ));
            }
            JoinStateSeen::Authentic { bot, token: id, .. }
                if *bot != token.spec.bot_name.as_str() || *id != Some(token.id) =>
            {
                return Err(self.lock(
                    Code::JoinStateInvalid,
                    "the join state that was sent is of another bot or token",
                    None,
                ));
            }
            JoinStateSeen::Authentic { sequence, .. } if *sequence > token.recovery_count => self.behind(
                format!("the join state is of recovery {sequence}, but the store knows only {}", token.recovery_count),
                &format!("joinctl exempt {} --kind join_state", token.name),
            ),
            JoinStateSeen::Authentic { sequence, instance, .. }
                if *sequence < token.recovery_count || *instance != bound =>
            {
                self.lock(
                    Code::JoinStateInvalid,
                    format!(
                        "the join state is of recovery {sequence} and instance {instance}; the token is at recovery {} \
                         and instance {bound}: two holders",
                        token.recovery_count
                    ),
                    None,
                )
            }
            JoinStateSeen::Authentic { .. } => return Ok(false),
        };
        self.exempt(ExemptionKind::JoinState, spent, || otherwise)?;
        Ok(true)
    }

    /// Judges the certificate; returns the generation to renew from, or none for a recovery.
    pub(super) fn check_certificate(&self, join_state_waived: bool, spent: &mut Spent) -> Step<Option<u64>> {
        let token = self.known.token;
        let (Some(shown), Some(latest)) = (&self.proven.seen.certificate, token.latest()) else { return Ok(None) };
        if shown.token != token.id || shown.instance != latest.join.instance {
            let bundled = self.bundle().is_some();
            let own = shown.token == token.id;
            if join_state_waived || bundled || (self.mode() == RecoveryMode::Insecure && own) {
                return Ok(None);
            }
            return Err(self.refuse(Refusal::new(
                Code::InstanceMismatch,
                format!("the client certificate is of instance {}, which is not the bound one", shown.instance),
            )));
        }
        let stored = latest.join.generation;
        if shown.generation == stored {
            return Ok(Some(stored));
        }
        self.exempt(ExemptionKind::Generation, spent, || {
            if shown.generation > stored {
                self.behind(
                    format!("the certificate is of generation {}, but the store knows only {stored}", shown.generation),
                    &format!("joinctl exempt {} --kind generation", token.name),
                )
            } else {
                self.lock(
                    Code::GenerationMismatch,
                    format!(
                        "the certificate is of generation {}, and generation {stored} was issued: two holders",
                        shown.generation
                    ),
                    None,
                )
            }
        })?;
        Ok(Some(stored.max(shown.generation)))
    }

    fn certificate_is_ahead(&self) -> bool {
        let (Some(shown), Some(latest)) = (&self.proven.seen.certificate, self.known.token.latest()) else {
            return false;
        };
        shown.instance == latest.join.instance && shown.generation > latest.join.generation
    }

    pub(super) fn check_limit(&self, spent: &mut Spent) -> Step<()> {
        let token = self.known.token;
        if !token.limit_used_up() {
            return Ok(());
        }
        self.exempt(ExemptionKind::Recoveries, spent, || {
            self.refuse(Refusal::new(
                Code::RecoveryLimitExhausted,
                format!(
                    "no recovery is left: {} of {} are used; an administrator can raise \
                     spec.bound_keypair.recovery.limit with `joinctl edit token/{}`",
                    token.recovery_count, token.spec.recovery.limit, token.name
                ),
            ))
        })
    }

    /// Spends a grant that lets the join pass, or else ends it.
    fn exempt(&self, kind: ExemptionKind, spent: &mut Spent, otherwise: impl FnOnce() -> Box<Verdict>) -> Step<()> {
        spent.add(self.grant(kind).ok_or_else(otherwise)?);
        Ok(())
    }

    /// A due rotation asks for a new key, and refuses every key that the token had.
    pub(super) fn check_rotation(&self, due: bool) -> Step<()> {
        if !due {
            return match &self.proven.rotated {
                None => Ok(()),
                Some(_) => Err(self.conflict("the rotation is no longer asked for")),
            };
        }
        if self.mode() == RecoveryMode::Insecure {
            return Err(self.refuse(Refusal::new(
                Code::RotationFailed,
                "a rotation is asked for, but the token's mode is insecure and its static key cannot be rotated: \
                 clear spec.bound_keypair.rotate_after",
            )));
        }
        match &self.proven.rotated {
            None => Err(Box::new(Verdict { record: Record::default(), answer: Answer::RotateFirst })),
            Some(new) if self.had_key(&new.key) => Err(self.refuse(key_reused())),
            Some(_) => Ok(()),
        }
    }

    fn had_key(&self, key: &PublicKey) -> bool {
        let token = self.known.token;
        *key == self.proven.solved.key || token.retired.iter().any(|retired| retired.key == *key)
    }
}

pub(super) fn key_reused() -> Refusal {
    Refusal::new(Code::KeyReused, "the new key is one that this token had before: make a new keypair")
}
