//! What is kept sealed: secrets of streams, and the authority's keys. Sealing and opening is the caller's.

use join_domain::{Timestamp, envelope::StreamId};
use sqlx::PgConnection;

use crate::{Ledger, LedgerError};

/// A key of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityKey {
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
}

impl Ledger {
    /// The sealed secret of a stream.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn secret(&self, stream: StreamId, purpose: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let sealed =
            sqlx::query_scalar!("SELECT sealed FROM secret WHERE stream_id = $1 AND purpose = $2", stream.id, purpose);
        Ok(sealed.fetch_optional(self.pool()).await?)
    }

    /// Forgets a secret that expired.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn forget_secret(&self, stream: StreamId, purpose: &str) -> Result<(), LedgerError> {
        let delete = sqlx::query!("DELETE FROM secret WHERE stream_id = $1 AND purpose = $2", stream.id, purpose);
        delete.execute(self.pool()).await?;
        Ok(())
    }

    /// The authority's keys, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn authority_keys(&self) -> Result<Vec<AuthorityKey>, LedgerError> {
        let keys = sqlx::query_as!(
            AuthorityKey,
            "SELECT kid, purpose, phase, public, certificate, sealed, created_at FROM authority_key
             ORDER BY created_at, kid"
        );
        Ok(keys.fetch_all(self.pool()).await?)
    }

    /// Moves a key to another phase of its life, if it is in `from`; says whether it was.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn move_authority_key(&self, kid: &str, from: &str, to: &str) -> Result<bool, LedgerError> {
        let update = sqlx::query!("UPDATE authority_key SET phase = $3 WHERE kid = $1 AND phase = $2", kid, from, to);
        let done = update.execute(self.pool()).await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Stores new keys, in the transaction of the append that tells of them.
pub(crate) async fn add_keys(connection: &mut PgConnection, keys: &[AuthorityKey]) -> Result<(), sqlx::Error> {
    for key in keys {
        sqlx::query!(
            "INSERT INTO authority_key (kid, purpose, phase, public, certificate, sealed, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &key.kid,
            &key.purpose,
            &key.phase,
            &key.public,
            key.certificate.as_ref(),
            &key.sealed,
            key.created_at
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
