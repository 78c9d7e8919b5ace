//! Administrators: what runs need of them, and their work under load.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use h2::client::SendRequest;
use hdrhistogram::Histogram;
use rustls::{
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::Mutex, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    authority::{Authority, roots},
    ceremony::{JoinError, Lines, call_json},
    connection::{Connection, Target},
    measured::{Measured, histogram, record},
};

/// How often an authority that can't be reached any more is tried: a node that is started anew is back by then.
const TRIES: u32 = 10;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// An administrator with a connection. A node closes one on which nothing was asked for ten minutes, and when it stops: then
/// it is opened again.
pub(crate) struct Administrator {
    target: Target,
    identity: Arc<CertifiedKey>,
    connection: Mutex<Connection>,
}

impl Administrator {
    /// The first administrator of a private authority.
    pub(crate) async fn connect(authority: &Authority) -> anyhow::Result<Self> {
        Self::with_identity(authority.target()?, &authority.identity()).await
    }

    /// With the identity of a directory.
    pub(crate) async fn with_identity(target: Target, directory: &Path) -> anyhow::Result<Self> {
        let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).context("the identity has no key")?;
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key)?;
        let identity = Arc::new(CertifiedKey::new(roots(&directory.join("tls.crt"))?, signer));
        let connection = Mutex::new(target.connect(Some(&identity)).await?);
        Ok(Self { target, identity, connection })
    }

    /// The connection, opened again where it was closed.
    async fn requests(&self) -> Result<SendRequest<Bytes>, JoinError> {
        let mut connection = self.connection.lock().await;
        let mut tries = 1;
        while connection.is_closed() {
            match self.target.connect(Some(&self.identity)).await {
                Ok(opened) => *connection = opened,
                Err(_) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(JoinError::Unconnected(format!("{error:#}"))),
            }
        }
        Ok(connection.requests.clone())
    }

    /// One call. Where the connection breaks under it, it is made again if that is as good as once.
    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, JoinError> {
        let mut tries = 1;
        loop {
            match call_json(&self.requests().await?, method, path, body).await {
                Err(JoinError::Broken(_)) if body.is_none() && tries < TRIES => tries += 1,
                answer => return answer,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One resource, or a page of them.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, None).await
    }

    /// Removes a resource; one that is not there is none to remove.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        match self.ask("DELETE", path, None).await {
            Err(JoinError::Refused(code)) if code == "NOT_FOUND" => Ok(()),
            answer => answer.map(drop).with_context(|| format!("DELETE {path}")),
        }
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.ask(method, path, body).await;
        answer.with_context(|| format!("{method} {path}"))
    }

    /// A bot that may do nothing: no roles, no logins.
    pub(crate) async fn create_bot(&self, metadata: &Value) -> anyhow::Result<()> {
        let bot = json!({ "kind": "bot", "version": "v1", "metadata": metadata, "spec": {} });
        self.call("POST", "/v1/bots", Some(&bot)).await.map(drop)
    }

    /// A token with a registration secret, which may recover as often as a run wants.
    pub(crate) async fn create_token(&self, metadata: &Value, bot: &str, secret: &str) -> anyhow::Result<()> {
        let token = json!({
            "kind": "token", "version": "v2", "metadata": metadata,
            "spec": {
                "roles": ["Bot"], "bot_name": bot, "join_method": "bound_keypair",
                "bound_keypair": {
                    "onboarding": { "registration_secret": secret },
                    "recovery": { "mode": "standard", "limit": 1_000_000 },
                },
            },
        });
        self.call("POST", "/v1/tokens", Some(&token)).await.map(drop)
    }

    /// Asks for a rotation at the next join.
    pub(crate) async fn rotate(&self, token: &str) -> anyhow::Result<()> {
        self.call("POST", &format!("/v1/tokens/{token}/rotate"), Some(&json!({}))).await.map(drop)
    }

    /// The locks that the authority itself made: each lock's name, and the token that it is on.
    pub(crate) async fn locks(&self) -> anyhow::Result<Vec<Lock>> {
        let (mut locks, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/locks?page_size=1000&cursor={cursor}")).await?;
            for lock in page["locks"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                locks.push(Lock {
                    name: text(&lock["metadata"]["name"]),
                    token: text(&lock["spec"]["target"]["join_token"]),
                    has_cause: !text(&lock["status"]["cause"]).is_empty(),
                });
            }
            cursor = page["next_cursor"].as_str().unwrap_or_default().to_owned();
            if cursor.is_empty() {
                return Ok(locks);
            }
        }
    }
}

/// The code by which the authority refused a call, where that is what went wrong.
pub(crate) fn refusal(error: &anyhow::Error) -> Option<&str> {
    match error.downcast_ref()? {
        JoinError::Refused(code) => Some(code),
        JoinError::Unconnected(_) | JoinError::Broken(_) => None,
    }
}

/// A lock that is in force.
pub(crate) struct Lock {
    pub(crate) name: String,
    /// The token that it is on; empty when it is on something else.
    pub(crate) token: String,
    /// True when the authority itself made it, for a join that it refused.
    pub(crate) has_cause: bool,
}

/// Administrators at work: locks come and go, exemptions are granted and revoked, lists and histories are read, what
/// happens is followed, and the ledger is exported.
pub(crate) struct Work {
    stop: CancellationToken,
    begun: Instant,
    workers: Vec<JoinHandle<anyhow::Result<Done>>>,
    _until_it_is_dropped: DropGuard,
}

impl Work {
    /// Begins it, on a token that nobody joins with. Each administrator has a connection, and a thread: making sense of
    /// what they are sent must not hold up the joins that are measured.
    pub(crate) async fn start(
        connect: impl AsyncFn() -> anyhow::Result<Administrator>,
        worked_on: &str,
    ) -> anyhow::Result<Self> {
        let (stop, dropped) = (CancellationToken::new(), CancellationToken::new());
        let _until_it_is_dropped = dropped.clone().drop_guard();
        let mut workers = Vec::new();
        for kind in [Kind::Locks, Kind::Exemptions, Kind::Lists, Kind::History, Kind::Follow, Kind::Export] {
            let worker =
                Worker { administrator: connect().await?, worked_on: worked_on.to_owned(), done: Done::default() };
            let (stop, dropped) = (stop.clone(), dropped.clone());
            workers.push(tokio::task::spawn_blocking(move || {
                let done = dropped.run_until_cancelled(worker.work(kind, stop));
                Handle::current().block_on(done).context("nobody waits for it")?
            }));
        }
        Ok(Self { stop, begun: Instant::now(), workers, _until_it_is_dropped })
    }

    /// Ends the work, and says how long each call took.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<Measured>> {
        self.stop.cancel();
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut measured = Vec::new();
        for worker in self.workers {
            let done = worker.await??;
            ensure!(!done.0.is_empty(), "an administrator came to nothing");
            let of = |(call, latencies): (&&str, &Histogram<u64>)| {
                Measured::of(&format!("administrators: {call}"), "one after the other".to_owned(), seconds, latencies)
            };
            measured.extend(done.0.iter().map(of));
        }
        Ok(measured)
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Locks,
    Exemptions,
    Lists,
    History,
    Follow,
    Export,
}

impl Kind {
    /// Time between two calls, as people and scripts take it.
    fn pause(self) -> Duration {
        Duration::from_millis(if matches!(self, Self::Export) { 500 } else { 20 })
    }
}

/// How long calls took, by what they do.
#[derive(Default)]
struct Done(BTreeMap<&'static str, Histogram<u64>>);

impl Done {
    fn note(&mut self, call: &'static str, took: Duration) {
        record(self.0.entry(call).or_insert_with(histogram), took);
    }
}

/// One administrator, who does one thing again and again.
struct Worker {
    administrator: Administrator,
    worked_on: String,
    done: Done,
}

impl Worker {
    async fn work(mut self, kind: Kind, stop: CancellationToken) -> anyhow::Result<Done> {
        if matches!(kind, Kind::Follow) {
            self.follow(&stop).await?;
            return Ok(self.done);
        }
        let (mut cursor, mut exported) = (String::new(), 0);
        while !stop.is_cancelled() {
            match kind {
                Kind::Locks => self.lock().await?,
                Kind::Exemptions => self.exempt().await?,
                Kind::Lists => {
                    let page = self.page("a page of tokens listed", "tokens", &cursor).await?;
                    page["next_cursor"].as_str().unwrap_or_default().clone_into(&mut cursor);
                }
                Kind::History => {
                    let page = self.page("a page of history read", "events", &cursor).await?;
                    let next = page["cursor"].as_str().filter(|_| page["more"].as_bool() == Some(true));
                    next.unwrap_or_default().clone_into(&mut cursor);
                }
                Kind::Export => exported = self.export(exported, &stop).await?,
                Kind::Follow => {}
            }
            stop.run_until_cancelled(tokio::time::sleep(kind.pause())).await;
        }
        Ok(self.done)
    }

    /// A call, and how long it took.
    async fn call(
        &mut self,
        what: &'static str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let begun = Instant::now();
        let answer = self.administrator.call(method, path, body).await?;
        self.done.note(what, begun.elapsed());
        Ok(answer)
    }

    async fn lock(&mut self) -> anyhow::Result<()> {
        let spec = json!({ "target": { "join_token": self.worked_on }, "message": "load test" });
        let lock = json!({ "kind": "lock", "version": "v2", "metadata": {}, "spec": spec });
        let made = self.call("a lock made", "POST", "/v1/locks", Some(&lock)).await?;
        let name = made["metadata"]["name"].as_str().context("a lock has a name")?;
        self.call("a lock removed", "DELETE", &format!("/v1/locks/{name}"), None).await?;
        Ok(())
    }

    async fn exempt(&mut self) -> anyhow::Result<()> {
        let spec = json!({ "token_name": self.worked_on, "kind": "recoveries", "reason": "load test" });
        let grant = json!({ "exemption": { "kind": "exemption", "version": "v1", "spec": spec } });
        let granted = self.call("an exemption granted", "POST", "/v1/exemptions", Some(&grant)).await?;
        let name = granted["exemptions"][0]["metadata"]["name"].as_str();
        let name = name.with_context(|| format!("an exemption has a name: {granted}"))?;
        self.call("an exemption revoked", "DELETE", &format!("/v1/exemptions/{name}"), None).await?;
        Ok(())
    }

    async fn page(&mut self, what: &'static str, of: &str, cursor: &str) -> anyhow::Result<Value> {
        self.call(what, "GET", &format!("/v1/{of}?page_size=100&cursor={cursor}"), None).await
    }

    /// Follows what happens from now on. How late an event comes is counted from when it was recorded, by the clocks
    /// of the two sides.
    async fn follow(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let status = self.administrator.get("/v1/status").await?;
        let from = status["log_next_index"].as_u64().context("the status has no log_next_index")?;
        let path = format!("/v1/events:follow?cursor={from}");
        let mut pages = Lines::get(&self.administrator.requests().await?, &path).await?;
        let mut next = from;
        while let Some(page) = stop.run_until_cancelled(pages.next()).await {
            let page: Page = page?.context("the authority ended what was followed")?;
            for event in page.events {
                // Events of one entry share its place.
                let follows = event.log_index == next || (event.log_index + 1 == next && next > from);
                ensure!(follows, "entry {} was followed by entry {}", next.saturating_sub(1), event.log_index);
                next = event.log_index + 1;
                self.done.note("an event followed", (Utc::now() - event.recorded_at).to_std().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Exports the ledger from an entry on, to the explicit end, and returns where that is. The whole of a long ledger takes
    /// longer than a measurement: so much of it as comes until `stop`.
    async fn export(&mut self, from: u64, stop: &CancellationToken) -> anyhow::Result<u64> {
        let begun = Instant::now();
        let path = format!("/v1/export?from_index={from}");
        let mut chunks = Lines::get(&self.administrator.requests().await?, &path).await?;
        let mut next = from;
        loop {
            let Some(chunk) = stop.run_until_cancelled(chunks.next()).await else {
                self.done.note("a part of the ledger exported, until the end of the measurement", begun.elapsed());
                return Ok(next);
            };
            let chunk: Chunk = chunk?.context("an export ended without its end")?;
            for entry in chunk.entries {
                ensure!(entry.log_index == next, "entry {} was exported in place of {next}", entry.log_index);
                next += 1;
            }
            if let Some(end) = chunk.end {
                ensure!(end == next, "an export of {next} entries says that it has {end}");
                break;
            }
        }
        let what = if from == 0 { "the whole ledger exported" } else { "what came since exported" };
        self.done.note(what, begun.elapsed());
        Ok(next)
    }
}

/// What matters here of a page of events.
#[derive(Deserialize)]
struct Page {
    events: Vec<Followed>,
}

#[derive(Deserialize)]
struct Followed {
    log_index: u64,
    recorded_at: DateTime<Utc>,
}

/// What matters here of a piece of an export.
#[derive(Deserialize)]
struct Chunk {
    entries: Vec<Exported>,
    #[serde(default)]
    end: Option<u64>,
}

#[derive(Deserialize)]
struct Exported {
    log_index: u64,
}
