//! What relying parties must learn: certificates of locked, reopened or reinstated lineages that did not expire yet.

use chrono::TimeDelta;
use join_credential::{Serial, crl::Revoked};
use join_domain::{Timestamp, refusal::Refusal};

use crate::{
    app::App,
    ceremony::{Answer as _, join::internal},
};

/// The X.509 revocation lists (RFC 5280), one by each trusted CA, in PEM.
///
/// # Errors
/// UNAVAILABLE when the database can't be read.
pub async fn crl(app: &App) -> Result<String, Refusal> {
    let now = app.ceremonies.ledger.now();
    let revoked = revoked(app, now).await?;
    let next = now + join_credential::crl::REFRESH;
    let lists = app.ceremonies.issuer.revocation_lists(&revoked, number(now), now, next).map_err(internal)?;
    Ok(lists.iter().map(|list| join_credential::pem("X509 CRL", list)).collect())
}

/// The OpenSSH key revocation list.
///
/// # Errors
/// UNAVAILABLE when the database can't be read.
pub async fn krl(app: &App) -> Result<Vec<u8>, Refusal> {
    let now = app.ceremonies.ledger.now();
    let serials: Vec<Serial> = revoked(app, now).await?.into_iter().map(|revoked| revoked.serial).collect();
    Ok(app.ceremonies.issuer.key_revocation_list(&serials, number(now), now))
}

async fn revoked(app: &App, now: Timestamp) -> Result<Vec<Revoked>, Refusal> {
    let certificates = app.ceremonies.ledger.revoked_certificates(now).await.answer()?;
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
