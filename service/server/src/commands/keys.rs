//! `joind keys`: the authority's own keys, moved from phase to phase on the server's host.

use anyhow::ensure;
use chrono::TimeDelta;
use join_credential::{KeysError, MasterKey, Phase, Purpose};
use join_ledger::Ledger;

use super::{
    KeysCommand, Place,
    terminal::{line, print, table, time},
};
use crate::{
    administrators,
    cluster::{self, STANDBY},
    config::{Config, Limits},
};

pub(super) async fn run(command: &KeysCommand) -> anyhow::Result<u8> {
    match command {
        KeysCommand::Ls { place } => ls(place).await?,
        KeysCommand::Prepare { place, purpose } => {
            let (ledger, master) = place.ledger().await?;
            let prepare = |keys: &mut join_credential::AuthorityKeys, now| keys.prepare(*purpose, now).map(drop);
            tell(&ledger, cluster::move_keys(&ledger, &master, None, prepare).await?).await?;
            let next = match purpose {
                Purpose::JoinState => "activate it in a minute, when all nodes have it: nobody else looks at it",
                _ => {
                    "activate it when agents and relying parties have learned of it: agents do as they renew, relying \
                     parties from GET /v1/ca"
                }
            };
            line(next)?;
        }
        KeysCommand::Activate { place, purpose } => {
            let (ledger, master) = place.ledger().await?;
            check_standby(&ledger, *purpose).await?;
            let activate = |keys: &mut join_credential::AuthorityKeys, now| keys.activate(*purpose, now).map(drop);
            tell(&ledger, cluster::move_keys(&ledger, &master, None, activate).await?).await?;
        }
        KeysCommand::Revoke { place, kid, reason } => {
            let (ledger, master) = place.ledger().await?;
            let revoke = |keys: &mut join_credential::AuthorityKeys, now| keys.revoke(kid, now);
            tell(&ledger, cluster::move_keys(&ledger, &master, Some(reason), revoke).await?).await?;
        }
        KeysCommand::Forget { place, kid } => {
            let (ledger, master) = place.ledger().await?;
            let life = longest_life(place, kid, &ledger).await?;
            let forget = |keys: &mut join_credential::AuthorityKeys, now| keys.forget(kid, life, now);
            tell(&ledger, cluster::move_keys(&ledger, &master, None, forget).await?).await?;
        }
        KeysCommand::Reseal { place, new_master_key } => {
            let next = MasterKey::read(new_master_key)?;
            let (ledger, master) = place.ledger().await?;
            cluster::change_master_key(&ledger, &master, &next).await?;
            ledger.close().await;
            line(format_args!(
                "all keys are sealed under the master key in {}: configure it on every node before it starts again",
                new_master_key.display()
            ))?;
        }
    }
    Ok(0)
}

async fn ls(place: &Place) -> anyhow::Result<()> {
    let ledger = place.ledger().await?.0;
    let keys = cluster::keys(&ledger).await?;
    ledger.close().await;
    let rows = keys
        .into_iter()
        .map(|key| [key.kid, key.purpose.as_str().to_owned(), key.phase.as_str().to_owned(), time(key.phase_since)]);
    print(&table(["KEY", "PURPOSE", "PHASE", "SINCE"], rows))
}

async fn tell(ledger: &Ledger, moved: Vec<join_domain::event::AuthorityKeyMoved>) -> anyhow::Result<()> {
    ledger.close().await;
    moved.into_iter().try_for_each(|key| line(format_args!("{} is {}", key.kid, key.phase)))
}

/// Every node must have opened the key before it signs.
async fn check_standby(ledger: &Ledger, purpose: Purpose) -> anyhow::Result<()> {
    let keys = cluster::keys(ledger).await?;
    let standby = keys.iter().find(|key| key.purpose == purpose && key.phase == Phase::Standby);
    if let Some(key) = standby {
        let waited = ledger.now() - key.phase_since;
        ensure!(
            waited >= STANDBY,
            "{} is on standby for {} s only: nodes need a minute to learn of it, so try again in {} s",
            key.kid,
            waited.num_seconds().max(0),
            (STANDBY - waited).num_seconds() + 1
        );
    }
    Ok(())
}

/// How long something that a key signed can live: by the limits of today, or as was allowed when it was signed.
async fn longest_life(place: &Place, kid: &str, ledger: &Ledger) -> anyhow::Result<TimeDelta> {
    let keys = cluster::keys(ledger).await?;
    let key = keys.iter().find(|key| key.kid == kid).ok_or_else(|| KeysError::Unknown(kid.to_owned()))?;
    let limits = match &place.config {
        Some(file) => Config::read(file)?.limits,
        None => Limits::default(),
    };
    let allowed = limits.policy().max_life;
    let allowed = if key.purpose == Purpose::X509Ca { allowed.max(administrators::LIFE) } else { allowed };
    // Nodes look at the keys now and then, so the last one may be a little younger than the key's retirement.
    let last = ledger.last_end_of_certificates(key.phase_since + STANDBY).await?;
    Ok(last.map_or(allowed, |end| allowed.max(end - key.phase_since)))
}
