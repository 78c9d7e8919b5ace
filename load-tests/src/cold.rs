//! Recoveries of tokens that a node does not remember, as those of a fleet larger than its cache: what does reading them
//! cost?

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use crate::{
    authority::Authority,
    fleet::{Connections, Fleet},
    measured::Measured,
    pace::{Load, Plan, drive},
    process::to_f64,
    profiles::{AT_ONCE, nobody_refused, recovering},
    report::Report,
};

const WARM_UP: Duration = Duration::from_secs(2);

/// In turns on one node, which is started again for each round: bots of `live`, each at most once, so that every token is
/// read; and those of `few` again and again, none of whose tokens is.
pub(crate) async fn cold_cache(
    rounds: u32,
    seconds: u64,
    authority: &mut Authority,
    [live, few]: [&mut Arc<Fleet>; 2],
    report: &mut Report,
) -> anyhow::Result<()> {
    let plan = Plan { load: Load::Closed(AT_ONCE), warm_up: WARM_UP, measured: Duration::from_secs(seconds) };
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        authority.stop_node().await?;
        authority.start_node().await?;
        for fleet in [&mut *live, &mut *few] {
            Arc::get_mut(fleet).context("the fleet still joins")?.move_to(authority.target()?);
        }
        let watched = authority.watched()?;
        let recoveries = |fleet| recovering(fleet, Connections::Kept);
        let cold = drive("recoveries, kept, tokens not in the cache", plan, &watched, recoveries(live)).await?;
        let most = cold.joins_per_s * (WARM_UP + plan.measured).as_secs_f64();
        if most >= to_f64(live.size()) {
            report.left_out("cold_cache", "there are too few live bots: some joined twice, and were in the cache");
            return Ok(());
        }
        let warm =
            drive("recoveries, kept, the same node, tokens in the cache", plan, &watched, recoveries(few)).await?;
        nobody_refused(&cold)?;
        nobody_refused(&warm)?;
        pairs.push([cold, warm]);
    }
    let ratio = |value: fn(&Measured) -> f64| pairs.iter().map(|[cold, warm]| value(cold) / value(warm)).collect();
    report.spread("cold_cache_joins", ratio(|one| one.joins_per_s));
    report.spread("cold_cache_joind_cpu", ratio(|one| one.cpu.joind()));
    report.spread("cold_cache_postgres_cpu", ratio(|one| one.cpu.postgres()));
    report.spread("cold_cache_p99", ratio(|one| one.p99_ms));
    pairs.into_iter().flatten().for_each(|done| report.add(done));
    Ok(())
}
