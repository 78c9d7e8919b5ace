//! Whether a database is fit to be used, found out at the start and said in words.

use sqlx::{PgConnection, Row as _};

use crate::{LedgerError, error::sqlstate, migrate::newest_migration};

/// The oldest PostgreSQL that is used: 15.
const OLDEST_SERVER: i32 = 150_000;
/// What nobody who serves may change.
const HISTORY: [&str; 3] = ["entry", "log_entry", "log_past"];

pub(crate) async fn check(connection: &mut PgConnection) -> Result<(), LedgerError> {
    check_server(connection).await?;
    check_schema(connection).await?;
    check_privileges(connection).await
}

/// Whether the database can be filled by this role: the one that owns it.
pub(crate) async fn check_owner(connection: &mut PgConnection) -> Result<(), LedgerError> {
    check_server(connection).await?;
    check_schema(connection).await?;
    let row = sqlx::query(
        "SELECT current_user::text AS role, pg_has_role(relowner, 'USAGE') AS owns FROM pg_class WHERE oid = 'entry'::regclass",
    );
    let row = row.fetch_one(connection).await?;
    let role: String = row.try_get("role")?;
    if row.try_get("owns")? {
        Ok(())
    } else {
        unfit(format!("role {role} does not own this database: database.owner_url should name the role that does"))
    }
}

async fn check_server(connection: &mut PgConnection) -> Result<(), LedgerError> {
    let row = sqlx::query("SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS name, current_setting('server_encoding') AS encoding")
        .fetch_one(connection)
        .await?;
    if row.try_get::<i32, _>("number")? < OLDEST_SERVER {
        let version: String = row.try_get("name")?;
        return unfit(format!("PostgreSQL {version} is too old: version 15 or newer is needed"));
    }
    let encoding: String = row.try_get("encoding")?;
    if encoding != "UTF8" {
        return unfit(format!("the database's encoding is {encoding}: create it with ENCODING 'UTF8'"));
    }
    Ok(())
}

async fn check_schema(connection: &mut PgConnection) -> Result<(), LedgerError> {
    let newest = newest_migration();
    let found: Result<Option<i64>, _> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(connection).await;
    match found {
        Ok(Some(found)) if found == newest => Ok(()),
        Ok(Some(found)) if found > newest => {
            // Migrations leave the previous version working, so that nodes can be upgraded one after another.
            tracing::warn!(found, known = newest, "the schema is newer than this program");
            Ok(())
        }
        Ok(_) => unfit("the database's schema is older than this program: run `joind migrate`".to_owned()),
        Err(error) => match sqlstate(&error).as_deref() {
            Some("42P01") => unfit("the database has no schema yet: run `joind migrate`".to_owned()),
            Some("42501") => unfit(
                "this role may not read the schema's version: connect as a role that is granted join_service"
                    .to_owned(),
            ),
            _ => Err(error.into()),
        },
    }
}

async fn check_privileges(connection: &mut PgConnection) -> Result<(), LedgerError> {
    let row = sqlx::query(
        "SELECT current_user::text AS role,
            bool_and(has_table_privilege(t, 'SELECT') AND has_table_privilege(t, 'INSERT')) AS serves,
            bool_or(has_table_privilege(t, 'UPDATE') OR has_table_privilege(t, 'DELETE')
                OR has_table_privilege(t, 'TRUNCATE')) AS rewrites
        FROM unnest($1::text[]) AS t",
    )
    .bind(HISTORY.as_slice())
    .fetch_one(connection)
    .await?;
    let role: String = row.try_get("role")?;
    if !row.try_get::<bool, _>("serves")? {
        return unfit(format!("role {role} may not append: connect as a role that is granted join_service"));
    }
    if row.try_get::<bool, _>("rewrites")? {
        return unfit(format!(
            "role {role} could rewrite history: serve as a role that is granted join_service and nothing more; \
             the owner is for `joind migrate` alone"
        ));
    }
    Ok(())
}

fn unfit<T>(why: String) -> Result<T, LedgerError> {
    Err(LedgerError::Unfit(why))
}
