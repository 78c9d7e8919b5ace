//! `grpc.health.v1.Health`: serving means ready.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::{Answers, one_by_one};
use crate::{app::App, readiness::NotReady};

/// How long a watcher is told, before it has to ask again: a stranger's call is not kept for ever.
const WATCHED: Duration = Duration::from_secs(60);
/// The services that can be asked about; empty is the whole.
const SERVICES: [&str; 3] = ["", "teleport.join.v1.JoinService", "joinauthority.v1.Ceremony"];

/// The health service.
pub fn service(app: Arc<App>) -> HealthServer<Serving> {
    HealthServer::new(Serving(app))
}

/// Says whether joins can be served.
pub struct Serving(Arc<App>);

fn answer(found: Result<(), NotReady>) -> HealthCheckResponse {
    let status = if found.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

fn known(service: &str) -> Result<(), Status> {
    if SERVICES.contains(&service) { Ok(()) } else { Err(Status::not_found("no such service is served here")) }
}

#[tonic::async_trait]
impl Health for Serving {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request.get_ref().service)?;
        Ok(Response::new(answer(self.0.readiness.check())))
    }

    type WatchStream = Answers<HealthCheckResponse>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        known(&request.get_ref().service)?;
        let mut watched = self.0.readiness.watch();
        watched.mark_changed();
        let told = one_by_one((watched, Instant::now() + WATCHED), async |(mut watched, end)| {
            tokio::time::timeout_at(end, watched.changed()).await.ok()?.ok()?;
            let found = *watched.borrow_and_update();
            Some((Ok(answer(found)), (watched, end)))
        });
        Ok(Response::new(told))
    }
}
