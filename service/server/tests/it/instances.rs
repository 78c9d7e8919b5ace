//! Bot instances, which stay in sight after they expired (protocol, section 2).

use chrono::TimeDelta;
use join_proto::v1::{self, LockTarget};

use crate::world::{World, get, wire_time};

async fn health(world: &World) -> Vec<String> {
    world.settle().await;
    world.auditor.instances().await.into_iter().map(|instance| instance.status.unwrap().health).collect()
}

#[tokio::test]
async fn an_instance_has_a_health_word() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    assert_eq!(health(&world).await, ["active"]);

    world.advance(TimeDelta::minutes(50));
    assert_eq!(health(&world).await, ["expiring"]);
    world.advance(TimeDelta::minutes(11));
    assert_eq!(health(&world).await, ["expired"], "it stays visible");

    bot.join().await.unwrap();
    let mut words = health(&world).await;
    words.sort();
    assert_eq!(words, ["active", "expired"]);

    assert_eq!(bot.joining().without_certificate().without_join_state().await.unwrap_err(), "JOIN_STATE_REQUIRED");
    assert!(health(&world).await.contains(&"contested".to_owned()), "a refusal after proof never passes unseen");

    let target = LockTarget { user: "bot-example".to_owned(), ..LockTarget::default() };
    let lock = world.operator.lock(target).await.unwrap();
    assert_eq!(health(&world).await, ["locked", "locked"]);
    world.operator.unlock(&lock.metadata.unwrap().name).await.unwrap();

    world.advance(TimeDelta::minutes(1));
    let locked = v1::ListBotInstancesRequest { health: "contested".to_owned(), ..Default::default() };
    let locked = world.auditor.resources().await.list_bot_instances(locked).await.unwrap().into_inner();
    assert_eq!(locked.bot_instances.len(), 1);
    let nonsense = v1::ListBotInstancesRequest { health: "fine".to_owned(), ..Default::default() };
    assert!(world.auditor.resources().await.list_bot_instances(nonsense).await.is_err());
    world.check().await;
}

#[tokio::test]
async fn an_instance_shows_its_authentications() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    let first = bot.join().await.unwrap();
    let began = wire_time(world.now());
    world.advance(TimeDelta::minutes(1));
    bot.join().await.unwrap();
    bot.joining().losing_the_answer().await.unwrap();
    let resumed = bot.join().await.unwrap();
    world.settle().await;

    let shown = world.auditor.resources().await.get_bot_instance(crate::world::get(&first.instance())).await;

    let shown = shown.unwrap().into_inner();
    assert_eq!(shown.metadata.unwrap().revision, "1", "its specification never changes");
    let spec = shown.spec.unwrap();
    assert_eq!((spec.bot_name.as_str(), spec.token_name.as_str()), ("example", "example"));
    assert_eq!((spec.instance_id, spec.previous_instance_id.as_str()), (first.instance(), ""));
    let status = shown.status.unwrap();
    assert_eq!(status.generation, 3);
    assert_eq!(status.certificate_expires.unwrap().seconds, resumed.certificate.not_after());
    let began_with = status.first_authentication.unwrap();
    assert_eq!((began_with.join.as_str(), began_with.at), ("first_join", Some(began)));
    assert_eq!(Some(&began_with), status.latest_authentications.first(), "its address and serial are still known");
    let latest: Vec<_> =
        status.latest_authentications.iter().map(|seen| (seen.join.as_str(), seen.generation)).collect();
    assert_eq!(latest, [("first_join", 1), ("renewal", 2), ("renewal", 3), ("resume", 3)]);
    let newest = status.latest_authentications.last().unwrap();
    assert_eq!(newest.serial, resumed.serial());
    assert!(newest.remote_addr.starts_with("127.0.0.1:"));
    world.check().await;
}

#[tokio::test]
async fn instances_are_shown_as_they_were() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    let before = wire_time(world.now());
    world.advance(TimeDelta::minutes(1));
    let first = bot.join().await.unwrap();
    let joined = wire_time(world.now());
    world.advance(TimeDelta::hours(2));
    bot.join().await.expect("a recovery begins another instance");
    let target = LockTarget { user: "bot-example".to_owned(), ..LockTarget::default() };
    world.operator.lock(target).await.unwrap();
    world.settle().await;
    let mut resources = world.auditor.resources().await;
    let mut at = async |at: Option<prost_types::Timestamp>| {
        let request = v1::ListBotInstancesRequest { at, ..Default::default() };
        let listed = resources.list_bot_instances(request).await.unwrap().into_inner().bot_instances;
        listed.into_iter().map(|one| (one.metadata.unwrap().name, one.status.unwrap().health)).collect::<Vec<_>>()
    };

    assert_eq!(at(None).await.len(), 2);
    assert_eq!(at(Some(joined)).await, [(first.instance(), "active".to_owned())]);
    assert!(at(Some(before)).await.is_empty());

    let request = v1::GetRequest { at: Some(joined), ..get(&first.instance()) };
    let shown = world.auditor.resources().await.get_bot_instance(request).await.unwrap().into_inner();
    assert_eq!(shown.status.unwrap().health, "active", "locks and expiry came later");
    let request = v1::GetRequest { at: Some(before), ..get(&first.instance()) };
    assert!(world.auditor.resources().await.get_bot_instance(request).await.is_err());
    world.check().await;
}

#[tokio::test]
async fn instances_come_in_pages_also_those_of_one_token() {
    let world = World::start().await;
    for name in ["many", "other"] {
        let mut bot = world.bot(name).of_bot("shared").mode("insecure").await;
        for _ in 0..if name == "many" { 5 } else { 1 } {
            bot.joining().without_certificate().await.unwrap();
            world.advance(TimeDelta::seconds(1));
        }
    }
    let joined = wire_time(world.now());
    world.settle().await;
    let mut resources = world.auditor.resources().await;
    let mut pages = async |mut list: v1::ListBotInstancesRequest| {
        let (mut names, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let page = resources.list_bot_instances(list.clone()).await.unwrap().into_inner();
            sizes.push(page.bot_instances.len());
            names.extend(page.bot_instances.into_iter().map(|one| one.metadata.unwrap().name));
            if page.next_cursor.is_empty() {
                names.sort();
                return (names, sizes);
            }
            list.cursor = page.next_cursor;
        }
    };

    let (all, _) = pages(v1::ListBotInstancesRequest::default()).await;
    assert_eq!(all.len(), 6);
    let small = v1::ListBotInstancesRequest { page_size: 2, ..Default::default() };
    let (past, sizes) = pages(v1::ListBotInstancesRequest { at: Some(joined), ..small.clone() }).await;
    assert_eq!((past, sizes), (all.clone(), vec![2, 2, 2]));
    let active = v1::ListBotInstancesRequest { health: "active".to_owned(), ..small };
    let (past, sizes) = pages(v1::ListBotInstancesRequest { at: Some(joined), ..active.clone() }).await;
    assert_eq!((past, sizes), (all.clone(), vec![2, 2, 2]));
    let (now, sizes) = pages(active).await;
    assert_eq!(now, all);
    assert!(sizes.iter().all(|size| *size <= 2), "{sizes:?}");

    let nonsense = v1::ListBotInstancesRequest { at: Some(joined), cursor: "a/b/c".to_owned(), ..Default::default() };
    assert!(world.auditor.resources().await.list_bot_instances(nonsense).await.is_err());
    world.check().await;
}

#[tokio::test]
async fn instances_are_selected_by_the_labels_of_their_tokens() {
    let world = World::start().await;
    for name in ["one", "two"] {
        world.bot(name).await.join().await.unwrap();
    }
    world
        .admin
        .edit("two", |token| {
            token.metadata.as_mut().unwrap().labels.insert("rack".to_owned(), "12".to_owned());
        })
        .await
        .unwrap();
    world.settle().await;

    let request = v1::ListBotInstancesRequest { selector: "rack=12".to_owned(), ..Default::default() };
    let listed = world.auditor.resources().await.list_bot_instances(request).await.unwrap().into_inner();

    let tokens: Vec<_> = listed.bot_instances.into_iter().map(|one| one.spec.unwrap().token_name).collect();
    assert_eq!(tokens, ["two"]);
    world.check().await;
}
