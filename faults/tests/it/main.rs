//! A sample of every kind of fault; `make faults` runs them all.

use anyhow::Result;
use join_faults::{
    host::Client,
    kinds::{self, Lengths},
    process::unless_ended,
    report::{KindReport, Selection},
};
use tokio::sync::OnceCell;

async fn lengths() -> &'static Lengths {
    static LENGTHS: OnceCell<Lengths> = OnceCell::const_new();
    LENGTHS.get_or_init(async || kinds::lengths(&[Client::Grpc, Client::Json]).await.unwrap()).await
}

async fn passes(at_most: usize, run: impl AsyncFnOnce(&Selection) -> Result<KindReport>) {
    let selection = Selection { at_most: Some(at_most), ..Selection::default() };
    let report = unless_ended(run(&selection)).await.unwrap();
    println!("{report}");
    let wrong = report.verdict(&selection);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_at_any_message_costs_nothing() {
    passes(96, async |sample| kinds::network::run(sample, lengths().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_costs_nothing() {
    passes(16, async |sample| kinds::kill_service::run(sample, lengths().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_costs_nothing() {
    passes(24, async |sample| kinds::kill_agent::run(sample, lengths().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_costs_nothing() {
    passes(24, async |sample| kinds::kill_database::run(sample, lengths().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_disk_costs_nothing() {
    passes(48, async |sample| kinds::storage::run(sample).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_disk_locks() {
    passes(48, async |sample| kinds::clones::run(sample).await).await;
}
