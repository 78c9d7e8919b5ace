//! What a decided join records: everything that credentials are signed from, or why there are none.

use std::sync::Arc;

use chrono::{DurationRound as _, TimeDelta};

use super::{Answer, BACKDATED_SECONDS, Judgement, Record, Solved, Spent, Verdict};
use crate::{
    Timestamp,
    event::{
        ChallengeIssued, ChallengePurpose, ChallengeSolved, Event, ExemptionRef, GenerationBumped, JoinAccepted,
        JoinCase, JoinRefused, KeypairBound, KeypairRotated, LockCreated, Nothing, OtherHolder, RecoveryConsumed,
        Sighting,
    },
    id::AttemptId,
    refusal::{Code, Refusal},
    resource::LockTarget,
    state::{BotState, TokenState},
};

/// Records the failure of a client that had proven something before it failed: the bound key, when `solved` says so, or
/// else the registration secret, used up or not (protocol, section 3: it never passes unseen). Nothing, when the solved
/// challenge was refused before, as an answer that is sent again tells nothing new.
pub fn refuse_unfinished(
    token: &TokenState,
    solved: Option<&Solved>,
    attempt: Option<&AttemptId>,
    seen: Sighting,
    refusal: &Refusal,
) -> Vec<Event> {
    if solved.is_some_and(|solved| token.has_refused(solved.challenge, solved.replayable_until)) {
        return Vec::new();
    }
    let mut events: Vec<Event> =
        solved.into_iter().flat_map(|solved| proof_of(solved, solved.key.fingerprint())).collect();
    let proven = match solved.map(|solved| solved.purpose) {
        None => "the token's own secret was shown",
        Some(ChallengePurpose::Bound) => "the bound key was proven",
        Some(ChallengePurpose::Preregistered) => "the preregistered key was proven",
        Some(ChallengePurpose::Registration) => "the token's own secret was shown, and a new key proven",
        Some(ChallengePurpose::Rotation) => "the key that was to be bound was proven",
        Some(ChallengePurpose::Retired) => "a key that a rotation retired was proven",
    };
    events.push(Event::JoinRefused(Box::new(JoinRefused {
        code: refusal.code,
        why: format!("{}; {proven}", refusal.message),
        challenge: solved.map(|solved| solved.challenge),
        replayable_until: solved.map(|solved| solved.replayable_until),
        seen,
        attempt: attempt.map(|id| id.hash(token.id, token.era)),
        lock: None,
        retired_key: None,
        other_holder: None,
    })));
    events
}

fn proof_of(solved: &Solved, fingerprint: String) -> [Event; 2] {
    [
        Event::ChallengeIssued(ChallengeIssued {
            challenge: solved.challenge,
            key: fingerprint,
            purpose: solved.purpose,
            at: solved.issued_at,
        }),
        Event::ChallengeSolved(ChallengeSolved { challenge: solved.challenge }),
    ]
}

impl Judgement<'_> {
    pub(super) fn accept(&self, bot: &BotState, renew_from: Option<u64>, mut spent: Spent) -> Verdict {
        let token = self.known.token;
        if let Some(bundle) = self.bundle() {
            spent.add(bundle);
        }
        let (case, instance, previous_instance, generation) = match (renew_from, token.latest()) {
            (Some(from), Some(latest)) => {
                let previous = latest.join.previous_instance;
                (JoinCase::Renewal, latest.join.instance, previous, from.saturating_add(1))
            }
            (None, Some(latest)) => (JoinCase::Recovery, self.fresh.instance, Some(latest.join.instance), 1),
            (_, None) => (JoinCase::FirstJoin, self.fresh.instance, None, 1),
        };
        let mut events = self.proof_events();
        let mut key = self.fingerprint.clone();
        if case == JoinCase::FirstJoin {
            if self.proven.solved.purpose == ChallengePurpose::Registration {
                events.push(Event::RegistrationSecretSpent(Nothing {}));
            }
            events.push(Event::KeypairBound(KeypairBound { key: self.proven.solved.key.clone() }));
        }
        if let Some(new) = &self.proven.rotated {
            key = new.key.fingerprint();
            let old = self.proven.solved.key.clone();
            events.push(Event::KeypairRotated(KeypairRotated { old, new: new.key.clone() }));
        }
        let mut recovery_count = token.recovery_count;
        if case.costs_recovery() {
            recovery_count = recovery_count.saturating_add(1);
            events.push(Event::RecoveryConsumed(RecoveryConsumed { count: recovery_count }));
        } else {
            events.push(Event::GenerationBumped(GenerationBumped { instance, generation }));
        }
        events.extend(spent.0.into_iter().map(|grant| Event::ExemptionConsumed(ExemptionRef { grant })));
        // Certificates know whole seconds: they begin no later and end no later than the exact times.
        let second = |time: Timestamp| time.duration_trunc(TimeDelta::seconds(1)).unwrap_or(time);
        let join = Arc::new(JoinAccepted {
            case,
            instance,
            previous_instance,
            generation,
            recovery_count,
            recovery_limit: token.spec.recovery.limit,
            recovery_mode: token.spec.recovery.mode,
            key,
            serial: self.fresh.serial.clone(),
            not_before: second(self.now) - TimeDelta::seconds(BACKDATED_SECONDS),
            not_after: second(self.now + self.life()),
            roles: bot.spec.roles.clone(),
            principals: bot.spec.logins().to_vec(),
            subject_keys: self.proven.subject_keys.clone(),
            attempt: self.attempt,
            seen: self.proven.seen.clone(),
        });
        events.push(Event::JoinAccepted(Arc::clone(&join)));
        let accepted_before = self.known.attempt_accepted_before || self.is_latest_attempt();
        let uses_up = self.attempt.filter(|_| !accepted_before);
        Verdict { record: Record { events, uses_up, lock: None }, answer: Answer::Accept(join) }
    }

    pub(super) fn proof_events(&self) -> Vec<Event> {
        let first = proof_of(&self.proven.solved, self.fingerprint.clone());
        let rotated = self.proven.rotated.iter().flat_map(|new| proof_of(new, new.key.fingerprint()));
        first.into_iter().chain(rotated).collect()
    }

    /// Lost a race: nothing to record, and the same attempt may be tried again.
    pub(super) fn conflict(&self, why: &str) -> Box<Verdict> {
        let refusal = Refusal::new(Code::Conflict, format!("{why}: retry the same attempt"));
        Box::new(Verdict { record: Record::default(), answer: Answer::Refuse(refusal) })
    }

    pub(super) fn behind(&self, why: String, remedy: &str) -> Box<Verdict> {
        self.refuse(Refusal::new(
            Code::AuthorityBehind,
            format!(
                "{why}: the authority lost history; an administrator can admit the bot with `{remedy} --reason …` \
                 once that is understood"
            ),
        ))
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> Box<Verdict> {
        let events = self.refusal_events(&refusal, None, None);
        let record = Record { events, ..Record::default() };
        Box::new(Verdict { record, answer: Answer::Refuse(refusal) })
    }

    /// Tells the client that nobody is admitted, and the history why.
    pub(super) fn deny(&self) -> Box<Verdict> {
        let events = self.refusal_events(&self.known.why_denied(self.now), None, None);
        let record = Record { events, ..Record::default() };
        Box::new(Verdict { record, answer: Answer::Refuse(Refusal::access_denied()) })
    }

    /// Refuses and locks the token, in one append.
    pub(super) fn lock(&self, code: Code, why: impl Into<String>, retired_key: Option<String>) -> Box<Verdict> {
        let why = why.into();
        let token = self.known.token;
        let id = self.fresh.lock;
        let refusal = Refusal {
            code,
            message: format!(
                "{why}; token {} is locked by lock {id}: check the bot's host, then \
                 `joinctl reinstate {} --reason …`",
                token.name, token.name
            ),
            lock: Some(id),
        };
        let events = self.refusal_events(&refusal, retired_key, token.other_holder());
        let created = LockCreated {
            target: LockTarget::JoinToken(token.name.clone()),
            message: why,
            expires: None,
            cause: Some(code),
            by: "system".to_owned(),
        };
        let record = Record { events, uses_up: None, lock: Some(Box::new((id, created))) };
        Box::new(Verdict { record, answer: Answer::Refuse(refusal) })
    }

    fn refusal_events(
        &self,
        refusal: &Refusal,
        retired_key: Option<String>,
        other_holder: Option<OtherHolder>,
    ) -> Vec<Event> {
        let mut events = self.proof_events();
        events.push(Event::JoinRefused(Box::new(JoinRefused {
            code: refusal.code,
            why: refusal.message.clone(),
            challenge: Some(self.proven.solved.challenge),
            replayable_until: Some(self.proven.solved.replayable_until),
            seen: self.proven.seen.clone(),
            attempt: self.attempt,
            lock: refusal.lock,
            retired_key,
            other_holder,
        })));
        events
    }
}
