//! States are stored now and then; what happened since is folded by whoever reads them.

use join_domain::{
    event::{Event, ExemptionGranted},
    id::GrantId,
    resource::ExemptionKind,
};
use join_ledger::{Append, Ledger, TokenSlot};
use sqlx::{Connection as _, PgConnection};

use crate::support::*;

/// Entries since the token's state was stored.
async fn since_snapshot(database: &Database) -> i64 {
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let since = "SELECT cardinality(since)::bigint FROM folded WHERE kind = 'token'";
    sqlx::query_scalar(since).fetch_one(&mut superuser).await.unwrap()
}

async fn renewed(ledger: &Ledger, slot: &mut TokenSlot, times: usize) {
    for _ in 0..times {
        renew(ledger, slot, None).await.unwrap();
    }
}

/// What another node reads is what this one remembers, however long ago it was stored.
async fn is_read_as_remembered(database: &Database, slot: &TokenSlot) {
    let other = database.ledger().await;
    let read = other.token(&name("example")).await.unwrap();
    let (read, remembered) = (read.known().unwrap(), slot.known().unwrap());
    assert_eq!((&read.token, read.version, read.fence), (&remembered.token, remembered.version, remembered.fence));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_token_is_stored_each_sixteen_entries() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 70).await;
    assert_eq!(since_snapshot(&database).await, 0, "a first join is more than its version and generation");
    let mut slot = ledger.token(&name("example")).await.unwrap();
    for (times, since) in [(1, 1), (14, 15), (1, 0), (3, 3)] {
        renewed(&ledger, &mut slot, times).await;
        assert_eq!(since_snapshot(&database).await, since);
        is_read_as_remembered(&database, &slot).await;
    }
    assert!(ledger.check(|_| {}).await.unwrap().is_equal());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_had_to_be_read_is_stored_each_four_entries() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 70).await;
    for since in [1, 2, 3, 0, 1] {
        let node = database.ledger().await;
        let mut slot = node.token(&name("example")).await.unwrap();
        renewed(&node, &mut slot, 1).await;
        assert_eq!(since_snapshot(&database).await, since);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plain_join_is_stored_at_once() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 70).await;
    let mut slot = ledger.token(&name("example")).await.unwrap();
    renewed(&ledger, &mut slot, 2).await;
    let grant = GrantId(id(90));
    let granted = Event::ExemptionGranted(ExemptionGranted {
        grant,
        exemption: ExemptionKind::Recoveries,
        uses: 1,
        expires: ledger.now() + chrono::TimeDelta::hours(1),
        reason: "moved".to_owned(),
    });
    let append = slot.known().unwrap().following(change(&ledger, vec![granted]));
    slot.append(Append::all(vec![append])).await.unwrap();
    assert_eq!(since_snapshot(&database).await, 0);
    assert!(ledger.token_of_grant(grant).await.unwrap().is_some());
}
