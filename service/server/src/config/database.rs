//! Where the database is, and how much of it a node takes.

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::mask::mask_password;

/// The database.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// URL with the service role, which may not change history.
    pub service_url: String,
    /// URL with the owner role; for `joind init`, `migrate` and `import` only.
    #[serde(default)]
    pub owner_url: Option<String>,
    /// Connections of this node, beside one for each writer and two that follow the log.
    #[serde(default = "default_connections")]
    pub max_connections: u32,
    /// Writers that group joins into one append each.
    #[serde(default = "default_writers")]
    pub writers: usize,
    /// Memory for tokens that were read, in megabytes; one takes about 2 kB. Who joins again from it has nothing read.
    #[serde(default = "default_cache_mb")]
    pub cache_mb: u64,
}

fn default_connections() -> u32 {
    10
}

fn default_writers() -> usize {
    1
}

fn default_cache_mb() -> u64 {
    64
}

impl Database {
    /// What is known to be wrong before anything connects.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.max_connections < 4 {
            bail!("database.max_connections is below 4: a node that reads for several callers at once needs as many");
        }
        if !(1..=8).contains(&self.writers) {
            bail!("database.writers must be 1 to 8");
        }
        if !(1..=65_536).contains(&self.cache_mb) {
            bail!("database.cache_mb must be 1 to 65536");
        }
        let urls = [("service_url", Some(&self.service_url)), ("owner_url", self.owner_url.as_ref())];
        for (field, url) in urls {
            if let Some(key) = url.and_then(|url| foreign_password(url)) {
                bail!("database.{field}: the parameter `{key}` has no effect here: take it out");
            }
            // The URL itself may hold a password.
            if url.is_some_and(|url| !is_of_postgres(url) || url.parse::<join_ledger::PgConnectOptions>().is_err()) {
                bail!(
                    "database.{field} is not a PostgreSQL URL, such as postgres://join_service@db.example.com/join_authority"
                );
            }
        }
        Ok(())
    }

    /// The same with its passwords masked.
    pub(super) fn masked(self) -> Self {
        let owner_url = self.owner_url.as_deref().map(mask_password);
        Self { service_url: mask_password(&self.service_url), owner_url, ..self }
    }
}

/// False for the URL of another service, which our client of PostgreSQL would take all the same.
fn is_of_postgres(url: &str) -> bool {
    url.split_once(':').is_some_and(|(scheme, _)| matches!(scheme, "postgres" | "postgresql"))
}

/// A parameter of a database URL that holds another password than the database's, such as libpq's `sslpassword`. It has no
/// effect, and our client of PostgreSQL would log it: it warns of parameters that it does not know, with their values.
fn foreign_password(url: &str) -> Option<&str> {
    let parameters = url.split_once('?')?.1.split(['&', '#']);
    let mut keys = parameters.filter_map(|parameter| parameter.split('=').next());
    keys.find(|key| *key != "password" && key.to_ascii_lowercase().contains("pass"))
}
