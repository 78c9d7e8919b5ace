//! Views: what people ask for, kept up with the log in its order.
//!
//! A view is a function of the log up to its checkpoint, and of nothing else; the pieces in which the log arrived leave
//! no trace in it. What it says of a stream follows from that stream alone. That is why a rebuild, stream by stream, gives
//! the same rows, and why a comparison proves them.

mod certificate;
mod instance;
mod token;

use std::time::Duration;

use join_domain::envelope::Entry;
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;

use self::{certificate::Certificates, instance::Instances, token::Tokens};
pub use self::{
    certificate::RevokedCertificate,
    instance::{Authentication, Instance, InstanceFilter},
};
use crate::{
    Ledger, LedgerError,
    lease::in_time,
    row::{signed, unsigned},
};

/// Every table that is a view.
pub(crate) const TABLES: [&str; 3] = ["token_view", "instance_view", "certificate_view"];

/// Entries that one step projects, at most.
const STEP: u32 = 2000;
/// How long to let entries gather after a step: what a step costs is shared by them.
const GATHER: Duration = Duration::from_millis(100);
/// How long to wait for the log to grow.
const POLL: Duration = Duration::from_millis(500);
/// How long to wait after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Ledger {
    /// Brings the views forward by at most `limit` entries, unless another node is doing so at this moment. Returns how
    /// many entries were projected.
    ///
    /// # Errors
    /// [`LedgerError`]; views and checkpoint are as before then.
    pub async fn project_once(&self, limit: u32) -> Result<u64, LedgerError> {
        let mut follower = self.follower().await?;
        let mut transaction = follower.begin().await?;
        let next = sqlx::query_scalar!(
            "SELECT next_index FROM view_checkpoint WHERE view = 'views' AND next_index < (SELECT next_index FROM sequencer)
             FOR UPDATE SKIP LOCKED"
        );
        let Some(next) = next.fetch_optional(&mut *transaction).await? else {
            return Ok(transaction.rollback().await.map(|()| 0)?);
        };
        let from = unsigned(next)?;
        let (entries, next) = self.recent().entries(&mut transaction, from, limit).await?;
        project(&mut transaction, &entries).await?;
        sqlx::query!("UPDATE view_checkpoint SET next_index = $1 WHERE view = 'views'", signed(next))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(next.saturating_sub(from))
    }

    /// Keeps the views up with the log until `stop`. Every node runs this.
    pub async fn run_views(&self, stop: CancellationToken) {
        let mut settled = self.settled_hint();
        loop {
            let pause = match in_time(self.project_once(STEP)).await {
                Ok(0) => POLL,
                Ok(projected) if projected >= u64::from(STEP) => Duration::ZERO,
                Ok(_) => GATHER,
                Err(error) => {
                    tracing::warn!(%error, "the views could not be brought forward; trying again");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                Ok(()) = settled.changed(), if pause == POLL => {}
            }
        }
    }
}

/// Reads the rows that the entries are about, moves them, and writes them back.
pub(crate) async fn project(connection: &mut PgConnection, entries: &[Entry]) -> Result<(), LedgerError> {
    let mut tokens = Tokens::read(connection, entries).await?;
    let mut instances = Instances::read(connection, entries).await?;
    let mut certificates = Certificates::default();
    for entry in entries {
        for event in &entry.events {
            tokens.apply(entry, event);
            let token = tokens.of(entry);
            instances.apply(entry, event, token);
            certificates.apply(entry, event, token);
        }
    }
    tokens.write(connection).await?;
    instances.write(connection).await?;
    certificates.write(connection).await
}
