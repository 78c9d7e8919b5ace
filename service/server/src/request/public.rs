//! What needs no identity, and is no call: health, revocation lists, the log's files, the OpenAPI document.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use join_credential::Role;
use join_domain::refusal::Refusal;
use join_proto::DESCRIPTORS;

use super::problem;
use crate::{app::App, ceremony::join::internal, revocation};

/// Health, revocation lists, log files and the OpenAPI document.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/crl", get(crl))
        .route("/krl", get(krl))
        .route("/log/{*path}", get(log_file))
        .route("/openapi.json", get(openapi))
        .with_state(app)
}

/// Ready: database reachable, schema usable, keys loaded.
async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    match app.ceremonies.ledger.ping().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => {
            tracing::warn!("not ready: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n").into_response()
        }
    }
}

async fn crl(State(app): State<Arc<App>>) -> Response {
    match revocation::crl(&app).await {
        Ok(pem) => ([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn krl(State(app): State<Arc<App>>) -> Response {
    match revocation::krl(&app).await {
        Ok(list) => ([(header::CONTENT_TYPE, "application/octet-stream")], list).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    join_transcode::problem(problem::status(refusal))
}

/// The same document as `docs/openapi.json`. It is made once.
async fn openapi() -> Response {
    static DOCUMENT: LazyLock<Result<Bytes, String>> = LazyLock::new(|| {
        let document = join_transcode::openapi(&DESCRIPTORS, "Join authority", "v1").map_err(|bad| bad.to_string())?;
        Ok(document.to_string().into())
    });
    match &*DOCUMENT {
        Ok(document) => ([(header::CONTENT_TYPE, "application/json")], document.clone()).into_response(),
        Err(error) => refused(&internal(error)),
    }
}

/// A file of the verifiable log. Checkpoints and hash tiles are public; entry bundles need the role `auditor`.
async fn log_file(State(app): State<Arc<App>>, Path(path): Path<String>, request: axum::extract::Request) -> Response {
    let Some(directory) = &app.log_directory else {
        return (StatusCode::NOT_FOUND, "this node keeps no files of the log\n").into_response();
    };
    if path.starts_with("tile/entries/")
        && let Err(refusal) = app.administrator(request.extensions(), Role::Auditor).await
    {
        return refused(&refusal);
    }
    let Some(file) = log_path(directory, &path) else {
        return (StatusCode::NOT_FOUND, "no such file of the log\n").into_response();
    };
    match tokio::fs::read(&file).await {
        Ok(bytes) if path == "checkpoint" => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "max-age=1")], bytes)
                .into_response()
        }
        Ok(bytes) => {
            // What needs a role is nothing for a cache that many share.
            let cache = match path.starts_with("tile/entries/") {
                true => "private, max-age=31536000, immutable",
                false => "public, max-age=31536000, immutable",
            };
            ([(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, cache)], bytes)
                .into_response()
        }
        Err(_) => (StatusCode::NOT_FOUND, "no such file of the log\n").into_response(),
    }
}

/// Only names that the log itself can have: no way out of its directory.
fn log_path(directory: &std::path::Path, path: &str) -> Option<PathBuf> {
    let well_formed = |part: &str| {
        !part.is_empty()
            && part.len() <= 8
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
            && part != ".."
            && part != "."
    };
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["checkpoint"] => Some(directory.join("checkpoint")),
        ["tile", rest @ ..] if !rest.is_empty() && rest.iter().all(|part| well_formed(part)) => {
            Some(rest.iter().fold(directory.join("tile"), |path, part| path.join(part)))
        }
        _ => None,
    }
}
