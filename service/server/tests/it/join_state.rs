//! Join state documents that are not the newest of their token (protocol, section 5).

use chrono::TimeDelta;
use join_domain::proof::JoinState;
use rstest::rstest;

use crate::world::{Bot, Key, REFUSED, REFUSED_AND_LOCKED, Transport, World, claims_of, jws_parts};

/// What is wrong with a document.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    OfAnEarlierRecovery,
    NotAJwt,
    SignedByAnotherKey,
    OfAnotherInstance,
    OfAnotherCluster,
    OfAnotherBot,
    OfAnotherToken,
    WithoutAToken,
}

impl Wrong {
    /// All but the first and those of strangers are signed by the authority itself: the signature alone proves nothing.
    fn document(self, world: &World, bot: &Bot, earlier: &str) -> String {
        let newest = bot.disk.join_state.clone().unwrap();
        let claims: JoinState = claims_of(&newest);
        match self {
            Self::OfAnEarlierRecovery => earlier.to_owned(),
            Self::NotAJwt => "not a document".to_owned(),
            Self::SignedByAnotherKey => {
                let (header, payload) = jws_parts(&newest);
                Key::ed25519().jws(&header, &payload)
            }
            Self::OfAnotherInstance => world.sign(&JoinState {
                bot_instance_id: "0bb15f5e-0000-4000-8000-000000000001".parse().unwrap(),
                ..claims
            }),
            Self::OfAnotherCluster => {
                let other = "other.example".to_owned();
                world.sign(&JoinState { iss: other.clone(), aud: other, ..claims })
            }
            Self::OfAnotherBot => world.sign(&JoinState { sub: "another".to_owned(), ..claims }),
            Self::OfAnotherToken => world
                .sign(&JoinState { token_id: Some("0bb15f5e-0000-4000-8000-000000000001".parse().unwrap()), ..claims }),
            Self::WithoutAToken => world.sign(&JoinState { token_id: None, ..claims }),
        }
    }
}

#[rstest]
#[case::of_an_earlier_recovery(Wrong::OfAnEarlierRecovery)]
#[case::not_a_jwt(Wrong::NotAJwt)]
#[case::signed_by_another_key(Wrong::SignedByAnotherKey)]
#[case::of_another_instance(Wrong::OfAnotherInstance)]
#[case::of_another_cluster(Wrong::OfAnotherCluster)]
#[case::of_another_bot(Wrong::OfAnotherBot)]
#[case::of_another_token(Wrong::OfAnotherToken)]
#[case::without_a_token(Wrong::WithoutAToken)]
#[tokio::test]
async fn a_wrong_join_state_locks_the_token_once(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[case] wrong: Wrong,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    let earlier = bot.join().await.unwrap().credentials.join_state;
    world.advance(TimeDelta::hours(2));
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    world.catch_up("example").await;
    let document = wrong.document(&world, &bot, &earlier);

    let refused = bot.joining().with_join_state(&document).await.unwrap_err();

    assert_eq!(refused, "JOIN_STATE_INVALID");
    let locks = world.admin.locks().await;
    assert_eq!(locks.len(), 1);
    assert_eq!(refused.lock.as_ref(), Some(&locks[0].metadata.as_ref().unwrap().name));
    let (spec, status) = (locks[0].spec.as_ref().unwrap(), locks[0].status.as_ref().unwrap());
    assert_eq!(spec.target.as_ref().unwrap().join_token, "example");
    assert_eq!((status.cause.as_str(), status.created_by.as_str()), ("JOIN_STATE_INVALID", "system"));
    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);

    for _ in 0..2 {
        let again = bot.joining().with_join_state(&document).await.unwrap_err();
        assert_eq!(again, "LOCKED");
        assert_eq!(again.lock, refused.lock);
        assert!(again.message.contains(&spec.message), "it carries the lock's message: {}", again.message);
        assert_eq!(world.news("example").await, REFUSED);
    }
    assert_eq!(bot.join().await.unwrap_err(), "LOCKED", "the right document is no key to a lock");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_document_of_a_stranger_is_not_looked_at() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    bot.secret.clear();
    world.catch_up("example").await;

    let refused = bot.joining().with_join_state("nonsense").signed_by(&Key::ed25519()).await.unwrap_err();

    assert_eq!(refused, "CHALLENGE_FAILED");
    assert_eq!(world.locks().await, 0, "who proved nothing locks nobody out");
    assert!(world.news("example").await.is_empty());
    bot.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_token_made_again_under_its_name_is_another_token() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).preregistered().await;
    bot.join().await.unwrap();
    let key = bot.key().clone();
    world.admin.delete_token("example").await.unwrap();
    assert_eq!(world.admin.get_token("example").await.unwrap_err(), "NOT_FOUND");

    let again = world.bot("example").limit(9).await;

    // The key was the deleted token's; a new token may register it, but the old documents mean nothing to it.
    bot.secret = again.secret;
    bot.forget_attempt();
    let refused = bot.join().await.unwrap_err();
    assert_eq!(refused, "BINDING_NOT_ALLOWED", "the certificate is live, and of another token");
    let joined = bot.joining().without_certificate().offering(&key.line()).signed_by(&key).await.unwrap();
    assert_eq!((joined.generation(), joined.join_state_claims()["recovery_sequence"].clone()), (1, 1.into()));
    assert_eq!(world.token("example").await.recovery_count, 1);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}
