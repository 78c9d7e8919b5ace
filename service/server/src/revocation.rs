//! What relying parties must learn: certificates of locked, reopened or reinstated lineages that did not expire yet.
//!
//! Locks are read as they are, certificates from a view, which follows the history. So a list is as new as its view: its
//! times say so, and whoever refuses stale lists is safe when the view stands still.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::TimeDelta;
use join_credential::{
    Serial,
    crl::{REFRESH, Revoked},
};
use join_domain::{
    Timestamp,
    refusal::{Code, Refusal},
};
use join_ledger::{Ledger, Positions};
use tokio::sync::Mutex;

use crate::{
    app::App,
    ceremony::{OrRefuse as _, internal},
    keyring::Opened,
};

/// How long lists are given again when nothing happened since.
const SAME: TimeDelta = TimeDelta::seconds(30);
/// Between two makings lies so many times as long as one took, up to `LONGEST_REST`: it reads every certificate that is alive.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(5);
/// How often, and how long apart, a view that lags a little is looked at.
const LOOK: (u32, Duration) = (40, Duration::from_millis(50));

/// The lists as they were made last. One request at a time makes them, and only when something happened: what everybody
/// may ask for must not keep the database from joins. All that wait meanwhile get what the next one makes, so that a
/// stranger who asks a thousand times keeps nobody from them. A making that was broken off would be followed by the next
/// one without rest, so it is done to its end (`App::done`).
#[derive(Default)]
pub struct Lists(Mutex<Made>);

#[derive(Default)]
struct Made {
    complete: Completeness,
    signed: Option<Signed>,
    /// Nothing is made until then; who asks waits.
    rests: Option<Instant>,
    /// When the making that ended last began, and why it failed.
    last: Option<(Instant, Result<(), Refusal>)>,
}

struct Signed {
    at: Timestamp,
    followed: Followed,
    keys: Arc<Opened>,
    crl: Bytes,
    krl: Bytes,
}

/// What lists are made from.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Followed {
    /// Entries that were recorded.
    recorded: u64,
    /// Those of them that the view has seen.
    viewed: u64,
}

/// The X.509 revocation lists (RFC 5280), one by each trusted CA, in PEM.
///
/// # Errors
/// UNAVAILABLE when the database can't be read, or the view stands still.
pub async fn crl(app: Arc<App>) -> Result<Bytes, Refusal> {
    signed(&app, |signed| signed.crl.clone()).await
}

/// The OpenSSH key revocation list.
///
/// # Errors
/// UNAVAILABLE when the database can't be read, or the view stands still.
pub async fn krl(app: Arc<App>) -> Result<Bytes, Refusal> {
    signed(&app, |signed| signed.krl.clone()).await
}

async fn signed<T>(app: &App, part: impl Fn(&Signed) -> T) -> Result<T, Refusal> {
    let asked = Instant::now();
    let mut made = app.revocations.0.lock().await;
    // What was begun after this request came shows all that it may expect.
    let outcome = match &made.last {
        Some((begun, outcome)) if *begun >= asked => outcome.clone(),
        _ => {
            let begun = Instant::now();
            let outcome = made.renew(app).await;
            made.last = Some((begun, outcome.clone()));
            outcome
        }
    };
    outcome?;
    made.signed.as_ref().map(part).ok_or_else(|| internal("lists were made, and there are none"))
}

impl Made {
    /// Makes the lists anew, if something happened since.
    async fn renew(&mut self, app: &App) -> Result<(), Refusal> {
        let ledger = &app.ceremonies.ledger;
        let keys = app.ceremonies.keyring.usable()?;
        let (complete, followed) = self.complete.as_of(ledger).await?;
        let now = ledger.now();
        let same =
            |signed: &Signed| signed.followed == followed && Arc::ptr_eq(&signed.keys, &keys) && now - signed.at < SAME;
        if self.signed.as_ref().is_some_and(same) {
            return Ok(());
        }
        if let Some(end) = self.rests {
            tokio::time::sleep_until(end.into()).await;
        }
        let (begun, now) = (Instant::now(), ledger.now());
        let revoked = revoked(ledger, now).await;
        self.rests = Some(Instant::now() + (begun.elapsed() * REST).min(LONGEST_REST));
        let revoked = revoked?;
        let serials: Vec<Serial> = revoked.iter().map(|revoked| revoked.serial).collect();
        let lists =
            keys.issuer.revocation_lists(&revoked, number(now), complete, complete + REFRESH).map_err(internal)?;
        self.signed = Some(Signed {
            at: now,
            followed,
            crl: lists.iter().map(|list| join_credential::pem("X509 CRL", list)).collect::<String>().into(),
            krl: keys.issuer.key_revocation_list(&serials, number(now), complete).into(),
            keys,
        });
        Ok(())
    }
}

/// Up to which moment the view is known to have seen everything.
#[derive(Default)]
struct Completeness {
    known: Option<Timestamp>,
    /// A moment, and where the view is once it has seen everything up to there.
    awaited: Option<(Timestamp, u64)>,
}

impl Completeness {
    /// Waits a little for a view that lags; says up to when it is complete, and how far it is. A view that is
    /// behind for longer is as new as it was, until it is too old to go by.
    async fn as_of(&mut self, ledger: &Ledger) -> Result<(Timestamp, Followed), Refusal> {
        let mut looks = 0;
        loop {
            let now = ledger.now();
            let Positions { next_index, unsequenced, views: viewed, .. } = ledger.positions().await.or_refuse()?;
            let recorded = next_index.saturating_add(unsequenced);
            // A database that lost its newest entries never gets there.
            self.awaited.take_if(|(_, awaited)| *awaited > recorded);
            let (moment, awaited) = *self.awaited.get_or_insert((now, recorded));
            let reached = viewed >= awaited;
            if reached {
                self.awaited = None;
                self.known = Some(if viewed >= recorded { now } else { moment });
            }
            match self.known {
                Some(known) if reached || looks >= LOOK.0 && now - known < REFRESH => {
                    return Ok((known, Followed { recorded, viewed }));
                }
                _ if looks >= LOOK.0 => {
                    return Err(Refusal::new(Code::Unavailable, "the views are behind the history: try again"));
                }
                _ => looks += 1,
            }
            tokio::time::sleep(LOOK.1).await;
        }
    }
}

async fn revoked(ledger: &Ledger, now: Timestamp) -> Result<Vec<Revoked>, Refusal> {
    let certificates = ledger.revoked_certificates(now).await.or_refuse()?;
    certificates
        .iter()
        .map(|certificate| {
            let at = certificate.revoked_at.unwrap_or(now - TimeDelta::seconds(1));
            Ok(Revoked { serial: certificate.serial.parse().map_err(internal)?, at })
        })
        .collect()
}

/// The database's time in milliseconds: it grows with every change, on every node.
fn number(now: Timestamp) -> u64 {
    u64::try_from(now.timestamp_millis()).unwrap_or_default()
}
