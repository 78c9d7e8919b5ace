//! A fleet: bots, tokens, their first joins, and then renewals, round after round.

use std::sync::Arc;

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    envelope::{Entry, Origin, StreamId},
    event::{
        BotCreated, ChallengeIssued, ChallengePurpose, ChallengeSolved, ClientCertificate, Event, GenerationBumped,
        JoinAccepted, JoinCase, JoinStateSeen, KeypairBound, Nothing, RecoveryConsumed, Sighting, TokenCreated,
    },
    id::{AttemptHash, BotId, ChallengeId, InstanceId, Name, TokenId},
    key::PublicKey,
    resource::{BotSpec, Recovery, RecoveryMode, TokenSpec},
};
use uuid::Uuid;

/// How often a bot renews.
const RENEWAL: TimeDelta = TimeDelta::minutes(20);
/// How long a certificate lives.
const LIFE: TimeDelta = TimeDelta::hours(1);

/// An id that looks as random as those of the service, and is the same every time.
pub fn id(kind: u64, number: u64) -> Uuid {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let (high, low) = (mix(number.wrapping_mul(8).wrapping_add(kind)), mix(mix(number).wrapping_add(kind)));
    uuid::Builder::from_u128(u128::from(high) << 64 | u128::from(low)).with_variant(uuid::Variant::RFC4122).into_uuid()
}

/// The entries of so many bots, each with one token, in the order of the log. It never ends.
#[derive(Debug, Clone)]
pub struct Fleet {
    bots: u64,
    begins: Timestamp,
    /// 0: bots are created; 1: tokens; 2: they join; from 3 on they renew.
    round: u64,
    bot: u64,
}

impl Fleet {
    /// A fleet of `bots` bots, at least one.
    pub fn new(bots: u64, begins: Timestamp) -> Self {
        Self { bots: bots.max(1), begins, round: 0, bot: 0 }
    }

    fn at(&self) -> Timestamp {
        let round = i32::try_from(self.round).unwrap_or(i32::MAX);
        let share = i64::try_from(self.bot * 1_000_000 / self.bots).unwrap_or(0);
        self.begins + RENEWAL * round + TimeDelta::microseconds(share * RENEWAL.num_seconds())
    }

    fn entry(
        &self,
        stream: StreamId,
        first_version: u64,
        actor: String,
        attempt: Option<AttemptHash>,
        events: Vec<Event>,
    ) -> Entry {
        let at = self.at();
        let origin = Origin {
            actor,
            address: Some(format!("192.0.2.{}:{}", self.bot % 250, 40_000 + self.bot % 20_000)),
            attempt,
            request: Some(format!("{:08x}-{:06x}", self.round, self.bot)),
            trace: None,
        };
        Entry { stream, first_version, events, decided_at: at, recorded_at: at + TimeDelta::microseconds(700), origin }
    }

    fn bot_created(&self) -> Entry {
        let logins = [("logins".to_owned(), vec!["deploy".to_owned()])].into();
        let spec = BotSpec { roles: vec!["deploy".to_owned()], traits: logins, ..BotSpec::default() };
        let created = Event::BotCreated(BotCreated { name: self.name(), spec });
        self.entry(BotId(id(1, self.bot)).into(), 1, "admin/ada".to_owned(), None, vec![created])
    }

    fn token_created(&self) -> Entry {
        let spec = TokenSpec {
            roles: vec!["Bot".to_owned()],
            bot_name: self.name(),
            initial_public_key: None,
            must_register_before: None,
            recovery: Recovery::default(),
            rotate_after: None,
            labels: [("rack".to_owned(), (self.bot / 40).to_string())].into(),
            expires: None,
        };
        let secret = Some(format!("{:064x}", self.bot));
        let created = TokenCreated { name: self.name(), bot: BotId(id(1, self.bot)), spec, secret };
        self.entry(self.token().into(), 1, "admin/ada".to_owned(), None, vec![Event::TokenCreated(created)])
    }

    fn join(&self) -> Entry {
        let generation = self.round - 1;
        let instance = InstanceId(id(3, self.bot));
        let challenge = ChallengeId(id(4, self.bot.wrapping_mul(1 << 20).wrapping_add(self.round)));
        let first = generation == 1;
        let purpose = if first { ChallengePurpose::Registration } else { ChallengePurpose::Bound };
        let attempt = attempt_of(self.bot, self.round);
        let mut events = vec![
            Event::ChallengeIssued(ChallengeIssued {
                challenge,
                key: self.key().fingerprint(),
                purpose,
                at: self.at(),
            }),
            Event::ChallengeSolved(ChallengeSolved { challenge }),
        ];
        if first {
            events.extend([
                Event::RegistrationSecretSpent(Nothing {}),
                Event::KeypairBound(KeypairBound { key: self.key() }),
                Event::RecoveryConsumed(RecoveryConsumed { count: 1 }),
            ]);
        } else {
            events.push(Event::GenerationBumped(GenerationBumped { instance, generation }));
        }
        events.push(Event::JoinAccepted(Arc::new(JoinAccepted {
            case: if first { JoinCase::FirstJoin } else { JoinCase::Renewal },
            instance,
            previous_instance: None,
            generation,
            recovery_count: 1,
            recovery_limit: 1,
            recovery_mode: RecoveryMode::Standard,
            key: self.key().fingerprint(),
            serial: serial(self.bot, generation),
            not_before: self.at() - TimeDelta::minutes(2),
            not_after: self.at() + LIFE,
            roles: vec!["deploy".to_owned()],
            principals: vec!["deploy".to_owned()],
            subject_keys: "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ".to_owned(),
            attempt: Some(attempt),
            seen: self.seen(generation),
        })));
        let version = if first { 2 } else { 8 + (generation - 2) * 4 };
        self.entry(self.token().into(), version, format!("bot-{}", self.name()), Some(attempt), events)
    }

    fn seen(&self, generation: u64) -> Sighting {
        if generation == 1 {
            return Sighting { certificate: None, join_state: JoinStateSeen::Missing };
        }
        let (token, instance) = (self.token(), InstanceId(id(3, self.bot)));
        let (bot, serial) = (self.name(), serial(self.bot, generation - 1));
        Sighting {
            join_state: JoinStateSeen::Authentic { bot: bot.to_string(), token: Some(token), instance, sequence: 1 },
            certificate: Some(ClientCertificate { token, bot, instance, generation: generation - 1, serial }),
        }
    }

    fn token(&self) -> TokenId {
        TokenId(id(2, self.bot))
    }

    fn name(&self) -> Name {
        format!("bot-{:07}", self.bot).parse().expect("a name of letters, digits and a hyphen")
    }

    fn key(&self) -> PublicKey {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&self.bot.to_be_bytes());
        PublicKey::from_ed25519(bytes)
    }
}

impl Iterator for Fleet {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let entry = match self.round {
            0 => self.bot_created(),
            1 => self.token_created(),
            _ => self.join(),
        };
        self.bot += 1;
        if self.bot == self.bots {
            (self.round, self.bot) = (self.round + 1, 0);
        }
        Some(entry)
    }
}

fn attempt_of(bot: u64, round: u64) -> AttemptHash {
    let halves = [u128::from(bot).to_be_bytes(), u128::from(round).to_be_bytes()];
    AttemptHash::from_bytes(halves.concat().try_into().unwrap_or_default())
}

fn serial(bot: u64, generation: u64) -> String {
    format!("{bot:016x}{generation:016x}")
}
