//! Roles and databases on a server of our own: `joind dev`, tests, benchmarks.
//!
//! In production an operator creates them (`deploy/roles.sql`).

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::{LedgerError, error::sqlstate, migrate};

/// Owns the database and migrates it.
pub const OWNER: &str = "join_owner";
/// Serves: appends, and keeps what follows from it.
pub const SERVICE: &str = "join_service";
/// Reads everything but secrets.
pub const READER: &str = "join_reader";

/// How to connect to a database in each role.
#[derive(Debug, Clone)]
pub struct Provisioned {
    /// As its owner.
    pub owner: PgConnectOptions,
    /// As the service.
    pub service: PgConnectOptions,
    /// As a reader.
    pub reader: PgConnectOptions,
}

impl Provisioned {
    fn of(superuser: &PgConnectOptions, database: &str) -> Self {
        let role = |role: &str| superuser.clone().username(role).database(database);
        Self { owner: role(OWNER), service: role(SERVICE), reader: role(READER) }
    }
}

/// Makes roles and database where they are missing, and migrates. `superuser` connects to a server that trusts every
/// role; each of the roles can log in there.
///
/// # Errors
/// [`LedgerError`]; it can be repeated.
pub async fn provision(superuser: &PgConnectOptions, database: &str) -> Result<Provisioned, LedgerError> {
    let mut connection = PgConnection::connect_with(&superuser.clone().database("postgres")).await?;
    for role in [OWNER, SERVICE, READER] {
        let created = sqlx::query(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN"))).execute(&mut connection).await;
        unless_there(created)?;
    }
    let database_name = quoted(database);
    let create = format!("CREATE DATABASE {database_name} OWNER {OWNER} ENCODING 'UTF8' TEMPLATE template0");
    let created = sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await;
    unless_there(created)?;
    connection.close().await?;

    let provisioned = Provisioned::of(superuser, database);
    migrate(&provisioned.owner).await?;
    Ok(provisioned)
}

/// A fresh, migrated database, for a test: a copy of a template that is migrated once per server.
///
/// # Errors
/// [`LedgerError`].
pub async fn fresh(superuser: &PgConnectOptions, database: &str) -> Result<Provisioned, LedgerError> {
    let mut connection = PgConnection::connect_with(&superuser.clone().database("postgres")).await?;
    // The template is complete when the flag says so; until then others wait for the lock.
    let template = format!("join_template_{}", schema_version());
    sqlx::query("SELECT pg_advisory_lock(hashtext($1))").bind(&template).execute(&mut connection).await?;
    let ready: Option<bool> = sqlx::query_scalar("SELECT datistemplate FROM pg_database WHERE datname = $1")
        .bind(&template)
        .fetch_optional(&mut connection)
        .await?;
    if ready != Some(true) {
        provision(superuser, &template).await?;
        let done = format!("ALTER DATABASE {} IS_TEMPLATE true", quoted(&template));
        sqlx::query(AssertSqlSafe(done)).execute(&mut connection).await?;
    }
    sqlx::query("SELECT pg_advisory_unlock(hashtext($1))").bind(&template).execute(&mut connection).await?;

    let copy = format!("CREATE DATABASE {} OWNER {OWNER} TEMPLATE {}", quoted(database), quoted(&template));
    sqlx::query(AssertSqlSafe(copy)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(Provisioned::of(superuser, database))
}

/// Removes a database, and ends its connections.
///
/// # Errors
/// [`LedgerError`].
pub async fn remove(superuser: &PgConnectOptions, database: &str) -> Result<(), LedgerError> {
    let mut connection = PgConnection::connect_with(&superuser.clone().database("postgres")).await?;
    let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(database));
    sqlx::query(AssertSqlSafe(drop)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

fn schema_version() -> String {
    // The checksums too: while a migration is being written, its number stays.
    let mut digest: u64 = 0;
    for migration in crate::MIGRATOR.iter() {
        digest =
            migration.checksum.iter().fold(digest, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    }
    format!("{digest:016x}")
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Two who create the same thing at the same time both get what they want.
fn unless_there<T>(created: Result<T, sqlx::Error>) -> Result<(), LedgerError> {
    match created {
        Ok(_) => Ok(()),
        Err(error) => match sqlstate(&error).as_deref() {
            Some("42710" | "42P04" | "23505") => Ok(()),
            _ => Err(error.into()),
        },
    }
}
