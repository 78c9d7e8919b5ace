//! States are stored now and then; what happened since is folded by whoever reads them.

use join_domain::{
    event::{Event, ExemptionGranted},
    id::GrantId,
    resource::ExemptionKind,
};
use join_ledger::{Append, TokenSlot};
use sqlx::{Connection as _, PgConnection};

use crate::support::*;

/// Entries since the token's state was stored.
async fn since_snapshot(database: &Database) -> i64 {
    let mut superuser = PgConnection::connect_with(&database.superuser()).await.unwrap();
    let since = "SELECT cardinality(since)::bigint FROM folded WHERE kind = 'token'";
    sqlx::query_scalar(since).fetch_one(&mut superuser).await.unwrap()
}

/// What another node reads is what this one remembers, however long ago it was stored.
async fn is_read_as_remembered(database: &Database, slot: &TokenSlot) {
    let other = database.ledger().await;
    let read = other.token(&name("example")).await.unwrap();
    let (read, remembered) = (read.known().unwrap(), slot.known().unwrap());
    assert_eq!((&read.token, read.version, read.fence), (&remembered.token, remembered.version, remembered.fence));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_token_is_stored_each_sixty_four_events() {
    let database = Database::fresh().await;
    let ledger = database.ledger().await;
    example(&ledger).await;
    first_join(&ledger, "example", key(1), 70).await;
    assert_eq!(since_snapshot(&database).await, 0, "a first join is more than a version and a generation");
    let mut slot = ledger.token(&name("example")).await.unwrap();
    let mut lengths = Vec::new();
    for _ in 0..70 {
        renew(&ledger, &mut slot, None).await.unwrap();
        lengths.push(since_snapshot(&database).await);
        if lengths.len().is_multiple_of(10) {
            is_read_as_remembered(&database, &slot).await;
        }
    }
    let stored: Vec<usize> = (0..lengths.len()).filter(|renewal| lengths[*renewal] == 0).collect();
    assert!(stored.len() >= 2 && stored[0] < 32, "{lengths:?}");
    assert!(stored.windows(2).all(|two| two[1] - two[0] == 32), "a renewal is two events here: {stored:?}");
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
        renew(&node, &mut slot, None).await.unwrap();
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
    renew(&ledger, &mut slot, None).await.unwrap();
    assert_eq!(since_snapshot(&database).await, 1);
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
