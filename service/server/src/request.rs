//! The edge: parse, call one ceremony, render. HTTP is the twin of gRPC, made from the same descriptors.

pub mod admission;
pub mod grpc;
pub mod instance;
pub mod observe;
pub mod problem;
pub mod public;
pub mod values;
pub mod watcher;
pub mod why;

use std::sync::Arc;

use axum::{Router, middleware};
use join_proto::{
    DESCRIPTOR_SET, DESCRIPTORS,
    teleport::join_service_server::JoinServiceServer,
    v1::{
        ceremony_server::CeremonyServer, cluster_server::ClusterServer, ledger_server::LedgerServer,
        resources_server::ResourcesServer,
    },
};
pub use join_resource as resource;
use tonic::service::Routes;

use self::admission::Admission;
use crate::app::App;

/// The largest message of a call that is for anyone, in bytes.
const ANYONES_MESSAGE: usize = 64 * 1024;
/// The largest message of administration, in bytes.
const ADMIN_MESSAGE: usize = 1024 * 1024;

/// Everything that is served on the one port.
///
/// # Errors
/// When a call says nothing of its role or its place in HTTP.
pub fn router(app: &Arc<App>) -> anyhow::Result<Router> {
    let door = Admission::new(Arc::clone(app))?;
    let (joining, administration) = (joining(app)?, administration(app));
    let grpc = Routes::from(joining.clone().merge(administration.clone()));
    let json = join_transcode::router(&DESCRIPTORS, grpc, door.clone(), join_transcode::Limits::default())?;
    let administration = administration.layer(middleware::from_fn_with_state(door, admission::grpc));
    Ok(Router::new()
        .merge(joining.merge(administration).layer(middleware::map_response(problem::malformed)))
        .merge(public::router(Arc::clone(app)))
        .merge(json)
        .layer(middleware::from_fn(observe::request)))
}

/// Services without an administrator's call.
fn joining(app: &Arc<App>) -> anyhow::Result<Router> {
    let share = || Arc::clone(app);
    let mut grpc = Routes::builder();
    grpc.add_service(JoinServiceServer::new(grpc::join::Joining(share())).max_decoding_message_size(ANYONES_MESSAGE));
    grpc.add_service(
        CeremonyServer::new(grpc::ceremony::JoinCalls(share())).max_decoding_message_size(ANYONES_MESSAGE),
    );
    grpc.add_service(
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?
            .max_decoding_message_size(ANYONES_MESSAGE),
    );
    grpc.add_service(grpc::health::service(share()).max_decoding_message_size(ANYONES_MESSAGE));
    Ok(grpc.routes().into_axum_router().reset_fallback())
}

fn administration(app: &Arc<App>) -> Router {
    let share = || Arc::clone(app);
    let mut grpc = Routes::builder();
    grpc.add_service(
        ResourcesServer::new(grpc::resources::Administration(share())).max_decoding_message_size(ADMIN_MESSAGE),
    );
    grpc.add_service(LedgerServer::new(grpc::ledger::History(share())).max_decoding_message_size(ADMIN_MESSAGE));
    grpc.add_service(ClusterServer::new(grpc::cluster::About(share())).max_decoding_message_size(ANYONES_MESSAGE));
    grpc.routes().into_axum_router().reset_fallback()
}
