//! What bots do, on any authority: each profile is made here once, for `bench` and `run`.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, OnceLock},
};

use anyhow::{anyhow, ensure};

use crate::{
    administration::Administrator,
    ceremony::JoinError,
    connection::Handshakes,
    fleet::{Connections, Fleet, State},
    measured::{Cut, Measured},
    pace::{Jobs, Plan, Watched, drive},
    process::to_f64,
    verify::exactly_the_cloned,
};

/// Joins at once.
pub(crate) const AT_ONCE: u64 = 64;
/// Connections that a generator keeps.
pub(crate) const KEPT: usize = 16;
/// Calls of an administrator at once.
const CALLS_AT_ONCE: u64 = 16;
/// Bots of a storm that are under way at once: a node takes 1000 requests from one address.
const STORM_ROOM: u64 = 900;
/// Of how many bots one is copied in a clone storm.
const COPIED: usize = 3;

/// A join that will be made.
pub(crate) type Job = Pin<Box<dyn Future<Output = Result<(), JoinError>> + Send>>;

/// Joins of a fleet, whose handshakes must be those that were asked for.
pub(crate) struct Joining {
    fleet: Arc<Fleet>,
    /// None for renewals: each has a new connection.
    without_certificate: Option<Connections>,
}

/// Renewals.
pub(crate) fn renewing(fleet: &Arc<Fleet>) -> Joining {
    Joining { fleet: Arc::clone(fleet), without_certificate: None }
}

/// First joins and recoveries.
pub(crate) fn recovering(fleet: &Arc<Fleet>, connections: Connections) -> Joining {
    Joining { fleet: Arc::clone(fleet), without_certificate: Some(connections) }
}

impl Jobs for Joining {
    type Job = Job;

    fn job(&self, number: u64) -> Job {
        let (fleet, without_certificate) = (Arc::clone(&self.fleet), self.without_certificate);
        Box::pin(async move {
            match without_certificate {
                Some(connections) => fleet.recover(number, connections).await,
                None => fleet.renew(number).await,
            }
        })
    }

    fn handshakes(&self) -> Option<Handshakes> {
        Some(self.fleet.handshakes())
    }

    fn check(&self, made: u64, seen: &Handshakes) -> anyhow::Result<()> {
        let Handshakes { full, resumed, reopened } = *seen;
        let as_asked = match self.without_certificate {
            Some(Connections::Kept) => full == reopened && resumed == 0,
            Some(Connections::Resumed) => full + resumed == made,
            Some(Connections::New) | None => full == made && resumed == 0,
        };
        ensure!(
            as_asked,
            "{made} joins had {full} full and {resumed} resumed handshakes, which is not what was asked for"
        );
        Ok(())
    }
}

/// What was refused is in no percentile and cost less, so figures beside refusals are none.
pub(crate) fn nobody_refused(measured: &Measured) -> anyhow::Result<()> {
    let refused: u64 = measured.refusals.values().sum();
    let codes: Vec<_> = measured.refusals.iter().map(|(code, count)| format!("{count} {code}")).collect();
    ensure!(
        refused == 0,
        "{}: {refused} of {} joins were refused ({}), and figures are of accepted joins only: `joinctl explain CODE` \
         tells why",
        measured.what,
        measured.joins + refused,
        codes.join(", ")
    );
    Ok(())
}

/// Each bot of a fleet joined once, and nobody was refused.
fn all_joined(done: Measured, fleet: &Fleet) -> anyhow::Result<Measured> {
    let all = nobody_refused(&done).and_then(|()| {
        ensure!(done.joins == fleet.size(), "{}: {} of {} bots joined", done.what, done.joins, fleet.size());
        Ok(())
    });
    match all {
        Ok(()) => Ok(done),
        Err(why) => Err(Cut::new("refused", done, why).into()),
    }
}

/// Each bot once without a certificate, over kept connections.
pub(crate) async fn every_bot_once(
    what: &str,
    at_once: u64,
    watched: &Watched,
    fleet: &Arc<Fleet>,
) -> anyhow::Result<Measured> {
    drive(what, Plan::once(fleet.size(), at_once), watched, recovering(fleet, Connections::Kept)).await
}

/// The same, and nobody is refused.
pub(crate) async fn every_bot_joins(
    what: &str,
    at_once: u64,
    watched: &Watched,
    fleet: &Arc<Fleet>,
) -> anyhow::Result<Measured> {
    all_joined(every_bot_once(what, at_once, watched, fleet).await?, fleet)
}

/// A whole fleet comes back after an outage: all bots are due at once, each over a new connection and without a
/// certificate, for it has ended meanwhile.
pub(crate) async fn storm(watched: &Watched, fleet: &Arc<Fleet>) -> anyhow::Result<Measured> {
    let plan = Plan::storm(fleet.size(), STORM_ROOM);
    let done = drive("recovery storm, full handshake each", plan, watched, recovering(fleet, Connections::New)).await?;
    all_joined(done, fleet)
}

/// An administrator asks for a new key of each bot, and each rotates at its next join.
pub(crate) async fn rotation(
    administrator: &Arc<Administrator>,
    at_once: u64,
    watched: &Watched,
    fleet: &Arc<Fleet>,
) -> anyhow::Result<Measured> {
    let before = rotations(fleet).await;
    let asked = Arc::clone(fleet);
    administer("rotations asked for", fleet.size(), administrator, move |administrator, number| {
        let fleet = Arc::clone(&asked);
        Box::pin(async move { administrator.rotate(&fleet.bot(number).token).await })
    })
    .await?;
    let done = every_bot_joins("recoveries with a rotation, kept connections", at_once, watched, fleet).await?;
    let rotated = rotations(fleet).await - before;
    ensure!(rotated == fleet.size(), "{rotated} bots rotated instead of {}", fleet.size());
    Ok(done)
}

async fn rotations(fleet: &Fleet) -> u64 {
    let mut rotations = 0;
    for bot in &fleet.bots {
        rotations += bot.state.lock().await.rotations;
    }
    rotations
}

/// What became of a clone storm.
pub(crate) struct Cloned {
    /// How fast copies were told so.
    pub(crate) refused: Measured,
    /// The tokens of which there was a copy.
    pub(crate) tokens: BTreeSet<String>,
}

/// A third of a fleet is copied. Its owners recover, and then the copies come, all of which are refused. After that
/// their owners are locked out, and nobody else is.
pub(crate) async fn clone_storm(at_once: u64, watched: &Watched, fleet: &Arc<Fleet>) -> anyhow::Result<Cloned> {
    let mut copies = Vec::new();
    for (number, bot) in (0..).zip(&fleet.bots).step_by(COPIED) {
        copies.push((number, bot.state.lock().await.clone()));
    }
    every_bot_joins("recoveries of those who are copied", at_once, watched, fleet).await?;
    let tokens: BTreeSet<String> = copies.iter().map(|(number, _)| fleet.bot(*number).token.clone()).collect();
    let locked = u64::try_from(copies.len())?;
    let refused =
        drive("clone storm, kept connections", Plan::once(locked, at_once), watched, coming_as_copies(fleet, copies))
            .await?;
    let after = every_bot_once("everybody after the clone storm", at_once, watched, fleet).await?;
    ensure!(
        after.joins == fleet.size() - locked && after.refusals == BTreeMap::from([("LOCKED".to_owned(), locked)]),
        "after a clone storm on {locked} bots {} joined, and the others got {:?}",
        after.joins,
        after.refusals
    );
    Ok(Cloned { refused, tokens })
}

/// A copy is refused; whatever else happens to it breaks the run.
fn coming_as_copies(fleet: &Arc<Fleet>, copies: Vec<(u64, State)>) -> impl Fn(u64) -> Job + Send + Sync + 'static {
    let (fleet, copies) = (Arc::clone(fleet), Arc::new(copies));
    move |at| {
        let (fleet, copies) = (Arc::clone(&fleet), Arc::clone(&copies));
        Box::pin(async move {
            let (number, copy) = &copies[usize::try_from(at).unwrap_or_default()];
            let token = &fleet.bot(*number).token;
            match fleet.recover_as_copy(*number, copy).await {
                Err(JoinError::Refused(code)) if code == "JOIN_STATE_INVALID" => Ok(()),
                Ok(()) => Err(JoinError::Broken(format!("a copy of {token} was admitted"))),
                Err(error) => Err(JoinError::Broken(format!("a copy of {token} got {error}, not JOIN_STATE_INVALID"))),
            }
        })
    }
}

/// One call of an administrator for each of `count`, with a display of how it goes. After a call that is refused the others
/// are made all the same, so that a clean-up leaves no more than it has to.
///
/// # Errors
/// The first that was refused; at once when the connection broke, or an answer was wrong.
pub(crate) async fn administer<Call>(
    what: &str,
    count: u64,
    administrator: &Arc<Administrator>,
    call: Call,
) -> anyhow::Result<()>
where
    Call: Fn(Arc<Administrator>, u64) -> Errand + Send + Sync + 'static,
{
    let administrator = Arc::clone(administrator);
    let first_refused = Arc::new(OnceLock::new());
    let refused = Arc::clone(&first_refused);
    let job = move |number| {
        let (errand, refused) = (call(Arc::clone(&administrator), number), Arc::clone(&refused));
        async move {
            errand.await.or_else(|error| match error.downcast_ref() {
                Some(JoinError::Refused(_)) => {
                    refused.get_or_init(|| format!("{error:#}"));
                    Ok(())
                }
                _ => Err(JoinError::Broken(format!("{error:#}"))),
            })
        }
    };
    let done = drive(what, Plan::once(count, CALLS_AT_ONCE), &Watched::default(), job).await;
    // No row of a report: these are no joins.
    done.map_err(|cut| anyhow!("{cut:#}"))?;
    first_refused.get().map_or(Ok(()), |why| Err(anyhow!("{what}: {why}")))
}

/// Something that an administrator will do.
pub(crate) type Errand = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// The authority's own count of recoveries and generations is that of the bots. Returns how many joins were accepted.
pub(crate) async fn compare_with_authority(
    administrator: &Arc<Administrator>,
    fleet: &Arc<Fleet>,
) -> anyhow::Result<u64> {
    let compared = Arc::clone(fleet);
    administer("books compared", fleet.size(), administrator, move |administrator, number| {
        let fleet = Arc::clone(&compared);
        Box::pin(async move { compare_one(&administrator, &fleet, number).await })
    })
    .await?;
    let mut joins = 0;
    for bot in &fleet.bots {
        joins += bot.state.lock().await.accepted;
    }
    Ok(joins)
}

async fn compare_one(administrator: &Administrator, fleet: &Fleet, number: u64) -> anyhow::Result<()> {
    let bot = fleet.bot(number);
    let state = bot.state.lock().await;
    let token = administrator.get(&format!("/v1/tokens/{}", bot.token)).await?;
    let status = &token["status"]["bound_keypair"];
    for (what, field, expected) in
        [("recoveries", "recovery_count", state.recoveries), ("generation", "generation", state.generation)]
    {
        let known = status[field].as_u64().unwrap_or_default();
        ensure!(known == expected, "token {}: the authority knows {what} {known}, the bot {expected}", bot.token);
    }
    if state.accepted > 0 {
        let certified = state.certified_generation()?;
        ensure!(certified == state.generation, "token {}: its certificate says {certified}", bot.token);
    }
    Ok(())
}

/// Locks that the authority made are on exactly those tokens of the fleet that were cloned, one on each.
pub(crate) async fn compare_locks(
    administrator: &Administrator,
    fleet: &Fleet,
    cloned: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let ours: BTreeSet<&str> = fleet.bots.iter().map(|bot| bot.token.as_str()).collect();
    let locks = administrator.locks().await?;
    let locks = locks.iter().filter(|lock| lock.has_cause && ours.contains(lock.token.as_str()));
    exactly_the_cloned(locks.map(|lock| lock.token.as_str()), cloned)
}

/// How many joins of a fleet waited, as their bot was still at another one: their wait is in their latency.
pub(crate) fn waited(fleet: &Fleet) -> f64 {
    to_f64(fleet.waited.load(std::sync::atomic::Ordering::Relaxed))
}

/// How many handshakes a fleet saw, full and resumed.
pub(crate) fn handshakes(fleet: &Fleet) -> [f64; 2] {
    let seen = fleet.handshakes();
    [seen.full, seen.resumed].map(to_f64)
}
