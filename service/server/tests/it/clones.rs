//! A thief with a copy of the disk: both can't go on (protocol, sections 3, 5 and 6).

use std::time::Duration;

use chrono::TimeDelta;
use rstest::rstest;

use crate::world::{Key, NOTHING, REFUSED, REFUSED_AND_LOCKED, RESUMED, Transport, World, data, until};

#[rstest]
#[tokio::test]
async fn a_thief_who_recovers_is_found_out_by_the_owners_renewal(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    thief.joining().without_certificate().await.unwrap();
    let stolen = thief.certificate().clone();
    world.catch_up("example").await;

    let refused = owner.join().await.unwrap_err();

    assert_eq!(refused, "JOIN_STATE_INVALID");
    assert_eq!(world.locks().await, 1);
    let told = world.new_events("example").await;
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), REFUSED_AND_LOCKED);
    // Both sightings stand in the event.
    let facts = data(&told[2]);
    assert_eq!(facts["seen"]["certificate"]["instance"], owner.certificate().instance());
    assert_eq!(facts["seen"]["certificate"]["generation"], 1);
    assert_eq!(facts["other_holder"]["instance"], stolen.instance());
    assert_eq!(facts["other_holder"]["serial"], stolen.read(|one| hex::encode(one.raw_serial())));
    assert!(facts["other_holder"]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(told[2].remote_addr.starts_with("127.0.0.1:"));

    assert_eq!(thief.join().await.unwrap_err(), "LOCKED");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_thief_who_renews_is_found_out_by_the_owners_renewal(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    thief.join().await.unwrap();
    world.catch_up("example").await;

    assert_eq!(owner.join().await.unwrap_err(), "GENERATION_MISMATCH");

    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);
    assert_eq!(thief.join().await.unwrap_err(), "LOCKED");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

/// Else it could try until it comes at a good moment, and leave no trace.
#[rstest]
#[tokio::test]
async fn a_thief_who_does_not_wait_for_the_answer_is_found_out_too(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    owner.join().await.unwrap();
    world.catch_up("example").await;
    let held = world.database.hold().await;
    {
        let lock_waits = until("the lock waits for the database", async || world.database.somebody_waits().await);
        tokio::select! {
            answer = thief.join() => panic!("nothing could be recorded: {:?}", answer.err()),
            () = lock_waits => {}
        }
    }
    // The service hears that the thief went away.
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.release().await;

    until("it is locked", async || world.locks().await == 1).await;
    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn the_last_recovery_hides_no_thief(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(2).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    world.advance(TimeDelta::hours(2));
    thief.join().await.unwrap();
    world.catch_up("example").await;

    let refused = owner.join().await.unwrap_err();

    assert_eq!(refused, "JOIN_STATE_INVALID", "not only RECOVERY_LIMIT_EXHAUSTED");
    assert_eq!(world.locks().await, 1);
    assert_eq!(world.token("example").await.recovery_count, 2);
    assert_eq!(world.news("example").await, REFUSED_AND_LOCKED);
    assert_eq!(thief.join().await.unwrap_err(), "LOCKED");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_thief_who_answers_a_rotation_first_is_found_out(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] expired: bool,
) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).over(over).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    world.admin.rotate("example").await.unwrap();
    if expired {
        world.advance(TimeDelta::hours(2));
    }
    thief.join().await.unwrap();
    world.catch_up("example").await;

    let refused = owner.join().await.unwrap_err();

    assert_eq!(refused, "RETIRED_KEY");
    assert_eq!(world.locks().await, 1);
    assert_eq!(world.token("example").await.bound_public_key, thief.key().line());
    let told = world.new_events("example").await;
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), REFUSED_AND_LOCKED);
    let facts = data(&told[2]);
    assert_eq!(facts["retired_key"], owner.key().fingerprint());
    assert_eq!(facts["lock"], *refused.lock.as_ref().unwrap());

    assert_eq!(thief.join().await.unwrap_err(), "LOCKED");
    assert_eq!(owner.join().await.unwrap_err(), "CHALLENGE_FAILED", "its key has told all that it can tell");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

#[tokio::test]
async fn a_retired_key_locks_once() {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).await;
    owner.join().await.unwrap();
    let mut thief = owner.clone();
    world.admin.rotate("example").await.unwrap();
    thief.join().await.unwrap();
    assert_eq!(owner.join().await.unwrap_err(), "RETIRED_KEY");
    let lock = world.admin.locks().await[0].metadata.clone().unwrap().name;
    world.admin.unlock(&lock).await.unwrap();

    // The administrator decided for the new key's holder: the old key tells nothing any more.
    let old_key = owner.key().clone();
    assert_eq!(owner.joining().signed_by(&old_key).await.unwrap_err(), "CHALLENGE_FAILED");
    assert_eq!(world.locks().await, 0);
    thief.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_retired_key_alone_proves_no_second_holder() {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).await;
    owner.join().await.unwrap();
    let mut old_disk = owner.clone();
    world.admin.rotate("example").await.unwrap();
    owner.join().await.unwrap();
    world.catch_up("example").await;

    let unproven = old_disk.joining().signed_by(&Key::ed25519()).with_secret("").await.unwrap_err();
    assert_eq!(unproven, "CHALLENGE_FAILED", "anybody can name a key");
    assert_eq!(world.news("example").await, NOTHING);

    let refused = old_disk.joining().without_join_state().await.unwrap_err();

    assert_eq!(refused, "CHALLENGE_FAILED");
    assert_eq!(world.locks().await, 0);
    assert_eq!(world.news("example").await, REFUSED, "possession of the old key was proven, so it is recorded");
    owner.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_copy_of_a_pending_attempt_shares_one_certificate_and_no_more(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
) {
    let world = World::start().await;
    let mut owner = world.bot("example").limit(9).over(over).await;
    owner.join().await.unwrap();
    owner.joining().losing_the_answer().await.unwrap();
    let mut thief = owner.clone();
    world.catch_up("example").await;

    let of_thief = thief.join().await.unwrap();
    let of_owner = owner.join().await.unwrap();

    assert_eq!(of_thief.serial(), of_owner.serial());
    assert_eq!(world.news("example").await, [RESUMED, RESUMED].concat());
    thief.join().await.unwrap();
    assert_eq!(owner.join().await.unwrap_err(), "GENERATION_MISMATCH");
    assert_eq!(thief.join().await.unwrap_err(), "LOCKED");
    assert_eq!(world.locks().await, 1);
    world.check().await;
}

/// Every way in which two holders of one disk can take turns: the token is locked after at most two further joins.
#[rstest]
#[tokio::test]
async fn two_holders_get_at_most_two_further_joins(#[values(0, 1, 2, 3, 4, 5, 6, 7)] turns: u32) {
    let world = World::start().await;
    let mut holders = [world.bot("example").limit(99).await, world.bot("unused").await];
    holders[0].join().await.unwrap();
    holders[1] = holders[0].clone();
    // Three bits: who comes first, and whether each of them comes without its certificate.
    let first = usize::try_from(turns & 1).unwrap();
    let bare = [turns & 2 != 0, turns & 4 != 0];
    let mut accepted = 0;
    let mut comes = async |holder: usize| {
        let joining = holders[holder].joining();
        if bare[holder] { joining.without_certificate().await } else { joining.await }
    };

    for turn in 0..4 {
        match comes((first + turn) % 2).await {
            Ok(_) => accepted += 1,
            Err(refused) => {
                assert!(["JOIN_STATE_INVALID", "GENERATION_MISMATCH", "LOCKED"].contains(&refused.code.as_str()));
            }
        }
    }

    assert!(accepted <= 2, "{accepted} joins were accepted");
    assert_eq!(world.locks().await, 1);
    assert_eq!(comes(0).await.unwrap_err(), "LOCKED");
    assert_eq!(comes(1).await.unwrap_err(), "LOCKED");
    world.check().await;
}
