//! Who may call what, as `options.proto` says it: asked before a message is read, so that strangers can't fill memory.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::Extensions;
use join_credential::Role;
use join_proto::{DESCRIPTORS, v1};
use join_transcode::{BadCall, Door, drain};
use tonic::Status;

use super::problem;
use crate::app::App;

/// The door of every call.
#[derive(Clone)]
pub struct Admission {
    app: Arc<App>,
    /// By the path of a gRPC call.
    roles: Arc<HashMap<String, v1::Role>>,
}

impl Admission {
    /// Asks for the roles that the descriptors name.
    ///
    /// # Errors
    /// When a call names none.
    pub fn new(app: Arc<App>) -> Result<Self, BadCall> {
        Ok(Self { app, roles: Arc::new(join_transcode::roles(&DESCRIPTORS)?) })
    }
}

impl Door for Admission {
    /// Leaves the [`Administrator`](crate::caller::Administrator) in the extensions.
    async fn admit(&self, role: v1::Role, extensions: &mut Extensions) -> Result<(), Status> {
        let needed = match role {
            v1::Role::Anyone => return Ok(()),
            v1::Role::Auditor => Role::Auditor,
            v1::Role::Operator => Role::Operator,
            v1::Role::Admin | v1::Role::Unspecified => Role::Admin,
        };
        let admitted = self.app.administrator(extensions, needed).await;
        extensions.insert(admitted.map_err(problem::status)?);
        Ok(())
    }
}

/// The door of gRPC calls.
pub async fn grpc(State(door): State<Admission>, request: Request, next: Next) -> Response {
    // A call that does not exist is for anyone: it is answered UNIMPLEMENTED.
    let role = door.roles.get(request.uri().path()).copied().unwrap_or(v1::Role::Anyone);
    let (mut parts, body) = request.into_parts();
    if let Err(status) = door.admit(role, &mut parts.extensions).await {
        drain(body).await;
        return status.into_http();
    }
    next.run(Request::from_parts(parts, body)).await
}
