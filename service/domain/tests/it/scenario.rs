//! A token in some state, the clients that join with it, and the administrator: what the rule tests are told in.
//!
//! A scenario keeps real states folded from real entries, and asks the real rules. Signatures are left out: a client
//! can answer a challenge when it holds the key. `proof.rs` is where signatures are tested.

use std::{collections::HashSet, sync::Arc};

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    decision::{
        Known,
        administer::{self, GrantAsked, SecretSource, TokenWritten},
        join::{self, Answer, Fresh, Life, Policy, Proven, Record, Solved, Verdict},
        opening::{self, FirstStep, Opening, SecretShown},
    },
    envelope::{Entry, Origin, StreamId},
    event::{
        BotCreated, ChallengePurpose, ClientCertificate, Event, JoinAccepted, JoinStateSeen, LockCreated, Sighting,
    },
    id::{AttemptHash, AttemptId, BotId, ChallengeId, GrantId, InstanceId, LockId, TokenId},
    key::PublicKey,
    proof,
    refusal::{Code, Refusal},
    resource::{BotSpec, ExemptionKind, LockTarget, Recovery, RecoveryMode, TokenSpec},
    state::{BotState, LockState, State, TokenState},
};
use uuid::Uuid;

/// The registration secret of every new token, as its keyed hash.
pub(crate) const SECRET: &str = "hash of the first secret";

/// When every scenario begins.
pub(crate) fn beginning() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// The key of that number.
pub(crate) fn key(number: u8) -> PublicKey {
    PublicKey::from_ed25519([number; 32])
}

/// A token's specification with these recovery rules, for the bot `example`.
pub(crate) fn spec(mode: RecoveryMode, limit: u32) -> TokenSpec {
    TokenSpec {
        roles: vec!["Bot".to_owned()],
        bot_name: "example".parse().unwrap(),
        initial_public_key: None,
        must_register_before: None,
        recovery: Recovery { mode, limit },
        rotate_after: None,
        labels: Default::default(),
        expires: None,
    }
}

/// `standard` mode with this limit.
pub(crate) fn standard(limit: u32) -> TokenSpec {
    spec(RecoveryMode::Standard, limit)
}

/// `relaxed` mode.
pub(crate) fn relaxed() -> TokenSpec {
    spec(RecoveryMode::Relaxed, 0)
}

/// `insecure` mode.
pub(crate) fn insecure() -> TokenSpec {
    spec(RecoveryMode::Insecure, 0)
}

/// A client's disk. Cloning it is what a thief does.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Private keys that it holds, by number.
    pub(crate) keys: Vec<u8>,
    /// The key that it offers when a new one is asked for; an attempt keeps it.
    pub(crate) new_key: u8,
    /// True when it names the keys that it holds.
    pub(crate) names_keys: bool,
    /// Its registration secret, by hash.
    pub(crate) secret: Option<String>,
    /// Its certificate, and the end of it.
    pub(crate) certificate: Option<(ClientCertificate, Timestamp)>,
    /// Its join state.
    pub(crate) join_state: JoinStateSeen,
    /// The attempt that has no result yet.
    pub(crate) pending: Option<AttemptId>,
    /// False for a client that names no attempts.
    pub(crate) names_attempts: bool,
    /// Hash of its subject keys.
    pub(crate) subject_keys: String,
    /// The life that it asks for.
    pub(crate) life: Option<TimeDelta>,
}

impl Client {
    /// A client that holds one key and has never joined.
    pub(crate) fn new(key: u8) -> Self {
        Self {
            keys: vec![key],
            new_key: key,
            names_keys: true,
            secret: Some(SECRET.to_owned()),
            certificate: None,
            join_state: JoinStateSeen::Missing,
            pending: None,
            names_attempts: true,
            subject_keys: format!("subject keys {key}"),
            life: None,
        }
    }

    /// Its instance, by its certificate.
    pub(crate) fn instance(&self) -> InstanceId {
        self.certificate.as_ref().unwrap().0.instance
    }

    /// The same client with another certificate.
    pub(crate) fn with_certificate_of(mut self, other: &Self) -> Self {
        self.certificate.clone_from(&other.certificate);
        self
    }

    /// The same client with another join state.
    pub(crate) fn with_join_state(mut self, join_state: JoinStateSeen) -> Self {
        self.join_state = join_state;
        self
    }

    /// The same client without its certificate.
    pub(crate) fn without_certificate(mut self) -> Self {
        self.certificate = None;
        self
    }

    /// The same client, which will offer another key when it is asked for a new one.
    pub(crate) fn offering(mut self, key: u8) -> Self {
        self.new_key = key;
        self.keys.push(key);
        self
    }

    /// The same client, bound to retry this attempt.
    pub(crate) fn retrying(mut self, attempt: AttemptId) -> Self {
        self.pending = Some(attempt);
        self
    }
}

/// The authority, with one token and its bot.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// The time.
    pub(crate) now: Timestamp,
    /// The token.
    pub(crate) token: TokenState,
    /// Its bot.
    pub(crate) bot: BotState,
    /// All locks.
    pub(crate) locks: Vec<LockState>,
    /// Everything that was recorded of the token since it was created, or since the test began to look.
    pub(crate) history: Vec<Event>,
    /// The same in entries, from the first.
    pub(crate) entries: Vec<Entry>,
    accepted_attempts: HashSet<AttemptHash>,
    version: u64,
    counter: u64,
}

/// How a decision fell.
#[derive(Debug)]
#[must_use]
pub(crate) enum Outcome {
    /// Accepted.
    Accepted(Arc<JoinAccepted>),
    /// The recorded answer again.
    Resumed(Arc<JoinAccepted>),
    /// A new key is asked for.
    RotateFirst,
    /// Refused, and whether a lock was created with it.
    Refused(Refusal, bool),
}

impl Outcome {
    /// It was accepted.
    #[track_caller]
    pub(crate) fn accepted(self) -> Arc<JoinAccepted> {
        match self {
            Self::Accepted(join) => join,
            other => panic!("should be accepted, was {other:?}"),
        }
    }

    /// It was resumed.
    #[track_caller]
    pub(crate) fn resumed(self) -> Arc<JoinAccepted> {
        match self {
            Self::Resumed(join) => join,
            other => panic!("should be resumed, was {other:?}"),
        }
    }

    /// It was refused with this code, and nothing was locked.
    #[track_caller]
    pub(crate) fn refused(self, code: Code) -> Refusal {
        match self {
            Self::Refused(refusal, false) if refusal.code == code => refusal,
            other => panic!("should be refused with {code} and without a lock, was {other:?}"),
        }
    }

    /// It was refused with this code, and the token was locked with it.
    #[track_caller]
    pub(crate) fn locked_with(self, code: Code) -> Refusal {
        match self {
            Self::Refused(refusal, true) if refusal.code == code => refusal,
            other => panic!("should be refused with {code} and a lock, was {other:?}"),
        }
    }
}

impl Scenario {
    /// A token of this specification, with a registration secret unless a key is preregistered.
    pub(crate) fn unbound(spec: TokenSpec) -> Self {
        let now = beginning();
        let bot_id = BotId(Uuid::from_u128(0xb0));
        let token_id = TokenId(Uuid::from_u128(0x70));
        let written = TokenWritten {
            name: "example".parse().unwrap(),
            bot: bot_id,
            spec,
            written_secret: None,
            generated_secret: SECRET.to_owned(),
        };
        let (created, _) = administer::create_token(written).unwrap();
        let created_token = entry(StreamId::from(token_id), 1, vec![created], now);
        let Ok(State::Token(token)) = State::after(None, &created_token) else {
            panic!("a token begins with its creation");
        };
        let spec = BotSpec {
            roles: vec!["deployer".to_owned()],
            traits: [("logins".to_owned(), vec!["deploy".to_owned()])].into(),
            ..BotSpec::default()
        };
        let created = Event::BotCreated(BotCreated { name: "example".parse().unwrap(), spec });
        let Ok(State::Bot(bot)) = State::after(None, &entry(StreamId::from(bot_id), 1, vec![created], now)) else {
            panic!("a bot begins with its creation");
        };
        Self {
            now,
            token: Arc::unwrap_or_clone(token),
            bot,
            locks: Vec::new(),
            history: Vec::new(),
            entries: vec![created_token],
            accepted_attempts: HashSet::new(),
            version: 1,
            counter: 0,
        }
    }

    /// A token of this specification that a client with key 1 has joined once.
    pub(crate) fn bound(spec: TokenSpec) -> (Self, Client) {
        let recovery = spec.recovery;
        let mut scenario = Self::unbound(TokenSpec { recovery: Recovery { limit: 1, ..recovery }, ..spec });
        let mut owner = Client::new(1);
        let _ = scenario.join(&mut owner).accepted();
        scenario.token.spec.recovery = recovery;
        scenario.history.clear();
        (scenario, owner)
    }

    /// Time goes by.
    pub(crate) fn pass(&mut self, time: TimeDelta) {
        self.now += time;
    }

    /// Time goes by until every certificate has ended.
    pub(crate) fn pass_until_expired(&mut self) {
        self.pass(TimeDelta::hours(25));
    }

    /// A number that was not used before.
    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    // --- what clients do

    /// What a client with its documents is asked first.
    pub(crate) fn open(&self, client: &Client) -> Result<FirstStep, Refusal> {
        let held: Vec<PublicKey> =
            client.keys.iter().filter(|_| client.names_keys).map(|number| key(*number)).collect();
        let certificate = self.live(client);
        let opening = Opening { certificate: certificate.as_ref(), secret: self.compare(client), held_keys: &held };
        opening::open(self.known(None), opening, self.now)
    }

    fn live(&self, client: &Client) -> Option<ClientCertificate> {
        client.certificate.as_ref().filter(|(_, end)| self.now < *end).map(|(certificate, _)| certificate.clone())
    }

    fn compare(&self, client: &Client) -> SecretShown {
        match &client.secret {
            None => SecretShown::None,
            shown if *shown == self.token.secret => SecretShown::Right,
            shown if *shown == self.token.spent_secret => SecretShown::Spent,
            Some(_) => SecretShown::Wrong,
        }
    }

    /// A client opens an attempt and solves the challenge; it begins a new attempt unless one is pending.
    #[track_caller]
    pub(crate) fn solve(&mut self, client: &mut Client) -> Proven {
        self.try_solve(client).unwrap()
    }

    /// The same, when the challenge may be refused or be for a key that the client does not hold.
    pub(crate) fn try_solve(&mut self, client: &mut Client) -> Result<Proven, Refusal> {
        if client.names_attempts && client.pending.is_none() {
            client.pending = Some(AttemptId::from_bits(u128::from(self.next()).to_be_bytes()));
        }
        let (challenged, purpose) = match self.open(client)? {
            FirstStep::RequestKey => (key(client.new_key), ChallengePurpose::Registration),
            FirstStep::Challenge(key, purpose) => (key, purpose),
        };
        if !client.keys.iter().any(|held| key(*held) == challenged) {
            return Err(Refusal::new(Code::ChallengeFailed, "the client does not hold the key"));
        }
        Ok(Proven {
            attempt: client.pending.clone(),
            subject_keys: client.subject_keys.clone(),
            seen: Sighting { certificate: self.live(client), join_state: client.join_state.clone() },
            evidence: self.token.evidence,
            solved: self.solved(challenged, purpose),
            rotated: None,
            life: client.life.map(Life::For),
        })
    }

    fn solved(&mut self, key: PublicKey, purpose: ChallengePurpose) -> Solved {
        Solved {
            challenge: ChallengeId(Uuid::from_u128(0xc00 + u128::from(self.next()))),
            key,
            purpose,
            issued_at: self.now,
            replayable_until: self.now + TimeDelta::seconds(proof::REPLAYABLE),
        }
    }

    /// The client answers the request for a new key, and its challenge.
    pub(crate) fn rotate_in(&mut self, proven: Proven, new_key: u8) -> Proven {
        Proven { rotated: Some(self.solved(key(new_key), ChallengePurpose::Rotation)), ..proven }
    }

    /// The authority decides, and records what it decided.
    pub(crate) fn decide(&mut self, proven: &Proven) -> Outcome {
        let number = u128::from(self.next());
        let fresh = Fresh {
            instance: InstanceId(Uuid::from_u128(0x1000 + number)),
            lock: LockId(Uuid::from_u128(0x2000 + number)),
            serial: format!("{:032x}", 0x3000 + number),
        };
        let Verdict { record: Record { events, uses_up, lock }, answer } =
            join::decide(self.known(Some(proven)), proven, fresh, Policy::default(), self.now);
        if !events.is_empty() {
            self.record(events);
        }
        if let Some(attempt) = uses_up {
            assert!(self.accepted_attempts.insert(attempt), "an attempt is used up once");
        }
        let locked = lock.is_some();
        if let Some((id, created)) = lock.map(|lock| *lock) {
            self.begin_lock(id, created);
        }
        match answer {
            Answer::Accept(join) => Outcome::Accepted(join),
            Answer::Resume(join) => Outcome::Resumed(join),
            Answer::RotateFirst => Outcome::RotateFirst,
            Answer::Refuse(refusal) => Outcome::Refused(refusal, locked),
        }
    }

    fn known(&self, proven: Option<&Proven>) -> Known<'_> {
        let hash = proven.and_then(|proven| proven.attempt.as_ref()).map(|id| id.hash(self.token.id, self.token.era));
        Known {
            token: &self.token,
            bot: Some(&self.bot),
            locks: &self.locks,
            attempt_accepted_before: hash.is_some_and(|hash| self.accepted_attempts.contains(&hash)),
        }
    }

    /// A whole join whose answer gets lost.
    pub(crate) fn join_without_answer(&mut self, client: &mut Client) -> Outcome {
        let proven = match self.try_solve(client) {
            Ok(proven) => proven,
            Err(refusal) => return Outcome::Refused(refusal, false),
        };
        match self.decide(&proven) {
            Outcome::RotateFirst => {
                let proven = self.rotate_in(proven, client.new_key);
                self.decide(&proven)
            }
            other => other,
        }
    }

    /// A whole join: the client stores the result.
    pub(crate) fn join(&mut self, client: &mut Client) -> Outcome {
        let outcome = self.join_without_answer(client);
        match &outcome {
            Outcome::Accepted(join) => self.store(client, join),
            Outcome::Resumed(join) => self.store(client, join),
            Outcome::RotateFirst | Outcome::Refused(..) => {}
        }
        outcome
    }

    /// The client stores a result: the attempt ends, and only now keys that are not bound go.
    pub(crate) fn store(&self, client: &mut Client, join: &JoinAccepted) {
        client.pending = None;
        client.keys.retain(|held| key(*held).fingerprint() == join.key);
        client.certificate = Some((
            ClientCertificate {
                token: self.token.id,
                bot: self.bot.name.clone(),
                instance: join.instance,
                generation: join.generation,
                serial: join.serial.clone(),
            },
            join.not_after,
        ));
        client.join_state = self.join_state(join.instance, join.recovery_count);
    }

    /// This token's authentic join state with these claims.
    pub(crate) fn join_state(&self, instance: InstanceId, sequence: u32) -> JoinStateSeen {
        JoinStateSeen::Authentic { bot: self.bot.name.to_string(), token: Some(self.token.id), instance, sequence }
    }

    // --- what administrators do

    /// Records events of the token.
    pub(crate) fn record(&mut self, events: Vec<Event>) {
        let entry = entry(StreamId::from(self.token.id), self.version + 1, events.clone(), self.now);
        self.version = entry.last_version();
        self.token = match State::after(Some(State::Token(Arc::new(self.token.clone()))), &entry) {
            Ok(State::Token(token)) => Arc::unwrap_or_clone(token),
            other => panic!("the entry must follow: {other:?}"),
        };
        self.history.extend(events);
        self.entries.push(entry);
    }

    fn begin_lock(&mut self, id: LockId, created: LockCreated) {
        let entry = entry(StreamId::from(id), 1, vec![Event::LockCreated(created)], self.now);
        let Ok(State::Lock(lock)) = State::after(None, &entry) else { panic!("a lock begins with its creation") };
        self.locks.push(lock);
    }

    /// An administrator's lock.
    pub(crate) fn lock(&mut self, target: LockTarget, expires: Option<Timestamp>) -> LockId {
        let id = LockId(Uuid::from_u128(0x2000 + u128::from(self.next())));
        let message = "maintenance".to_owned();
        self.begin_lock(id, LockCreated { target, message, expires, cause: None, by: "admin/ann".to_owned() });
        id
    }

    /// Removes every lock by hand.
    pub(crate) fn unlock(&mut self) {
        self.locks.clear();
    }

    /// Locks that a rule created and nobody released.
    pub(crate) fn open_locks(&self) -> usize {
        self.locks.iter().filter(|lock| lock.in_force(self.now) && lock.cause.is_some()).count()
    }

    /// Grants an exemption of this kind for one use.
    pub(crate) fn grant(&mut self, kind: ExemptionKind) -> GrantId {
        self.grant_as(GrantAsked { kind, count: 1, uses: 1, expires: None, reason: "checked".to_owned() })
    }

    /// Grants what is asked.
    pub(crate) fn grant_as(&mut self, asked: GrantAsked) -> GrantId {
        let id = GrantId(Uuid::from_u128(0x4000 + u128::from(self.next())));
        self.record(vec![administer::grant(&asked, id, self.now).unwrap()]);
        id
    }

    /// How often a grant can be spent still.
    pub(crate) fn uses_left(&self, id: GrantId) -> u32 {
        let open = |grant: &&join_domain::state::token::Grant| grant.id == id && grant.is_open(self.now);
        self.token.grants.iter().find(open).map_or(0, |grant| grant.uses_left)
    }

    /// Reinstates the token.
    pub(crate) fn reinstate(&mut self) -> GrantId {
        let id = GrantId(Uuid::from_u128(0x4000 + u128::from(self.next())));
        let act = administer::reinstate(&self.token, &self.locks, "host checked", id, self.now).unwrap();
        self.locks.retain(|lock| !act.released.iter().any(|(released, _)| *released == lock.id));
        self.record(act.events);
        id
    }

    /// Reopens the token with a new secret.
    pub(crate) fn reopen(&mut self, secret: &str) {
        let act = administer::reopen(&self.token, &self.locks, "host reinstalled", secret.to_owned()).unwrap();
        self.locks.retain(|lock| !act.released.iter().any(|(released, _)| *released == lock.id));
        self.record(act.events);
    }

    /// Asks for a new key at the next join.
    pub(crate) fn request_rotation(&mut self) {
        let event = administer::rotate(&self.token, self.now).unwrap();
        self.record(vec![event]);
    }

    /// Replaces the specification as an administrator does, and says where the secret comes from.
    pub(crate) fn upsert(&mut self, change: impl FnOnce(&mut TokenWritten)) -> Result<SecretSource, Refusal> {
        let mut written = TokenWritten {
            name: self.token.name.clone(),
            bot: self.token.bot,
            spec: self.token.spec.clone(),
            written_secret: None,
            generated_secret: "hash of a generated secret".to_owned(),
        };
        change(&mut written);
        let (event, source) = administer::update_token(&self.token, written)?;
        self.record(vec![event]);
        Ok(source)
    }

    /// Sets the recovery limit.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        let _ = self.upsert(|written| written.spec.recovery.limit = limit).unwrap();
    }

    /// Sets the recovery mode.
    pub(crate) fn set_mode(&mut self, mode: RecoveryMode) {
        let _ = self.upsert(|written| written.spec.recovery.mode = mode).unwrap();
    }

    /// The kinds of the events that were recorded of the token, in order.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.history.iter().map(|event| event.kind().0).collect()
    }
}

/// An entry that was decided and recorded at one moment.
pub(crate) fn entry(stream: StreamId, first_version: u64, events: Vec<Event>, at: Timestamp) -> Entry {
    let origin =
        Origin { actor: "bot-example".to_owned(), address: Some("192.0.2.7:51000".to_owned()), ..Origin::default() };
    Entry { stream, first_version, events, decided_at: at, recorded_at: at, origin }
}
