//! Between the model's numbers and the types of [`join_domain`].

use std::sync::Arc;

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    decision::join::{Life, Proven, Solved},
    envelope::{Entry, Origin, StreamId},
    event::{ChallengePurpose, ClientCertificate, Event, JoinAccepted, JoinCase, JoinStateSeen, Sighting},
    id::{AttemptId, ChallengeId, InstanceId, Name, TokenId},
    key::PublicKey,
    proof,
    resource::ExemptionKind,
    state::TokenState,
};
use uuid::Uuid;

use crate::{
    Tick,
    authority::{Answer, Facts},
    holder::{Certificate, JoinState, Key},
    message::Shown,
};

/// How long a tick is, in seconds: longer than a certificate lives, and a third of a challenge's time, so that a
/// challenge can be issued in one tick and decided in the next.
const TICK: i64 = 40;
/// By how much a certificate ends before a tick does, in seconds.
const EARLY: i64 = 10;

/// The state without what no rule reads: sightings, moments that are only shown, ended grants, old refusals. Two states
/// that differ only there decide alike, which a test checks.
pub(crate) fn plain(mut token: TokenState) -> TokenState {
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

pub(crate) fn facts(token: &TokenState) -> Facts {
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

pub(crate) fn answer(join: &JoinAccepted, key: Key) -> Answer {
    let seconds = (join.not_after - time(0)).num_seconds();
    Answer {
        key,
        instance: short(join.instance),
        generation: small(join.generation),
        sequence: small(join.recovery_count.into()),
        ends: small(u64::try_from(seconds.div_euclid(TICK) + i64::from(seconds.rem_euclid(TICK) > 0)).unwrap_or(0)),
    }
}

pub(crate) fn proven(shown: &Shown) -> Proven {
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

pub(crate) fn client_certificate(certificate: Certificate) -> ClientCertificate {
    ClientCertificate {
        token: token_id(),
        bot: name(),
        instance: instance(certificate.instance),
        generation: certificate.generation.into(),
        serial: String::new(),
    }
}

pub(crate) fn join_state(shown: Option<JoinState>) -> JoinStateSeen {
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

pub(crate) fn attempt(number: u8) -> AttemptId {
    AttemptId::from_bits([number; 16])
}

pub(crate) fn public(key: Key) -> PublicKey {
    PublicKey::from_ed25519([key; 32])
}

pub(crate) fn number(key: &PublicKey) -> Key {
    key.raw().first().copied().unwrap_or_default()
}

pub(crate) fn instance(number: u8) -> InstanceId {
    InstanceId(Uuid::from_u128(number.into()))
}

pub(crate) fn short(instance: InstanceId) -> u8 {
    instance.0.as_u128().to_be_bytes()[15]
}

pub(crate) fn small(number: u64) -> u8 {
    u8::try_from(number).unwrap_or_else(|_| unreachable!("the bounds keep numbers small: {number}"))
}

pub(crate) fn time(tick: Tick) -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::seconds(i64::from(tick) * TICK)
}

pub(crate) fn token_id() -> TokenId {
    TokenId(Uuid::from_u128(0x70))
}

pub(crate) fn stream() -> StreamId {
    StreamId::from(token_id())
}

pub(crate) fn name() -> Name {
    "example".parse().unwrap_or_else(|error| unreachable!("{error}"))
}

pub(crate) fn entry(stream: StreamId, events: Vec<Event>, now: Tick) -> Entry {
    let (decided_at, recorded_at) = (time(now), time(now));
    Entry { stream, first_version: 1, events, decided_at, recorded_at, origin: Origin::default() }
}
