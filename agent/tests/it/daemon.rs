//! The daemon: renewals, refusals, orders.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use join_agent::{
    Agent, Joined,
    clock::Clock as _,
    credentials::Facts,
    error::JoinError,
    health::Health,
    output::Identity,
    run::{self, Order},
};
use join_domain::refusal::Code;
use tokio::{sync::mpsc, task::JoinHandle};
use tonic_types::ErrorDetails;

use crate::{
    authority::Trouble,
    host::{Host, TestClock},
};

struct Daemon {
    orders: mpsc::Sender<Order>,
    health: Arc<Health>,
    task: JoinHandle<Result<bool, JoinError>>,
}

impl Daemon {
    fn start(host: &Host, agent: Agent) -> Self {
        Self::by(host.clock.clone(), agent)
    }

    /// On a host whose clock is another.
    fn by(clock: TestClock, mut agent: Agent) -> Self {
        let (orders, mut receiver) = mpsc::channel(4);
        let health = Health::new(clock);
        let seen = health.clone();
        let task = tokio::spawn(async move { run::daemon(&mut agent, &seen, &mut receiver).await });
        Self { orders, health, task }
    }

    /// Stops it; says whether it ever joined.
    async fn stop(self) -> bool {
        self.orders.send(Order::Stop).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.task).await.unwrap().unwrap().unwrap()
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn it_renews_on_its_interval_and_when_told() {
    let mut host = Host::new().await;
    host.config.renewal_interval = Duration::from_secs(1);
    let daemon = Daemon::start(&host, host.agent());
    until("three joins", async || host.authority.book().accepted >= 3).await;
    daemon.stop().await;
    assert_eq!(host.authority.book().recoveries, 1, "all after the first were renewals");

    host.config.renewal_interval = Duration::from_secs(3600);
    // A stop may have come between an answer and its storing: the next start resumes that join.
    let answered = || {
        let book = host.authority.book();
        book.accepted + book.resumed
    };
    let before = answered();
    let daemon = Daemon::start(&host, host.agent());
    until("a join at the start", async || answered() == before + 1).await;
    // An order that comes while that join is still being stored is followed by it, so it is given again.
    let told = async || daemon.orders.try_send(Order::Renew).is_ok() && answered() >= before + 2;
    until("a join when told", told).await;
    daemon.stop().await;
}

#[tokio::test]
async fn it_renews_at_once_when_the_host_has_slept_past_its_interval() {
    let mut host = Host::new().await;
    host.config.renewal_interval = Duration::from_secs(60);
    let daemon = Daemon::start(&host, host.agent());
    // Ready: its next renewal is set by the clock that is moved now.
    until("joined", async || daemon.health.is_ready()).await;
    assert_eq!(host.authority.book().accepted, 1);
    host.clock.advance(TimeDelta::seconds(60));
    until("a renewal", async || host.authority.book().accepted == 2).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_host_whose_clock_is_slow_gets_and_renews_certificates_by_the_authoritys_clock() {
    let host = Host::new().await;
    let slow = TestClock::default();
    host.clock.advance(TimeDelta::minutes(50));
    let mut agent = host.agent_by(slow.clone());
    let life = |joined: &Joined| joined.certificate.not_after - host.clock.now();

    // The first wish is by the host's own clock: an hour from there is over in ten minutes.
    let first = agent.join_once().await.unwrap();
    assert!((TimeDelta::minutes(9)..=TimeDelta::minutes(10)).contains(&life(&first)), "{}", life(&first));
    assert!(run::until_renewal(&agent, &first) < Duration::from_secs(7 * 60));
    // The challenge told the time, so the next is right.
    let second = agent.join_once().await.unwrap();
    let hour = TimeDelta::hours(1);
    assert!((life(&second) - hour).abs() < TimeDelta::minutes(1), "{}", life(&second));
    assert_eq!(host.authority.book().recoveries, 1);
}

/// A host whose clock is so slow that the end which its first join asks for is over.
async fn host_of_the_past() -> (Host, TestClock) {
    let mut host = Host::new().await;
    host.config.certificate_ttl = Duration::from_secs(30 * 60);
    host.clock.advance(TimeDelta::minutes(50));
    (host, TestClock::default())
}

/// Whether a certificate lives about as long as this host wishes.
fn lives_as_wished(host: &Host, certificate: &Facts) -> bool {
    let life = certificate.not_after - host.clock.now();
    (life - TimeDelta::from_std(host.config.certificate_ttl).unwrap()).abs() < TimeDelta::minutes(1)
}

#[tokio::test]
async fn one_shot_with_a_slow_clock_does_not_end_with_a_certificate_that_is_nearly_over() {
    let root = tempfile::tempdir().unwrap();
    let (mut host, slow) = host_of_the_past().await;
    host.config.outputs = vec![Identity::new(root.path()).unwrap()];
    let joined = run::once(&mut host.agent_by(slow)).await.unwrap();
    assert!(lives_as_wished(&host, &joined.certificate), "{:?}", joined.certificate);
    let stored = host.agent().state().unwrap().accepted.unwrap().credentials;
    assert!(host.config.outputs[0].holds(&stored) && stored.facts().unwrap() == joined.certificate);
    let book = host.authority.book();
    assert_eq!((book.accepted, book.recoveries, book.locked), (2, 1, None), "the second was a renewal");
}

#[tokio::test]
async fn the_join_that_corrects_a_slow_clock_may_be_lost_like_any_other() {
    let nothing = || Trouble::Result(|_| {});
    for troubles in [
        vec![nothing(), Trouble::LoseAnswer],
        vec![nothing(), Trouble::LoseRequest],
        vec![Trouble::LoseAnswer, nothing(), Trouble::LoseAnswer],
    ] {
        let (host, slow) = host_of_the_past().await;
        let lost = troubles.iter().filter(|trouble| matches!(trouble, Trouble::LoseAnswer)).count();
        host.authority.trouble(troubles);
        let joined = run::once(&mut host.agent_by(slow)).await.unwrap();
        assert!(lives_as_wished(&host, &joined.certificate), "{:?}", joined.certificate);
        let book = host.authority.book();
        assert_eq!((book.accepted, book.resumed as usize, book.recoveries, book.locked), (2, lost, 1, None));
    }
}

#[tokio::test]
async fn a_join_that_corrects_a_slow_clock_and_is_refused_leaves_what_there_is() {
    let root = tempfile::tempdir().unwrap();
    let (mut host, slow) = host_of_the_past().await;
    host.config.outputs = vec![Identity::new(root.path()).unwrap()];
    host.authority.trouble([Trouble::Result(|_| {}), Trouble::refuse(Code::Locked)]);
    let refused = run::once(&mut host.agent_by(slow)).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Locked));
    let stored = host.agent().state().unwrap().accepted.unwrap().credentials;
    assert!(host.config.outputs[0].holds(&stored));
}

#[tokio::test]
async fn an_authority_that_caps_lives_is_asked_again_once_at_most_and_only_for_a_wrong_clock() {
    for (clock_is_slow, joins) in [(false, 1), (true, 2)] {
        let (host, slow) = host_of_the_past().await;
        host.authority.book().max_life = TimeDelta::minutes(10);
        let mut agent = if clock_is_slow { host.agent_by(slow) } else { host.agent() };
        run::once(&mut agent).await.unwrap();
        assert_eq!(host.authority.book().accepted, joins);
        run::once(&mut agent).await.unwrap();
        assert_eq!(host.authority.book().accepted, joins + 1, "the time is known by now");
    }
}

#[tokio::test]
async fn a_daemon_with_a_slow_clock_joins_twice_and_then_on_its_interval() {
    let (mut host, slow) = host_of_the_past().await;
    // The first certificate has ten minutes, so that its renewal would not be due yet.
    host.config.certificate_ttl = Duration::from_secs(60 * 60);
    let daemon = Daemon::start(&host, host.agent_by(slow));
    until("two joins", async || host.authority.book().accepted == 2).await;
    until("a certificate that lives", async || {
        let accepted = host.agent().state().unwrap().accepted;
        accepted.is_some_and(|accepted| lives_as_wished(&host, &accepted.credentials.facts().unwrap()))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.stop().await;
    let book = host.authority.book();
    assert_eq!((book.streams, book.recoveries), (2, 1));
}

#[tokio::test]
async fn it_goes_on_by_itself_after_losses() {
    let host = Host::new().await;
    host.authority.trouble([Trouble::LoseRequest, Trouble::LoseAnswer, Trouble::refuse(Code::Unavailable)]);
    let daemon = Daemon::start(&host, host.agent());
    until("joined", async || daemon.health.is_ready()).await;
    assert!(daemon.stop().await);
    let book = host.authority.book();
    assert_eq!((book.accepted, book.resumed, book.locked), (1, 1, None));
}

#[tokio::test]
async fn a_refused_start_ends_it_and_a_later_refusal_does_not() {
    let host = Host::new().await;
    let refuse = || Trouble::refuse(Code::RecoveryLimitExhausted);
    host.authority.trouble([refuse()]);
    let refused = Daemon::start(&host, host.agent()).task.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Some(Code::RecoveryLimitExhausted));

    let daemon = Daemon::start(&host, host.agent());
    until("joined", async || daemon.health.is_ready()).await;
    host.authority.trouble([refuse()]);
    daemon.orders.send(Order::Renew).await.unwrap();
    until("refused", async || host.authority.book().streams == 3).await;
    // Told again, it tries again: nothing has to be restarted when an administrator has acted.
    until("renewed", async || {
        let _ = daemon.orders.try_send(Order::Renew);
        host.authority.book().accepted == 2
    })
    .await;
    daemon.stop().await;
}

#[tokio::test]
async fn one_that_joined_before_it_was_started_stays_when_it_is_refused() {
    let mut host = Host::new().await;
    host.agent().join_once().await.unwrap();
    host.authority.trouble([Trouble::refuse(Code::Locked)]);
    let daemon = Daemon::start(&host, host.agent());
    until("refused", async || host.authority.book().streams == 2).await;
    until("renewed", async || {
        let _ = daemon.orders.try_send(Order::Renew);
        host.authority.book().accepted == 2
    })
    .await;
    daemon.stop().await;

    host.config.token = "other".parse().unwrap();
    let refused = Daemon::start(&host, host.agent()).task.await.unwrap().unwrap_err();
    assert!(matches!(refused, JoinError::OtherIdentity { .. }), "that was the join of another token: {refused}");
}

#[tokio::test]
async fn an_output_that_cannot_be_written_is_tried_again_without_another_join() {
    let root = tempfile::tempdir().unwrap();
    let mut host = Host::new().await;
    host.config.outputs = vec![Identity::new(root.path()).unwrap()];
    // The directory can be written, and one of its files can't be: here, since what is written first can't be.
    let obstacle = root.path().join(".tlscert.new");
    std::fs::create_dir(&obstacle).unwrap();

    let daemon = Daemon::start(&host, host.agent());
    until("a part of the output", async || root.path().join("key").exists()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(host.authority.book().streams, 1, "it joined, and did not join again");
    assert!(!daemon.health.is_ready(), "other programs have no certificate yet");
    std::fs::remove_dir(&obstacle).unwrap();
    until("ready", async || daemon.health.is_ready()).await;
    assert!(root.path().join("tlscert").exists());
    assert_eq!(host.authority.book().streams, 1);

    std::fs::create_dir(&obstacle).unwrap();
    host.authority.trouble([Trouble::refuse(Code::Locked)]);
    daemon.orders.send(Order::Renew).await.unwrap();
    until("refused", async || host.authority.book().streams == 2).await;
    assert!(daemon.stop().await, "it has joined, so that a refusal does not end it");
}

#[tokio::test]
async fn it_can_be_stopped_before_it_has_joined() {
    let mut host = Host::new().await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    host.config.authority = nobody.local_addr().unwrap().to_string().parse().unwrap();
    let daemon = Daemon::start(&host, host.agent());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!daemon.stop().await, "also while it waits for an answer");
}

#[tokio::test]
async fn one_shot_tries_a_few_times() {
    let root = tempfile::tempdir().unwrap();
    let mut host = Host::new().await;
    host.config.outputs = vec![Identity::new(root.path()).unwrap()];
    host.authority.trouble([Trouble::LoseAnswer, Trouble::refuse(Code::Conflict)]);
    run::once(&mut host.agent()).await.unwrap();
    assert!(root.path().join("tlscert").exists());
    assert_eq!(host.authority.book().streams, 3);

    let forever = std::iter::repeat_n(Trouble::LoseRequest, 100);
    host.authority.trouble(forever);
    let before = host.authority.book().streams;
    assert!(matches!(run::once(&mut host.agent()).await, Err(JoinError::Network(_))));
    assert_eq!(host.authority.book().streams - before, 5);
}

#[tokio::test]
async fn one_shot_that_finds_no_authority_leaves_the_outputs_with_what_lives() {
    let root = tempfile::tempdir().unwrap();
    let mut host = Host::new().await;
    host.agent().join_once().await.unwrap();
    host.config.outputs = vec![Identity::new(root.path()).unwrap()];
    let stored = host.agent().state().unwrap().accepted.unwrap().credentials;
    let lost = || std::iter::repeat_n(Trouble::LoseRequest, 5);

    host.authority.trouble(lost());
    assert!(matches!(run::once(&mut host.agent()).await, Err(JoinError::Network(_))));
    assert!(host.config.outputs[0].holds(&stored));

    std::fs::remove_file(root.path().join("tlscert")).unwrap();
    host.let_certificate_expire();
    host.authority.trouble(lost());
    assert!(matches!(run::once(&mut host.agent()).await, Err(JoinError::Network(_))));
    assert!(!root.path().join("tlscert").exists(), "that of a certificate that ended is no use");
}

#[tokio::test]
async fn one_shot_does_not_wait_longer_than_it_may() {
    let host = Host::new().await;
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(600)));
    host.authority.trouble([Trouble::refuse_with(Code::RateLimited, details)]);
    let error = run::once(&mut host.agent()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::RateLimited));
    assert_eq!(host.authority.book().streams, 1);
}

#[tokio::test]
async fn machines_can_see_how_it_is() {
    let host = Host::new().await;
    let daemon = Daemon::start(&host, host.agent());
    let address = daemon.health.clone().serve("127.0.0.1:0".parse().unwrap()).await.unwrap();
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
    until("joined", async || daemon.health.is_ready()).await;
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("joinbot_joins_total{outcome=\"joined\"} 1"), "{metrics}");
    assert!((3590..=3600).contains(&life(&metrics)), "{metrics}");
    host.let_certificate_expire();
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_certificate_lives_by_the_authoritys_clock_also_where_the_hosts_is_fast() {
    let host = Host::new().await;
    let fast = TestClock::default();
    fast.advance(TimeDelta::minutes(90));
    let daemon = Daemon::by(fast.clone(), host.agent_by(fast.clone()));
    let address = daemon.health.clone().serve("127.0.0.1:0".parse().unwrap()).await.unwrap();
    // The first wish is by the host's own clock, and is for too long.
    until("joined", async || daemon.health.is_ready()).await;
    let metrics = get(address, "/metrics").await;
    assert!((8990..=9000).contains(&life(&metrics)), "{metrics}");

    daemon.orders.send(Order::Renew).await.unwrap();
    until("renewed", async || host.authority.book().accepted == 2).await;
    until("told", async || (3590..=3600).contains(&life(&get(address, "/metrics").await))).await;
    assert!(daemon.health.is_ready(), "by the host's clock it has ended half an hour ago");
    fast.advance(TimeDelta::minutes(61));
    assert!(!daemon.health.is_ready());
    daemon.stop().await;
}

/// How long the newest certificate had to live when it came.
fn life(metrics: &str) -> i64 {
    let told = metrics.lines().find_map(|line| line.strip_prefix("joinbot_certificate_life_seconds "));
    told.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_stored_certificate_makes_it_ready_while_the_authority_is_away() {
    let mut host = Host::new().await;
    host.agent().join_once().await.unwrap();
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    host.config.authority = nobody.local_addr().unwrap().to_string().parse().unwrap();
    let daemon = Daemon::start(&host, host.agent());
    let address = daemon.health.clone().serve("127.0.0.1:0".parse().unwrap()).await.unwrap();
    until("ready", async || daemon.health.is_ready()).await;
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    host.let_certificate_expire();
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(!daemon.stop().await, "it has not joined");
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}
