//! First joins (protocol, sections 2 and 3): a preregistered key, or a registration secret and then a key.

use chrono::TimeDelta;
use join_domain::{
    decision::{
        administer,
        join::{self, Life, Proven, Solved},
        opening::FirstStep,
    },
    event::{ChallengePurpose, ClientCertificate, Event, JoinCase, JoinStateSeen, Sighting},
    id::{BotId, ChallengeId, InstanceId, TokenId},
    refusal::{Code, Refusal},
    resource::{RecoveryMode, TokenSpec},
};
use rstest::rstest;
use uuid::Uuid;

use crate::scenario::{Client, SECRET, Scenario, beginning, insecure, key, relaxed, standard};

fn preregistered(spec: TokenSpec) -> TokenSpec {
    TokenSpec { initial_public_key: Some(key(1)), ..spec }
}

fn of_another_token() -> ClientCertificate {
    ClientCertificate {
        token: TokenId(Uuid::from_u128(0x71)),
        bot: "other".parse().unwrap(),
        instance: InstanceId(Uuid::from_u128(0x1f)),
        generation: 3,
        serial: "0f".to_owned(),
    }
}

#[test]
fn a_preregistered_key_is_challenged_and_bound() {
    let mut authority = Scenario::unbound(preregistered(standard(1)));
    let mut client = Client::new(1);
    assert_eq!(authority.open(&client), Ok(FirstStep::Challenge(key(1), ChallengePurpose::Preregistered)));

    let join = authority.join(&mut client).accepted();

    assert_eq!((join.case, join.generation, join.recovery_count), (JoinCase::FirstJoin, 1, 1));
    assert_eq!(join.previous_instance, None);
    assert_eq!(authority.token.binding.as_ref().unwrap().key, key(1));
    assert_eq!(authority.token.instance(), Some(join.instance));
    assert_eq!(authority.token.last_rotated_at, None);
    assert_eq!(
        authority.kinds(),
        ["challenge.issued", "challenge.solved", "keypair.bound", "recovery.consumed", "join.accepted"]
    );
}

#[test]
fn a_preregistered_key_is_not_replaced_by_a_registration_secret() {
    let authority = Scenario::unbound(preregistered(standard(1)));
    let stranger = Client::new(2);
    assert_eq!(authority.open(&stranger), Ok(FirstStep::Challenge(key(1), ChallengePurpose::Preregistered)));
}

#[test]
fn a_registration_secret_admits_one_key_and_is_spent() {
    let mut authority = Scenario::unbound(standard(1));
    let mut client = Client::new(1);
    assert_eq!(authority.open(&client), Ok(FirstStep::RequestKey));

    let join = authority.join(&mut client).accepted();

    assert_eq!((join.case, join.generation, join.recovery_count), (JoinCase::FirstJoin, 1, 1));
    assert_eq!(authority.token.binding.as_ref().unwrap().key, key(1));
    assert_eq!(authority.token.secret, None);
    assert_eq!(authority.token.last_rotated_at, None, "binding a key does not count as a rotation");
    assert_eq!(
        authority.kinds(),
        [
            "challenge.issued",
            "challenge.solved",
            "registration_secret.spent",
            "keypair.bound",
            "recovery.consumed",
            "join.accepted"
        ]
    );
}

#[rstest]
#[case::missing(None, TimeDelta::zero())]
#[case::wrong(Some("guessed"), TimeDelta::zero())]
#[case::expired(Some(SECRET), TimeDelta::hours(1))]
fn without_a_right_secret_no_key_is_requested(#[case] secret: Option<&str>, #[case] waiting: TimeDelta) {
    let end = beginning() + TimeDelta::hours(1);
    let mut authority = Scenario::unbound(TokenSpec { must_register_before: Some(end), ..standard(1) });
    let client = Client { secret: secret.map(str::to_owned), ..Client::new(1) };
    authority.pass(waiting);
    assert_eq!(authority.open(&client).unwrap_err().code, Code::RegistrationSecretRequired);
}

#[test]
fn secret_missing_wrong_and_expired_get_one_answer() {
    let end = beginning() + TimeDelta::hours(1);
    let mut authority = Scenario::unbound(TokenSpec { must_register_before: Some(end), ..standard(1) });
    let missing = authority.open(&Client { secret: None, ..Client::new(1) }).unwrap_err();
    let wrong = authority.open(&Client { secret: Some("guessed".to_owned()), ..Client::new(1) }).unwrap_err();
    authority.pass(TimeDelta::hours(1));
    let expired = authority.open(&Client::new(1)).unwrap_err();
    assert_eq!((&missing, &missing), (&wrong, &expired));
}

#[test]
fn a_preregistered_key_has_no_deadline() {
    let end = beginning() + TimeDelta::hours(1);
    let spec = TokenSpec { must_register_before: Some(end), ..preregistered(standard(1)) };
    let mut authority = Scenario::unbound(spec);
    authority.pass(TimeDelta::hours(2));
    let _ = authority.join(&mut Client::new(1)).accepted();
}

#[test]
fn a_secret_whose_time_ends_during_the_ceremony_binds_nothing() {
    let end = beginning() + TimeDelta::seconds(30);
    let mut authority = Scenario::unbound(TokenSpec { must_register_before: Some(end), ..standard(1) });
    let proven = authority.solve(&mut Client::new(1));
    authority.pass(TimeDelta::seconds(30));
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(authority.token.binding, None);
}

#[test]
fn a_secret_used_a_second_time_leads_to_a_challenge_that_cannot_be_solved() {
    let (authority, _) = Scenario::bound(standard(2));
    let other = Client::new(2);
    assert_eq!(authority.open(&other), Ok(FirstStep::Challenge(key(1), ChallengePurpose::Bound)));
    assert_eq!(authority.token.spent_secret.as_deref(), Some(SECRET), "so that it can be told from a wrong one");
}

#[test]
fn the_failure_of_a_client_with_a_spent_secret_does_not_pass_unseen() {
    let (mut authority, _) = Scenario::bound(standard(2));
    let seen = Sighting { certificate: None, join_state: JoinStateSeen::Missing };
    let failed = Refusal::new(Code::ChallengeFailed, "the challenge was not solved");
    authority.record(join::refuse_unfinished(&authority.token, None, None, seen, &failed));
    assert_eq!(authority.kinds(), ["join.refused"]);
    assert_eq!(authority.token.contested_at, Some(authority.now));
}

#[test]
fn an_unfinished_rotation_is_recorded_with_its_proof_and_cannot_be_decided_later() {
    let (mut authority, mut owner) = Scenario::bound(standard(2));
    authority.request_rotation();
    let proven = authority.solve(&mut owner);
    let Solved { challenge, .. } = proven.solved;
    let seen = proven.seen.clone();
    let failed = Refusal::new(Code::RotationFailed, "the client sent no new key");
    let refuse = |authority: &Scenario| {
        let (attempt, seen) = (proven.attempt.as_ref(), seen.clone());
        join::refuse_unfinished(&authority.token, Some(&proven.solved), attempt, seen, &failed)
    };
    let events = refuse(&authority);
    authority.history.clear();
    authority.record(events);
    assert_eq!(authority.kinds(), ["challenge.issued", "challenge.solved", "join.refused"]);
    assert_eq!(authority.token.refused_challenges.iter().map(|old| old.challenge).collect::<Vec<_>>(), [challenge]);
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(refuse(&authority), [], "a failure that is sent again is recorded once");
}

#[test]
fn two_clients_with_one_secret_get_one_binding() {
    let mut authority = Scenario::unbound(standard(2));
    let (mut first, mut second) = (Client::new(1), Client::new(2));
    let (one, two) = (authority.solve(&mut first), authority.solve(&mut second));
    let _ = authority.decide(&one).accepted();
    let _ = authority.decide(&two).refused(Code::Conflict);
    assert_eq!(authority.open(&second), Ok(FirstStep::Challenge(key(1), ChallengePurpose::Bound)));
    assert_eq!(authority.token.recovery_count, 1);
}

#[rstest]
#[case::preregistered(preregistered(standard(1)))]
#[case::secret(standard(1))]
#[case::insecure(preregistered(insecure()))]
fn existing_credentials_cannot_start_a_binding(#[case] spec: TokenSpec) {
    let mut authority = Scenario::unbound(spec);
    let mut client = Client::new(1);
    client.certificate = Some((of_another_token(), beginning() + TimeDelta::hours(1)));
    assert_eq!(authority.open(&client).unwrap_err().code, Code::BindingNotAllowed);
    let mut proven = authority.solve(&mut client.clone().without_certificate());
    proven.seen.certificate = Some(of_another_token());
    let _ = authority.decide(&proven).refused(Code::BindingNotAllowed);
    let _ = authority.join(&mut client.without_certificate()).accepted();
}

#[test]
fn an_expired_certificate_counts_as_none() {
    let mut authority = Scenario::unbound(standard(1));
    let mut client = Client::new(1);
    client.certificate = Some((of_another_token(), beginning()));
    let _ = authority.join(&mut client).accepted();
}

#[test]
fn a_limit_of_zero_admits_nobody_in_standard_mode() {
    let mut authority = Scenario::unbound(standard(0));
    let _ = authority.join(&mut Client::new(1)).refused(Code::RecoveryLimitExhausted);
    assert_eq!(authority.token.binding, None);
    assert!(authority.token.secret.is_some(), "the secret is not spent by a refusal");
}

#[rstest]
fn a_limit_of_zero_means_nothing_in_other_modes(#[values(relaxed(), insecure())] spec: TokenSpec) {
    let join = Scenario::unbound(spec).join(&mut Client::new(1)).accepted();
    assert_eq!(join.recovery_count, 1);
}

#[rstest]
#[case::token_expired(|given: &mut Scenario| given.token.spec.expires = Some(given.now), "the token expired at 20")]
#[case::token_deleted(|given: &mut Scenario| given.record(vec![administer::delete_token()]), "the token was deleted")]
#[case::bot_expired(|given: &mut Scenario| given.bot.spec.expires = Some(given.now), "the token's bot `")]
#[case::bot_deleted(|given: &mut Scenario| given.bot.live = false, "there is no bot `")]
#[case::bot_is_another(|given: &mut Scenario| given.bot.name = "other".parse().unwrap(), "there is no bot `")]
fn who_is_gone_admits_nobody_and_only_the_history_says_which(
    #[case] gone: fn(&mut Scenario),
    #[case] why: &str,
    #[values(false, true)] bound: bool,
) {
    let (mut authority, mut client) =
        if bound { Scenario::bound(standard(2)) } else { (Scenario::unbound(standard(2)), Client::new(1)) };
    let proven = authority.solve(&mut client);
    gone(&mut authority);
    assert_eq!(authority.open(&client).unwrap_err(), Refusal::access_denied());
    let refusal = authority.decide(&proven).refused(Code::AccessDenied);
    assert_eq!(refusal, Refusal::access_denied());
    assert_eq!(authority.kinds().last(), Some(&"join.refused"), "possession was proven, so it is recorded");
    let Some(Event::JoinRefused(refused)) = authority.history.last() else { panic!() };
    assert!(refused.why.starts_with(why), "{}", refused.why);
}

#[test]
fn a_new_secret_revokes_the_old_one_in_the_middle_of_a_ceremony() {
    let mut authority = Scenario::unbound(standard(1));
    let mut thief = Client::new(2);
    let proven = authority.solve(&mut thief);
    authority.upsert(|written| written.written_secret = Some("hash of a better secret".to_owned())).unwrap();
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(authority.token.binding, None);
    assert_eq!(authority.open(&thief).unwrap_err().code, Code::RegistrationSecretRequired);
}

#[test]
fn a_new_preregistered_key_revokes_the_old_one_in_the_middle_of_a_ceremony() {
    let mut authority = Scenario::unbound(preregistered(standard(1)));
    let proven = authority.solve(&mut Client::new(1));
    authority.upsert(|written| written.spec.initial_public_key = Some(key(2))).unwrap();
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(authority.token.binding, None);
    let _ = authority.join(&mut Client::new(2)).accepted();
}

#[test]
fn another_edit_does_not_disturb_a_ceremony() {
    let mut authority = Scenario::unbound(standard(1));
    let proven = authority.solve(&mut Client::new(1));
    authority.set_limit(3);
    let _ = authority.decide(&proven).accepted();
}

#[rstest]
#[case::unsaid(None, TimeDelta::hours(1))]
#[case::shorter(Some(TimeDelta::minutes(5)), TimeDelta::minutes(5))]
#[case::too_short(Some(TimeDelta::seconds(1)), TimeDelta::seconds(10))]
#[case::negative(Some(TimeDelta::seconds(-60)), TimeDelta::seconds(10))]
#[case::longer(Some(TimeDelta::hours(12)), TimeDelta::hours(12))]
#[case::too_long(Some(TimeDelta::days(300)), TimeDelta::hours(24))]
fn certificates_live_as_long_as_asked_within_bounds(#[case] asked: Option<TimeDelta>, #[case] life: TimeDelta) {
    let mut authority = Scenario::unbound(standard(1));
    authority.pass(TimeDelta::milliseconds(1_700));
    let join = authority.join(&mut Client { life: asked, ..Client::new(1) }).accepted();
    let second = beginning() + TimeDelta::seconds(1);
    assert_eq!((join.not_before, join.not_after), (second - TimeDelta::minutes(2), second + life));
}

#[rstest]
#[case::in_time(TimeDelta::minutes(5), TimeDelta::minutes(4))]
#[case::hardly(TimeDelta::seconds(65), TimeDelta::seconds(10))]
#[case::past(TimeDelta::seconds(30), TimeDelta::seconds(10))]
fn certificates_end_when_the_client_said_however_long_it_took(#[case] end: TimeDelta, #[case] life: TimeDelta) {
    let mut authority = Scenario::unbound(standard(1));
    let end = Some(Life::Until(authority.now + end));
    let proven = Proven { life: end, ..authority.solve(&mut Client::new(1)) };
    authority.pass(TimeDelta::minutes(1));
    assert_eq!(authority.decide(&proven).accepted().not_after, authority.now + life);
}

#[test]
fn roles_and_principals_are_those_of_the_moment() {
    let (mut authority, mut owner) = Scenario::bound(standard(1));
    authority.bot.spec.roles = vec!["auditor".to_owned()];
    authority.bot.spec.traits.insert("logins".to_owned(), vec!["audit".to_owned()]);
    let join = authority.join(&mut owner).accepted();
    assert_eq!((&*join.roles, &*join.principals), (&["auditor".to_owned()][..], &["audit".to_owned()][..]));
}

#[test]
fn a_key_that_the_token_had_cannot_be_registered_again() {
    let (mut authority, _) = Scenario::bound(standard(1));
    authority.reopen("hash of the second secret");
    let mut client = Client { secret: Some("hash of the second secret".to_owned()), ..Client::new(1) };
    let _ = authority.join(&mut client).refused(Code::KeyReused);
    assert!(authority.token.secret.is_some(), "the secret is not spent by a refusal");
    let mut client = Client { secret: Some("hash of the second secret".to_owned()), ..Client::new(2) };
    let _ = authority.join(&mut client).accepted();
}

#[test]
fn a_bot_made_again_under_its_name_is_another_bot() {
    let mut authority = Scenario::unbound(standard(1));
    let written_for_another = authority.upsert(|written| written.bot = BotId(Uuid::from_u128(0xb1)));
    assert!(written_for_another.is_ok());
    assert!(matches!(authority.history.last(), Some(Event::TokenUpdated(updated)) if updated.rebind));
}

#[test]
fn a_mode_without_a_limit_still_counts() {
    let (mut authority, mut client) = Scenario::bound(relaxed());
    authority.pass_until_expired();
    assert_eq!(authority.join(&mut client).accepted().recovery_count, 2);
    authority.set_mode(RecoveryMode::Standard);
    authority.set_limit(2);
    authority.pass_until_expired();
    let _ = authority.join(&mut client).refused(Code::RecoveryLimitExhausted);
}

#[test]
fn a_preregistered_first_join_may_have_to_rotate() {
    let spec = TokenSpec { rotate_after: Some(beginning()), ..preregistered(standard(1)) };
    let mut authority = Scenario::unbound(spec);
    let mut client = Client::new(1).offering(2);
    let join = authority.join(&mut client).accepted();
    assert_eq!(join.key, key(2).fingerprint());
    assert_eq!(authority.token.last_rotated_at, Some(authority.now));
    assert_eq!(authority.token.recovery_count, 1);
    assert_eq!(client.keys, [2]);
}

#[test]
fn a_first_join_by_secret_waits_with_a_due_rotation() {
    let spec = TokenSpec { rotate_after: Some(beginning()), ..standard(1) };
    let mut authority = Scenario::unbound(spec);
    let mut client = Client::new(1);
    let _ = authority.join(&mut client).accepted();
    assert_eq!(authority.token.last_rotated_at, None);
    let join = authority.join(&mut client.offering(2)).accepted();
    assert_eq!((join.case, &join.key), (JoinCase::Renewal, &key(2).fingerprint()));
}

#[test]
fn a_new_key_that_is_no_longer_asked_for_is_not_bound() {
    let spec = TokenSpec { rotate_after: Some(beginning()), ..preregistered(standard(1)) };
    let mut authority = Scenario::unbound(spec);
    let proven = authority.solve(&mut Client::new(1));
    let proven = authority.rotate_in(proven, 2);
    authority.upsert(|written| written.spec.rotate_after = None).unwrap();
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(authority.token.binding, None);
}

#[test]
fn the_proof_of_another_purpose_binds_nothing() {
    let mut authority = Scenario::unbound(standard(1));
    let mut proven = authority.solve(&mut Client::new(1));
    proven.solved =
        Solved { purpose: ChallengePurpose::Bound, challenge: ChallengeId(Uuid::from_u128(0xcc)), ..proven.solved };
    let _ = authority.decide(&proven).refused(Code::Conflict);
    assert_eq!(authority.token.binding, None);
}
