//! Lost connections: what is known about an append, and how the ledger comes back.

use std::time::Duration;

use join_domain::{envelope::StreamId, resource::LockTarget};
use join_ledger::{AppendError, Ledger, LedgerError, PgConnectOptions, Settings, provision};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::support::*;

async fn end_sessions(database: &Database, of: &str) {
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND usename = 'join_service' AND ($1 = '' OR wait_event_type = $1)",
    )
    .bind(of)
    .execute(&mut superuser)
    .await
    .unwrap();
}

/// Renews until it works, as a client would, and says how often it had to try.
async fn renew_in_the_end(ledger: &Ledger) -> u32 {
    for tries in 1..100 {
        let mut slot = match ledger.token(&name("example")).await {
            Ok(slot) => slot,
            Err(error) => {
                assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match renew(ledger, &mut slot, None).await {
            Ok(_) => return tries,
            Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it did not come back");
}

/// A connection that was in use a moment ago is not asked whether it lives; all of those that broke since are found out by
/// one read, and whoever waits for it knows nothing of that.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_token_does_not_notice_that_connections_broke() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let bot = create_bot(&ledger, "example", 1).await;
    let names: Vec<_> = (0..100_u8).map(|number| name(&format!("token-{number}"))).collect();
    for (number, name) in (100..).zip(&names) {
        create_token(&ledger, name.as_str(), number, ("example", bot)).await;
    }
    let cold = database.ledger().await;
    let read_all = async || {
        let mut reading = JoinSet::new();
        for name in names.clone() {
            let cold = cold.clone();
            reading.spawn(async move { cold.read_token(&name).await });
        }
        reading.join_all().await
    };
    for _ in 0..3 {
        for read in read_all().await {
            assert!(read.unwrap().is_some());
        }
        end_sessions(&database, "").await;
    }
}

/// Who asks from another runtime than that of the joins has two connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_was_given_up_leaves_its_place_to_the_next_and_the_server_nothing_to_do() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    let mut blocked = Blocked::begin(&database).await;
    blocked.take("LOCK TABLE log_entry IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let elsewhere = move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            for _ in 0..2 {
                let given_up = tokio::time::timeout(Duration::from_secs(1), ledger.log(0, 1)).await;
                assert!(given_up.is_err());
            }
            let next = tokio::time::timeout(Duration::from_secs(3), ledger.load(StreamId::CLUSTER)).await;
            next.expect("a place is free").unwrap();
            let deadline = Deadline::begin();
            while blocked.waiters().await > 0 {
                deadline.wait_for("the server gives up, too").await;
            }
        });
    };
    tokio::task::spawn_blocking(elsewhere).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_connection_is_lost_has_an_unknown_outcome() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    let blocked = Blocked::stream(&database, token.0).await;
    let joining = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            let mut slot = ledger.token(&name("example")).await.unwrap();
            let outcome = renew(&ledger, &mut slot, Some(attempt(1))).await;
            assert!(slot.known().is_none(), "what is stored is not known");
            outcome
        }
    });
    blocked.until_waiting().await;
    end_sessions(&database, "Lock").await;
    let outcome = joining.await.unwrap();
    assert!(matches!(outcome, Err(AppendError::OutcomeUnknown(_))), "{outcome:?}");
    blocked.release().await;

    // The retry finds out: here, that nothing was appended.
    let mut slot = ledger.token(&name("example")).await.unwrap();
    slot.reload(&[], Some(attempt(1))).await.unwrap();
    assert!(!slot.attempt_accepted_before());
    renew(&ledger, &mut slot, Some(attempt(1))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_while_idle_costs_nothing() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    end_sessions(&database, "").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(renew_in_the_end(&ledger).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_lost_before_its_commit_changed_nothing() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let token = example(&ledger).await;
    let blocked = Blocked::stream(&database, token.0).await;
    let locking = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.append(lock_created(&ledger, 50, LockTarget::JoinToken(name("example")))).await }
    });
    blocked.until_waiting().await;
    end_sessions(&database, "Lock").await;
    let outcome = locking.await.unwrap();
    assert!(matches!(outcome, Err(AppendError::Unavailable(_))), "{outcome:?}");
    blocked.release().await;
    assert!(ledger.locks_in_force(ledger.now()).await.unwrap().is_empty());
    ledger.append(lock_created(&ledger, 50, LockTarget::JoinToken(name("example")))).await.unwrap();
}

/// The server goes away for a while: everything is UNAVAILABLE meanwhile, soon answered, and works again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_unavailable_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let path = directory.path().to_owned();
        tokio::task::spawn_blocking(move || join_embedded::Cluster::start(&path, &join_embedded::Options::fast()))
    };
    let cluster = start().await.unwrap().unwrap();
    let superuser: PgConnectOptions = cluster.address().url("postgres", "postgres").parse().unwrap();
    let roles = provision::provision(&superuser, "join").await.unwrap();
    provision::provision(&superuser, "join").await.unwrap();
    let settings = Settings { acquire_timeout: Duration::from_millis(300), ..Settings::default() };
    let ledger = Ledger::connect(roles.service.clone(), settings.clone()).await.unwrap();
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    renew_in_the_end(&ledger).await;

    tokio::task::spawn_blocking(move || cluster.stop()).await.unwrap().unwrap();
    let (mut unavailable, began) = (0, std::time::Instant::now());
    for _ in 0..10 {
        let lock = ledger.append(lock_created(&ledger, 50, LockTarget::JoinToken(name("example")))).await;
        assert!(matches!(lock, Err(AppendError::Unavailable(_))), "{lock:?}");
        match ledger.token(&name("example")).await {
            Err(LedgerError::Unavailable(_)) => unavailable += 1,
            Ok(mut slot) => {
                let outcome = renew(&ledger, &mut slot, None).await;
                let expected = matches!(outcome, Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_)));
                assert!(expected, "{outcome:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(unavailable > 0);
    assert!(began.elapsed() < Duration::from_secs(20), "answers must not take long");
    let refused = Ledger::connect(roles.service.clone(), settings).await;
    assert!(matches!(refused, Err(LedgerError::Unavailable(_))));

    let cluster = start().await.unwrap().unwrap();
    renew_in_the_end(&ledger).await;
    ledger.close().await;
    assert!(matches!(ledger.ping().await, Err(LedgerError::Unavailable(_))));
    tokio::task::spawn_blocking(move || cluster.stop()).await.unwrap().unwrap();
}

/// Sends a signal to every backend that serves a node on this database; they are processes of this machine.
async fn signal_backends(database: &Database, signal: &str, pids: &[i32]) -> Vec<i32> {
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let found: Vec<i32> = match pids {
        [] => sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'join_service'",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap(),
        pids => pids.to_vec(),
    };
    let list: Vec<String> = found.iter().map(ToString::to_string).collect();
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {}", list.join(" "))]).status();
    assert!(sent.unwrap().success());
    found
}

/// A server that lost its power says nothing, not even that the connection is closed. What it was asked is given up, and
/// so is the connection, with its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_given_up() {
    let database = Database::fresh().await;
    let ledger = Ledger::connect(database.roles.service.clone(), Settings { connections: 1, ..Settings::default() });
    let ledger = ledger.await.unwrap();
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    renew_in_the_end(&ledger).await;
    ledger.ping().await.unwrap();

    let silent = signal_backends(&database, "STOP", &[]).await;
    let answer = tokio::time::timeout(Duration::from_secs(30), ledger.ping()).await;
    let back = tokio::time::timeout(Duration::from_secs(30), async {
        while ledger.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        renew_in_the_end(&ledger).await
    });
    let back = back.await;
    signal_backends(&database, "CONT", &silent).await;

    assert!(matches!(answer, Ok(Err(LedgerError::Unavailable(_)))), "{answer:?}");
    back.expect("other connections are made, to the server that has the address now");
    ledger.close().await;
}

/// A primary that another server took over from.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_only_for_reading_is_not_ready_and_takes_nothing() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 77).await;
    renew_in_the_end(&ledger).await;
    let read_only = async |on: &str| {
        let options = database.superuser().options([("default_transaction_read_only", "off")]);
        let mut superuser = PgConnection::connect_with(&options).await.unwrap();
        let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut superuser).await.unwrap();
        let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}");
        sqlx::query(sqlx::AssertSqlSafe(set)).execute(&mut superuser).await.unwrap();
        end_sessions(&database, "").await;
    };

    read_only("on").await;
    for _ in 0..50 {
        match ledger.ping().await {
            Err(LedgerError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            not_ready => {
                assert!(matches!(not_ready, Err(LedgerError::Unfit(_))), "{not_ready:?}");
                break;
            }
        }
    }
    for _ in 0..5 {
        let lock = ledger.append(lock_created(&ledger, 50, LockTarget::JoinToken(name("example")))).await;
        assert!(matches!(lock, Err(AppendError::Unavailable(_))), "{lock:?}");
        if let Ok(mut slot) = ledger.token(&name("example")).await {
            let outcome = renew(&ledger, &mut slot, None).await;
            assert!(
                matches!(outcome, Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_))),
                "{outcome:?}"
            );
        }
    }
    read_only("off").await;
    renew_in_the_end(&ledger).await;
    ledger.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_closes_soon_whatever_is_still_being_read() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    let mut blocked = Blocked::begin(&database).await;
    blocked.take("LOCK TABLE log_entry IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reading = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.log(0, 1).await }
    });
    blocked.until_waiting().await;
    tokio::time::timeout(Duration::from_secs(10), ledger.close()).await.expect("it closes");
    blocked.release().await;
    reading.await.unwrap().unwrap();
}
