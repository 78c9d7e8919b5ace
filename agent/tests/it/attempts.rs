//! One attempt is sent until its result is stored.

use std::fs;

use join_agent::{
    config::{Keypair, RegistrationSecret},
    error::{JoinError, Next},
    key::PrivateKey,
};
use join_domain::refusal::Code;
use join_proto::teleport::client_params::Payload;

use crate::{
    authority::{SECRET, Trouble},
    host::Host,
};

#[tokio::test]
async fn it_joins_renews_and_recovers() {
    let host = Host::new().await;
    let mut agent = host.agent();
    let first = agent.join_once().await.unwrap();
    assert_eq!((first.certificate.user.as_str(), first.certificate.generation), ("bot-robot", Some(1)));
    assert!(!first.presented_certificate);

    let renewed = agent.join_once().await.unwrap();
    assert_eq!(
        (renewed.certificate.instance.clone(), renewed.certificate.generation),
        (first.certificate.instance, Some(2))
    );
    assert_eq!(renewed.bound_key, first.bound_key);
    assert_ne!(renewed.attempt, first.attempt);

    host.let_certificate_expire();
    let recovered = agent.join_once().await.unwrap();
    assert!(recovered.presented_certificate, "an expired certificate is presented; the authority decides");
    assert_ne!(recovered.certificate.instance, renewed.certificate.instance);
    assert_eq!(recovered.certificate.generation, Some(1));
    assert_eq!(host.authority.book().recoveries, 2);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_by_the_next_process() {
    let host = Host::new().await;
    host.authority.trouble([Trouble::LoseAnswer, Trouble::LoseAnswer]);
    for _ in 0..2 {
        assert!(matches!(host.agent().join_once().await, Err(JoinError::Network(_))));
    }
    let joined = host.agent().join_once().await.unwrap();
    let book = host.authority.book();
    assert_eq!((book.accepted, book.resumed, book.recoveries, book.locked), (1, 2, 1, None));
    assert!(book.inits.iter().all(|init| init.attempt_id == joined.attempt), "always the same attempt");
    let keys = book.inits.iter().map(|init| match init.client_params.as_ref().unwrap().payload.as_ref().unwrap() {
        Payload::BotParams(bot) => bot.public_keys.clone().unwrap(),
        Payload::HostParams(_) => panic!("a bot joins"),
    });
    let keys: Vec<_> = keys.collect();
    assert!(keys.iter().all(|sent| *sent == keys[0]), "and the same subject keys");
}

#[tokio::test]
async fn a_refusal_does_not_end_an_attempt() {
    let host = Host::new().await;
    host.authority.trouble([Trouble::refuse(Code::Conflict), Trouble::LoseRequest]);
    let refused = host.agent().join_once().await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Conflict));
    let pending = host.agent().state().unwrap().pending.unwrap();
    host.agent().join_once().await.unwrap_err();
    let joined = host.agent().join_once().await.unwrap();
    assert_eq!(joined.attempt, pending.id.as_str());
    assert_eq!(host.agent().state().unwrap().pending, None);
}

#[tokio::test]
async fn an_answer_lost_after_a_rotation_is_found_again_with_the_new_key() {
    let host = Host::new().await;
    let old = host.agent().join_once().await.unwrap().bound_key;
    host.authority.book().rotate = true;
    host.authority.trouble([Trouble::LoseAnswer]);
    host.agent().join_once().await.unwrap_err();
    let held: Vec<_> = host.agent().state().unwrap().held().map(|key| key.public().to_string()).collect();
    assert_eq!(held.len(), 2, "both keys are kept until a result names one");

    let joined = host.agent().join_once().await.unwrap();
    assert_ne!(joined.bound_key, old);
    let state = host.agent().state().unwrap();
    assert_eq!(state.keys.iter().map(|key| key.public().to_string()).collect::<Vec<_>>(), [joined.bound_key]);
    let book = host.authority.book();
    assert_eq!(book.resumed, 1);
    let named: Vec<_> = book.inits[2].held_keys.iter().map(|key| String::from_utf8(key.clone()).unwrap()).collect();
    assert_eq!(named, held, "held_keys names all of them");
}

#[tokio::test]
async fn a_rotation_due_at_the_first_join_brings_two_keys() {
    let host = Host::new().await;
    host.authority.book().rotate = true;
    let joined = host.agent().join_once().await.unwrap();
    let book = host.authority.book();
    assert_eq!(book.retired.len(), 1);
    assert_eq!(joined.bound_key, book.bound.as_ref().unwrap().to_string());
}

#[tokio::test]
async fn a_key_that_was_retired_meanwhile_is_set_aside_and_another_is_offered() {
    let host = Host::new().await;
    host.authority.trouble([Trouble::LoseAnswer]);
    host.agent().join_once().await.unwrap_err();
    host.authority.book().reopen();
    let joined = host.agent().join_once().await.unwrap();
    assert_eq!(host.authority.book().streams, 3);
    assert!(!host.authority.book().retired.iter().any(|key| key.to_string() == joined.bound_key));
}

#[tokio::test]
async fn a_preregistered_key_needs_no_secret() {
    let mut host = Host::new().await;
    let key = PrivateKey::generate_ed25519();
    join_agent::vault::Vault::open(host.disk.clone()).unwrap().add_key(key.clone()).unwrap();
    host.authority.book().bound = Some(key.public().clone());
    host.config.keypair = Keypair::Managed { registration_secret: None };
    assert_eq!(host.agent().join_once().await.unwrap().bound_key, key.public().to_string());
}

#[tokio::test]
async fn a_secret_in_a_file_must_be_there_for_the_first_join_and_may_be_gone_afterwards() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("secret");
    let mut host = Host::new().await;
    host.config.keypair = Keypair::Managed { registration_secret: Some(RegistrationSecret::File(path.clone())) };

    let refused = async |why: &str| {
        let error = host.agent().join_once().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("registration_secret_path") && text.contains(path.to_str().unwrap()), "{text}");
        assert!(text.contains(why), "{text}");
        assert_eq!(error.next(), Next::Stop);
        assert_eq!(host.authority.book().streams, 0, "nothing is sent");
    };
    refused("cannot read").await;
    fs::write(&path, " \n").unwrap();
    refused("is empty").await;

    fs::write(&path, format!("{SECRET}\n")).unwrap();
    host.agent().join_once().await.unwrap();
    fs::remove_file(&path).unwrap();
    host.agent().join_once().await.unwrap();

    host.authority.book().reopen();
    assert_eq!(host.agent().join_once().await.unwrap_err().code(), Some(Code::RegistrationSecretRequired));
    fs::write(&path, SECRET).unwrap();
    host.agent().join_once().await.unwrap();
}

#[tokio::test]
async fn a_secret_in_a_file_may_be_gone_once_a_key_was_offered() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("secret");
    let mut host = Host::new().await;
    host.config.keypair = Keypair::Managed { registration_secret: Some(RegistrationSecret::File(path.clone())) };
    fs::write(&path, SECRET).unwrap();
    host.authority.trouble([Trouble::LoseRequest]);
    host.agent().join_once().await.unwrap_err();
    fs::remove_file(&path).unwrap();
    assert_eq!(host.agent().join_once().await.unwrap_err().next(), Next::Stop, "it was bound by no join that was lost");

    fs::write(&path, SECRET).unwrap();
    host.authority.trouble([Trouble::LoseAnswer]);
    host.agent().join_once().await.unwrap_err();
    fs::remove_file(&path).unwrap();
    host.agent().join_once().await.expect("the join that was accepted is asked for again");
    let book = host.authority.book();
    assert_eq!((book.accepted, book.resumed), (1, 1));
}

/// Takes as long as it says.
#[tokio::test]
async fn an_authority_that_never_answers_is_given_up() {
    let host = Host::new().await;
    host.authority.trouble([Trouble::Silence]);
    let error = host.agent().join_once().await.unwrap_err();
    assert!(error.to_string().contains("was silent for 30 s"), "{error}");
    assert_eq!(error.next(), Next::Retry);
    host.agent().join_once().await.unwrap();
}

#[tokio::test]
async fn a_static_key_joins_and_refuses_to_rotate() {
    for key in [PrivateKey::generate_ed25519(), PrivateKey::generate_p256()] {
        let mut host = Host::new().await;
        host.authority.book().bound = Some(key.public().clone());
        host.config.keypair = Keypair::Static(key.clone());
        assert_eq!(host.agent().join_once().await.unwrap().bound_key, key.public().to_string());
        assert!(host.agent().state().unwrap().keys.is_empty(), "a static key is not copied into the storage");

        host.authority.book().rotate = true;
        assert!(matches!(host.agent().join_once().await, Err(JoinError::StaticKey)));
        let book = host.authority.book();
        assert_eq!(book.gave_up.len(), 1, "the authority is told");
        assert!(book.gave_up[0].msg.contains("static key"));
    }
}

#[tokio::test]
async fn existing_credentials_are_left_out_when_the_authority_wants_a_new_binding() {
    let host = Host::new().await;
    host.agent().join_once().await.unwrap();
    host.authority.book().reopen();
    let joined = host.agent().join_once().await.unwrap();
    assert!(!joined.presented_certificate);
    assert_eq!(host.authority.book().streams, 3, "once with the certificate, once more without");
}

#[tokio::test]
async fn a_certificate_whose_file_was_deleted_is_not_presented() {
    let directory = tempfile::tempdir().unwrap();
    let disk = join_agent::storage::Directory::open(&directory.path().join("bot")).unwrap();
    let host = Host::with_disk(std::sync::Arc::new(disk)).await;
    host.agent().join_once().await.unwrap();
    std::fs::remove_file(directory.path().join("bot/tlscert")).unwrap();
    let recovered = host.agent().join_once().await.unwrap();
    assert!(!recovered.presented_certificate);
    assert_eq!(host.authority.book().recoveries, 2);
    assert!(directory.path().join("bot/tlscert").exists());
    assert!(host.agent().join_once().await.unwrap().presented_certificate);
}
