//! What administrators write (protocol, section 2): upserts keep the status, unless they begin a new binding.

use std::sync::Arc;

use chrono::TimeDelta;
use join_domain::{
    decision::administer::{self, SecretSource, TokenWritten},
    event::{Event, JoinCase},
    id::BotId,
    refusal::Code,
    resource::{RecoveryMode, TokenSpec},
    state::{Claim, Namespace, State},
};
use rstest::rstest;
use uuid::Uuid;

use crate::scenario::{Client, SECRET, Scenario, beginning, key, standard};

fn written(spec: TokenSpec) -> TokenWritten {
    TokenWritten {
        name: "example".parse().unwrap(),
        bot: BotId(Uuid::from_u128(0xb0)),
        spec,
        written_secret: None,
        generated_secret: "generated".to_owned(),
    }
}

fn preregistered(number: u8) -> TokenSpec {
    TokenSpec { initial_public_key: Some(key(number)), ..standard(1) }
}

fn claims(scenario: &Scenario) -> Vec<Claim> {
    State::Token(Arc::new(scenario.token.clone())).claims()
}

fn key_claim(number: u8) -> Claim {
    Claim { namespace: Namespace::Key, value: key(number).fingerprint() }
}

#[rstest]
#[case::nothing_said(standard(1), None, SecretSource::Generated, Some("generated"))]
#[case::secret_written(standard(1), Some("written"), SecretSource::Written, Some("written"))]
#[case::key_preregistered(preregistered(1), None, SecretSource::None, None)]
fn a_new_token_has_one_way_in(
    #[case] spec: TokenSpec,
    #[case] secret: Option<&str>,
    #[case] source: SecretSource,
    #[case] stored: Option<&str>,
) {
    let asked = TokenWritten { written_secret: secret.map(str::to_owned), ..written(spec) };
    let (event, found) = administer::create_token(asked).unwrap();
    let Event::TokenCreated(created) = event else { panic!("{event:?}") };
    assert_eq!((found, created.secret.as_deref()), (source, stored));
}

#[test]
fn a_token_with_both_a_secret_and_a_key_is_refused() {
    let asked = TokenWritten { written_secret: Some("written".to_owned()), ..written(preregistered(1)) };
    let refusal = administer::create_token(asked).unwrap_err();
    assert_eq!(refusal.code, Code::InvalidRequest);
    assert!(refusal.message.contains("spec.bound_keypair.onboarding"), "it names the field: {refusal}");
}

#[rstest]
#[case::none(vec![])]
#[case::another(vec!["Node".to_owned()])]
#[case::more(vec!["Bot".to_owned(), "Node".to_owned()])]
fn a_token_for_another_role_is_refused(#[case] roles: Vec<String>) {
    let refusal = administer::create_token(written(TokenSpec { roles, ..standard(1) })).unwrap_err();
    assert_eq!(refusal.code, Code::InvalidRequest);
}

#[test]
fn before_the_first_join_an_upsert_keeps_the_secret_that_it_leaves_out() {
    let mut authority = Scenario::unbound(standard(1));
    assert_eq!(authority.upsert(|written| written.spec.recovery.limit = 5), Ok(SecretSource::Kept));
    assert_eq!(authority.token.secret.as_deref(), Some(SECRET));
    assert_eq!(authority.join(&mut Client::new(1)).accepted().recovery_limit, 5);
}

#[test]
fn before_the_first_join_another_credential_revokes_the_old_one() {
    let mut authority = Scenario::unbound(standard(1));
    authority.upsert(|written| written.written_secret = Some("better".to_owned())).unwrap();
    let _ = authority.join(&mut Client::new(1)).refused(Code::RegistrationSecretRequired);
    authority.upsert(|written| written.spec.initial_public_key = Some(key(2))).unwrap();
    assert_eq!(authority.token.secret, None, "the secret is gone");
    let source = authority.upsert(|written| written.spec.initial_public_key = None).unwrap();
    assert_eq!(source, SecretSource::Generated, "and does not come back");
}

#[test]
fn before_the_first_join_a_missed_deadline_can_be_moved() {
    let spec = TokenSpec { must_register_before: Some(beginning()), ..standard(1) };
    let mut authority = Scenario::unbound(spec);
    let _ = authority.join(&mut Client::new(1)).refused(Code::RegistrationSecretRequired);
    let later = authority.now + TimeDelta::hours(1);
    authority.upsert(|written| written.spec.must_register_before = Some(later)).unwrap();
    let _ = authority.join(&mut Client::new(1)).accepted();
}

#[test]
fn after_the_first_join_onboarding_is_no_longer_looked_at() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let source = authority.upsert(|written| {
        written.written_secret = Some("new".to_owned());
        written.spec.initial_public_key = Some(key(7));
        written.spec.must_register_before = Some(beginning());
    });
    assert_eq!(source, Ok(SecretSource::None));
    assert_eq!((&authority.token.secret, &authority.token.spec.initial_public_key), (&None, &None));
    assert!(!claims(&authority).contains(&key_claim(7)));
    assert_eq!(authority.join(&mut owner).accepted().case, JoinCase::Renewal);
}

#[test]
fn after_the_first_join_recovery_and_rotation_may_change_at_any_time() {
    let (mut authority, owner) = Scenario::bound(standard(1));
    let status = authority.token.binding.clone();
    let now = authority.now;
    authority
        .upsert(|written| {
            written.spec.recovery.limit = 7;
            written.spec.recovery.mode = RecoveryMode::Relaxed;
            written.spec.rotate_after = Some(now);
            written.spec.labels = [("team".to_owned(), "infra".to_owned())].into();
            written.spec.expires = Some(now + TimeDelta::days(1));
        })
        .unwrap();
    assert_eq!(authority.token.binding, status, "the status stays");
    let join = authority.join(&mut owner.offering(2)).accepted();
    assert_eq!((join.recovery_limit, join.recovery_mode), (7, RecoveryMode::Relaxed));
    assert_eq!(join.key, key(2).fingerprint());
}

#[test]
fn another_bot_is_a_new_binding() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let source = authority.upsert(|written| {
        written.bot = BotId(Uuid::from_u128(0xb1));
        written.spec.bot_name = "second".parse().unwrap();
    });
    assert_eq!(source, Ok(SecretSource::Generated));
    authority.bot.id = BotId(Uuid::from_u128(0xb1));
    authority.bot.name = "second".parse().unwrap();
    assert_eq!((&authority.token.binding, authority.token.recovery_count), (&None, 0));
    let _ = authority.join(&mut owner).refused(Code::BindingNotAllowed);
    let mut host = Client { secret: Some("hash of a generated secret".to_owned()), ..Client::new(2) };
    assert_eq!(authority.join(&mut host).accepted().case, JoinCase::FirstJoin);
}

#[test]
fn another_bot_before_the_first_join_gets_another_secret() {
    let mut authority = Scenario::unbound(standard(1));
    let source = authority.upsert(|written| written.bot = BotId(Uuid::from_u128(0xb1)));
    assert_eq!(source, Ok(SecretSource::Generated));
    assert_ne!(authority.token.secret.as_deref(), Some(SECRET));
}

#[test]
fn a_key_that_the_token_had_cannot_be_preregistered_again() {
    let (mut authority, owner) = Scenario::bound(standard(1));
    let rebound = |written: &mut TokenWritten, number| {
        written.bot = BotId(Uuid::from_u128(0xb1));
        written.spec.initial_public_key = Some(key(number));
    };
    assert_eq!(authority.upsert(|written| rebound(written, 1)).unwrap_err().code, Code::KeyReused);
    authority.request_rotation();
    let _ = authority.join(&mut owner.offering(2)).accepted();
    for old in [1, 2] {
        assert_eq!(authority.upsert(|written| rebound(written, old)).unwrap_err().code, Code::KeyReused);
    }
    assert_eq!(authority.upsert(|written| rebound(written, 3)), Ok(SecretSource::None));
}

#[test]
fn a_token_claims_its_name_and_every_key_it_has_or_had() {
    let mut authority = Scenario::unbound(preregistered(1));
    let name = Claim { namespace: Namespace::TokenName, value: "example".to_owned() };
    assert_eq!(claims(&authority), [name.clone(), key_claim(1)]);
    authority.upsert(|written| written.spec.initial_public_key = Some(key(2))).unwrap();
    assert_eq!(claims(&authority), [name.clone(), key_claim(2)], "a key that was never bound is free again");
    authority.request_rotation();
    let mut owner = Client::new(2).offering(3);
    let _ = authority.join(&mut owner).accepted();
    authority.reopen("second");
    let mut host = Client { secret: Some("second".to_owned()), ..Client::new(4) };
    let _ = authority.join(&mut host).accepted();
    let claimed = claims(&authority);
    for number in [2, 3, 4] {
        assert!(claimed.contains(&key_claim(number)), "key {number}");
    }
    authority.record(vec![administer::delete_token()]);
    assert_eq!(claims(&authority), []);
}

#[test]
fn an_edit_moves_the_revision_and_a_join_does_not() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let before = authority.token.revision;
    let _ = authority.join(&mut owner).accepted();
    assert_eq!(authority.token.revision, before);
    authority.set_limit(2);
    assert!(authority.token.revision > before);
}

#[test]
fn nothing_but_a_refusal_is_recorded_of_a_deleted_token() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    let proven = authority.solve(&mut owner);
    authority.record(vec![administer::delete_token()]);
    let _ = authority.decide(&proven).refused(Code::AccessDenied);
    assert!(!authority.token.live);
    let entry = crate::scenario::entry(authority.token.id.into(), 9, vec![administer::delete_token()], authority.now);
    assert!(State::after(Some(State::Token(Arc::new(authority.token))), &entry).is_err());
}
