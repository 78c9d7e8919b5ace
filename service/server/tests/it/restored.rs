//! The authority lost history: its database was restored from a backup (protocol, section 5).

use std::sync::Arc;

use chrono::TimeDelta;
use join_server::ceremony::Ceremonies;
use rstest::rstest;

use crate::world::{Bot, RECOVERED, REFUSED, RENEWED, Transport, World};

/// The bot's host asks the restored authority from now on.
fn moved(bot: &Bot, world: &World) -> Bot {
    Bot { network: Arc::clone(&world.network), ..bot.clone() }
}

#[rstest]
#[tokio::test]
async fn documents_from_the_future_never_lock(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[values(false, true)] recovered: bool,
) {
    let mut world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    let backup = world.backup().await;
    if recovered {
        world.advance(TimeDelta::hours(2));
    }
    bot.join().await.unwrap();
    let restored = world.restored(backup).await;
    let mut bot = moved(&bot, &restored);
    restored.catch_up("example").await;

    for _ in 0..2 {
        let refused = bot.join().await.unwrap_err();
        assert_eq!(refused, "AUTHORITY_BEHIND");
        assert_eq!(restored.news("example").await, REFUSED);
    }
    assert_eq!(restored.locks().await, 0);
    assert!(restored.admin.status().await.alarms.contains(&"authority_behind".to_owned()));

    restored.operator.grant("example", if recovered { "join_state" } else { "generation" }).await.unwrap();
    restored.catch_up("example").await;
    let joined = bot.join().await.unwrap();

    let mut expected = if recovered { RECOVERED } else { RENEWED }.to_vec();
    expected.insert(3, "exemption.consumed");
    assert_eq!(restored.news("example").await, expected);
    assert_eq!(joined.generation(), if recovered { 1 } else { 3 }, "no generation is given twice");
    bot.join().await.expect("life goes on");
    assert_eq!(restored.locks().await, 0);
    restored.check().await;
    world.check().await;
}

#[tokio::test]
async fn the_alarm_ends_on_every_node_when_one_admits_the_bot() {
    let mut world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    let backup = world.backup().await;
    bot.join().await.unwrap();
    let mut restored = world.restored(backup).await;
    let second = restored.another_node().await;
    let mut bot = moved(&bot, &restored);
    let behind = |restored: &World, node: usize| restored.node(node).app.ceremonies.behind.len();

    assert_eq!(bot.join().await.unwrap_err(), "AUTHORITY_BEHIND");
    assert_eq!((behind(&restored, 0), behind(&restored, second)), (1, 0));
    let Ceremonies { behind: alarm, ledger, .. } = &restored.node(0).app.ceremonies;
    alarm.look(ledger).await.unwrap();
    assert_eq!(alarm.len(), 1, "nobody has admitted it");
    restored.operator.grant("example", "generation").await.unwrap();
    restored.advance(TimeDelta::seconds(1));
    bot.node = second;
    bot.join().await.unwrap();

    let alarm = &restored.node(0).app.ceremonies.behind;
    for _ in 0..100 {
        if alarm.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(alarm.is_empty());
    restored.check().await;
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_rotation_that_was_forgotten_does_not_lock(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let mut world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    let backup = world.backup().await;
    let old_key = bot.key().clone();
    world.admin.rotate("example").await.unwrap();
    bot.join().await.unwrap();
    let restored = world.restored(backup).await;
    let mut bot = moved(&bot, &restored);

    // The store knows only the old key, which the host has deleted.
    assert_eq!(bot.join().await.unwrap_err(), "CHALLENGE_FAILED");
    assert_eq!(restored.locks().await, 0);
    bot.disk.keys = vec![old_key];
    assert_eq!(bot.join().await.unwrap_err(), "AUTHORITY_BEHIND");
    assert_eq!(restored.locks().await, 0);
    restored.check().await;
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn an_attempt_that_was_forgotten_is_no_resume(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let mut world = World::start().await;
    let mut bot = world.bot("example").limit(9).over(over).await;
    bot.join().await.unwrap();
    let backup = world.backup().await;
    let lost = bot.joining().losing_the_answer().await.unwrap();
    let restored = world.restored(backup).await;
    let mut bot = moved(&bot, &restored);
    restored.catch_up("example").await;

    let joined = bot.join().await.expect("its documents are those that the store knows");

    assert_ne!(joined.serial(), lost.serial());
    assert_eq!(restored.news("example").await, RENEWED);
    assert_eq!(restored.locks().await, 0);
    restored.check().await;
    world.check().await;
}
