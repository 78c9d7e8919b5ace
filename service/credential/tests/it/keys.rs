use chrono::TimeDelta;
use join_credential::{AuthorityKeys, Issuer, KeysError, MasterKey, Phase, Purpose, SealedKey, Sealer};
use join_domain::proof::{JoinState, JoinStateError};

use crate::world::World;

fn reopen(world: &World, rows: Vec<SealedKey>, master: &MasterKey) -> Result<AuthorityKeys, KeysError> {
    AuthorityKeys::open(world.keys.cluster().clone(), rows, master)
}

fn row(rows: &mut [SealedKey], purpose: Purpose) -> &mut SealedKey {
    rows.iter_mut().find(|row| row.purpose == purpose).unwrap()
}

#[test]
fn stored_keys_open_and_sign_as_before() {
    let world = World::new();
    let master = MasterKey::generate();
    let keys = reopen(&world, world.keys.seal(&master), &master).unwrap();
    let join = world.join();
    let again = Issuer::new(&keys).unwrap().issue(&join.grant()).unwrap();
    // Both are Ed25519, whose signatures depend on key and content alone.
    assert_eq!(again.ssh_certificate, world.issue(&join).ssh_certificate);
    assert_eq!(again.join_state, world.issue(&join).join_state);
    assert_eq!(keys.log_signer().sign(b"tree"), world.keys.log_signer().sign(b"tree"));
    assert_eq!(keys.sealer().keyed_hash("p").hash(b"d"), world.keys.sealer().keyed_hash("p").hash(b"d"));
}

#[test]
fn another_master_key_opens_nothing_and_the_error_says_so() {
    let world = World::new();
    let error = reopen(&world, world.keys.seal(&MasterKey::generate()), &MasterKey::generate()).unwrap_err();
    assert!(matches!(error, KeysError::Sealed(_)));
    assert!(error.to_string().contains("master key"), "{error}");
}

#[test]
fn a_changed_row_does_not_open() {
    let world = World::new();
    let other = World::new();
    let master = MasterKey::generate();
    let rows = || world.keys.seal(&master);
    for purpose in Purpose::ALL {
        let mut changed = rows();
        let sealed = &mut row(&mut changed, purpose).sealed;
        *sealed.last_mut().unwrap() ^= 1;
        assert!(matches!(reopen(&world, changed, &master), Err(KeysError::Sealed(_))), "{purpose:?}");

        let mut renamed = rows();
        row(&mut renamed, purpose).kid.push('x');
        assert!(matches!(reopen(&world, renamed, &master), Err(KeysError::Sealed(_))), "{purpose:?}");
    }
    let mut moved = rows();
    row(&mut moved, Purpose::Log).sealed = row(&mut moved, Purpose::SshCa).sealed.clone();
    assert!(matches!(reopen(&world, moved, &master), Err(KeysError::Sealed(_))));

    for purpose in [Purpose::X509Ca, Purpose::SshCa, Purpose::JoinState, Purpose::Log] {
        let mut changed = rows();
        row(&mut changed, purpose).public = other.keys.active(purpose).public_key().cloned();
        assert!(matches!(reopen(&world, changed, &master), Err(KeysError::Damaged(_))), "{purpose:?}");
    }
    for certificate in [None, Some(b"rubbish".to_vec()), Some(other.ca_certificate().to_vec())] {
        let mut changed = rows();
        row(&mut changed, Purpose::X509Ca).certificate = certificate;
        assert!(matches!(reopen(&world, changed, &master), Err(KeysError::Damaged(_))));
    }
}

#[test]
fn a_cluster_has_one_active_key_for_each_purpose() {
    let world = World::new();
    let master = MasterKey::generate();
    for purpose in Purpose::ALL {
        let mut none = world.keys.seal(&master);
        none.retain(|row| row.purpose != purpose);
        assert_eq!(reopen(&world, none, &master).unwrap_err(), KeysError::NotOneActive(purpose.as_str(), 0));

        let mut two = world.keys.seal(&master);
        two.push(row(&mut world.keys.seal(&master), purpose).clone());
        assert_eq!(reopen(&world, two, &master).unwrap_err(), KeysError::NotOneActive(purpose.as_str(), 2));
    }
}

#[test]
fn a_cluster_moves_to_another_master_key_with_its_keys_unchanged() {
    let world = World::new();
    let (old, new) = (MasterKey::generate(), MasterKey::generate());
    let keys = reopen(&world, world.keys.seal(&old), &old).unwrap();
    let keys = reopen(&world, keys.seal(&new), &new).unwrap();
    assert_eq!(keys.active(Purpose::X509Ca).certificate(), world.keys.active(Purpose::X509Ca).certificate());
    assert_eq!(keys.sealer().keyed_hash("p").hash(b"d"), world.keys.sealer().keyed_hash("p").hash(b"d"));
}

#[test]
fn words_in_the_database_are_read_back() {
    for purpose in Purpose::ALL {
        assert_eq!(purpose.as_str().parse(), Ok(purpose));
    }
    for phase in Phase::ALL {
        assert_eq!(phase.as_str().parse(), Ok(phase));
    }
    assert!("x509".parse::<Purpose>().is_err());
    assert!("ACTIVE".parse::<Phase>().is_err());
}

#[test]
fn a_rotation_goes_through_its_phases() {
    let mut world = World::new();
    let longest_life = TimeDelta::hours(24);
    let old = world.keys.active(Purpose::SshCa).kid().to_owned();

    assert_eq!(
        world.keys.activate(Purpose::SshCa, world.now).unwrap_err(),
        KeysError::NothingOnStandby("ssh-ca"),
        "nothing was prepared"
    );
    let new = world.keys.prepare(Purpose::SshCa, world.now).unwrap().kid().to_owned();
    assert_eq!(world.keys.active(Purpose::SshCa).kid(), old, "a key on standby does not sign");
    assert_eq!(world.keys.prepare(Purpose::SshCa, world.now).unwrap_err(), KeysError::AlreadyOnStandby("ssh-ca"));
    let trusted =
        |world: &World| -> Vec<String> { world.keys.trusted(Purpose::SshCa).map(|key| key.kid().to_owned()).collect() };
    assert_eq!(trusted(&world), [old.clone(), new.clone()]);

    let activated = world.now + TimeDelta::hours(1);
    world.keys.activate(Purpose::SshCa, activated).unwrap();
    assert_eq!(trusted(&world), [new.clone(), old.clone()], "the old one stays trusted");

    let still_active = world.keys.revoke(&new, activated).unwrap_err();
    assert_eq!(still_active, KeysError::StillActive(new.clone()));
    let until = activated + longest_life;
    let too_early = world.keys.forget(&old, longest_life, until - TimeDelta::seconds(1)).unwrap_err();
    assert_eq!(too_early, KeysError::StillNeeded { kid: old.clone(), until });
    world.keys.forget(&old, longest_life, until).unwrap();
    assert_eq!(trusted(&world), [new]);
    assert_eq!(world.keys.forget(&old, longest_life, until), Err(KeysError::Unknown(old)));
}

#[test]
fn log_and_sealing_keys_do_not_rotate() {
    let mut world = World::new();
    for purpose in [Purpose::Log, Purpose::Sealing] {
        let error = world.keys.prepare(purpose, world.now).unwrap_err();
        assert_eq!(error, KeysError::NotRotatable(purpose.as_str()));
    }
}

#[test]
fn join_states_hold_under_a_retired_key_and_not_under_a_revoked_one() {
    let mut world = World::new();
    let join = world.join();
    let document = world.issue(&join).join_state;
    let kid = world.keys.active(Purpose::JoinState).kid().to_owned();
    let open = |world: &World, document: &str| {
        JoinState::open(document.as_bytes(), world.keys.cluster(), |kid| world.keys.join_state_key(kid))
    };
    assert_eq!(open(&world, &document), Ok(join.join_state.clone()));

    world.keys.prepare(Purpose::JoinState, world.now).unwrap();
    world.keys.activate(Purpose::JoinState, world.now).unwrap();
    world.reload();
    assert_eq!(open(&world, &document), Ok(join.join_state.clone()), "retired is still trusted");
    let newer = world.issue(&join).join_state;
    assert_ne!(newer, document);
    assert_eq!(open(&world, &newer), Ok(join.join_state));

    world.keys.revoke(&kid, world.now).unwrap();
    assert_eq!(open(&world, &document), Err(JoinStateError::UnknownKey));
    assert!(world.keys.is_revoked(&kid));
    assert!(!world.keys.is_revoked("join-state-of-another-cluster"));
    assert_eq!(
        world.keys.forget(&kid, TimeDelta::zero(), world.now).unwrap_err(),
        KeysError::NotRetired { kid, phase: Phase::Revoked },
        "a revoked key stays known, so that its documents count as missing"
    );
}

#[test]
fn debug_output_shows_no_secret() {
    let world = World::new();
    let master = MasterKey::parse(&"5a".repeat(32)).unwrap();
    let grant = crate::administrators::grant(&world);
    let administrator = world.issuer.generate_administrator(&grant).unwrap();
    let server = world.issuer.generate_server_identity(&["localhost".into()], world.now).unwrap();
    let shown = format!("{:?} {master:?} {:?} {administrator:?} {server:?}", world.keys, world.keys.log_signer());

    let reader = Sealer::new(&[0x5a; 32]);
    let stored = world.keys.seal(&master).into_iter().map(|row| {
        let purpose = format!("authority key {}", row.purpose.as_str());
        private_part(&reader.open(&purpose, &row.kid, &row.sealed).unwrap())
    });
    let administrators_key = pem::parse(administrator.key()).unwrap();
    let others =
        [vec![0x5a; 32], private_part(administrators_key.contents()), private_part(server.key.secret_pkcs8_der())];
    for secret in stored.chain(others) {
        for part in secret.windows(6) {
            assert!(!shown.contains(&hex::encode(part)));
            assert!(!shown.contains(format!("{part:?}").trim_matches(['[', ']'])));
        }
    }
    assert!(!shown.contains("PRIVATE KEY"));
    assert_eq!(shown.matches("REDACTED").count(), Purpose::ALL.len() + 2, "{shown}");
}

/// The 32 secret bytes of a key: PKCS#8 of P-256 and of Ed25519, or 32 bytes as they are.
fn private_part(secret: &[u8]) -> Vec<u8> {
    match secret.len() {
        138 => secret[36..68].to_vec(),
        48 => secret[16..].to_vec(),
        32 => secret.to_vec(),
        other => panic!("a private key of {other} bytes"),
    }
}
