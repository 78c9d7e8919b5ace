//! Migrations over the history of every release: what a release left behind is loaded into a database with that release's
//! schema, every later migration runs, and then everything must still follow from the entries.
//!
//! `history/VERSION.jsonl` holds every table as that release wrote it, `{"table":…,"row":{…}}` a line; it is written
//! once, at the release, with `cargo test -p join-ledger --test it -- --ignored a_release_leaves_its_history_behind`.

use std::{fs, path::PathBuf, sync::Arc};

use join_domain::{
    envelope::{Entry, StreamId, StreamKind},
    event::*,
    id::{AttemptHash, BotId, ChallengeId, GrantId, InstanceId, LockId, TokenId},
    refusal::Code,
    resource::{BotSpec, ExemptionKind, LockTarget},
};
use join_ledger::{Ledger, MIGRATOR, Settings, StreamAppend};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, migrate::Migrator};

use crate::support::*;

/// The schema as it was at first, and that of every release that has one of its own, each with its last migration.
const RELEASES: [(&str, i64); 2] = [("0.1.0-alpha", 20_261_122_000_006), ("0.1.0", 20_261_129_000_015)];

/// What a history is stored of. Keys and secrets are in none.
const TABLES: [&str; 13] = [
    "entry",
    "log_entry",
    "sequencer",
    "log_head",
    "log_past",
    "stream",
    "snapshot",
    "claim",
    "lineage",
    "view_checkpoint",
    "token_view",
    "instance_view",
    "certificate_view",
];

fn file(release: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/history/{release}.jsonl"))
}

/// Each line's table and row.
fn stored(release: &str) -> Vec<(String, serde_json::Value)> {
    let text = fs::read_to_string(file(release)).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["table"].as_str().unwrap().to_owned(), line["row"].take())
    };
    text.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_release_can_be_upgraded_with_its_history() {
    for (release, last) in RELEASES {
        let database = Database::without_schema().await;
        let of_release = MIGRATOR.iter().filter(|migration| migration.version <= last).cloned().collect::<Vec<_>>();
        assert_eq!(of_release.last().map(|migration| migration.version), Some(last));
        let mut owner = PgConnection::connect_with(&database.roles.owner).await.unwrap();
        Migrator { migrations: of_release.into(), ..Migrator::DEFAULT }.run(&mut owner).await.unwrap();
        load(&mut owner, release).await;

        join_ledger::migrate(&database.roles.owner).await.unwrap();
        let ledger = database.ledger().await;
        let comparison = ledger.check(|_| {}).await.unwrap();
        assert!(comparison.is_equal(), "{release}: {comparison:#?}");
        ledger.rebuild(|_| {}).await.unwrap();
        let comparison = ledger.check(|_| {}).await.unwrap();
        assert!(comparison.is_equal(), "{release}: {comparison:#?}");

        // It is in use again.
        let bot = create_bot(&ledger, "after-the-upgrade", 9_001).await;
        create_token(&ledger, "after-the-upgrade", 9_002, ("after-the-upgrade", bot)).await;
        first_join(&ledger, "after-the-upgrade", key(99), 9_003).await;
        let before = ledger.settled().await.unwrap();
        ledger.sequence_once(100).await.unwrap();
        assert_eq!(ledger.settled().await.unwrap(), before + 3);
    }
}

async fn load(connection: &mut PgConnection, release: &str) {
    for table in ["sequencer", "log_head", "view_checkpoint"] {
        sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *connection).await.unwrap();
    }
    for (table, row) in stored(release) {
        let insert = format!("INSERT INTO {table} SELECT * FROM json_populate_record(NULL::{table}, $1::json)");
        sqlx::query(AssertSqlSafe(insert)).bind(row.to_string()).execute(&mut *connection).await.unwrap();
    }
}

#[test]
fn a_stored_history_has_every_kind_of_event_that_its_release_knew() {
    for (release, _) in RELEASES {
        let entries = stored(release).into_iter().filter(|(table, _)| table == "entry");
        let entries = entries.map(|(_, row)| Entry::from_envelope(row["envelope"].as_str().unwrap()).unwrap());
        let kinds: std::collections::BTreeSet<_> =
            entries.flat_map(|entry| entry.events).map(|event| event.kind().0).collect();
        let known: std::collections::BTreeSet<_> = Event::KINDS.iter().map(|kind| kind.name).collect();
        if RELEASES.last().is_some_and(|(newest, _)| *newest == release) {
            assert_eq!(kinds, known, "{release}");
        } else {
            assert!(kinds.is_subset(&known), "{release}");
        }
    }
}

/// Writes the history of this version, unless it is stored already: a released one is never written again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run once, at a release"]
async fn a_release_leaves_its_history_behind() {
    let file = file(env!("CARGO_PKG_VERSION"));
    assert!(!file.exists(), "{} is stored already", file.display());
    let database = Database::fresh().await;
    let clock = ManualClock::at("2026-11-22T09:00:00.123456Z");
    let ledger = database.ledger_with(Settings { cache_bytes: 0, ..clock.settings() }).await;
    everything_happens(&ledger, &clock).await;
    while ledger.sequence_once(100).await.unwrap().entries > 0 {}
    while ledger.project_once(7).await.unwrap() > 0 {}
    assert!(ledger.check(|_| {}).await.unwrap().is_equal());

    let mut connection = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let mut text = String::new();
    for table in TABLES {
        let rows = format!("SELECT row_to_json(t)::text FROM {table} t ORDER BY t::text");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut connection).await.unwrap();
        rows.iter().for_each(|row| text += &format!("{{\"table\":\"{table}\",\"row\":{row}}}\n"));
    }
    fs::write(file, text).unwrap();
}

/// One or another of every kind of event, in an order that the rules allow.
async fn everything_happens(ledger: &Ledger, clock: &ManualClock) {
    let (bot, other_bot) = (BotId(id(1)), BotId(id(2)));
    let (web, lab) = (TokenId(id(3)), TokenId(id(4)));
    let (lock, locked_by_rule) = (LockId(id(5)), LockId(id(6)));
    let (instance, next_instance) = (InstanceId(id(7)), InstanceId(id(8)));
    let [used, revoked] = [GrantId(id(9)), GrantId(id(10))];
    let challenge = |number: u128| ChallengeId(id(100 + number));
    let issued = |number: u128, key_number: u8, purpose| {
        Event::ChallengeIssued(ChallengeIssued {
            challenge: challenge(number),
            key: key(key_number).fingerprint(),
            purpose,
            at: ledger.now(),
        })
    };
    let solved = |number: u128| Event::ChallengeSolved(ChallengeSolved { challenge: challenge(number) });
    let joined = |case, instance: InstanceId, generation, recovery_count, key_number: u8, number| {
        let Event::JoinAccepted(usual) =
            accepted(ledger.now(), instance.0.as_u128(), generation, Some(attempt(number)))
        else {
            unreachable!("it accepts a join")
        };
        Event::JoinAccepted(Arc::new(JoinAccepted {
            case,
            recovery_count,
            recovery_limit: 3,
            previous_instance: (instance == next_instance).then_some(InstanceId(id(7))),
            key: key(key_number).fingerprint(),
            ..JoinAccepted::clone(&usual)
        }))
    };
    let grant = |grant, exemption| {
        let (uses, expires) = (1, ledger.now() + chrono::TimeDelta::days(1));
        Event::ExemptionGranted(ExemptionGranted {
            grant,
            exemption,
            uses,
            expires,
            reason: "ein Gerät zieht um".to_owned(),
        })
    };
    let mut spec = token_spec("web");
    spec.recovery.limit = 3;
    let lab_spec = token_spec("lab");
    let seen = Sighting { certificate: None, join_state: JoinStateSeen::Missing };

    let steps: Vec<(StreamId, Vec<Event>, Option<AttemptHash>)> = vec![
        (
            StreamId::CLUSTER,
            vec![Event::ClusterCreated(ClusterCreated {
                name: name("history.example"),
                keys: [("log".to_owned(), "log-1".to_owned())].into(),
            })],
            None,
        ),
        (
            StreamId { kind: StreamKind::Administrator, id: id(11) },
            vec![Event::AdministratorIssued(AdministratorIssued {
                name: "ada".to_owned(),
                role: "admin".to_owned(),
                serial: "0a".repeat(16),
                not_after: ledger.now() + chrono::TimeDelta::days(365),
            })],
            None,
        ),
        (bot.into(), vec![Event::BotCreated(BotCreated { name: name("web"), spec: BotSpec::default() })], None),
        (other_bot.into(), vec![Event::BotCreated(BotCreated { name: name("lab"), spec: BotSpec::default() })], None),
        (
            bot.into(),
            vec![Event::BotUpdated(BotUpdated {
                spec: BotSpec { roles: vec!["deploy".to_owned()], ..BotSpec::default() },
            })],
            None,
        ),
        (
            web.into(),
            vec![Event::TokenCreated(TokenCreated {
                name: name("web"),
                bot,
                spec: spec.clone(),
                secret: Some("5e".repeat(32)),
            })],
            None,
        ),
        (
            lab.into(),
            vec![Event::TokenCreated(TokenCreated {
                name: name("lab"),
                bot: other_bot,
                spec: lab_spec.clone(),
                secret: None,
            })],
            None,
        ),
        (
            lab.into(),
            vec![Event::TokenUpdated(TokenUpdated { bot, spec: spec.clone(), secret: None, rebind: true })],
            None,
        ),
        (
            web.into(),
            vec![
                issued(1, 1, ChallengePurpose::Registration),
                solved(1),
                Event::RegistrationSecretSpent(Nothing {}),
                Event::KeypairBound(KeypairBound { key: key(1) }),
                Event::RecoveryConsumed(RecoveryConsumed { count: 1 }),
                joined(JoinCase::FirstJoin, instance, 1, 1, 1, 1),
            ],
            Some(attempt(1)),
        ),
        (
            web.into(),
            vec![
                issued(2, 1, ChallengePurpose::Bound),
                solved(2),
                Event::JoinResumed(JoinResumed { attempt: attempt(1), serial: format!("{:016x}{:016x}", 7, 1) }),
            ],
            None,
        ),
        (
            web.into(),
            vec![
                issued(3, 1, ChallengePurpose::Bound),
                solved(3),
                Event::GenerationBumped(GenerationBumped { instance, generation: 2 }),
                joined(JoinCase::Renewal, instance, 2, 1, 1, 2),
            ],
            Some(attempt(2)),
        ),
        (
            web.into(),
            vec![
                issued(4, 1, ChallengePurpose::Bound),
                solved(4),
                issued(5, 2, ChallengePurpose::Rotation),
                solved(5),
                Event::KeypairRotated(KeypairRotated { old: key(1), new: key(2) }),
                Event::GenerationBumped(GenerationBumped { instance, generation: 3 }),
                joined(JoinCase::Renewal, instance, 3, 1, 2, 3),
            ],
            Some(attempt(3)),
        ),
        (web.into(), vec![grant(used, ExemptionKind::JoinState), grant(revoked, ExemptionKind::Generation)], None),
        (web.into(), vec![Event::ExemptionRevoked(ExemptionRef { grant: revoked })], None),
        (
            web.into(),
            vec![
                issued(6, 2, ChallengePurpose::Bound),
                solved(6),
                Event::ExemptionConsumed(ExemptionRef { grant: used }),
                Event::RecoveryConsumed(RecoveryConsumed { count: 2 }),
                joined(JoinCase::Recovery, next_instance, 1, 2, 2, 4),
            ],
            Some(attempt(4)),
        ),
        (
            web.into(),
            vec![
                issued(7, 2, ChallengePurpose::Bound),
                solved(7),
                Event::JoinRefused(Box::new(JoinRefused {
                    code: Code::GenerationMismatch,
                    why: "the certificate is of generation 2, the newest of 3".to_owned(),
                    challenge: Some(challenge(7)),
                    replayable_until: Some(ledger.now() + chrono::TimeDelta::minutes(5)),
                    seen: seen.clone(),
                    attempt: Some(attempt(5)),
                    lock: Some(locked_by_rule),
                    retired_key: None,
                    other_holder: Some(OtherHolder {
                        at: ledger.now(),
                        address: None,
                        serial: "08".repeat(16),
                        instance: next_instance,
                        generation: 1,
                    }),
                })),
            ],
            None,
        ),
        (
            locked_by_rule.into(),
            vec![Event::LockCreated(LockCreated {
                target: LockTarget::JoinToken(name("web")),
                message: "two holders".to_owned(),
                expires: None,
                cause: Some(Code::GenerationMismatch),
                by: "system".to_owned(),
            })],
            None,
        ),
        (
            lock.into(),
            vec![Event::LockCreated(LockCreated {
                target: LockTarget::User(name("lab")),
                message: "the lab is closed".to_owned(),
                expires: Some(ledger.now() + chrono::TimeDelta::days(30)),
                cause: None,
                by: "admin/ada".to_owned(),
            })],
            None,
        ),
        (lock.into(), vec![Event::LockUpdated(LockUpdated { message: "for good".to_owned(), expires: None })], None),
        (locked_by_rule.into(), vec![Event::LockDeleted(LockDeleted { reason: Some("reinstated".to_owned()) })], None),
        (
            web.into(),
            vec![Event::TokenReinstated(TokenReinstated {
                reason: "the host was checked".to_owned(),
                released: vec![locked_by_rule],
            })],
            None,
        ),
        (
            web.into(),
            vec![Event::TokenReopened(TokenReopened { reason: "reinstalled".to_owned(), secret: "5f".repeat(32) })],
            None,
        ),
        (lab.into(), vec![Event::TokenDeleted(Nothing {})], None),
        (other_bot.into(), vec![Event::BotDeleted(Nothing {})], None),
        (
            StreamId { kind: StreamKind::Administrator, id: id(11) },
            vec![Event::AdministratorRevoked(AdministratorRevoked { reason: "she left".to_owned() })],
            None,
        ),
        (
            StreamId::CLUSTER,
            vec![
                Event::AuthorityKeyMoved(AuthorityKeyMoved {
                    kid: "x509-ca-2".to_owned(),
                    purpose: "x509-ca".to_owned(),
                    phase: "standby".to_owned(),
                    reason: None,
                }),
                Event::MasterKeyChanged(Nothing {}),
            ],
            None,
        ),
        (
            StreamId::CLUSTER,
            vec![Event::LogResumed(LogResumed {
                reason: "its directory was of another cluster".to_owned(),
                stops: [("joind two".to_owned(), "a signed checkpoint of 900 entries".to_owned())].into(),
            })],
            None,
        ),
        (
            StreamId::CLUSTER,
            vec![Event::LogEnded(LogEnded {
                next: "example.com/log-2".to_owned(),
                origin: "example.com/log".to_owned(),
                reason: "restored from a backup".to_owned(),
                size: 20,
            })],
            None,
        ),
        (
            StreamId::CLUSTER,
            vec![Event::RefusalsSummarised(RefusalsSummarised {
                token: Some(name("web")),
                code: Code::Unauthenticated,
                count: 12,
                since: ledger.now(),
                until: ledger.now(),
            })],
            None,
        ),
    ];
    for (stream, events, uses_up) in steps {
        let change = change(ledger, events);
        let append = match ledger.load(stream).await.unwrap() {
            Some(stored) => StreamAppend::following(&stored, change),
            None => StreamAppend::begin(stream, change),
        };
        ledger.append(append.using_up(uses_up)).await.unwrap();
        clock.advance_minutes(7);
    }
}
