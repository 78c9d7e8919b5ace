//! `joind rebuild`: what follows from the events is made again from them, or compared.

use join_ledger::{LedgerError, Progress, Stage};

use super::{
    Place,
    terminal::{line, progress_bar},
};

/// Exit status when something differs.
const DIFFERS: u8 = 3;

pub(super) async fn run(place: &Place, check: bool) -> anyhow::Result<u8> {
    let bar = progress_bar()?;
    bar.set_message(if check { "comparing" } else { "rebuilding" });
    let progress = |progress: Progress| {
        bar.set_message(match progress.stage {
            Stage::Guard => "states",
            Stage::Views => "views",
        });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let ledger = place.ledger().await?.0;
    if !check {
        ledger.rebuild(progress).await?;
        bar.finish_and_clear();
        line("rebuilt")?;
        return Ok(0);
    }
    let comparison = ledger.check(progress).await;
    bar.finish_and_clear();
    let comparison = match comparison {
        Err(error @ LedgerError::Corrupt(_)) => {
            line(error)?;
            return Ok(DIFFERS);
        }
        comparison => comparison?,
    };
    for difference in &comparison.differences {
        line(format_args!("{}: {}: {}", difference.table, difference.row, difference.what))?;
    }
    let told = comparison.differences.len();
    line(format_args!(
        "{} streams compared with {} entries: {} differences{}",
        comparison.streams,
        comparison.entries,
        comparison.count,
        if u64::try_from(told).is_ok_and(|told| told < comparison.count) { ", the first are above" } else { "" }
    ))?;
    Ok(if comparison.is_equal() { 0 } else { DIFFERS })
}
