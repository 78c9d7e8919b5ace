//! The authority: the real rules of [`join_domain`], asked through a memory.
//!
//! Token states are real, folded from the events that the rules return. Each distinct one is kept once and named by a
//! number, and each distinct question is decided once, so that millions of states of the model cost some ten thousand
//! decisions. What no rule reads is blanked before a state is compared ([`plain`]).

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    decision::{
        self,
        administer::{self, GrantAsked, TokenWritten},
        join::{self, Fresh, Life, Policy, Proven, Record, Solved, Verdict},
        opening::{self, FirstStep, Opening, SecretShown},
    },
    envelope::{Entry, Origin, StreamId},
    event::{
        BotCreated, ChallengePurpose, ClientCertificate, Event, JoinAccepted, JoinCase, JoinStateSeen, LockCreated,
        Sighting,
    },
    id::{AttemptHash, AttemptId, BotId, ChallengeId, GrantId, InstanceId, LockId, Name, TokenId},
    key::PublicKey,
    proof,
    refusal::Code,
    resource::{BotSpec, ExemptionKind, LockTarget, Recovery, TokenSpec},
    state::{BotState, LockState, State, TokenState, token::RefusedChallenge},
};
use uuid::Uuid;

use crate::{
    Rule, Tick,
    holder::{Certificate, Disk, JoinState, Key},
    message::{Purpose, Shown},
};

/// How long a tick is, in seconds: longer than a certificate lives, and a third of a challenge's time, so that a
/// challenge can be issued in one tick and decided in the next.
const TICK: i64 = 40;
/// By how much a certificate ends before a tick does, in seconds.
const EARLY: i64 = 10;

/// A token state, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenRef(u32);

/// What the model itself reads of a token state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The age that evidence must have.
    pub evidence: u8,
    /// The era of attempts.
    pub era: u64,
    /// The bound key.
    pub key: Option<Key>,
    /// What the newest documents of this token say.
    pub newest: Option<(Certificate, JoinState)>,
    /// True when the limit is enforced and used up.
    pub limit_used_up: bool,
    /// True when a grant can be spent.
    pub grants: bool,
    /// True when it is a reinstatement's.
    pub reinstated: bool,
}

/// What is signed for the holder after an accepted or resumed join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The bound key.
    pub key: Key,
    /// The lineage.
    pub instance: u8,
    /// The place in it.
    pub generation: u8,
    /// The recovery count.
    pub sequence: u8,
    /// The first tick in which the certificate has ended.
    pub ends: Tick,
}

/// How a decision fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decided {
    /// Accepted.
    Accepted {
        /// What the holder gets.
        answer: Answer,
        /// Which case it was.
        case: JoinCase,
        /// True when the accepted attempt is new to the ledger.
        uses_up: bool,
        /// True when it spent an exemption.
        exempted: bool,
        /// True when it was the latest attempt past its window.
        late: bool,
    },
    /// The recorded answer again.
    Resumed(Answer),
    /// A new key is asked for.
    RotateFirst,
    /// Refused.
    Refused {
        /// Why.
        code: Code,
        /// True when the token was locked with it.
        locks: bool,
        /// True when the challenge is remembered as refused.
        remembered: bool,
    },
}

/// What is known beside the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known {
    /// True when a lock is in force.
    pub locked: bool,
    /// True when the ledger knows the attempt as accepted.
    pub accepted_before: bool,
    /// How often the store was restored: names of new lineages are never used twice.
    pub restores: u8,
}

/// Everything that a decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Question {
    token: TokenRef,
    known: Known,
    now: Tick,
    shown: Shown,
}

#[derive(Default)]
struct Memory {
    tokens: Vec<(Arc<TokenState>, Facts)>,
    numbers: HashMap<Vec<u8>, TokenRef>,
    decided: HashMap<Question, (Decided, TokenRef)>,
}

/// The authority.
pub struct Authority {
    without: Option<Rule>,
    bot: BotState,
    lock: LockState,
    memory: Mutex<Memory>,
}

impl Authority {
    /// An authority that leaves out one rule, or none.
    pub fn new(without: Option<Rule>) -> Self {
        let created = BotCreated { name: name(), spec: BotSpec::default() };
        let bot = StreamId::from(BotId(Uuid::from_u128(0xb0)));
        let Ok(State::Bot(bot)) = State::after(None, &entry(bot, vec![Event::BotCreated(created)], 0)) else {
            unreachable!("a bot begins with its creation");
        };
        let created = LockCreated {
            target: LockTarget::JoinToken(name()),
            message: String::new(),
            expires: None,
            cause: Some(Code::JoinStateInvalid),
            by: "system".to_owned(),
        };
        let lock = StreamId::from(LockId(Uuid::from_u128(0x20)));
        let Ok(State::Lock(lock)) = State::after(None, &entry(lock, vec![Event::LockCreated(created)], 0)) else {
            unreachable!("a lock begins with its creation");
        };
        Self { without, bot, lock, memory: Mutex::default() }
    }

    fn leaves_out(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    /// A new token with a registration secret.
    pub fn create(&self, recovery: Recovery) -> TokenRef {
        let written = TokenWritten {
            name: name(),
            bot: self.bot.id,
            spec: TokenSpec {
                roles: vec!["Bot".to_owned()],
                bot_name: name(),
                initial_public_key: None,
                must_register_before: None,
                recovery,
                rotate_after: None,
                labels: Default::default(),
                expires: None,
            },
            written_secret: None,
            generated_secret: "hash".to_owned(),
        };
        let created = administer::create_token(written).map(|(event, _)| entry(stream(), vec![event], 0));
        match created.map(|created| State::after(None, &created)) {
            Ok(Ok(State::Token(token))) => self.keep(Arc::unwrap_or_clone(token)),
            _ => unreachable!("a token begins with its creation"),
        }
    }

    /// The facts of a token state.
    pub fn facts(&self, token: TokenRef) -> Facts {
        self.kept(token).1
    }

    /// The state itself.
    pub fn token(&self, token: TokenRef) -> Arc<TokenState> {
        self.kept(token).0
    }

    /// How many distinct token states were folded, and how many distinct questions decided.
    pub fn size(&self) -> (usize, usize) {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        (memory.tokens.len(), memory.decided.len())
    }

    fn kept(&self, token: TokenRef) -> (Arc<TokenState>, Facts) {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.tokens[token.0 as usize].clone()
    }

    fn keep(&self, token: TokenState) -> TokenRef {
        let token = plain(token);
        let text = serde_json::to_vec(&token).unwrap_or_else(|error| unreachable!("a state is JSON: {error}"));
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let next = TokenRef(u32::try_from(memory.tokens.len()).unwrap_or(u32::MAX));
        let Memory { tokens, numbers, .. } = &mut *memory;
        *numbers.entry(text).or_insert_with(|| {
            let facts = facts(&token);
            tokens.push((Arc::new(token), facts));
            next
        })
    }

    /// Which key is challenged first; none when the client is refused or a new key is asked for.
    pub fn open(&self, token: TokenRef, disk: &Disk, certificate: Option<Certificate>, names_keys: bool) -> Opened {
        let token = self.token(token);
        let names_keys = names_keys && !self.leaves_out(Rule::RetiredKeysAreEvidence);
        let held: Vec<PublicKey> = disk.keys.all().filter(|_| names_keys).map(public).collect();
        let secret = match (disk.secret, &token.secret) {
            (false, _) => SecretShown::None,
            (true, Some(_)) => SecretShown::Right,
            (true, None) => SecretShown::Spent,
        };
        let certificate = certificate.map(client_certificate);
        let opening = Opening { certificate: certificate.as_ref(), secret, held_keys: &held };
        match opening::open(self.known(&token, &[], false), opening, time(0)) {
            Ok(FirstStep::RequestKey) => Opened::KeyRequested,
            Ok(FirstStep::Challenge(key, purpose)) => {
                let purpose = match purpose {
                    ChallengePurpose::Retired => Purpose::Retired,
                    _ => Purpose::Bound,
                };
                Opened::Challenged(number(&key), purpose)
            }
            Err(refusal) => Opened::Refused(refusal.code),
        }
    }

    fn known<'a>(
        &'a self,
        token: &'a TokenState,
        locks: &'a [LockState],
        accepted_before: bool,
    ) -> decision::Known<'a> {
        decision::Known { token, bot: Some(&self.bot), locks, attempt_accepted_before: accepted_before }
    }

    /// Decides what a client showed, and folds what is recorded of it.
    pub fn decide(&self, token: TokenRef, known: Known, now: Tick, shown: Shown) -> (Decided, TokenRef) {
        let question = Question { token, known, now, shown };
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = memory.decided.get(&question) {
            return *known;
        }
        drop(memory);
        let decided = self.decide_anew(question);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        *memory.decided.entry(question).or_insert(decided)
    }

    fn decide_anew(&self, Question { token: before, known, now, shown }: Question) -> (Decided, TokenRef) {
        let (decided, after) = self.judge(&self.token(before), known, now, &shown);
        (decided, after.map_or(before, |after| self.keep(after)))
    }

    /// Asks the real rules; the state after it is none when nothing is recorded.
    pub fn judge(&self, token: &TokenState, known: Known, now: Tick, shown: &Shown) -> (Decided, Option<TokenState>) {
        let mut token = token.clone();
        let mut proven = proven(shown);
        if shown.refused && !self.leaves_out(Rule::ChallengesAreDecidedOnce) {
            let Solved { challenge, replayable_until: until, .. } = proven.solved;
            token.refused_challenges.push(RefusedChallenge { challenge, until });
        }
        let matches = is_match(&token, &proven);
        let late = matches && token.latest().is_some_and(|latest| proven.solved.issued_at > latest.join.not_after);
        let mut around = Around {
            accepted_before: known.accepted_before,
            locks: if known.locked { std::slice::from_ref(&self.lock) } else { &[] },
        };
        if let Some(rule) = self.without {
            leave_out(rule, &token, &mut proven, &mut around, late, now);
        }
        if self.leaves_out(Rule::LimitsComeLast) && !matches && hits_limit(&token, &proven) {
            let code = Code::RecoveryLimitExhausted;
            return (Decided::Refused { code, locks: false, remembered: false }, None);
        }
        let fresh = Fresh {
            instance: instance(small(token.evidence) + 64 * known.restores),
            lock: self.lock.id,
            serial: String::new(),
        };
        let context = self.known(&token, around.locks, around.accepted_before);
        let Verdict { record: Record { events, uses_up, lock }, answer: told } =
            join::decide(context, &proven, fresh, Policy::default(), time(now));
        let after = |events| after(token.clone(), events, now);
        let key = |token: &TokenState| token.binding.as_ref().map(|binding| number(&binding.key)).unwrap_or_default();
        match told {
            join::Answer::Accept(join) => {
                let exempted = events.iter().any(|event| matches!(event, Event::ExemptionConsumed(_)));
                let after = after(events);
                let (answer, case, uses_up) = (answer(&join, key(&after)), join.case, uses_up.is_some());
                (Decided::Accepted { answer, case, uses_up, exempted, late }, Some(after))
            }
            join::Answer::Resume(join) => {
                let after = after(events);
                (Decided::Resumed(answer(&join, key(&after))), Some(after))
            }
            join::Answer::RotateFirst => (Decided::RotateFirst, None),
            join::Answer::Refuse(refusal) => {
                let after = (!events.is_empty()).then(|| after(events));
                let remembers = |token: &TokenState| {
                    token.refused_challenges.iter().any(|old| old.challenge == proven.solved.challenge)
                };
                let remembered = after.as_ref().is_some_and(remembers);
                (Decided::Refused { code: refusal.code, locks: lock.is_some(), remembered }, after)
            }
        }
    }

    /// An administrator asks for a new key.
    pub fn request_rotation(&self, token: TokenRef, now: Tick) -> Option<TokenRef> {
        let token = self.token(token);
        let event = administer::rotate(&token, time(now)).ok()?;
        Some(self.keep(after(TokenState::clone(&token), vec![event], now)))
    }

    /// An administrator raises the limit by one.
    pub fn raise_limit(&self, token: TokenRef, now: Tick) -> Option<TokenRef> {
        let token = self.token(token);
        let mut spec = token.spec.clone();
        spec.recovery.limit += 1;
        let generated_secret = String::new();
        let written = TokenWritten { name: name(), bot: self.bot.id, spec, written_secret: None, generated_secret };
        let (event, _) = administer::update_token(&token, written).ok()?;
        Some(self.keep(after(TokenState::clone(&token), vec![event], now)))
    }

    /// An administrator reinstates the token.
    pub fn reinstate(&self, before: TokenRef, now: Tick) -> TokenRef {
        let token = self.token(before);
        let grant = |kind: u128| GrantId(Uuid::from_u128(0x4000 + u128::from(token.evidence) * 8 + kind));
        let act = administer::reinstate(&token, std::slice::from_ref(&self.lock), "checked", grant(0), time(now));
        let Ok(act) = act else { unreachable!("a reason was given") };
        let mut events = act.events;
        if self.leaves_out(Rule::BundlesAreSpentWhole) {
            events.retain(|event| !matches!(event, Event::ExemptionGranted(_)));
            let kinds = [ExemptionKind::JoinState, ExemptionKind::Generation, ExemptionKind::Recoveries];
            for (kind, number) in kinds.into_iter().zip(1..) {
                let asked = GrantAsked { kind, count: 1, uses: 1, expires: None, reason: "checked".to_owned() };
                events.extend(administer::grant(&asked, grant(number), time(now)));
            }
        }
        let mut after = after(TokenState::clone(&token), events, now);
        if self.leaves_out(Rule::ReinstatementsForgetTheAttempt) {
            after.era = token.era;
            after.binding.clone_from(&token.binding);
        }
        if self.leaves_out(Rule::ReinstatementsOutdateEvidence) {
            after.evidence = token.evidence;
        }
        self.keep(after)
    }
}

/// What the rules are told beside the token and the proof.
struct Around<'a> {
    accepted_before: bool,
    locks: &'a [LockState],
}

/// Changes what the authority is shown just so far that a rule cannot take effect.
fn leave_out(rule: Rule, token: &TokenState, proven: &mut Proven, around: &mut Around<'_>, late: bool, now: Tick) {
    let latest = token.latest().map(|latest| &latest.join);
    match rule {
        Rule::AttemptsAreResumed => {
            proven.attempt = None;
            around.accepted_before = false;
        }
        Rule::SubjectKeysAreBound => {
            if let Some(latest) = latest {
                proven.subject_keys.clone_from(&latest.subject_keys);
            }
        }
        Rule::EarlierAttemptsAreKnown => around.accepted_before = false,
        Rule::LateMatchesAreNotJudged if late => {
            proven.attempt = None;
            around.accepted_before = false;
        }
        Rule::WindowsAreJudgedByTheChallenge => proven.solved.issued_at = time(now),
        Rule::EvidenceHasAnAge => proven.evidence = token.evidence,
        Rule::TheBoundKeySigned => {
            if let Some(binding) = &token.binding {
                proven.solved.key = binding.key.clone();
            }
        }
        Rule::LocksComeFirst => around.locks = &[],
        Rule::JoinStatesAreJudged => {
            if let Some(latest) = latest {
                let sequence = small(latest.recovery_count.into());
                proven.seen.join_state = join_state(Some(JoinState { instance: short(latest.instance), sequence }));
            }
        }
        Rule::GenerationsAreJudged => {
            if let (Some(latest), Some(certificate)) = (latest, &mut proven.seen.certificate)
                && certificate.instance == latest.instance
            {
                certificate.generation = latest.generation;
            }
        }
        Rule::WhatIsAheadIsNoTheft => {
            if let JoinStateSeen::Authentic { sequence, .. } = &mut proven.seen.join_state
                && *sequence > token.recovery_count
            {
                *sequence = 0;
            }
            if let (Some(latest), Some(certificate)) = (latest, &mut proven.seen.certificate)
                && certificate.generation > latest.generation
            {
                certificate.generation = 0;
            }
        }
        _ => {}
    }
}

fn hits_limit(token: &TokenState, proven: &Proven) -> bool {
    token.binding.is_some() && proven.seen.certificate.is_none() && token.limit_used_up()
}

fn after(token: TokenState, events: Vec<Event>, now: Tick) -> TokenState {
    match State::after(Some(State::Token(Arc::new(token))), &entry(stream(), events, now)) {
        Ok(State::Token(token)) => Arc::unwrap_or_clone(token),
        other => unreachable!("what was decided can be folded: {other:?}"),
    }
}

/// What the first request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// A new key is asked for.
    KeyRequested,
    /// A key is challenged.
    Challenged(Key, Purpose),
    /// Refused.
    Refused(Code),
}

/// The state without what no rule reads: sightings, moments that are only shown, ended grants, old refusals. Two states
/// that differ only there decide alike, which a test checks.
pub fn plain(mut token: TokenState) -> TokenState {
    let now = time(0);
    token.contested_at = None;
    token.last_recovered_at = None;
    token.revision = 0;
    token.refused_challenges.clear();
    token.grants.retain(|grant| grant.is_open(now));
    for grant in &mut token.grants {
        grant.granted_at = now;
        grant.expires = now + TimeDelta::hours(1);
    }
    let latest = token.binding.as_mut().and_then(|binding| binding.latest.as_mut());
    if let Some(latest) = latest {
        latest.at = now;
        let join = Arc::make_mut(&mut latest.join);
        join.seen = Sighting { certificate: None, join_state: JoinStateSeen::Missing };
        join.previous_instance = None;
        join.case = JoinCase::Renewal;
        join.not_before = now;
    }
    token
}

fn facts(token: &TokenState) -> Facts {
    let latest = token.latest().map(|latest| &latest.join);
    Facts {
        evidence: small(token.evidence),
        era: token.era,
        key: token.binding.as_ref().map(|binding| number(&binding.key)),
        newest: latest.map(|join| {
            let Answer { instance, generation, sequence, ends, .. } = answer(join, 0);
            (Certificate { instance, generation, ends, subject: 0 }, JoinState { instance, sequence })
        }),
        limit_used_up: token.limit_used_up(),
        grants: token.grants.iter().any(|grant| grant.is_open(time(0))),
        reinstated: token.open_grant(ExemptionKind::Reinstatement, time(0)).is_some(),
    }
}

fn answer(join: &JoinAccepted, key: Key) -> Answer {
    let seconds = (join.not_after - time(0)).num_seconds();
    Answer {
        key,
        instance: short(join.instance),
        generation: small(join.generation),
        sequence: small(join.recovery_count.into()),
        ends: small(u64::try_from(seconds.div_euclid(TICK) + i64::from(seconds.rem_euclid(TICK) > 0)).unwrap_or(0)),
    }
}

fn proven(shown: &Shown) -> Proven {
    let issued_at = time(shown.issued);
    let solved = |challenge: u8, key: Key, purpose: ChallengePurpose| Solved {
        challenge: ChallengeId(Uuid::from_u128(u128::from(challenge))),
        key: public(key),
        purpose,
        issued_at,
        replayable_until: issued_at + TimeDelta::seconds(proof::REPLAYABLE),
    };
    Proven {
        attempt: shown.attempt.map(attempt),
        subject_keys: shown.subject.to_string(),
        seen: Sighting {
            certificate: shown.certificate.map(client_certificate),
            join_state: join_state(shown.join_state),
        },
        evidence: shown.evidence.into(),
        solved: solved(shown.challenge, shown.key, shown.purpose.into()),
        rotated: shown.rotated.map(|key| solved(shown.challenge.wrapping_add(128), key, ChallengePurpose::Rotation)),
        life: Some(Life::For(TimeDelta::seconds(i64::from(shown.life) * TICK - EARLY))),
    }
}

fn is_match(token: &TokenState, proven: &Proven) -> bool {
    let hash: Option<AttemptHash> = proven.attempt.as_ref().map(|id| id.hash(token.id, token.era));
    token.is_latest_attempt(hash, &proven.subject_keys)
}

fn client_certificate(certificate: Certificate) -> ClientCertificate {
    ClientCertificate {
        token: token_id(),
        bot: name(),
        instance: instance(certificate.instance),
        generation: certificate.generation.into(),
        serial: String::new(),
    }
}

fn join_state(shown: Option<JoinState>) -> JoinStateSeen {
    match shown {
        None => JoinStateSeen::Missing,
        Some(JoinState { instance, sequence }) => JoinStateSeen::Authentic {
            bot: name().to_string(),
            token: Some(token_id()),
            instance: self::instance(instance),
            sequence: sequence.into(),
        },
    }
}

fn attempt(number: u8) -> AttemptId {
    AttemptId::from_bits([number; 16])
}

fn public(key: Key) -> PublicKey {
    PublicKey::from_ed25519([key; 32])
}

fn number(key: &PublicKey) -> Key {
    key.raw().first().copied().unwrap_or_default()
}

fn instance(number: u8) -> InstanceId {
    InstanceId(Uuid::from_u128(number.into()))
}

fn short(instance: InstanceId) -> u8 {
    instance.0.as_u128().to_be_bytes()[15]
}

fn small(number: u64) -> u8 {
    u8::try_from(number).unwrap_or_else(|_| unreachable!("the bounds keep numbers small: {number}"))
}

fn time(tick: Tick) -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::seconds(i64::from(tick) * TICK)
}

fn token_id() -> TokenId {
    TokenId(Uuid::from_u128(0x70))
}

fn stream() -> StreamId {
    StreamId::from(token_id())
}

fn name() -> Name {
    "example".parse().unwrap_or_else(|error| unreachable!("{error}"))
}

fn entry(stream: StreamId, events: Vec<Event>, now: Tick) -> Entry {
    let (decided_at, recorded_at) = (time(now), time(now));
    Entry { stream, first_version: 1, events, decided_at, recorded_at, origin: Origin::default() }
}
