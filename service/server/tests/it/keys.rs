//! The authority's own keys change while bots join, and administrators' identities end before they expire.

use std::{path::Path, time::Duration};

use chrono::TimeDelta;
use join_credential::{AuthorityKeys, MasterKey, Purpose, Role};
use join_proto::v1;
use join_server::{administrators, cluster, keyring::Keyring};
use rstest::rstest;

use crate::world::{Administrator, RENEWED, Transport, World, data, until};

impl World {
    fn master_key(&self) -> MasterKey {
        MasterKey::parse(&self.master).unwrap()
    }

    /// What `joind keys` does.
    async fn moves_keys(
        &self,
        act: impl FnOnce(&mut AuthorityKeys, join_domain::Timestamp) -> Result<(), join_credential::KeysError>,
    ) {
        cluster::move_keys(self.ledger(), &self.master_key(), Some("a test"), act).await.unwrap();
    }

    async fn rotates(&self, purpose: Purpose) {
        self.moves_keys(|keys, now| keys.prepare(purpose, now).map(drop)).await;
        self.nodes_follow().await;
        self.moves_keys(|keys, now| keys.activate(purpose, now).map(drop)).await;
        self.nodes_follow().await;
    }

    /// What every node does of itself every few seconds.
    async fn nodes_follow(&self) {
        for node in &self.nodes {
            node.app.ceremonies.keyring.follow(self.ledger()).await.unwrap();
        }
    }
}

#[rstest]
#[tokio::test]
async fn bots_renew_on_while_every_key_is_rotated(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    world.catch_up("example").await;

    for purpose in [Purpose::X509Ca, Purpose::SshCa, Purpose::JoinState] {
        world.rotates(purpose).await;
    }
    let renewed = bot.join().await.expect("a certificate of the retired CA and a document of the retired key count");
    assert_eq!(renewed.generation(), 2);
    assert_eq!(renewed.credentials.tls_cas.len(), 2, "the old CA is still trusted");
    assert_eq!(renewed.credentials.ssh_cas.len(), 2);
    assert_eq!(bot.join().await.expect("and those of the new ones").generation(), 3);

    assert_eq!(world.news("example").await, RENEWED.repeat(2));
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn a_node_that_has_not_heard_of_a_new_key_locks_nobody() {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let mut bot = world.bot("example").limit(2).await;
    bot.join().await.unwrap();
    world.moves_keys(|keys, now| keys.prepare(Purpose::JoinState, now).map(drop)).await;
    world.moves_keys(|keys, now| keys.activate(Purpose::JoinState, now).map(drop)).await;
    world.node(0).app.ceremonies.keyring.follow(&world.node(0).app.ceremonies.ledger).await.unwrap();
    bot.join().await.expect("the first node signs with the new key");

    bot.node = second;
    bot.join().await.expect("the second one learns of it by the document");

    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn a_document_under_a_revoked_key_counts_as_missing() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    let old = world.node(0).app.ceremonies.keyring.get().keys.active(Purpose::JoinState).kid().to_owned();
    world.rotates(Purpose::JoinState).await;
    world.moves_keys(|keys, now| keys.revoke(&old, now)).await;
    world.nodes_follow().await;

    assert_eq!(bot.join().await.unwrap_err(), "JOIN_STATE_REQUIRED");
    assert_eq!(world.locks().await, 0);
    world.admin.grant("example", "join_state").await.unwrap();
    bot.join().await.expect("an administrator lets it pass, once");
    bot.join().await.expect("and it has a document under the new key");
    world.check().await;
}

#[tokio::test]
async fn what_becomes_of_keys_is_in_the_ledger_without_the_keys() {
    let world = World::start().await;
    let old = world.node(0).app.ceremonies.keyring.get().keys.active(Purpose::SshCa).kid().to_owned();
    world.rotates(Purpose::SshCa).await;
    world.advance(TimeDelta::days(2));
    world.moves_keys(|keys, now| keys.forget(&old, TimeDelta::days(1), now)).await;
    world.settle().await;

    let request = v1::ListEventsRequest { kinds: vec!["authority_key.*".to_owned()], ..Default::default() };
    let told: Vec<_> = world.auditor.events(request).await.events.iter().map(data).collect();
    let new = world.node(0).app.ceremonies.keyring.get().keys.active(Purpose::SshCa).kid().to_owned();
    let moved = |kid: &str, phase: &str| serde_json::json!({ "kid": kid, "purpose": "ssh-ca", "phase": phase, "reason": "a test" });
    let [prepared, activated @ .., forgotten] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*prepared, moved(&new, "standby"));
    assert_eq!(activated.len(), 2, "{told:?}");
    assert!(activated.contains(&moved(&old, "retired")) && activated.contains(&moved(&new, "active")), "{told:?}");
    assert_eq!(*forgotten, moved(&old, "forgotten"));
    world.check().await;
}

#[tokio::test]
async fn a_join_state_key_is_never_forgotten_while_it_may_be_shown() {
    let world = World::start().await;
    let old = world.node(0).app.ceremonies.keyring.get().keys.active(Purpose::JoinState).kid().to_owned();
    world.rotates(Purpose::JoinState).await;
    world.advance(TimeDelta::days(4000));
    let forget = |keys: &mut AuthorityKeys, now| keys.forget(&old, TimeDelta::days(1), now);
    let refused = cluster::move_keys(world.ledger(), &world.master_key(), None, forget).await.unwrap_err();
    assert!(refused.to_string().contains("stays"), "{refused}");
    world.check().await;
}

#[tokio::test]
async fn another_master_key_opens_the_same_keys() {
    let world = World::start().await;
    let (next, name) = (MasterKey::generate(), world.node(0).app.ceremonies.cluster.clone());
    let before = world.node(0).app.ceremonies.keyring.get();
    cluster::change_master_key(world.ledger(), &world.master_key(), &next).await.unwrap();

    let stored = cluster::keys(world.ledger()).await.unwrap();
    let refused = Keyring::open(name.clone(), stored.clone(), world.master_key()).err().unwrap().to_string();
    assert!(refused.contains("the master key does not open"), "{refused}");
    let opened = Keyring::open(name, stored, next).unwrap().get();
    let ids = |keys: &AuthorityKeys| keys.iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&opened.keys), ids(&before.keys));

    let mut bot = world.bot("example").await;
    bot.join().await.expect("a node that runs goes on");
    world.check().await;
}

/// Keys are sealed anew while nodes run. Those go on with the keys that they opened, and what becomes of these counts.
#[tokio::test]
async fn a_node_that_lacks_the_new_master_key_follows_a_revocation_and_signs_nothing_under_an_old_key() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    let (old_master, new_master) = (world.master_key(), MasterKey::generate());
    world.moves_keys(|keys, now| keys.prepare(Purpose::X509Ca, now).map(drop)).await;
    world.nodes_follow().await;
    cluster::change_master_key(world.ledger(), &old_master, &new_master).await.unwrap();
    let keyring = &world.node(0).app.ceremonies.keyring;
    assert!(!keyring.follow(world.ledger()).await.unwrap(), "it can't open what is stored, and says so");
    bot.join().await.expect("it goes on with what it opened");

    // The CA that it knew before on standby signs, and the one before is revoked.
    let moves = |act: fn(&mut AuthorityKeys, join_domain::Timestamp) -> Result<(), join_credential::KeysError>| {
        cluster::move_keys(world.ledger(), &new_master, Some("a test"), act)
    };
    let old = keyring.get().keys.active(Purpose::X509Ca).kid().to_owned();
    moves(|keys, now| keys.activate(Purpose::X509Ca, now).map(drop)).await.unwrap();
    cluster::move_keys(world.ledger(), &new_master, Some("a test"), |keys, now| keys.revoke(&old, now).map(drop))
        .await
        .unwrap();
    assert!(!keyring.follow(world.ledger()).await.unwrap());
    assert_ne!(keyring.get().keys.active(Purpose::X509Ca).kid(), old);
    assert_eq!(keyring.get().keys.trusted(Purpose::X509Ca).count(), 1, "the revoked one is trusted no more");

    // A key that was made since is to sign: here it can't be opened, so nothing is signed, by the key before neither.
    moves(|keys, now| keys.prepare(Purpose::JoinState, now).map(drop)).await.unwrap();
    moves(|keys, now| keys.activate(Purpose::JoinState, now).map(drop)).await.unwrap();
    keyring.follow(world.ledger()).await.unwrap_err();
    assert!(keyring.is_shut_out());
    assert_eq!(bot.join().await.unwrap_err(), "UNAVAILABLE");
    // Nor is anybody trusted: of a revocation that comes now, this node would know nothing.
    let refused = world.admin.cluster().await.get_status(v1::Empty {}).await.unwrap_err();
    assert_eq!(crate::world::Refused::from(refused), "UNAVAILABLE");
    let refused = world.stranger().cluster().await.get_ca(v1::Empty {}).await.unwrap_err();
    assert_eq!(crate::world::Refused::from(refused), "UNAVAILABLE");
    until("it is not ready", async || world.readiness().await.contains("keys")).await;
    for path in ["/crl", "/krl", "/v1/ca"] {
        let answer = world.stranger().http().await.get(path).await;
        assert_eq!(answer.status, http::StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    assert!(world.ledger().locks_in_force(world.now()).await.unwrap().is_empty());
    world.check().await;
}

#[tokio::test]
async fn a_revoked_identity_is_refused_at_once_on_every_node() {
    let mut world = World::start().await;
    let second = world.another_node().await;
    let oscar = administrators::list(world.ledger()).await.unwrap();
    let oscar = oscar.into_iter().find(|identity| identity.name == "oscar").unwrap();
    assert_eq!((oscar.role.as_str(), oscar.live), ("operator", true));
    world.operator.cluster().await.get_status(v1::Empty {}).await.unwrap();

    administrators::revoke(world.ledger(), &oscar.serial.parse().unwrap(), "the laptop was lost").await.unwrap();

    for node in [0, second] {
        let refused = world.operator.at(node).cluster().await.get_status(v1::Empty {}).await.unwrap_err();
        let refused = crate::world::Refused::from(refused);
        assert_eq!(refused, "UNAUTHENTICATED");
        assert!(refused.message.starts_with("the identity was revoked"), "{}", refused.message);
    }
    world.admin.cluster().await.get_status(v1::Empty {}).await.expect("others are not concerned");
    let again = administrators::revoke(world.ledger(), &oscar.serial.parse().unwrap(), "again").await;
    assert!(again.unwrap_err().to_string().contains("revoked before"));
    world.check().await;
}

#[tokio::test]
async fn an_identity_that_is_not_on_record_is_none() {
    let mut world = World::start().await;
    let backup = world.backup().await;
    let directory = tempfile::tempdir().unwrap();
    issue_later(&world, &directory.path().join("late")).await;
    let late = Administrator::with_identity(world.network.clone(), &directory.path().join("late"));
    late.cluster().await.get_status(v1::Empty {}).await.unwrap();

    let restored = world.restored(backup).await;
    let late = Administrator::with_identity(restored.network.clone(), &directory.path().join("late"));
    let refused = crate::world::Refused::from(late.cluster().await.get_status(v1::Empty {}).await.unwrap_err());
    assert_eq!(refused, "UNAUTHENTICATED");
    assert!(refused.message.starts_with("the ledger knows of no such identity"), "{}", refused.message);
    world.check().await;
    restored.check().await;
}

async fn issue_later(world: &World, directory: &Path) {
    let name = crate::world::name("late");
    administrators::issue(world.ledger(), &world.master_key(), &name, Role::Auditor, directory).await.unwrap();
}

#[tokio::test]
async fn strangers_who_go_away_do_not_have_the_keys_read_again_and_again() {
    let world = World::start().await;
    let keyring = &world.node(0).app.ceremonies.keyring;
    let asking = keyring.newest(world.ledger());
    assert!(size_of_val(&asking) < 500, "it is part of every request, and of few is it needed");
    drop(asking);
    let held = world.database.hold_keys().await;
    for _ in 0..20 {
        let gone = tokio::time::timeout(Duration::from_millis(50), keyring.newest(world.ledger())).await;
        assert!(gone.is_err());
    }
    assert_eq!(world.database.waiting("authority_key").await, 1);

    held.release().await;
    keyring.newest(world.ledger()).await.unwrap();
    world.check().await;
}
