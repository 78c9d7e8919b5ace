//! Certificates that may still be in use, and which of them no relying party may accept.
//!
//! A certificate stays here until its token has joined again after it expired, so a token has few.

use std::collections::HashMap;

use join_domain::{
    Timestamp,
    envelope::Entry,
    event::{Event, JoinAccepted},
    id::{InstanceId, TokenId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::token::Token;
use crate::{Ledger, LedgerError, lease::in_time, row::signed};

/// A certificate that no relying party may accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// X.509 serial number, hex.
    pub serial: String,
    /// When its binding ended, or was reinstated after a lock; none while a lock alone stops it.
    pub revoked_at: Option<Timestamp>,
}

/// A certificate that was issued, as the view has it.
struct Certificate {
    serial: String,
    token: TokenId,
    token_name: String,
    bot_name: String,
    instance: InstanceId,
    generation: u64,
    /// Fingerprint of the key that was bound.
    key: String,
    issued_at: Timestamp,
    not_after: Timestamp,
    /// When its binding ended, or was reinstated after a lock.
    revoked_at: Option<Timestamp>,
}

impl Certificate {
    fn issued(entry: &Entry, join: &JoinAccepted, token: &Token) -> Self {
        Self {
            serial: join.serial.clone(),
            token: TokenId(entry.stream.id),
            token_name: token.name.clone(),
            bot_name: token.bot_name.clone(),
            instance: join.instance,
            generation: join.generation,
            key: join.key.clone(),
            issued_at: entry.decided_at,
            not_after: join.not_after,
            revoked_at: None,
        }
    }
}

/// What a piece of the log does to certificates, token by token.
#[derive(Default)]
pub(super) struct Certificates(HashMap<Uuid, Changes>);

#[derive(Default)]
struct Changes {
    /// Older certificates that ended before this are gone.
    gone_before: Option<Timestamp>,
    /// Older certificates are revoked from this moment on.
    revoked_at: Option<Timestamp>,
    issued: Vec<Certificate>,
}

impl Certificates {
    pub(super) fn apply(&mut self, entry: &Entry, event: &Event, token: Option<&Token>) {
        match event {
            Event::JoinAccepted(join) => {
                let Some(token) = token else { return };
                let changes = self.0.entry(entry.stream.id).or_default();
                changes.gone_before = changes.gone_before.max(Some(entry.decided_at));
                changes.issued.retain(|earlier| earlier.not_after >= entry.decided_at);
                changes.issued.push(Certificate::issued(entry, join, token));
            }
            Event::TokenReopened(_) | Event::TokenDeleted(_) | Event::TokenReinstated(_) => self.revoke(entry),
            Event::TokenUpdated(updated) if updated.rebind => self.revoke(entry),
            _ => {}
        }
    }

    fn revoke(&mut self, entry: &Entry) {
        let changes = self.0.entry(entry.stream.id).or_default();
        changes.revoked_at.get_or_insert(entry.decided_at);
        for certificate in &mut changes.issued {
            certificate.revoked_at.get_or_insert(entry.decided_at);
        }
    }

    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = self.0.keys().copied().collect();
        let gone: Vec<Option<Timestamp>> = self.0.values().map(|changes| changes.gone_before).collect();
        sqlx::query!(
            "DELETE FROM certificate_view c USING unnest($1::uuid[], $2::timestamptz[]) AS t(token_id, gone)
             WHERE c.token_id = t.token_id AND c.not_after < t.gone",
            &ids as _,
            &gone as _
        )
        .execute(&mut *connection)
        .await?;
        // Joins, which are most of the log, revoke nothing.
        let ended = self.0.iter().filter_map(|(id, changes)| Some((*id, changes.revoked_at?)));
        let (ids, revoked): (Vec<Uuid>, Vec<Timestamp>) = ended.unzip();
        if !ids.is_empty() {
            sqlx::query!(
                "UPDATE certificate_view c SET revoked_at = t.at
                 FROM unnest($1::uuid[], $2::timestamptz[]) AS t(token_id, at)
                 WHERE c.token_id = t.token_id AND c.revoked_at IS NULL",
                &ids as _,
                &revoked as _
            )
            .execute(&mut *connection)
            .await?;
        }
        insert(connection, self.0.values().flat_map(|changes| &changes.issued).collect()).await
    }
}

async fn insert(connection: &mut PgConnection, rows: Vec<&Certificate>) -> Result<(), LedgerError> {
    sqlx::query!(
        "INSERT INTO certificate_view (serial, token_id, token_name, bot_name, instance_id, generation, key, issued_at,
             not_after, revoked_at)
         SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::int8[], $7::text[],
             $8::timestamptz[], $9::timestamptz[], $10::timestamptz[])
         ON CONFLICT DO NOTHING",
        &rows.iter().map(|row| row.serial.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.token.0).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.token_name.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.bot_name.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.instance.0).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| signed(row.generation)).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.issued_at).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.not_after).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.revoked_at).collect::<Vec<_>>() as _
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Ledger {
    /// Unexpired certificates that no relying party may accept, in the order of serials: those of bindings that ended
    /// or were reinstated (as far as the views follow the log), and those that a lock in force stops.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn revoked_certificates(&self, now: Timestamp) -> Result<Vec<RevokedCertificate>, LedgerError> {
        let revoked = sqlx::query_file_as!(RevokedCertificate, "sql/revoked_certificates.sql", now);
        Ok(in_time(revoked.fetch_all(&mut *self.connection().await?)).await?)
    }

    /// When the last of the certificates ends that were issued before `moment`; none when none of them may be in use.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn last_end_of_certificates(&self, moment: Timestamp) -> Result<Option<Timestamp>, LedgerError> {
        let last = sqlx::query_scalar!("SELECT max(not_after) FROM certificate_view WHERE issued_at < $1", moment);
        Ok(in_time(last.fetch_one(&mut *self.connection().await?)).await?)
    }
}
