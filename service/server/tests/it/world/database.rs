//! A database of one test; it goes when this does.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use join_embedded::Address;
use join_ledger::{
    Ledger, ManualClock, PgConnectOptions, Settings,
    provision::{self, Provisioned},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

pub(crate) struct Database {
    server: Address,
    superuser: PgConnectOptions,
    name: String,
    roles: Provisioned,
    /// Appends that may wait for a node's writer.
    queue: usize,
}

/// While this lives, what it holds up waits.
pub(crate) struct Held(PgConnection);

impl Held {
    pub(crate) async fn release(self) {
        self.0.close().await.unwrap();
    }
}

impl Database {
    /// On the server that all tests share.
    pub(crate) async fn fresh() -> Self {
        let address = tokio::task::spawn_blocking(join_embedded::for_tests).await.unwrap();
        Self::fresh_on(address).await
    }

    pub(crate) async fn fresh_on(server: &Address) -> Self {
        let superuser: PgConnectOptions = server.url("postgres", "postgres").parse().unwrap();
        let name = unused_name();
        let roles = provision::fresh(&superuser, &name).await.unwrap();
        Self { server: server.clone(), superuser, name, roles, queue: Settings::default().queue }
    }

    /// With room for so many appends before others are turned away.
    pub(crate) fn with_queue(mut self, queue: usize) -> Self {
        self.queue = queue;
        self
    }

    /// Lets appends wait.
    pub(crate) async fn hold(&self) -> Held {
        self.lock("LOCK TABLE stream IN EXCLUSIVE MODE").await
    }

    /// Lets who reads the authority's keys wait.
    pub(crate) async fn hold_keys(&self) -> Held {
        self.lock("LOCK TABLE authority_key IN ACCESS EXCLUSIVE MODE").await
    }

    /// Lets who reads certificates wait.
    pub(crate) async fn hold_certificates(&self) -> Held {
        self.lock("LOCK TABLE certificate_view IN ACCESS EXCLUSIVE MODE").await
    }

    /// Lets who compares all states with history wait, and nobody who only reads one.
    pub(crate) async fn hold_comparisons(&self) -> Held {
        self.lock("LOCK TABLE lineage IN ACCESS EXCLUSIVE MODE").await
    }

    async fn lock(&self, lock: &str) -> Held {
        let mut holder = PgConnection::connect_with(&self.superuser.clone().database(&self.name)).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {lock}"))).execute(&mut holder).await.unwrap();
        Held(holder)
    }

    /// Whether somebody waits for a lock.
    pub(crate) async fn somebody_waits(&self) -> bool {
        self.waiting("").await > 0
    }

    /// How many statements with this text wait for a lock.
    pub(crate) async fn waiting(&self, text: &str) -> i64 {
        let mut server = PgConnection::connect_with(&self.superuser).await.unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = $1 AND wait_event_type = 'Lock' AND strpos(query, $2) > 0";
        sqlx::query_scalar(waiting).bind(&self.name).bind(text).fetch_one(&mut server).await.unwrap()
    }

    /// On the server that all tests share, without a schema.
    pub(crate) async fn bare() -> Self {
        // It comes with the roles, which belong to the server.
        let database = Self::fresh().await;
        let mut server = PgConnection::connect_with(&database.superuser).await.unwrap();
        provision::remove(&database.superuser, &database.name).await.unwrap();
        let create = format!("CREATE DATABASE {} OWNER {}", database.name, provision::OWNER);
        sqlx::query(AssertSqlSafe(create)).execute(&mut server).await.unwrap();
        database
    }

    /// For a process.
    pub(crate) fn url(&self, role: &str) -> String {
        self.server.url(role, &self.name)
    }

    /// Changes what nobody else may change.
    pub(crate) async fn tamper(&self, sql: &str) {
        let mut all = PgConnection::connect_with(&self.superuser.clone().database(&self.name)).await.unwrap();
        let changed = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut all).await.unwrap();
        assert!(changed.rows_affected() > 0, "{sql}");
    }

    /// A copy, as a backup that was restored. Nobody else may be connected.
    pub(crate) async fn copy(&self) -> Self {
        let name = unused_name();
        let mut server = PgConnection::connect_with(&self.superuser).await.unwrap();
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(end).bind(&self.name).execute(&mut server).await.unwrap();
        let copy = format!("CREATE DATABASE {name} OWNER {} TEMPLATE {}", provision::OWNER, self.name);
        sqlx::query(AssertSqlSafe(copy)).execute(&mut server).await.unwrap();
        let role = |options: &PgConnectOptions| options.clone().database(&name);
        let roles = Provisioned {
            owner: role(&self.roles.owner),
            service: role(&self.roles.service),
            reader: role(&self.roles.reader),
        };
        Self { server: self.server.clone(), superuser: self.superuser.clone(), name, roles, queue: self.queue }
    }

    pub(crate) async fn ledger(&self, clock: Arc<ManualClock>) -> Ledger {
        let settings = Settings { clock: Some(clock), connections: 6, queue: self.queue, ..Settings::default() };
        Ledger::connect(self.roles.service.clone(), settings).await.unwrap()
    }

    /// Everything that is stored, as text.
    pub(crate) async fn dump(&self) -> String {
        let mut all = PgConnection::connect_with(&self.superuser.clone().database(&self.name)).await.unwrap();
        let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut all).await.unwrap();
        let mut text = String::new();
        for table in tables {
            let rows = sqlx::query(AssertSqlSafe(format!("SELECT t::text FROM {table} t")));
            for row in rows.fetch_all(&mut all).await.unwrap() {
                text.push_str(&format!("{table}: {}\n", row.get::<String, _>(0)));
            }
        }
        text
    }
}

fn unused_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("server_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Drop for Database {
    fn drop(&mut self) {
        let (superuser, name) = (self.superuser.clone(), self.name.clone());
        // A server that a test stopped on purpose has nothing to remove any more.
        elsewhere(async move { drop(provision::remove(&superuser, &name).await) });
    }
}

/// Runs to the end on a runtime of its own: the test's is about to go.
fn elsewhere(work: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work);
    });
    drop(thread.join());
}
