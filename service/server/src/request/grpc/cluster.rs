//! `joinauthority.v1.Cluster`: who the authority is, how it is, what is locked.

use std::{sync::Arc, time::Duration};

use join_domain::refusal::{Code, Refusal};
use join_ledger::{LedgerError, Stored};
use join_proto::v1::{self, cluster_server::Cluster};
use tonic::{Request, Response, Status};

use super::{Answers, one_by_one};
use crate::{
    app::App,
    ceremony::{OrRefuse as _, internal},
    request::{problem, resource, values, watcher::Watcher},
    telemetry::METRICS,
};

/// How often the locks in force are compared with what was told last.
const LOOK: Duration = Duration::from_secs(1);
/// How often they are told again when nothing changes, so that a watcher knows that it is alive.
const REPEAT: Duration = Duration::from_secs(60);

/// The service.
pub struct About(pub Arc<App>);

#[tonic::async_trait]
impl Cluster for About {
    async fn get_ca(&self, _: Request<v1::Empty>) -> Result<Response<v1::Ca>, Status> {
        let told = || -> Result<v1::Ca, Refusal> {
            let keyring = self.0.ceremonies.keyring.usable()?;
            let issuer = &keyring.issuer;
            Ok(v1::Ca {
                cluster_name: self.0.ceremonies.cluster.to_string(),
                tls_ca_certs: issuer.tls_ca_pems().to_vec(),
                ssh_ca_keys: issuer.ssh_ca_lines().to_vec(),
                pins: issuer
                    .tls_ca_certificates()
                    .iter()
                    .map(|der| join_credential::pin::ca_pin(der))
                    .collect::<Result<_, _>>()
                    .map_err(internal)?,
                log_key: self.0.log_key.clone(),
            })
        };
        problem::reply(told())
    }

    async fn get_status(&self, request: Request<v1::Empty>) -> Result<Response<v1::Status>, Status> {
        let told = async {
            self.0.admitted_administrator(request.extensions()).await?;
            let ledger = &self.0.ceremonies.ledger;
            let now = ledger.now();
            let positions = ledger.positions().await.or_refuse()?;
            let (bots, tokens, locks) = ledger.live_counts(now).await.or_refuse()?;
            Ok(v1::Status {
                cluster_name: self.0.ceremonies.cluster.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                bots,
                tokens,
                instances_live: ledger.live_instances(now).await.or_refuse()?,
                locks,
                exemptions_open: ledger.open_exemptions(now).await.or_refuse()?,
                log_next_index: positions.next_index,
                log_integrated: positions.integrated,
                log_signed: positions.signed,
                view_index: positions.views,
                unsequenced: positions.unsequenced,
                database_time: Some(values::to_wire_time(now)),
                alarms: METRICS.standing_alarms(),
            })
        };
        problem::reply(told.await)
    }

    type WatchLocksStream = Answers<v1::LockList>;

    async fn watch_locks(&self, request: Request<v1::Empty>) -> Result<Response<Self::WatchLocksStream>, Status> {
        let watcher = Watcher::of(&self.0, &request).await.map_err(problem::status)?;
        let app = Arc::clone(&self.0);
        let told = one_by_one(Some((app, watcher, None::<Vec<v1::Lock>>)), async |watching| {
            let (app, mut watcher, last) = watching?;
            let mut waited = Duration::ZERO;
            loop {
                if let Err(status) = watcher.still_counts().await {
                    return Some((Err(status), None));
                }
                let ledger = &app.ceremonies.ledger;
                let locks = match ledger.locks_in_force(ledger.now()).await.or_refuse() {
                    Ok(locks) => locks,
                    Err(refusal) => return Some((Err(problem::status(refusal)), None)),
                };
                let written = |stored: &Stored| Some(resource::write_lock(stored.lock()?, stored.version));
                let locks: Vec<v1::Lock> = locks.iter().filter_map(written).collect();
                if last.as_ref() != Some(&locks) || waited >= REPEAT {
                    let list = v1::LockList { locks: locks.clone(), next_cursor: String::new() };
                    return Some((Ok(list), Some((app, watcher, Some(locks)))));
                }
                tokio::select! {
                    () = app.stopping.cancelled() => return None,
                    () = tokio::time::sleep(LOOK) => waited += LOOK,
                }
            }
        });
        Ok(Response::new(told))
    }

    async fn verify_views(&self, request: Request<v1::Empty>) -> Result<Response<v1::ViewsReport>, Status> {
        self.0.admitted_administrator(request.extensions()).await.map_err(problem::status)?;
        // It folds the whole history, on one of the few connections for administrators: once at a time.
        let Ok(only) = Arc::clone(&self.0.verifying).try_acquire_owned() else {
            let refusal = Refusal::new(Code::RateLimited, "this node verifies its views already: wait for that to end");
            return Err(problem::status(refusal));
        };
        // A thread of its own keeps it away from joins. It ends with who asked, and with the service.
        let stopped = self.0.stopping.child_token();
        let _asked = stopped.clone().drop_guard();
        let (ledger, runtime) = (self.0.ceremonies.ledger.clone(), tokio::runtime::Handle::current());
        let checked = tokio::task::spawn_blocking(move || {
            let _only = only;
            runtime.block_on(stopped.run_until_cancelled(ledger.check(|_| {})))
        });
        let Some(checked) = checked.await.map_err(|error| problem::status(internal(error)))? else {
            let refusal = Refusal::new(Code::Unavailable, "this node stops: verify the views on another");
            return Err(problem::status(refusal));
        };
        let report = match checked {
            // What is damaged is what was asked for.
            Err(LedgerError::Corrupt(what)) => {
                return Ok(Response::new(v1::ViewsReport { differences: vec![what], ..v1::ViewsReport::default() }));
            }
            checked => checked.or_refuse().map_err(problem::status)?,
        };
        Ok(Response::new(v1::ViewsReport {
            streams_checked: report.streams,
            differences: report
                .differences
                .iter()
                .map(|difference| format!("{}: {}: {}", difference.table, difference.row, difference.what))
                .collect(),
        }))
    }
}
