//! Laws: what holds in every history, whatever clients, thieves and administrators do, in whatever order.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    decision::{administer, join::Proven},
    envelope::Entry,
    event::{Event, JoinAccepted, JoinStateSeen},
    id::{InstanceId, TokenId},
    proof::JoinStateError,
    refusal::Code,
    resource::{
        ExemptionKind, LockTarget,
        RecoveryMode::{self, Insecure, Relaxed, Standard},
    },
    state::{Claim, Namespace, State, TokenState},
};
use proptest::{prelude::*, strategy::ValueTree as _};
use uuid::Uuid;

use crate::scenario::{Client, Outcome, Scenario, key, spec};

/// Something that somebody does. Clients are chosen by number.
#[derive(Debug, Clone)]
enum Act {
    /// A whole join, whose answer arrives or is lost.
    Join { client: usize, answered: bool },
    /// A client solves a challenge, which arrives later.
    Solve { client: usize },
    /// A solution arrives, maybe again.
    Arrive { solution: usize, rotated: Option<u8> },
    /// Somebody copies a disk.
    Copy { from: usize, to: usize },
    /// A client gives up its attempt.
    GiveUp { client: usize },
    /// A client changes what it shows.
    Show { client: usize, shown: Shown },
    /// Time goes by.
    Pass { minutes: i64 },
    /// An administrator acts.
    Administer(Admin),
}

#[derive(Debug, Clone)]
enum Shown {
    NoJoinState,
    ForgedJoinState,
    OldJoinState(u32),
    NoCertificate,
    OldCertificate,
    OtherTokensCertificate,
    OtherSubjectKeys,
    NoAttempt,
    NoKeyNames,
    NewKey(u8),
    Secret(u8),
}

#[derive(Debug, Clone)]
enum Admin {
    Limit(u32),
    Mode(RecoveryMode),
    Rotate,
    Grant(ExemptionKind),
    RevokeAll,
    Reinstate,
    Reopen(u8),
    Lock,
    Unlock,
    Secret(u8),
    Preregister(u8),
    Expire(i64),
    Delete,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let client = 0..3_usize;
    let shown = prop_oneof![
        Just(Shown::NoJoinState),
        Just(Shown::ForgedJoinState),
        (0..4_u32).prop_map(Shown::OldJoinState),
        Just(Shown::NoCertificate),
        Just(Shown::OldCertificate),
        Just(Shown::OtherTokensCertificate),
        Just(Shown::OtherSubjectKeys),
        Just(Shown::NoAttempt),
        Just(Shown::NoKeyNames),
        (1..9_u8).prop_map(Shown::NewKey),
        (0..3_u8).prop_map(Shown::Secret),
    ];
    let kind =
        prop_oneof![Just(ExemptionKind::Recoveries), Just(ExemptionKind::JoinState), Just(ExemptionKind::Generation)];
    let administer = prop_oneof![
        3 => (0..5_u32).prop_map(Admin::Limit),
        1 => prop_oneof![Just(Standard), Just(Relaxed), Just(Insecure)].prop_map(Admin::Mode),
        3 => Just(Admin::Rotate),
        3 => kind.prop_map(Admin::Grant),
        1 => Just(Admin::RevokeAll),
        3 => Just(Admin::Reinstate),
        1 => (0..3_u8).prop_map(Admin::Reopen),
        1 => Just(Admin::Lock),
        3 => Just(Admin::Unlock),
        1 => (0..3_u8).prop_map(Admin::Secret),
        1 => (1..9_u8).prop_map(Admin::Preregister),
        1 => (0..3_i64).prop_map(Admin::Expire),
        1 => Just(Admin::Delete),
    ];
    let act = prop_oneof![
        8 => (client.clone(), any::<bool>()).prop_map(|(client, answered)| Act::Join { client, answered }),
        4 => client.clone().prop_map(|client| Act::Solve { client }),
        4 => (0..8_usize, prop::option::of(1..9_u8))
            .prop_map(|(solution, rotated)| Act::Arrive { solution, rotated }),
        2 => (client.clone(), client.clone()).prop_map(|(from, to)| Act::Copy { from, to }),
        1 => client.clone().prop_map(|client| Act::GiveUp { client }),
        3 => (client, shown).prop_map(|(client, shown)| Act::Show { client, shown }),
        2 => prop_oneof![Just(1), Just(2), Just(61), Just(60 * 25)].prop_map(|minutes| Act::Pass { minutes }),
        4 => administer.prop_map(Act::Administer),
    ];
    prop::collection::vec(act, 1..60)
}

/// Everything that a history showed.
struct Told {
    authority: Scenario,
    /// Challenges and what was accepted of them.
    accepted: Vec<(Proven, Timestamp, Arc<JoinAccepted>)>,
    /// Token states before and after each refusal.
    refusals: Vec<(TokenState, TokenState)>,
    /// Resumed answers beside the join that they repeat.
    resumed: Vec<(Arc<JoinAccepted>, Arc<JoinAccepted>)>,
    /// The most locks by rules that were open at once.
    most_locks: usize,
    /// Keys that were bound at any time.
    bound: BTreeSet<String>,
    /// Claims after each act.
    claims: Vec<Vec<Claim>>,
}

fn secret(number: u8) -> String {
    format!("hash of secret {number}")
}

/// Lets the acts happen to one token with clients of these keys.
fn tell(mode: RecoveryMode, acts: &[Act]) -> Told {
    let mut authority = Scenario::unbound(spec(mode, 2));
    let mut clients: Vec<Client> = (1..=3).map(Client::new).collect();
    let mut solutions: Vec<Proven> = Vec::new();
    let mut told = Told {
        authority: authority.clone(),
        accepted: Vec::new(),
        refusals: Vec::new(),
        resumed: Vec::new(),
        most_locks: 0,
        bound: BTreeSet::new(),
        claims: Vec::new(),
    };
    for act in acts {
        match act {
            Act::Join { client, answered } => {
                let client = &mut clients[*client];
                // A new key, should one be asked for.
                let rotated = 100 + u8::try_from(told.accepted.len()).unwrap();
                let Ok(proven) = authority.try_solve(client) else { continue };
                let mut proven = proven;
                let mut outcome = told.decide(&mut authority, &proven);
                if matches!(outcome, Outcome::RotateFirst) {
                    client.keys.push(rotated);
                    proven = authority.rotate_in(proven, rotated);
                    outcome = told.decide(&mut authority, &proven);
                }
                match outcome {
                    Outcome::Accepted(join) if *answered => authority.store(client, &join),
                    Outcome::Resumed(latest) if *answered => authority.store(client, &latest),
                    _ => {}
                }
            }
            Act::Solve { client } => solutions.extend(authority.try_solve(&mut clients[*client])),
            Act::Arrive { solution, rotated } => {
                let Some(proven) = solutions.get(*solution).cloned() else { continue };
                if authority.now > proven.solved.replayable_until {
                    continue;
                }
                let proven = match rotated {
                    Some(key) => authority.rotate_in(proven, *key),
                    None => proven,
                };
                let _ = told.decide(&mut authority, &proven);
            }
            Act::Copy { from, to } => clients[*to] = clients[*from].clone(),
            Act::GiveUp { client } => clients[*client].pending = None,
            Act::Show { client, shown } => show(&authority, &mut clients[*client], shown),
            Act::Pass { minutes } => authority.pass(TimeDelta::minutes(*minutes)),
            Act::Administer(admin) => administer(&mut authority, admin),
        }
        told.most_locks = told.most_locks.max(authority.open_locks());
        told.bound.extend(authority.token.binding.iter().map(|binding| binding.key.fingerprint()));
        told.claims.push(State::Token(Arc::new(authority.token.clone())).claims());
    }
    told.authority = authority;
    told
}

impl Told {
    fn decide(&mut self, authority: &mut Scenario, proven: &Proven) -> Outcome {
        let before = authority.clone();
        let outcome = authority.decide(proven);
        match &outcome {
            Outcome::Accepted(join) => self.accepted.push((proven.clone(), authority.now, Arc::clone(join))),
            Outcome::Resumed(latest) => {
                let join = before.token.latest().expect("what is resumed is there").join.clone();
                self.resumed.push((join, Arc::clone(latest)));
            }
            Outcome::Refused(..) => self.refusals.push((before.token, authority.token.clone())),
            Outcome::RotateFirst => assert_eq!(before.token, authority.token, "asking for a key changes nothing"),
        }
        outcome
    }
}

fn show(authority: &Scenario, client: &mut Client, shown: &Shown) {
    let instance = client.certificate.as_ref().map_or(InstanceId(Uuid::nil()), |(shown, _)| shown.instance);
    match shown {
        Shown::NoJoinState => client.join_state = JoinStateSeen::Missing,
        Shown::ForgedJoinState => client.join_state = JoinStateSeen::NotAuthentic(JoinStateError::BadSignature),
        Shown::OldJoinState(sequence) => client.join_state = authority.join_state(instance, *sequence),
        Shown::NoCertificate => client.certificate = None,
        Shown::OldCertificate => {
            if let Some((certificate, _)) = &mut client.certificate {
                certificate.generation = certificate.generation.saturating_sub(1);
            }
        }
        Shown::OtherTokensCertificate => {
            if let Some((certificate, _)) = &mut client.certificate {
                certificate.token = TokenId(Uuid::nil());
            }
        }
        Shown::OtherSubjectKeys => client.subject_keys.push('+'),
        Shown::NoAttempt => client.names_attempts = false,
        Shown::NoKeyNames => client.names_keys = false,
        Shown::NewKey(key) => {
            client.new_key = *key;
            client.keys.push(*key);
        }
        Shown::Secret(number) => client.secret = Some(secret(*number)),
    }
}

fn administer(authority: &mut Scenario, admin: &Admin) {
    if !authority.token.live {
        return;
    }
    match admin {
        Admin::Limit(limit) => authority.set_limit(*limit),
        Admin::Mode(mode) => authority.set_mode(*mode),
        Admin::Rotate => {
            if let Ok(event) = administer::rotate(&authority.token, authority.now) {
                authority.record(vec![event]);
            }
        }
        Admin::Grant(kind) => {
            let _ = authority.grant(*kind);
        }
        Admin::RevokeAll => {
            let grants: Vec<_> = authority.token.grants.iter().map(|grant| grant.id).collect();
            for grant in grants {
                if let Ok(event) = administer::revoke(&authority.token, grant, authority.now) {
                    authority.record(vec![event]);
                }
            }
        }
        Admin::Reinstate => {
            let _ = authority.reinstate();
        }
        Admin::Reopen(number) => authority.reopen(&secret(*number)),
        Admin::Lock => {
            let _ = authority.lock(LockTarget::User("example".parse().unwrap()), None);
        }
        Admin::Unlock => authority.unlock(),
        Admin::Secret(number) => {
            let _ = authority.upsert(|written| {
                written.spec.initial_public_key = None;
                written.written_secret = Some(secret(*number));
            });
        }
        Admin::Preregister(number) => {
            let _ = authority.upsert(|written| written.spec.initial_public_key = Some(key(*number)));
        }
        Admin::Expire(hours) => {
            let end = authority.now + TimeDelta::hours(*hours);
            let _ = authority.upsert(|written| written.spec.expires = Some(end));
        }
        Admin::Delete => authority.record(vec![administer::delete_token()]),
    }
}

fn fold<'a>(before: Option<State>, entries: impl IntoIterator<Item = &'a Entry>) -> Option<State> {
    entries.into_iter().fold(before, |state, entry| Some(State::after(state, entry).unwrap()))
}

/// The state without what a refusal may change.
fn untouched(mut token: TokenState) -> TokenState {
    token.contested_at = None;
    token.refused_challenges.clear();
    token.retired.iter_mut().for_each(|key| key.is_evidence = false);
    token
}

fn modes() -> impl Strategy<Value = RecoveryMode> {
    prop_oneof![3 => Just(Standard), 2 => Just(Relaxed), 1 => Just(Insecure)]
}

/// A quarter of the cases that are usual, or that `PROPTEST_CASES` asks for: each is a long history.
fn fewer() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / 4, ..usual }
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn folding_in_two_parts_is_folding_whole(mode in modes(), acts in acts(), at in any::<prop::sample::Index>()) {
        let authority = tell(mode, &acts).authority;
        let whole = fold(None, &authority.entries);
        prop_assert_eq!(&whole, &Some(State::Token(Arc::new(authority.token.clone()))));
        let (first, second) = authority.entries.split_at(at.index(authority.entries.len() + 1));
        prop_assert_eq!(fold(fold(None, first), second), whole);
    }

    #[test]
    fn an_entry_of_many_events_is_as_many_entries_of_one(mode in modes(), acts in acts()) {
        let authority = tell(mode, &acts).authority;
        let mut single = Vec::new();
        for entry in &authority.entries {
            for (first_version, event) in (entry.first_version..).zip(&entry.events) {
                single.push(Entry { first_version, events: vec![event.clone()], ..entry.clone() });
            }
        }
        prop_assert_eq!(fold(None, &single), fold(None, &authority.entries));
    }

    #[test]
    fn a_state_survives_being_stored_between_any_two_entries(mode in modes(), acts in acts()) {
        let authority = tell(mode, &acts).authority;
        let mut state = None;
        for entry in &authority.entries {
            let entry = Entry::from_envelope(&entry.to_envelope().unwrap()).unwrap();
            let after = State::after(state, &entry).unwrap();
            let stored = serde_json::to_string(&after).unwrap();
            let read: State = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&read, &after);
            state = Some(read);
        }
        prop_assert_eq!(state, Some(State::Token(Arc::new(authority.token))));
    }

    #[test]
    fn versions_have_no_gap(mode in modes(), acts in acts()) {
        let authority = tell(mode, &acts).authority;
        let mut next = 1;
        for entry in &authority.entries {
            prop_assert_eq!(entry.first_version, next);
            prop_assert!(!entry.events.is_empty());
            next = entry.last_version() + 1;
        }
        prop_assert!(authority.token.revision < next);
    }

    #[test]
    fn no_challenge_admits_twice(mode in modes(), acts in acts()) {
        let told = tell(mode, &acts);
        let mut challenges = BTreeSet::new();
        for (proven, ..) in &told.accepted {
            prop_assert!(challenges.insert(proven.solved.challenge), "{:?}", proven.solved);
        }
    }

    #[test]
    fn a_refusal_changes_nothing_but_its_own_marks(mode in modes(), acts in acts()) {
        for (before, after) in tell(mode, &acts).refusals {
            for (old, new) in before.retired.iter().zip(&after.retired) {
                prop_assert!(old.is_evidence || !new.is_evidence, "evidence is used up, never made");
            }
            prop_assert!(after.contested_at >= before.contested_at);
            prop_assert_eq!(untouched(before), untouched(after));
        }
    }

    #[test]
    fn an_attempt_is_counted_once_while_it_can_be_resumed(mode in modes(), acts in acts()) {
        let told = tell(mode, &acts);
        let mut windows = HashMap::new();
        for (proven, _, join) in &told.accepted {
            let Some(attempt) = &join.attempt else { continue };
            let last = windows.insert((*attempt, join.subject_keys.clone()), join.not_after);
            let latest_then = last.is_some_and(|end| proven.solved.issued_at <= end);
            // In insecure mode other hosts come between, and their key is shared on purpose.
            let exempted = join.recovery_mode == Insecure;
            prop_assert!(!latest_then || exempted || !join.case.costs_recovery() || told.was_exempted(join));
        }
    }

    #[test]
    fn a_resume_repeats_the_recorded_answer(mode in modes(), acts in acts()) {
        let told = tell(mode, &acts);
        for (accepted, resumed) in &told.resumed {
            prop_assert_eq!(accepted, resumed);
        }
    }

    #[test]
    fn the_recovery_count_moves_by_one_with_each_recovery(mode in modes(), acts in acts()) {
        let told = tell(mode, &acts);
        let mut count = 0;
        for event in told.authority.entries.iter().flat_map(|entry| &entry.events) {
            match event {
                Event::TokenUpdated(updated) if updated.rebind => count = 0,
                Event::TokenReopened(_) | Event::TokenDeleted(_) => count = 0,
                Event::RecoveryConsumed(consumed) => {
                    count += 1;
                    prop_assert_eq!(consumed.count, count);
                }
                Event::JoinAccepted(join) => prop_assert_eq!(join.recovery_count, count),
                _ => {}
            }
        }
        prop_assert_eq!(told.authority.token.recovery_count, count);
    }

    #[test]
    fn at_most_one_lock_by_a_rule_is_open(mode in modes(), acts in acts()) {
        prop_assert!(tell(mode, &acts).most_locks <= 1);
    }

    #[test]
    fn lineages_are_linear(mode in modes(), acts in acts()) {
        let told = tell(mode, &acts);
        let mut certificates = BTreeSet::new();
        let mut begun = BTreeSet::new();
        let mut bound = None;
        for (_, _, join) in &told.accepted {
            prop_assert!(certificates.insert((join.instance, join.generation)), "a certificate is issued once");
            if join.case.costs_recovery() {
                prop_assert!(begun.insert(join.instance), "a lineage begins once");
            } else {
                prop_assert_eq!(Some(join.instance), bound, "only the newest lineage goes on");
            }
            bound = Some(join.instance);
        }
    }

    #[test]
    fn claims_move_only_with_events_that_may_move_them(mode in modes(), acts in acts()) {
        let mut state = None;
        for entry in &tell(mode, &acts).authority.entries {
            let before = state.as_ref().map(State::claims).unwrap_or_default();
            let after = State::after(state, entry).unwrap();
            if !entry.events.iter().any(Event::may_move_claims) {
                prop_assert_eq!(after.claims(), before);
            }
            state = Some(after);
        }
    }

    #[test]
    fn a_key_that_was_bound_stays_claimed_while_the_token_lives(mode in modes(), acts in acts()) {
        let told = tell(mode, &acts);
        let mut known: BTreeSet<&Claim> = BTreeSet::new();
        for claims in &told.claims {
            prop_assert!(claims.is_sorted() && claims.windows(2).all(|pair| pair[0] != pair[1]));
            if claims.is_empty() {
                known.clear();
                continue;
            }
            for key in &known {
                prop_assert!(claims.contains(key), "{key:?} was lost");
            }
            known.extend(claims.iter().filter(|claim| {
                claim.namespace == Namespace::TokenName || told.bound.contains(&claim.value)
            }));
        }
    }

    #[test]
    fn one_key_belongs_to_one_token(first in acts(), second in acts()) {
        // Two tokens, whose clients draw on the same keys; an append that claims what another has does not happen.
        let mut tokens = [Scenario::unbound(spec(Relaxed, 0)), Scenario::unbound(spec(Relaxed, 0))];
        tokens[1].token.name = "second".parse().unwrap();
        let mut clients = [Client::new(1), Client::new(2)];
        let steps = first.iter().map(|act| (0, act)).zip(second.iter().map(|act| (1, act)));
        for (number, act) in steps.flat_map(|(one, two)| [one, two]) {
            let before = (tokens[number].clone(), clients[number].clone());
            match act {
                Act::Join { .. } => drop(tokens[number].join(&mut clients[number])),
                Act::Show { shown: shown @ (Shown::NewKey(_) | Shown::Secret(_)), .. } => {
                    show(&before.0, &mut clients[number], shown);
                }
                Act::Administer(admin) => administer(&mut tokens[number], admin),
                _ => {}
            }
            let claims = |scenario: &Scenario| -> BTreeSet<Claim> {
                State::Token(Arc::new(scenario.token.clone())).claims().into_iter().collect()
            };
            if !claims(&tokens[number]).is_disjoint(&claims(&tokens[1 - number])) {
                (tokens[number], clients[number]) = before;
            }
            let keys = |scenario: &Scenario| scenario.token.binding.as_ref().map(|binding| binding.key.clone());
            let bound = (keys(&tokens[0]), keys(&tokens[1]));
            prop_assert!(bound.0.is_none() || bound.0 != bound.1);
        }
    }

    #[test]
    fn what_is_only_shown_decides_nothing(mode in modes(), acts in acts()) {
        let told = tell(mode, &acts);
        let mut plain = told.authority.clone();
        plain.token.contested_at = None;
        plain.token.last_recovered_at = None;
        plain.token.revision = 0;
        plain.token.created_at = plain.now;
        for number in 1..=3 {
            let mut client = Client::new(number);
            let (mut one, mut two) = (told.authority.clone(), plain.clone());
            let (one, two) = (one.join(&mut client.clone()), two.join(&mut client));
            prop_assert_eq!(format!("{one:?}"), format!("{two:?}"));
        }
    }
}

impl Told {
    /// True when the join spent an exemption.
    fn was_exempted(&self, join: &JoinAccepted) -> bool {
        let entry = self.authority.entries.iter().find(|entry| {
            entry.events.iter().any(|event| matches!(event, Event::JoinAccepted(accepted) if **accepted == *join))
        });
        entry.is_some_and(|entry| entry.events.iter().any(|event| matches!(event, Event::ExemptionConsumed(_))))
    }
}

#[test]
fn histories_are_worth_their_name() {
    // The generator must reach what the laws are about.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut codes, mut cases, mut resumed) = (BTreeSet::new(), BTreeSet::new(), 0);
    for _ in 0..400 {
        let acts = acts().new_tree(&mut runner).unwrap().current();
        let told = tell(Standard, &acts);
        resumed += told.resumed.len();
        cases.extend(told.accepted.iter().map(|(_, _, join)| join.case.as_str()));
        codes.extend(told.authority.history.iter().filter_map(|event| match event {
            Event::JoinRefused(refused) => Some(refused.code),
            _ => None,
        }));
    }
    assert_eq!(cases.into_iter().collect::<Vec<_>>(), ["first_join", "recovery", "renewal"]);
    assert!(resumed > 20, "{resumed} resumed");
    for code in [
        Code::RecoveryLimitExhausted,
        Code::JoinStateRequired,
        Code::JoinStateInvalid,
        Code::GenerationMismatch,
        Code::InstanceMismatch,
        Code::RetiredKey,
        Code::KeyReused,
        Code::Locked,
        Code::AuthorityBehind,
        Code::AccessDenied,
    ] {
        assert!(codes.contains(&code), "{code} was not reached: {codes:?}");
    }
}
