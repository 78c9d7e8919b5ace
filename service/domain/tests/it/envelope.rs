//! The stored bytes of an entry: canonical, read back as they were written, and refused when they are not ours.

use join_domain::{
    envelope::{Entry, EnvelopeError, Origin, StreamId, StreamKind},
    event::{BotCreated, ChallengeIssued, ChallengePurpose, ChallengeSolved, Event, GenerationBumped, JoinResumed},
    id::{AttemptHash, ChallengeId, InstanceId, TokenId},
    resource::BotSpec,
    state::State,
    upcast::UpcastError,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    scenario::{beginning, key},
    stored::events,
};

/// The bytes of one entry as the first version wrote them; auditors hash exactly these.
const GOLDEN: &str = include_str!("golden/entry.v1.txt");

fn entry() -> Entry {
    let challenge = ChallengeId(Uuid::from_u128(0xc01));
    Entry {
        stream: StreamId::from(TokenId(Uuid::from_u128(0x70))),
        first_version: 41,
        events: vec![
            Event::ChallengeIssued(ChallengeIssued {
                challenge,
                key: key(1).fingerprint(),
                purpose: ChallengePurpose::Bound,
                at: beginning() + chrono::TimeDelta::microseconds(1),
            }),
            Event::ChallengeSolved(ChallengeSolved { challenge }),
            Event::GenerationBumped(GenerationBumped { instance: InstanceId(Uuid::from_u128(0x101)), generation: 8 }),
            Event::JoinResumed(JoinResumed {
                attempt: AttemptHash::from_bytes([0x5e; 32]),
                serial: "é \u{1} \"\\/ \u{20ac}".to_owned(),
            }),
        ],
        decided_at: beginning() + chrono::TimeDelta::milliseconds(1500),
        recorded_at: beginning() + chrono::TimeDelta::microseconds(1_500_001),
        origin: Origin {
            actor: "bot-example".to_owned(),
            address: Some("[2001:db8::7]:51000".to_owned()),
            attempt: Some(AttemptHash::from_bytes([0x5e; 32])),
            request: None,
            trace: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
        },
    }
}

#[test]
fn the_canonical_bytes_are_those_that_were_always_written() {
    assert_eq!(entry().to_envelope().unwrap(), GOLDEN.trim_end_matches('\n'));
}

#[test]
fn every_event_is_written_in_canonical_form() {
    for event in events() {
        let entry = Entry { events: vec![event], ..entry() };
        let written = entry.to_envelope().unwrap();
        let value: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json_canonicalizer::to_string(&value).unwrap(), written);
    }
}

#[test]
fn names_beyond_ascii_are_sorted_as_the_rfc_says() {
    let labels = [("\u{ff61}".to_owned(), "1".to_owned()), ("\u{1f600}".to_owned(), "2".to_owned())].into();
    let spec = BotSpec { labels, ..BotSpec::default() };
    let created = Event::BotCreated(BotCreated { name: "example".parse().unwrap(), spec });
    let written = Entry { events: vec![created], ..entry() }.to_envelope().unwrap();
    let (first, second) = (written.find('\u{1f600}').unwrap(), written.find('\u{ff61}').unwrap());
    assert!(first < second, "by UTF-16 code units: {written}");
}

#[test]
fn what_was_written_is_read_back() {
    assert_eq!(Entry::from_envelope(GOLDEN.trim_end_matches('\n')).unwrap(), entry());
}

#[test]
fn every_stored_example_survives_its_envelope() {
    for event in events() {
        let one = Entry { events: vec![event], ..entry() };
        assert_eq!(Entry::from_envelope(&one.to_envelope().unwrap()).unwrap(), one);
    }
}

#[test]
fn versions_follow_each_other_without_a_gap() {
    assert_eq!((entry().first_version, entry().last_version()), (41, 44));
}

#[test]
fn a_stream_is_named_by_kind_and_id() {
    for kind in StreamKind::ALL {
        let stream = StreamId { kind, id: Uuid::from_u128(7) };
        assert_eq!(stream.to_string().parse(), Ok(stream));
    }
    for text in ["", "token", "token/", "token/7", "tokens/00000000-0000-0000-0000-000000000007", "/"] {
        assert!(text.parse::<StreamId>().is_err(), "{text}");
    }
}

#[test]
fn a_stream_has_one_spelling() {
    let id = "6f0c2c36-0000-4000-8000-00000000000a";
    assert!(format!("lock/{id}").parse::<StreamId>().is_ok());
    for id in [id.to_uppercase(), format!("{{{id}}}"), format!("urn:uuid:{id}"), id.replace('-', "")] {
        assert!(id.parse::<Uuid>().is_ok(), "{id}");
        assert!(format!("lock/{id}").parse::<StreamId>().is_err(), "{id}");
    }
}

#[test]
fn an_envelope_that_is_not_ours_says_why() {
    let changed = |from: &str, to: &str| Entry::from_envelope(&GOLDEN.trim_end().replacen(from, to, 1)).unwrap_err();
    assert!(matches!(Entry::from_envelope("{}"), Err(EnvelopeError::Json(_))));
    assert!(matches!(changed("\"v\":1", "\"v\":2"), EnvelopeError::Version(2)));
    assert!(matches!(changed("token/", "tokens/"), EnvelopeError::Stream(_)));
    assert!(matches!(changed("token/", "token/urn:uuid:"), EnvelopeError::Stream(_)));
    assert!(matches!(changed("2026-01-01T00:00:01.5", "yesterday"), EnvelopeError::Json(_)));
    assert!(matches!(changed("\"trace\"", "\"more\":1,\"trace\""), EnvelopeError::Json(_)));
    let unknown = changed("generation.bumped", "generation.dropped");
    assert!(matches!(unknown, EnvelopeError::Event(UpcastError::UnknownKind(_))));
}

#[test]
fn an_entry_that_cannot_follow_is_a_fold_error_that_names_it() {
    let error = State::after(None, &entry()).unwrap_err();
    assert_eq!((error.version, error.event), (41, "challenge.issued"));
    assert!(error.to_string().contains("token/"), "{error}");
}

#[test]
fn an_entry_without_events_is_none() {
    let empty = Entry { events: Vec::new(), ..entry() };
    assert!(State::after(None, &empty).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,300}") {
        let _ = Entry::from_envelope(&text);
    }

    #[test]
    fn no_cut_envelope_is_read(length in 0..GOLDEN.len() - 2) {
        let cut: String = GOLDEN.chars().take(length).collect();
        prop_assume!(cut.len() < GOLDEN.trim_end().len());
        prop_assert!(Entry::from_envelope(&cut).is_err());
    }
}
