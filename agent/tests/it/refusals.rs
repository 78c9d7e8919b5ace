//! What the agent does not sign, does not store, and does not hide.

use std::{collections::HashMap, time::Duration};

use join_agent::{
    advice::{Then, advice},
    config::StorageConfig,
    error::{JoinError, Next},
};
use join_domain::{proof::Challenge, refusal::Code};
use join_proto::teleport::{BotResult, giving_up::Reason};
use tonic_types::ErrorDetails;

use crate::{authority::Trouble, host::Host};

type Change<T> = fn(&mut T);

#[tokio::test]
async fn a_challenge_of_somebody_else_is_not_signed() {
    let changes: [(&str, Change<Challenge>); 6] = [
        ("aud", |challenge| challenge.aud = "other.example".into()),
        ("iss", |challenge| challenge.iss = "other.example".into()),
        ("sub", |challenge| challenge.sub = "x".into()),
        ("attempt_id", |challenge| challenge.attempt_id = None),
        ("subject_keys", |challenge| challenge.subject_keys = "x".into()),
        ("iat", |challenge| challenge.iat = i64::MAX - 1),
    ];
    for (claim, change) in changes {
        let host = Host::new().await;
        host.authority.trouble([Trouble::Challenge(change)]);
        let error = host.agent().join_once().await.unwrap_err();
        assert!(matches!(&error, JoinError::Challenge(unfit) if unfit.0 == claim), "{claim}: {error}");
        assert_eq!(error.next(), Next::Stop);
        assert_eq!(host.authority.book().gave_up.len(), 1);
        host.agent().join_once().await.unwrap();
    }
}

#[tokio::test]
async fn a_result_for_another_attempt_is_not_stored() {
    let changes: [(&str, Change<BotResult>); 6] = [
        ("tls_cert", |result| {
            let certificates = result.certificates.as_mut().unwrap();
            certificates.tls_cert = certificates.tls_ca_certs[0].clone();
        }),
        ("ssh_cert", |result| result.certificates.as_mut().unwrap().ssh_cert.truncate(40)),
        ("tls_ca_certs", |result| result.certificates.as_mut().unwrap().tls_ca_certs.clear()),
        ("ssh_ca_keys", |result| result.certificates.as_mut().unwrap().ssh_ca_keys.push(vec![1, 2, 3])),
        ("public_key", |result| {
            let other = join_agent::key::PrivateKey::generate_ed25519();
            let bound = result.bound_keypair_result.as_mut().unwrap();
            bound.public_key = other.public().to_authorized_key().into_bytes();
        }),
        ("join_state", |result| result.bound_keypair_result.as_mut().unwrap().join_state.clear()),
    ];
    for (field, change) in changes {
        let host = Host::new().await;
        host.authority.trouble([Trouble::Result(change)]);
        let error = host.agent().join_once().await.unwrap_err();
        assert!(matches!(&error, JoinError::Result(_)) && error.to_string().contains(field), "{field}: {error}");
        let state = host.agent().state().unwrap();
        assert!(state.accepted.is_none() && state.pending.is_some());
        host.agent().join_once().await.unwrap();
        assert_eq!(host.authority.book().accepted, 1);
    }
}

#[tokio::test]
async fn each_refusal_says_what_comes_next() {
    let host = Host::new().await;
    for (code, details, next) in [
        (Code::Conflict, ErrorDetails::new(), Next::Retry),
        (Code::Unavailable, ErrorDetails::new(), Next::Retry),
        (Code::Internal, ErrorDetails::new(), Next::Retry),
        (
            Code::RateLimited,
            ErrorDetails::with_retry_info(Some(Duration::from_secs(7))),
            Next::RetryAfter(Duration::from_secs(7)),
        ),
        (Code::AuthorityBehind, ErrorDetails::new(), Next::RetrySlowly),
        (Code::RecoveryLimitExhausted, ErrorDetails::new(), Next::Stop),
        (Code::Locked, ErrorDetails::new(), Next::Stop),
    ] {
        host.authority.trouble([Trouble::refuse_with(code, details)]);
        let error = host.agent().join_once().await.unwrap_err();
        assert_eq!((error.code(), error.next()), (Some(code), next));
    }
}

#[tokio::test]
async fn each_refusal_that_needs_an_administrator_names_a_command() {
    let host = Host::new().await;
    for (code, command) in [
        (Code::RecoveryLimitExhausted, "joinctl edit token/example"),
        (Code::Locked, "joinctl reinstate example"),
        (Code::JoinStateInvalid, "joinctl reinstate example"),
        (Code::GenerationMismatch, "joinctl reinstate example"),
        (Code::RetiredKey, "joinctl reinstate example"),
        (Code::JoinStateRequired, "joinctl exempt example --kind join_state"),
        (Code::AuthorityBehind, "joinctl exempt example --kind join_state"),
        (Code::RegistrationSecretRequired, "joinctl reopen example"),
        (Code::RegistrationSecretRequired, "initial_public_key"),
        (Code::ChallengeFailed, "joinctl reopen example"),
        (Code::AccessDenied, "joinctl get token/example"),
    ] {
        let lock = HashMap::from([("lock_id".to_owned(), "8d5c".to_owned())]);
        host.authority.trouble([Trouble::refuse_with(code, ErrorDetails::with_error_info("", "", lock))]);
        let error = host.agent().join_once().await.unwrap_err();
        for then in [Then::Start, Then::Wait] {
            let advice = advice(&error, "example", then).unwrap();
            assert!(advice.contains(command), "{code}: {advice}");
            if code == Code::Locked {
                assert!(advice.contains("joinctl get lock/8d5c"), "{advice}");
            }
            assert!(then == Then::Start || !advice.contains("start this agent again"), "{code}: {advice}");
        }
    }
}

#[tokio::test]
async fn a_token_bound_to_another_key_is_given_up() {
    let mut host = Host::new().await;
    host.agent().join_once().await.unwrap();
    host.config.storage = StorageConfig::Directory("/var/lib/joinbot".into());
    let mut stranger = host.agent_on(std::sync::Arc::new(join_agent::storage::Memory::default()));
    let error = stranger.join_once().await.unwrap_err();
    assert!(matches!(error, JoinError::KeyNotHeld(_)), "{error}");
    let advice = advice(&error, "example", Then::Start).unwrap();
    assert!(advice.contains("\"…\"`; then start this agent with the new registration secret"), "{advice}");
    let book = host.authority.book();
    assert_eq!(book.gave_up[0].reason(), Reason::ChallengeSolutionFailed);
    assert_eq!((book.accepted, book.locked), (1, None));
}

#[tokio::test]
async fn where_no_key_is_kept_a_static_one_is_advised() {
    let host = Host::new().await;
    host.agent().join_once().await.unwrap();
    let mut stranger = host.agent_on(std::sync::Arc::new(join_agent::storage::Memory::default()));
    let error = stranger.join_once().await.unwrap_err();
    assert!(error.to_string().starts_with("no static key: the token is bound to the key "), "{error}");
    let advice = advice(&error, "example", Then::Start).unwrap();
    assert!(advice.starts_with("set JOINBOT_STATIC_KEY, or static_private_key_path"), "{advice}");
    assert!(!advice.contains("reopen"), "{advice}");
    assert_eq!(
        (error.next(), host.authority.book().gave_up[0].reason()),
        (Next::Stop, Reason::ChallengeSolutionFailed)
    );
}
