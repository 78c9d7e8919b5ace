//! The schema, and how it becomes that of this version.

use sqlx::{Connection as _, PgConnection, migrate::MigrateError, postgres::PgConnectOptions};

use crate::LedgerError;

/// Every migration of the schema, oldest first.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// Of which version a schema is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Of this one.
    Own,
    /// Of a later one. This version serves with it.
    Newer,
}

/// Brings the schema to this version's, unless it is newer. `options` are those of the role that owns the database.
///
/// # Errors
/// [`LedgerError::Migrate`], or no connection. A migration that fails is undone as a whole.
pub async fn migrate(options: &PgConnectOptions) -> Result<Schema, LedgerError> {
    let mut connection = PgConnection::connect_with(options).await?;
    let schema = match MIGRATOR.run(&mut connection).await {
        Ok(()) => Schema::Own,
        Err(MigrateError::VersionMissing(applied)) if applied > newest_migration() => Schema::Newer,
        Err(error) => return Err(LedgerError::Migrate(error)),
    };
    connection.close().await?;
    Ok(schema)
}

/// The last migration that this version knows.
pub(crate) fn newest_migration() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}
