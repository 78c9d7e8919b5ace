//! Ten times as many joins as a node makes at most: does its memory stay, and what are those told for whom there is no room?

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    authority::Authority,
    ceremony::JoinError,
    fleet::{Connections, Fleet},
    measured::{Cpu, Measured},
    pace::{Load, Plan, drive},
    process::{Processes, to_f64},
    profiles::Job,
    report::{Report, short},
};

const TIMES: f64 = 10.0;
/// Connections that are kept beside the fleet's 16: 64 have room for more requests than a node takes from one address.
const MORE: usize = 48;
/// Joins under way that the generator has memory for, over kept connections, and files for, over new ones: more in each
/// case than a node takes from one address.
const ROOM: [usize; 2] = [10_000, 4000];
/// A bot that hears nothing for so long gives up.
const ANSWER: Duration = Duration::from_secs(20);
/// The allocator gives memory back within ten seconds.
const REST: Duration = Duration::from_secs(12);

/// The generator's own reasons, beside the authority's codes.
const NOT_SENT: &str = "not sent, for want of room in the generator";
const UNCONNECTED: &str = "not connected: the handshake failed, or the connection was refused";
const CLOSED: &str = "the connection was closed before an answer";
const NO_ANSWER: &str = "no answer within 20 s";

/// Recoveries at ten times each of the two peaks: over kept connections, and over a new one each.
pub(crate) async fn overload(
    peaks: [f64; 2],
    seconds: u64,
    authority: &Authority,
    mut fleet: Arc<Fleet>,
    report: &mut Report,
) -> anyhow::Result<()> {
    Arc::get_mut(&mut fleet).context("the fleet still joins")?.keep_connections(MORE).await?;
    authority.settle().await?;
    let watched = authority.watched()?;
    let joind: &Processes = watched.joind.as_ref().context("no node runs")?;
    let before = joind.memory_mb();
    joind.forget_peak_memory()?;
    let mut told = Vec::new();
    for (index, (what, connections)) in
        [("kept connections", Connections::Kept), ("a new connection each", Connections::New)].into_iter().enumerate()
    {
        let plan = Plan {
            load: Load::Open(TIMES * peaks[index]),
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(seconds),
        };
        let what = format!("overload, recoveries, {what}");
        let done = drive(&what, plan, &watched, joining(&fleet, connections, ROOM[index])).await?;
        told.push(tell(&done));
        // A mean over those that were sent, turned away or accepted would say nothing of any.
        report.add(Measured { cpu: Cpu::default(), ..done });
    }
    let peak = joind.peak_memory_mb();
    authority.settle().await?;
    tokio::time::sleep(REST).await;
    report.figure("overload_rss_mb_before", before);
    report.figure("overload_rss_mb_peak", peak);
    report.figure("overload_rss_mb_after", joind.memory_mb());
    report.note("overload", &told.join("; "));
    Ok(())
}

/// Joins that are meant to be too many: whatever happens to one is an answer.
fn joining(fleet: &Arc<Fleet>, connections: Connections, room: usize) -> impl Fn(u64) -> Job + Send + Sync + 'static {
    let (fleet, room) = (Arc::clone(fleet), Arc::new(Semaphore::new(room)));
    move |number| {
        let (fleet, place) = (Arc::clone(&fleet), Arc::clone(&room).try_acquire_owned());
        Box::pin(async move {
            let Ok(_place) = place else { return Err(JoinError::Refused(NOT_SENT.to_owned())) };
            let told = match timeout(ANSWER, fleet.recover(number, connections)).await {
                Ok(Err(JoinError::Unconnected(_))) => UNCONNECTED,
                Ok(Err(JoinError::Broken(_))) => CLOSED,
                Ok(answered) => return answered,
                Err(_) => NO_ANSWER,
            };
            Err(JoinError::Refused(told.to_owned()))
        })
    }
}

fn tell(done: &Measured) -> String {
    let refused: u64 = done.refusals.values().sum();
    let unsent = done.refusals.get(NOT_SENT).copied().unwrap_or_default();
    let codes: Vec<String> = done.refusals.iter().map(|(code, count)| format!("{count} {code}")).collect();
    format!(
        "{}, {}, {} s: {} were due, {} a second were sent; {} were accepted, half of them within {} ms; {}",
        done.what,
        done.load,
        done.seconds,
        done.joins + refused,
        short(to_f64(done.joins + refused - unsent) / done.seconds),
        done.joins,
        short(done.p50_ms),
        codes.join(", ")
    )
}
