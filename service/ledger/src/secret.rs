//! What is kept sealed: secrets of streams, and the authority's keys. Sealing and opening is the caller's.

use std::collections::HashMap;

use join_domain::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Ledger, LedgerError, Stored,
    lease::in_time,
    row::{StreamRow, folded, signed},
};

/// A key of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its id, as signatures name it.
    pub kid: String,
    /// What it signs.
    pub purpose: String,
    /// Where it is in its life.
    pub phase: String,
    /// The public half.
    pub public: Vec<u8>,
    /// Its certificate, for a certificate authority.
    pub certificate: Option<Vec<u8>>,
    /// The private half, sealed.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it is in its phase.
    pub phase_since: Timestamp,
}

/// What becomes of the authority's keys with an append.
#[derive(Debug, Clone, Default)]
pub struct KeyChanges {
    /// New keys, and old ones that changed.
    pub put: Vec<StoredKey>,
    /// Ids of keys that are forgotten.
    pub forget: Vec<String>,
}

impl KeyChanges {
    /// True when nothing becomes of them.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.forget.is_empty()
    }
}

impl Ledger {
    /// The sealed secrets of streams, by the streams' ids.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn secrets(&self, streams: &[Uuid], purpose: &str) -> Result<HashMap<Uuid, Vec<u8>>, LedgerError> {
        let rows = sqlx::query!(
            "SELECT stream_id, sealed FROM secret WHERE stream_id = ANY($1) AND purpose = $2",
            streams,
            purpose
        );
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        Ok(rows.into_iter().map(|row| (row.stream_id, row.sealed)).collect())
    }

    /// Streams with a sealed secret for this purpose, in the order of ids: at most `limit`, behind `after`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn with_secret(
        &self,
        purpose: &str,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Stored>, LedgerError> {
        let rows = folded!(
            r#"WHERE stream_id IN (
                 SELECT stream_id FROM secret WHERE purpose = $1 AND ($2::uuid IS NULL OR stream_id > $2)
                 ORDER BY stream_id LIMIT $3
               ) ORDER BY stream_id"#,
            purpose,
            after,
            i64::from(limit)
        );
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        rows.into_iter().map(StreamRow::stored).collect()
    }

    /// Deletes the sealed secret of a stream that is still as it was read, and to which nothing happened since `quiet_since`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn forget_secret(&self, of: &Stored, purpose: &str, quiet_since: Timestamp) -> Result<(), LedgerError> {
        let delete = sqlx::query!(
            "DELETE FROM secret USING (
                 SELECT stream_id FROM stream WHERE stream_id = $1 AND version = $2 FOR NO KEY UPDATE
             ) read WHERE secret.stream_id = read.stream_id AND purpose = $3
                 AND NOT EXISTS (SELECT FROM entry WHERE stream_id = $1 AND recorded_at > $4)",
            of.stream.id,
            signed(of.version),
            purpose,
            quiet_since
        );
        in_time(delete.execute(&mut *self.connection().await?)).await?;
        Ok(())
    }

    /// The authority's keys, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn authority_keys(&self) -> Result<Vec<StoredKey>, LedgerError> {
        let keys = sqlx::query_as!(
            StoredKey,
            "SELECT kid, purpose, phase, public, certificate, sealed, created_at, phase_since FROM authority_key
             ORDER BY created_at, kid"
        );
        Ok(in_time(keys.fetch_all(&mut *self.connection().await?)).await?)
    }
}

/// Changes keys, in the transaction of the append that tells of it.
pub(crate) async fn change_keys(connection: &mut PgConnection, keys: &KeyChanges) -> Result<(), sqlx::Error> {
    for key in &keys.put {
        sqlx::query!(
            "INSERT INTO authority_key (kid, purpose, phase, public, certificate, sealed, created_at, phase_since)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (kid) DO UPDATE SET phase = excluded.phase, phase_since = excluded.phase_since,
                 sealed = excluded.sealed",
            &key.kid,
            &key.purpose,
            &key.phase,
            &key.public,
            key.certificate.as_ref(),
            &key.sealed,
            key.created_at,
            key.phase_since
        )
        .execute(&mut *connection)
        .await?;
    }
    if !keys.forget.is_empty() {
        sqlx::query!("DELETE FROM authority_key WHERE kid = ANY($1)", &keys.forget).execute(connection).await?;
    }
    Ok(())
}
