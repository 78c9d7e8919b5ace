//! How often each kind of event happened.

use std::collections::BTreeMap;

use join_domain::event::Event;
use sqlx::PgConnection;

use crate::{
    Ledger, LedgerError,
    lease::in_time,
    row::{signed, unsigned},
};

#[derive(Default)]
pub(super) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn apply(&mut self, event: &Event) {
        let count = self.0.entry(event.kind().0).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let (kinds, counts): (Vec<_>, Vec<_>) = self.0.into_iter().map(|(kind, count)| (kind, signed(count))).unzip();
        sqlx::query!(
            "INSERT INTO count_view (kind, events) SELECT * FROM unnest($1::text[], $2::int8[])
             ON CONFLICT (kind) DO UPDATE SET events = count_view.events + excluded.events",
            &kinds as _,
            &counts
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Ledger {
    /// How often each kind of event happened, up to the views' checkpoint.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn event_counts(&self) -> Result<BTreeMap<String, u64>, LedgerError> {
        let rows = sqlx::query!("SELECT kind, events FROM count_view");
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        rows.into_iter().map(|row| Ok((row.kind, unsigned(row.events)?))).collect()
    }
}
