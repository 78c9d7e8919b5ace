//! Joining once with a few tries, or for as long as the process lives.

use std::{convert::Infallible, future::pending, time::Duration};

use join_domain::refusal::Code;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};

use crate::{
    advice::{Then, advice},
    agent::{Agent, Joined},
    error::{JoinError, Next},
    health::Health,
    retry::Backoff,
};

/// How often one-shot joining tries, and how long after the start it begins the last try.
const TRIES: u32 = 5;
const TIME_TO_TRY: Duration = Duration::from_secs(30);
/// How seldom a daemon tries when somebody has to do something first.
const SLOW: Duration = Duration::from_secs(5 * 60);

/// How often a daemon that waits looks at the clock, at least: each half minute, and some sixty times while it waits.
const GLANCE: (Duration, u32) = (Duration::from_secs(30), 64);

const ONCE_MORE: &str = "this host's clock asked for a certificate that ends too soon; joining once more, by the \
                         authority's clock";

/// What a daemon can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Renew now.
    Renew,
    /// End, cleanly. Dropping the sender means the same.
    Stop,
}

/// Joins and writes the outputs; a few tries within half a minute when the authority is away or busy. Outputs that lack a
/// stored certificate which lives get it first. On a host whose clock is so wrong that the certificate would be over soon,
/// the time that the join told makes a second one right: a renewal.
///
/// # Errors
/// The last try's.
pub async fn once(agent: &mut Agent) -> Result<Joined, JoinError> {
    // While the authority is away, programs on this host go on with what is stored.
    if let Err(failed) = agent.restore_outputs() {
        warn!("{failed}");
    }
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
    let began = Instant::now();
    let mut once_more = false;
    let joined = loop {
        let failed = match agent.join_once().await {
            Ok(joined) if !once_more && agent.is_cut_short(&joined) => {
                once_more = true;
                info!("{ONCE_MORE}");
                // Should the next one fail, there is this one while it lives.
                if let Err(failed) = agent.write_outputs() {
                    warn!("{failed}");
                }
                continue;
            }
            Ok(joined) => break joined,
            Err(failed) => failed,
        };
        let delay = match failed.next() {
            Next::Retry => backoff.next(agent.entropy()),
            Next::RetryAfter(delay) => delay + backoff.next(agent.entropy()),
            Next::RetrySlowly | Next::Stop => return Err(failed),
        };
        if backoff.failures() >= TRIES || began.elapsed() + delay > TIME_TO_TRY {
            return Err(failed);
        }
        warn!("{failed}; trying again in {:.1} s", delay.as_secs_f64());
        sleep(delay).await;
    };
    agent.write_outputs()?;
    Ok(joined)
}

/// Joins and renews until told to stop. A refusal of the first join that only an administrator can change ends it; once
/// it has joined, also before it was started, it stays, and tries seldom, so that it goes on by itself when the
/// administrator has acted. After an accepted join, outputs that can't be written are tried again, and the join is not.
///
/// Returns whether it joined since it was started.
///
/// # Errors
/// The first join's.
pub async fn daemon(agent: &mut Agent, health: &Health, orders: &mut mpsc::Receiver<Order>) -> Result<bool, JoinError> {
    // While the authority is away, programs on this host go on with what is stored.
    if let Err(failed) = publish(agent, health) {
        warn!("{failed}");
    }
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let joined_before = agent.has_joined().unwrap_or_default();
    let (mut joined_since, mut once_more) = (false, false);
    loop {
        // Dropping a join half-way is safe: its attempt is stored, and is sent again.
        let outcome = tokio::select! {
            outcome = agent.join_once() => outcome,
            () = stopped(orders) => return Ok(joined_since),
        };
        health.record(outcome.as_ref());
        let delay = match outcome {
            Ok(joined) => {
                joined_since = true;
                backoff.reset();
                // Never twice in a row, whatever the clocks do.
                once_more = !once_more && agent.is_cut_short(&joined);
                if once_more {
                    info!("{ONCE_MORE}");
                    Duration::ZERO
                } else {
                    until_renewal(agent, &joined)
                }
            }
            Err(failed) => {
                let next = failed.next();
                if next == Next::Stop && !joined_before && !joined_since {
                    return Err(failed);
                }
                let delay = match next {
                    Next::Retry => backoff.next(agent.entropy()),
                    Next::RetryAfter(delay) => delay + backoff.next(agent.entropy()),
                    Next::RetrySlowly | Next::Stop => SLOW.mul_f64(0.5 + agent.entropy().fraction() / 2.0),
                };
                report(agent, &failed, delay);
                delay
            }
        };
        tokio::select! {
            // In this order: what a join brought is written before anything else is done.
            biased;
            never = keep_publishing(agent, health) => match never {},
            () = wait(agent, delay) => {}
            order = orders.recv() => match order {
                Some(Order::Renew) => info!("renewing now, as told"),
                Some(Order::Stop) | None => return Ok(joined_since),
            }
        }
    }
}

/// Says what failed, louder when somebody has to do something.
fn report(agent: &Agent, failed: &JoinError, delay: Duration) {
    let refusal = failed.code().map(Code::as_str);
    let again = format!("trying again in {:.1} s", delay.as_secs_f64());
    match advice(failed, agent.config().token.as_str(), Then::Wait) {
        Some(advice) => error!(join.refusal = refusal, "{failed}; what to do: {advice}; {again}"),
        None => warn!(join.refusal = refusal, "{failed}; {again}"),
    }
}

/// Brings the outputs up to what is stored. Only then other programs can use it.
fn publish(agent: &Agent, health: &Health) -> Result<(), JoinError> {
    agent.restore_outputs()?;
    if let Some(accepted) = agent.state()?.accepted
        && let Some(certificate) = accepted.credentials.facts()
    {
        health.found(&certificate, accepted.stored_at, agent.ahead());
    }
    Ok(())
}

/// Publishes, and tries again for as long as that fails: another join would not make an output writable.
async fn keep_publishing(agent: &Agent, health: &Health) -> Infallible {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    while let Err(failed) = publish(agent, health) {
        health.record(Err(&failed));
        let delay = backoff.next(agent.entropy());
        report(agent, &failed, delay);
        sleep(delay).await;
    }
    pending().await
}

/// Waits for the order to stop; one to renew is being followed already.
async fn stopped(orders: &mut mpsc::Receiver<Order>) {
    while let Some(Order::Renew) = orders.recv().await {}
}

/// Waits, but not longer than by the clock on the wall: a host that was suspended has lost that time, and its certificate
/// with it.
async fn wait(agent: &Agent, delay: Duration) {
    let (end, end_by_clock) = (Instant::now() + delay, agent.clock().now() + delay);
    while Instant::now() < end && agent.clock().now() < end_by_clock {
        sleep_until(end.min(Instant::now() + GLANCE.0.min(delay / GLANCE.1))).await;
    }
}

/// The interval, shortened by up to a tenth, and at most two thirds of what the certificate has left by the authority's
/// clock.
pub fn until_renewal(agent: &Agent, joined: &Joined) -> Duration {
    let interval = agent.config().renewal_interval.mul_f64(1.0 - agent.entropy().fraction() / 10.0);
    let left = (joined.certificate.not_after - agent.authority_now()).to_std().unwrap_or_default();
    interval.min(left.mul_f64(2.0 / 3.0)).max(Duration::from_secs(1))
}
