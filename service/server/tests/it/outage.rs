//! The database goes away and comes back.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use http::StatusCode;
use join_embedded::{Cluster, Options};
use join_ledger::provision;
use join_server::config::Limits;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::world::{
    Bot, Database, Finished, Http, Installed, PATIENCE, RENEWED, Transport, World, open_directory, terminate, until,
};

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn start(postgres: &Path) -> Cluster {
    let path = postgres.to_owned();
    blocking(move || Cluster::start(&path, &Options::fast()).unwrap()).await
}

#[tokio::test]
async fn without_its_database_the_service_says_so_and_recovers() {
    let directory = open_directory();
    let path = directory.path().join("postgres");
    let postgres = start(&path).await;
    let world = World::on(Database::fresh_on(postgres.address()).await, Limits::default()).await;
    let mut bots: Vec<Bot> = Vec::new();
    for (name, over) in [("first", Transport::Grpc), ("second", Transport::Json)] {
        let mut bot = world.bot(name).over(over).await;
        bot.join().await.unwrap();
        bot.join().await.unwrap();
        bots.push(bot);
    }
    world.catch_up("first").await;
    let mut proven = world.bot("third").await;
    proven.join().await.unwrap();
    proven.secret.clear();
    world.admin.rotate("third").await.unwrap();
    let asked_for_a_key = proven.joining().offering("nonsense").begin().await.unwrap().answer().await.unwrap();
    let challenged = bots[0].clone();
    let mut health = HealthClient::new(world.stranger().channel().await);
    let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    blocking(move || postgres.stop().unwrap()).await;

    let mut http = world.stranger().http().await;
    assert_eq!(http.get("/healthz").await.status, StatusCode::OK, "it is alive");
    until("it is not ready", async || world.readiness().await.contains("database")).await;
    let mut beside_metrics = Http::plain(world.node(0).metrics_address).await;
    assert_eq!(beside_metrics.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(beside_metrics.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(http.get("/crl").await.status, StatusCode::SERVICE_UNAVAILABLE, "no list is better than an old one");
    for bot in &mut bots {
        let refused = bot.join().await.unwrap_err();
        assert_eq!(refused, "UNAVAILABLE");
        assert!(["Unavailable", "503"].contains(&refused.status.as_str()), "{refused:?}");
        assert!(refused.message.contains("retry the same attempt"), "{}", refused.message);
    }
    let unrecorded = asked_for_a_key.answer().await.map(|_| ()).unwrap_err();
    assert_eq!(unrecorded, "UNAVAILABLE", "a refusal after a proof is recorded, or else it is none");
    let mut unknown = challenged.clone();
    unknown.token = "unknown".to_owned();
    assert_eq!(unknown.join().await.unwrap_err(), "UNAVAILABLE");
    assert_eq!(world.admin.get_token("first").await.unwrap_err(), "UNAVAILABLE");
    let serving = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(serving.status(), ServingStatus::NotServing);
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing, "a watcher is told");

    let postgres = start(&path).await;

    for bot in &mut bots {
        // A connection that was used a moment before the outage is used once more, and is found dead.
        let found_again = async {
            loop {
                match bot.join().await {
                    Err(refused) if refused == "UNAVAILABLE" => tokio::time::sleep(Duration::from_millis(50)).await,
                    joined => break joined,
                }
            }
        };
        let joined = tokio::time::timeout(PATIENCE, found_again).await.expect("the node finds its database again");
        joined.expect("the same attempt, with nothing changed");
    }
    assert_eq!(world.news("first").await, RENEWED, "it happened once");
    assert_eq!(world.locks().await, 0);
    until("it is ready again", async || world.readiness().await == "ok\n").await;
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    world.check().await;
    blocking(move || postgres.stop().unwrap()).await;
}

#[tokio::test]
async fn a_node_that_starts_before_its_database_waits_for_it() {
    let directory = open_directory();
    let path = directory.path().join("postgres");
    let postgres = start(&path).await;
    let installed = Installed::on(Database::fresh_on(postgres.address()).await);
    installed.run(&["init", "--admin-identity", &installed.text("admin")]).await.done();
    blocking(move || postgres.stop().unwrap()).await;
    let waits = async |log: &str| {
        let said = fs::read_to_string(installed.path(log)).unwrap_or_default();
        said.contains("waiting for the database: the database cannot be reached") && said.contains("trying again in")
    };

    let log = File::create(installed.path("stopped.log")).unwrap();
    let told_to_stop = installed.command(&["serve"]).stderr(log).spawn().unwrap();
    until("it says that it waits", async || waits("stopped.log").await).await;
    assert_eq!(terminate(told_to_stop).await.code(), Some(0));

    let comes_back = async {
        until("it says that it waits", async || waits("joind.log").await).await;
        start(&path).await
    };
    let (running, postgres) = tokio::join!(installed.serve(), comes_back);
    let admin = running.administrator(&installed.path("admin"));
    assert_eq!(admin.status().await.cluster_name, "test.example");
    assert!(running.stop().await.success());
    blocking(move || postgres.stop().unwrap()).await;
}

/// What does not pass by itself is no reason to wait.
#[tokio::test]
async fn a_node_does_not_wait_for_a_database_that_is_not_fit() {
    let installed = Installed::on(Database::bare().await);
    let refused = installed.run(&["serve"]).await.refused();
    assert!(refused.contains("no schema yet: run `joind migrate`"), "{refused}");

    let mut nowhere = installed.command(&["serve"]);
    nowhere
        .env("JOIND_DATABASE__SERVICE_URL", installed.database.url(provision::SERVICE).replace("server_", "no_such_"));
    let refused = Finished::of(nowhere).await.refused();
    assert!(refused.contains("there is no such database"), "{refused}");
}

#[tokio::test]
async fn who_finds_no_place_in_the_queue_is_told_to_come_later() {
    let world = World::on(Database::fresh().await.with_queue(1), Limits::default()).await;
    let mut bots: Vec<Bot> = Vec::new();
    for number in 0..6 {
        let over = if number < 3 { Transport::Grpc } else { Transport::Json };
        let mut bot = world.bot(&format!("example-{number}")).over(over).await;
        bot.join().await.unwrap();
        bots.push(bot);
    }
    let held = world.database.hold().await;
    let join = |mut bot: Bot| tokio::spawn(async move { (bot.join().await, bot) });
    let first = join(bots.remove(0));
    until("an append waits for the database", async || world.database.somebody_waits().await).await;

    let others: Vec<_> = bots.into_iter().map(join).collect();
    let turned_away = async || others.iter().filter(|join| join.is_finished()).count() == 4;
    until("all are turned away but the one in the queue", turned_away).await;
    held.release().await;

    first.await.unwrap().0.unwrap();
    let mut answers = Vec::new();
    for other in others {
        answers.push(other.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|(joined, _)| joined.is_ok()).count(), 1);
    for (refused, mut bot) in answers {
        let Err(refused) = refused else { continue };
        assert_eq!(refused, "RATE_LIMITED");
        assert!(["ResourceExhausted", "429"].contains(&refused.status.as_str()), "{refused:?}");
        assert!(refused.retry_after.is_some_and(|seconds| seconds > 0), "{refused:?}");
        bot.join().await.expect("the same attempt, with nothing changed");
    }
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn a_node_that_stops_finishes_what_was_begun() {
    let mut world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    let challenged = bot.joining().begin().await.unwrap();

    let (_, joined) = tokio::join!(world.restart(), challenged.finish());

    joined.unwrap();
    bot.join().await.expect("on the node that was started since");
    assert_eq!(world.token("example").await.generation, 3);
    assert_eq!(world.locks().await, 0);
    world.check().await;
}
