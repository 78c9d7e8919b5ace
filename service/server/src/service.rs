//! Puts a node together and runs it: keys, ledger, listeners, and the work behind the requests.

use std::{
    future::IntoFuture as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::{Router, http::header, routing::get};
use join_credential::{MasterKey, server::SERVER_LIFE};
use join_domain::{Timestamp, id::Name};
use join_ledger::Ledger;
use join_log::NoteSigner;
use rustls::pki_types::PrivateKeyDer;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    app::App,
    ceremony::{Ceremonies, behind::Behind, strangers::Strangers},
    cluster,
    config::{self, Limits},
    connection::{
        self, Served,
        office::Office,
        tls::{self, ServerCertificate},
    },
    entropy::Entropy,
    keyring::Keyring,
    logbook::{Logbook, Pace, witness::Witness},
    readiness::{self, Readiness},
    request,
    revocation::Lists,
    telemetry::{Alarm, METRICS, Position},
};

/// How often refusals without proof are summed up in the ledger.
const SUMMARY: Duration = Duration::from_secs(60);
/// How often positions and alarms are measured.
const MEASURE: Duration = Duration::from_secs(5);

/// How often this node looks whether keys were moved, and whether its server certificate is due for renewal.
const LOOK_AT_KEYS: Duration = Duration::from_secs(5);

/// What a node is made of.
pub struct Parts {
    /// The history.
    pub ledger: Ledger,
    /// Opens the authority's keys.
    pub master: MasterKey,
    /// The cluster that the configuration names; none to take the database's.
    pub cluster: Option<Name>,
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where to serve metrics and health.
    pub metrics_listen: SocketAddr,
    /// Names and addresses in the server certificate.
    pub names: Vec<String>,
    /// Where the verifiable log's files go.
    pub log_directory: Option<PathBuf>,
    /// The log's name in checkpoints.
    pub log_origin: Option<String>,
    /// Who cosigns its checkpoints.
    pub witnesses: Vec<config::Witness>,
    /// How often it is brought forward.
    pub log_pace: Pace,
    /// Limits.
    pub limits: Limits,
}

impl Parts {
    /// A node on free ports of the loopback, that keeps no files of the log.
    pub fn on_loopback(ledger: Ledger, master: MasterKey) -> Self {
        let any_port = (Ipv4Addr::LOCALHOST, 0).into();
        Self {
            ledger,
            master,
            cluster: None,
            listen: any_port,
            metrics_listen: any_port,
            names: vec![Ipv4Addr::LOCALHOST.to_string()],
            log_directory: None,
            log_origin: None,
            witnesses: Vec::new(),
            log_pace: Pace::default(),
            limits: Limits::default(),
        }
    }
}

/// A node that serves. Dropping it stops it without waiting.
pub struct Node {
    /// What every request can reach.
    pub app: Arc<App>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it serves metrics and health.
    pub metrics_address: SocketAddr,
    tasks: TaskTracker,
    stopping: CancellationToken,
    _stop_at_drop: DropGuard,
}

/// Starts a node.
///
/// # Errors
/// Says what is missing and what to do: no cluster, another master key, a port in use.
pub async fn start(parts: Parts) -> anyhow::Result<Node> {
    let (name, keyring) = open_cluster(&parts.ledger, parts.cluster, parts.master).await?;
    let opened = keyring.get();
    METRICS.ca_certificate_expires(opened.ca_ends);

    let listener = bind(parts.listen, "gRPC and HTTP").await?;
    let metrics_listener = bind(parts.metrics_listen, "metrics").await?;
    let (address, metrics_address) = (listener.local_addr()?, metrics_listener.local_addr()?);
    let identity = opened.issuer.generate_server_identity(&parts.names, parts.ledger.now())?;
    let certificate = Arc::new(ServerCertificate::new(identity.chain, PrivateKeyDer::Pkcs8(identity.key))?);
    let server = tls::server_config(Arc::clone(&certificate))?;

    let origin = parts.log_origin.unwrap_or_else(|| cluster::default_origin(&name));
    let log_signer = NoteSigner::from_key_pair(&origin, opened.keys.log_signer().into())?;
    let log_key = log_signer.verifier_key().to_string();
    let book = match &parts.log_directory {
        Some(directory) => {
            let witnesses = parts.witnesses.iter().map(Witness::new).collect::<anyhow::Result<_>>()?;
            let (ledger, directory) = (parts.ledger.clone(), directory.clone());
            Some(Logbook::open(ledger, directory, log_signer, origin, witnesses, parts.log_pace)?)
        }
        None => None,
    };

    let stopping = CancellationToken::new();
    let app = Arc::new(App {
        ceremonies: Ceremonies {
            strangers: Strangers::new(&parts.limits, parts.ledger.now()),
            ledger: parts.ledger,
            keyring,
            entropy: Entropy::default(),
            cluster: name,
            policy: parts.limits.policy(),
            behind: Behind::default(),
        },
        log_directory: parts.log_directory,
        log_key,
        revocations: Lists::default(),
        readiness: Readiness::default(),
        office: Office::open().context("there are no threads for administrators")?,
        verifying: Arc::new(Semaphore::new(1)),
        stopping: stopping.clone(),
        requests: TaskTracker::new(),
        background: TaskTracker::new(),
    });
    let router = request::router(&app)?;

    let tasks = TaskTracker::new();
    let limits = parts.limits;
    let stop = stopping.clone();
    let served = Served { router, app: Arc::clone(&app) };
    tasks.spawn(async move { connection::serve(listener, Arc::new(server), served, &limits, stop).await });
    tasks.spawn(serve_metrics(metrics_listener, Arc::clone(&app), stopping.clone()));
    tasks.spawn(follow_keys(Arc::clone(&app), certificate, parts.names, identity.not_after, stopping.clone()));
    tasks.spawn(readiness::look(Arc::clone(&app), stopping.clone()));
    tasks.spawn(sum_up(Arc::clone(&app), stopping.clone()));
    tasks.spawn(forget_secrets(Arc::clone(&app), stopping.clone()));
    tasks.spawn(measure(Arc::clone(&app), stopping.clone()));
    let (ledger, stop) = (app.ceremonies.ledger.clone(), stopping.clone());
    tasks.spawn(async move { ledger.run_sequencer(stop).await });
    let (ledger, stop) = (app.ceremonies.ledger.clone(), stopping.clone());
    tasks.spawn(async move { ledger.run_views(stop).await });
    if let Some(book) = book {
        tasks.spawn(book.run(stopping.clone()));
    }
    tasks.close();
    let _stop_at_drop = stopping.clone().drop_guard();
    Ok(Node { app, address, metrics_address, tasks, stopping, _stop_at_drop })
}

/// The cluster that the database is of, and its keys.
async fn open_cluster(
    ledger: &Ledger,
    configured: Option<Name>,
    master: MasterKey,
) -> anyhow::Result<(Name, Arc<Keyring>)> {
    let rows = cluster::keys(ledger).await?;
    let Some(name) = cluster::name(ledger).await? else {
        bail!("the database holds no cluster yet: create it with `joind init -c FILE --admin-identity DIR`");
    };
    if let Some(configured) = configured.filter(|configured| *configured != name) {
        bail!("the configuration names cluster `{configured}`, but the database is that of cluster `{name}`");
    }
    if rows.is_empty() {
        bail!(
            "the database holds the history of cluster `{name}`, but none of its keys: restore the table authority_key from \
             a backup (an archive holds no keys, so what is imported from one can be read and verified, not served)"
        );
    }
    let keyring = Keyring::open(name.clone(), rows, master)?;
    Ok((name, Arc::new(keyring)))
}

impl Node {
    /// Stops: no new connections, open requests are finished, counts are recorded.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.wait().await;
        for left in [&self.app.requests, &self.app.background] {
            left.close();
            left.wait().await;
        }
        if let Err(refusal) = self.app.ceremonies.strangers.summarise(&self.app.ceremonies.ledger).await {
            tracing::warn!("the last refusals could not be summed up: {refusal}");
        }
        self.app.ceremonies.ledger.close().await;
    }
}

/// Listens on an address.
///
/// # Errors
/// Says what to do when it is in use.
pub async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "{address} can't be listened on for {what}: is it in use? Give another address, or port 0 for a free one"
        )
    })
}

async fn serve_metrics(listener: TcpListener, app: Arc<App>, stop: CancellationToken) {
    let ledger = app.ceremonies.ledger.clone();
    let metrics = move || {
        METRICS.tokens(ledger.tokens_cached(), ledger.token_reads());
        METRICS.appends_waiting(ledger.appends_waiting());
        std::future::ready(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], METRICS.render()))
    };
    let router = Router::new().route("/metrics", get(metrics)).merge(request::public::health(app));
    // Nobody waits for their last request: a scraper that sends half of one would hold the service up.
    if let Some(Err(error)) = stop.run_until_cancelled(axum::serve(listener, router).into_future()).await {
        tracing::error!("metrics are not served any more: {error}");
    }
}

/// Opens keys again that were moved, and replaces the server certificate then and when a third of its life is left.
async fn follow_keys(
    app: Arc<App>,
    certificate: Arc<ServerCertificate>,
    names: Vec<String>,
    mut not_after: Timestamp,
    stop: CancellationToken,
) {
    let (keyring, ledger) = (&app.ceremonies.keyring, &app.ceremonies.ledger);
    // Keys may also be opened by a join that shows a document under one that is not known here yet.
    let mut certified_under = keyring.get();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_AT_KEYS)).await.is_some() {
        let followed = keyring.follow(ledger).await;
        let sealed_anew = followed.as_ref().is_ok_and(|complete| !complete) || keyring.is_shut_out();
        METRICS.alarm(Alarm::AuthorityKeys, sealed_anew);
        if let Err(error) = followed {
            tracing::warn!("the authority's keys could not be looked at: {error:#}");
        }
        let (opened, now) = (keyring.get(), ledger.now());
        METRICS.ca_certificate_expires(opened.ca_ends);
        if not_after - now > SERVER_LIFE / 3 && Arc::ptr_eq(&opened, &certified_under) {
            continue;
        }
        let renewed = opened.issuer.generate_server_identity(&names, now).map_err(anyhow::Error::from);
        let replaced = renewed.and_then(|identity| {
            certificate.replace(identity.chain, PrivateKeyDer::Pkcs8(identity.key))?;
            Ok(identity.not_after)
        });
        match replaced {
            Ok(end) => (not_after, certified_under) = (end, opened),
            Err(error) => tracing::error!("the server certificate ends at {not_after} and can't be renewed: {error}"),
        }
    }
}

/// Sums up refusals of strangers, once a minute.
async fn sum_up(app: Arc<App>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SUMMARY)).await.is_some() {
        if let Err(refusal) = app.ceremonies.strangers.summarise(&app.ceremonies.ledger).await {
            tracing::warn!("refusals could not be summed up: {refusal}");
        }
    }
}

/// Deletes stored secrets that ended, some of them each minute.
async fn forget_secrets(app: Arc<App>, stop: CancellationToken) {
    let mut after = None;
    while stop.run_until_cancelled(tokio::time::sleep(SUMMARY)).await.is_some() {
        after = app.ceremonies.forget_ended_secrets(after).await.unwrap_or_else(|error| {
            tracing::warn!("registration secrets that ended could not be deleted: {error}");
            None
        });
    }
}

async fn measure(app: Arc<App>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(MEASURE)).await.is_some() {
        match app.ceremonies.ledger.positions().await {
            Ok(positions) => {
                METRICS.position(Position::NextIndex, positions.next_index);
                METRICS.position(Position::Integrated, positions.integrated);
                METRICS.position(Position::Signed, positions.signed);
                METRICS.position(Position::Views, positions.views);
                METRICS.position(Position::Unsequenced, positions.unsequenced);
            }
            Err(error) => tracing::warn!("positions could not be measured: {error}"),
        }
        let Ceremonies { behind, ledger, .. } = &app.ceremonies;
        if let Err(error) = behind.look(ledger).await {
            tracing::warn!("tokens that were behind could not be looked at: {error}");
        }
    }
}
