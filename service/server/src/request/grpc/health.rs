//! `grpc.health.v1.Health`: serving means ready.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::app::App;

/// How often a watcher is told.
const PERIOD: Duration = Duration::from_secs(5);
/// How long a watcher is told, before it has to ask again: a stranger's call is not kept for ever.
const WATCHED: Duration = Duration::from_secs(60);
/// The services that can be asked about; empty is the whole.
const SERVICES: [&str; 3] = ["", "teleport.join.v1.JoinService", "joinauthority.v1.Ceremony"];

/// The health service.
pub fn service(app: Arc<App>) -> HealthServer<Readiness> {
    HealthServer::new(Readiness(app))
}

/// Says whether joins can be served.
pub struct Readiness(Arc<App>);

impl Readiness {
    async fn status(app: &App) -> HealthCheckResponse {
        let ready = !app.stopping.is_cancelled()
            && !app.ceremonies.keyring.is_shut_out()
            && app.ceremonies.ledger.ping().await.is_ok();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        HealthCheckResponse { status: status.into() }
    }
}

fn known(service: &str) -> Result<(), Status> {
    if SERVICES.contains(&service) { Ok(()) } else { Err(Status::not_found("no such service is served here")) }
}

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request.get_ref().service)?;
        Ok(Response::new(Self::status(&self.0).await))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        known(&request.get_ref().service)?;
        let app = Arc::clone(&self.0);
        let told = stream::unfold((app, None, Instant::now()), async |(app, mut last, begun)| {
            while begun.elapsed() < WATCHED {
                let status = Self::status(&app).await;
                if last != Some(status.status) {
                    return Some((Ok(status), (app, Some(status.status), begun)));
                }
                last = Some(status.status);
                tokio::time::sleep(PERIOD).await;
            }
            None
        });
        Ok(Response::new(told.boxed()))
    }
}
