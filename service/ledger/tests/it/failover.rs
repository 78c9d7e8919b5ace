//! A standby takes over that lacks the newest commits: what this node remembers of those counts nowhere.

use std::{path::Path, process::Command, time::Duration};

use join_embedded::{Cluster, Options};
use join_ledger::{AppendError, Ledger, PgConnectOptions, Recording, Settings, provision};

use crate::support::*;

async fn start(directory: &Path) -> Cluster {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || Cluster::start(&directory, &Options::fast())).await.unwrap().unwrap()
}

async fn stop(cluster: Cluster) {
    tokio::task::spawn_blocking(move || cluster.stop()).await.unwrap().unwrap();
}

/// Puts a server's files in the place of another's, with their owner.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Renews a token that nothing else is about, until it works: then the node's connections are to the server that runs.
async fn reconnect(ledger: &Ledger) {
    for _ in 0..100 {
        if let Ok(mut slot) = ledger.token(&name("neighbour")).await
            && renew(ledger, &mut slot, None).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_lost_counts_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let (primary, standby) = (directory.path().join("primary"), directory.path().join("standby"));
    let cluster = start(&primary).await;
    let superuser: PgConnectOptions = cluster.address().url("postgres", "postgres").parse().unwrap();
    let roles = provision::provision(&superuser, "join").await.unwrap();
    // One connection each for appends and reads, so that a reconnection is one of all.
    let settings = || Settings { connections: 1, writers: 1, ..Settings::default() };
    let node = Ledger::connect(roles.service.clone(), settings()).await.unwrap();
    let other = Ledger::connect(roles.service.clone(), settings()).await.unwrap();
    let bot = create_bot(&node, "example", 1).await;
    for (number, token) in [(2, "example"), (3, "neighbour")] {
        create_token(&node, token, number, ("example", bot)).await;
        first_join(&node, token, key(u8::try_from(number).unwrap()), 70 + number).await;
    }
    while node.sequence_once(100).await.unwrap().entries > 0 {}
    let settled = node.settled().await.unwrap();
    let before = node.log(settled - 1, 1).await.unwrap();
    let mark = before.mark(&before.entries[0]);
    stop(cluster).await;
    copy(&primary, &standby);

    // The node makes an append, and knows it; the standby never gets it.
    let cluster = start(&primary).await;
    reconnect(&node).await;
    let mut slot = node.token(&name("example")).await.unwrap();
    assert_eq!(renew(&node, &mut slot, Some(attempt(1))).await.unwrap(), 2);
    drop(slot);
    stop(cluster).await;
    copy(&standby, &primary);
    let cluster = start(&primary).await;

    // Another node goes on, with the same version.
    reconnect(&other).await;
    let mut slot = other.token(&name("example")).await.unwrap();
    slot.reload(&[], None).await.unwrap();
    assert_eq!(renew(&other, &mut slot, Some(attempt(2))).await.unwrap(), 2);

    // What the first node remembers fits by its version, and is refused all the same.
    reconnect(&node).await;
    let mut slot = node.token(&name("example")).await.unwrap();
    assert!(!slot.is_fresh());
    let outcome = renew(&node, &mut slot, Some(attempt(3))).await;
    assert!(matches!(outcome, Err(AppendError::Conflict)), "{outcome:?}");
    slot.reload(&[], Some(attempt(1))).await.unwrap();
    assert!(!slot.attempt_accepted_before(), "it was lost");
    assert_eq!(renew(&node, &mut slot, Some(attempt(3))).await.unwrap(), 3);

    // It follows the log that there is, not the one that it remembers.
    while node.sequence_once(100).await.unwrap().entries > 0 {}
    let (log, followed) = (node.log(settled, 100).await.unwrap(), node.follow(settled, 100).await.unwrap());
    assert_eq!(followed.entries, log.entries);
    assert_eq!(log.entries.len(), 4);

    // What is signed was read on this server: the order of entries may be another one than on the last.
    let head = node.log_head().await.unwrap();
    let recorded = node.record_signed(&head, settled, "of the old server", Some(&mark)).await.unwrap();
    assert_eq!(recorded, Recording::Replaced);
    let now = node.log(settled - 1, 1).await.unwrap();
    assert_eq!(now.entries, before.entries, "this one was not lost");
    let mark = now.mark(&now.entries[0]);
    let recorded = node.record_signed(&head, settled, "of this one", Some(&mark)).await.unwrap();
    assert_eq!(recorded, Recording::Recorded);
    node.close().await;
    other.close().await;
    stop(cluster).await;
}
