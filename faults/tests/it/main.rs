//! A sample of every kind of fault; `make faults` runs them all.

use join_faults::{
    host::Client,
    kinds::{self, Lengths},
    report::{KindReport, Selection},
};
use tokio::sync::OnceCell;

async fn lengths() -> &'static Lengths {
    static LENGTHS: OnceCell<Lengths> = OnceCell::const_new();
    LENGTHS.get_or_init(async || kinds::lengths(&[Client::Grpc, Client::Json]).await.unwrap()).await
}

fn sample(at_most: usize) -> Selection {
    Selection { at_most: Some(at_most), ..Selection::default() }
}

fn passed(report: &KindReport) {
    println!("{report}");
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(report.cases > report.not_reached, "most cases come to what they are about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_at_any_message_costs_nothing() {
    passed(&kinds::network::run(&sample(96), lengths().await).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_costs_nothing() {
    passed(&kinds::kill_service::run(&sample(16), lengths().await).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_costs_nothing() {
    passed(&kinds::kill_agent::run(&sample(24), lengths().await).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_costs_nothing() {
    passed(&kinds::kill_database::run(&sample(12), lengths().await).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_disk_costs_nothing() {
    passed(&kinds::storage::run(&sample(48)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_disk_locks() {
    passed(&kinds::clones::run(&sample(48)).await.unwrap());
}
