//! Joins as the domain decides them, and others that it would have refused: only what they say can be wrong.

use std::sync::Arc;

use chrono::TimeDelta;
use join_audit::{Fault, verify_history};
use join_domain::Timestamp;
use join_domain::decision::{
    Known,
    join::{self, Answer, Fresh, Policy, Proven, Solved},
};
use join_domain::envelope::{Entry, StreamId, StreamKind};
use join_domain::event::{
    ChallengeIssued, ChallengePurpose, ClientCertificate, Event, ExemptionGranted, JoinAccepted, JoinCase,
    JoinStateSeen, LockCreated, LockDeleted, Sighting, TokenReinstated, TokenUpdated,
};
use join_domain::id::{ChallengeId, GrantId, InstanceId, LockId, TokenId};
use join_domain::key::PublicKey;
use join_domain::proof::{JoinStateError, REPLAYABLE};
use join_domain::resource::{ExemptionKind, LockTarget, Recovery, RecoveryMode};
use join_domain::state::{State, TokenState};
use rstest::rstest;
use uuid::Uuid;

use crate::history::{History, bot_created, moment, stream, token_created};

/// One bot with its token, and what its client shows.
pub(crate) struct Story {
    pub(crate) history: History,
    pub(crate) now: Timestamp,
    pub(crate) seen: Sighting,
    /// The client's name for its attempt; a new one each time when there is none.
    attempt: Option<u128>,
    count: u128,
}

pub(crate) fn token() -> StreamId {
    stream(StreamKind::Token, 1)
}

fn bot() -> StreamId {
    stream(StreamKind::Bot, 1)
}

fn key() -> PublicKey {
    PublicKey::from_ed25519([7; 32])
}

fn instance_of(number: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(0x2000 + number))
}

impl Story {
    pub(crate) fn begin() -> Self {
        let mut history = History::default();
        history.append(bot(), vec![bot_created(1)]);
        history.append(token(), vec![token_created(1, bot())]);
        let seen = Sighting { certificate: None, join_state: JoinStateSeen::Missing };
        let mut story = Self { history, now: moment(10), seen, attempt: None, count: 0 };
        story.allows(RecoveryMode::Standard, 9);
        story
    }

    /// The token's mode and limit.
    fn allows(&mut self, mode: RecoveryMode, limit: u32) {
        let TokenState { bot, spec, secret, .. } = self.token().clone();
        let spec = join_domain::resource::TokenSpec { recovery: Recovery { limit, mode }, ..spec };
        self.happens(token(), Event::TokenUpdated(TokenUpdated { bot, rebind: false, secret, spec }));
    }

    pub(crate) fn token(&self) -> &TokenState {
        let State::Token(token) = self.history.state(token()) else { panic!("it is a token's") };
        token
    }

    pub(crate) fn happens(&mut self, stream: StreamId, event: Event) {
        self.history.append_as("admin/example", stream, vec![event], self.now);
    }

    pub(crate) fn passes(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }

    fn number(&mut self) -> u128 {
        self.count += 1;
        self.count
    }

    /// The client joins, a minute after the last time.
    pub(crate) fn joins(&mut self) -> JoinCase {
        self.passes(60);
        let number = self.number();
        let (State::Token(token), State::Bot(bot)) = (self.history.state(token()), self.history.state(bot())) else {
            panic!("they are a token's and a bot's")
        };
        let purpose = if token.binding.is_some() { ChallengePurpose::Bound } else { ChallengePurpose::Registration };
        let proven = Proven {
            attempt: Some(format!("{:032x}", self.attempt.unwrap_or(number)).parse().unwrap()),
            subject_keys: "its subject keys".into(),
            seen: self.seen.clone(),
            evidence: token.evidence,
            solved: Solved {
                challenge: ChallengeId(Uuid::from_u128(number)),
                key: key(),
                purpose,
                issued_at: self.now - TimeDelta::seconds(1),
                replayable_until: self.now + TimeDelta::seconds(REPLAYABLE - 1),
            },
            rotated: None,
            life: None,
        };
        let known = Known { token, bot: Some(bot), locks: &[], attempt_accepted_before: false };
        let lock = LockId(Uuid::from_u128(number));
        let fresh = Fresh { instance: instance_of(number), lock, serial: format!("{number:032x}") };
        let verdict = join::decide(known, &proven, fresh, Policy::default(), self.now);
        let Answer::Accept(accepted) = verdict.answer else { panic!("{:?}", verdict.answer) };
        self.history.append_as("bot-bot-1", crate::joins::token(), verdict.record.events, self.now);
        self.seen = shown_after(&accepted);
        accepted.case
    }

    pub(crate) fn locks(&mut self, target: LockTarget) -> StreamId {
        let lock = stream(StreamKind::Lock, self.number());
        let message = String::new();
        let by = "admin/example".to_owned();
        self.happens(lock, Event::LockCreated(LockCreated { target, message, expires: None, cause: None, by }));
        lock
    }

    fn grants(&mut self, exemption: ExemptionKind) {
        let (grant, expires) = (GrantId(Uuid::from_u128(self.number())), self.now + TimeDelta::hours(24));
        let granted = ExemptionGranted { exemption, expires, grant, reason: "checked".into(), uses: 1 };
        self.happens(token(), Event::ExemptionGranted(granted));
    }

    fn is_reinstated(&mut self) {
        let reinstated = TokenReinstated { reason: "checked".into(), released: Vec::new() };
        self.happens(token(), Event::TokenReinstated(reinstated));
        self.grants(ExemptionKind::Reinstatement);
    }

    /// The last entry with a join.
    pub(crate) fn last_join(&mut self) -> &mut Entry {
        self.history.entries.iter_mut().rfind(|entry| entry.accepted().is_some()).unwrap()
    }

    fn last_accepted(&mut self) -> &mut JoinAccepted {
        let join = self.last_join().events.iter_mut().find_map(|event| match event {
            Event::JoinAccepted(join) => Some(Arc::make_mut(join)),
            _ => None,
        });
        join.unwrap()
    }

    fn last_challenge(&mut self) -> &mut ChallengeIssued {
        let challenge = self.last_join().events.iter_mut().find_map(|event| match event {
            Event::ChallengeIssued(issued) => Some(issued),
            _ => None,
        });
        challenge.unwrap()
    }

    /// The last join says that it was at that time.
    pub(crate) fn says_that_it_joined(&mut self, at: Timestamp) {
        self.last_accepted().not_before = at - TimeDelta::seconds(join::BACKDATED_SECONDS);
        self.last_challenge().at = at;
        let join = self.last_join();
        (join.decided_at, join.recorded_at) = (at, at);
    }

    /// What the auditor finds: faults, and sentences.
    pub(crate) fn found(&self) -> Vec<(Fault, String)> {
        let envelopes = self.history.envelopes();
        let findings = verify_history(envelopes.iter().map(String::as_str));
        findings.into_iter().map(|finding| (finding.fault, finding.what)).collect()
    }

    #[track_caller]
    pub(crate) fn is_allowed(&self) {
        assert_eq!(self.found(), []);
    }

    #[track_caller]
    pub(crate) fn is_forbidden(&self, why: &str) {
        let found = self.found();
        let forbidden = |(fault, what): &(Fault, String)| *fault == Fault::ForbiddenHistory && what.contains(why);
        assert!(found.iter().any(forbidden), "{why}: {found:#?}");
    }
}

/// What a client shows after this join.
fn shown_after(join: &JoinAccepted) -> Sighting {
    let (name, token) = ("bot-1".parse().unwrap(), TokenId(token().id));
    let (instance, sequence) = (join.instance, join.recovery_count);
    Sighting {
        certificate: Some(ClientCertificate {
            bot: name,
            generation: join.generation,
            instance,
            serial: join.serial.clone(),
            token,
        }),
        join_state: JoinStateSeen::Authentic { bot: "bot-1".into(), instance, sequence, token: Some(token) },
    }
}

/// A story of a first join, a renewal and a recovery.
pub(crate) fn lived() -> Story {
    let mut story = Story::begin();
    assert_eq!(story.joins(), JoinCase::FirstJoin);
    assert_eq!(story.joins(), JoinCase::Renewal);
    story.seen.certificate = None;
    assert_eq!(story.joins(), JoinCase::Recovery);
    story.is_allowed();
    story
}

#[test]
fn a_certificate_that_counts_as_none_is_no_fault() {
    // Let pass with its outdated documents, by one kind of exemption and by the other.
    for kind in [Some(ExemptionKind::JoinState), None] {
        let mut story = Story::begin();
        story.joins();
        let outdated = story.seen.clone();
        story.seen.certificate = None;
        story.joins();
        match kind {
            Some(kind) => story.grants(kind),
            None => story.is_reinstated(),
        }
        story.seen = outdated;
        assert_eq!(story.joins(), JoinCase::Recovery);
        story.is_allowed();
    }

    // A static key on two hosts.
    let mut story = Story::begin();
    story.allows(RecoveryMode::Insecure, 1);
    story.joins();
    let other = story.seen.clone();
    story.seen.certificate = None;
    story.joins();
    story.seen = other;
    assert_eq!(story.joins(), JoinCase::Recovery);
    story.is_allowed();

    // The owner who comes back too late for the answer.
    let mut story = lived();
    let certificate = story.seen.certificate.clone();
    story.attempt = Some(0xa);
    story.joins();
    story.seen.certificate = certificate;
    story.passes(2 * 3600);
    assert_eq!(story.joins(), JoinCase::Recovery);
    story.is_allowed();
}

const PASSED_OVER: &str = "it shows a live certificate, which nothing lets it pass over";

#[test]
fn a_recovery_with_a_live_certificate_is_found() {
    // An old generation of the bound lineage is a clone's, and locks; the newest is a renewal's.
    let mut story = lived();
    let bound = story.seen.certificate.clone();
    for generation in [1, 7] {
        story.seen.certificate = None;
        story.joins();
        let certificate = ClientCertificate { generation, ..bound.clone().unwrap() };
        story.last_accepted().seen.certificate = Some(certificate);
        story.is_forbidden(PASSED_OVER);
        story = lived();
    }

    // Of another token.
    let other = ClientCertificate { token: TokenId(Uuid::from_u128(1)), ..bound.clone().unwrap() };
    story.last_accepted().seen.certificate = Some(other.clone());
    story.is_forbidden(PASSED_OVER);
    // An exemption for a document that was not needed lets nothing pass.
    let mut story = lived();
    story.grants(ExemptionKind::Recoveries);
    story.allows(RecoveryMode::Standard, 2);
    story.seen.certificate = None;
    story.joins();
    story.is_allowed();
    let State::Token(granted) = story.history.state(token()) else { panic!("it is a token's") };
    assert_eq!(granted.grants[0].uses_left, 0);
    story.last_accepted().seen.certificate = Some(other.clone());
    story.is_forbidden(PASSED_OVER);

    // In insecure mode the token's own pass, and no others.
    let mut story = Story::begin();
    story.allows(RecoveryMode::Insecure, 1);
    story.joins();
    story.seen.certificate = None;
    story.joins();
    story.last_accepted().seen.certificate = Some(other);
    story.is_forbidden(PASSED_OVER);
    let generation = story.last_accepted().generation;
    let first = ClientCertificate { generation, instance: instance_of(1), ..bound.unwrap() };
    story.last_accepted().seen.certificate = Some(first);
    story.is_forbidden(PASSED_OVER);
}

#[test]
fn a_join_state_of_somebody_else_is_found_exemption_or_not() {
    let mut story = lived();
    story.is_reinstated();
    story.joins();
    story.is_allowed();
    story.last_accepted().seen.join_state = JoinStateSeen::Missing;
    story.is_allowed();
    story.last_accepted().seen.join_state = JoinStateSeen::NotAuthentic(JoinStateError::BadSignature);
    story.is_forbidden("not of this cluster, bot and token");
}

#[test]
fn a_reinstatement_that_the_next_join_leaves_open_is_found() {
    let mut story = lived();
    story.is_reinstated();
    assert_eq!(story.joins(), JoinCase::Renewal);
    story.is_allowed();
    story.last_join().events.retain(|event| !matches!(event, Event::ExemptionConsumed(_)));
    story.is_forbidden("it does not spend the reinstatement that was open");

    // After its end nobody spends it.
    let mut story = lived();
    story.is_reinstated();
    story.passes(25 * 3600);
    story.seen.certificate = None;
    story.joins();
    story.is_allowed();
}

#[rstest]
#[case(-1, None)]
#[case(-120, None)]
#[case(-181, Some("a challenge was answered after its time"))]
#[case(-7200, Some("a challenge was answered after its time"))]
#[case(30, None)]
#[case(61, Some("a challenge was issued after it was answered"))]
fn a_challenge_has_an_age(#[case] seconds: i64, #[case] why: Option<&str>) {
    let mut story = lived();
    story.passes(3600);
    story.joins();
    let decided_at = story.last_join().decided_at;
    story.last_challenge().at = decided_at + TimeDelta::seconds(seconds);
    match why {
        None => story.is_allowed(),
        Some(why) => story.is_forbidden(why),
    }
}

#[test]
fn times_that_nothing_can_be_added_to_are_found() {
    let end = Timestamp::MAX_UTC;
    let mut story = lived();
    story.last_challenge().at = end;
    story.is_forbidden("a challenge was issued after it was answered");
    let mut story = lived();
    story.last_accepted().not_before = end;
    story.is_forbidden("its certificates don't begin when it was decided");
}

#[test]
fn a_challenge_of_before_the_latest_join_is_found() {
    let mut story = lived();
    story.joins();
    let decided_at = story.last_join().decided_at;
    // The join before was a minute ago, and clocks may be a minute apart.
    story.last_challenge().at = decided_at - TimeDelta::seconds(119);
    story.is_allowed();
    story.last_challenge().at = decided_at - TimeDelta::seconds(122);
    story.is_forbidden("a challenge is older than the join before it");
}

#[test]
fn a_join_that_stands_behind_a_lock_is_found_whatever_its_times_say() {
    let instance = lived().token().instance().unwrap();
    for target in [
        LockTarget::JoinToken("token-1".parse().unwrap()),
        LockTarget::User("bot-1".parse().unwrap()),
        LockTarget::BotInstanceId(instance),
        LockTarget::PublicKey(key().fingerprint()),
    ] {
        let mut story = lived();
        story.passes(60);
        let lock = story.locks(target.clone());
        story.joins();
        // So close to the lock that the one could have been decided without the other; and some time before it.
        for seconds in [-30, 0, 10] {
            let locked_at = story.history.entries.iter().find(|entry| entry.stream == lock).unwrap().decided_at;
            story.says_that_it_joined(locked_at + TimeDelta::seconds(seconds));
            let found = story.found();
            let [(Fault::ForbiddenHistory, what)] = found.as_slice() else { panic!("{target} {seconds}: {found:?}") };
            assert!(what.contains("was in force"), "{what}");
        }
        // One that was decided before it stands before it.
        let last = story.history.entries.len() - 1;
        story.history.entries.swap(last - 1, last);
        story.is_allowed();
    }

    // A lock that is gone stops nobody.
    let mut story = lived();
    let lock = story.locks(LockTarget::JoinToken("token-1".parse().unwrap()));
    story.happens(lock, Event::LockDeleted(LockDeleted { reason: None }));
    story.joins();
    story.is_allowed();
}

/// The lock waits for nobody when no token has the key yet, and a join that binds it may wait for the lock's commit.
#[test]
fn a_key_that_is_locked_may_be_bound_at_that_moment_and_not_later() {
    let mut story = Story::begin();
    story.locks(LockTarget::PublicKey(key().fingerprint()));
    story.now -= TimeDelta::seconds(61);
    story.joins();
    story.is_allowed();
    let mut once_more = story;
    once_more.now -= TimeDelta::seconds(59);
    once_more.joins();
    once_more.is_forbidden("was in force");

    // Whatever it says of its time: the log had gone on.
    let mut story = Story::begin();
    story.locks(LockTarget::PublicKey(key().fingerprint()));
    let locked = story.now;
    story.passes(61);
    story.locks(LockTarget::JoinToken("another".parse().unwrap()));
    story.now = locked - TimeDelta::seconds(55);
    story.joins();
    story.is_forbidden("was in force");
}
