//! What needs no identity, and is no call: health, revocation lists, the log's files, the OpenAPI document.

use std::{
    io::ErrorKind,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use join_credential::Role;
use join_domain::refusal::Refusal;
use join_log::{Layer, LogReader, Tile};
use join_proto::DESCRIPTORS;

use super::problem;
use crate::{app::App, ceremony::internal, revocation};

/// Health, revocation lists, log files and the OpenAPI document.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/crl", get(crl))
        .route("/krl", get(krl))
        .route("/log/checkpoint", get(checkpoint))
        .route("/log/tile/{*path}", get(tile))
        .route("/openapi.json", get(openapi))
        .with_state(Arc::clone(&app))
        .merge(health(app))
}

/// Whether the node lives, and whether it can serve. It is served beside metrics, too: the TLS port has no place for who
/// asks there while it is full, and a node that is full is well.
pub fn health(app: Arc<App>) -> Router {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).with_state(app)
}

/// Ready: database reachable, schema usable, keys loaded.
async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.readiness.check() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn crl(State(app): State<Arc<App>>, request: Request) -> Response {
    match app.done(request.extensions(), revocation::crl(Arc::clone(&app))).await {
        Ok(pem) => ([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response(),
        Err(refusal) => refused(refusal),
    }
}

async fn krl(State(app): State<Arc<App>>, request: Request) -> Response {
    match app.done(request.extensions(), revocation::krl(Arc::clone(&app))).await {
        Ok(list) => ([(header::CONTENT_TYPE, "application/octet-stream")], list).into_response(),
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Response {
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
        Err(error) => refused(internal(error)),
    }
}

/// The newest checkpoint that this node publishes.
async fn checkpoint(State(app): State<Arc<App>>) -> Response {
    let Some(directory) = &app.log_directory else { return no_log_here() };
    match tokio::fs::read(directory.join("checkpoint")).await {
        Ok(note) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "max-age=1")], note)
            .into_response(),
        Err(error) if error.kind() == ErrorKind::NotFound => no_such_file(),
        Err(error) => refused(internal(error)),
    }
}

/// A tile of the published checkpoint. Hash tiles are public; entry bundles need the role `auditor`.
async fn tile(State(app): State<Arc<App>>, Path(path): Path<String>, request: Request) -> Response {
    let Some(directory) = app.log_directory.clone() else { return no_log_here() };
    let Some(tile) = Tile::parse(&format!("tile/{path}")) else { return no_such_file() };
    // What needs a role is nothing for a cache that many share.
    let cache = match tile.layer {
        Layer::Entries => "private, max-age=31536000, immutable",
        Layer::Hashes(_) => "public, max-age=31536000, immutable",
    };
    if tile.layer == Layer::Entries
        && let Err(refusal) = app.administrator(request.extensions(), Role::Auditor).await
    {
        return refused(refusal);
    }
    let read = tokio::task::spawn_blocking(move || LogReader::open(directory).published(tile));
    // Nothing stops a read that has begun, so its place is not another's before.
    let read = app.done(request.extensions(), async { read.await.map_err(internal)?.map_err(internal) });
    match read.await {
        Ok(Some(bytes)) => {
            ([(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, cache)], bytes)
                .into_response()
        }
        Ok(None) => no_such_file(),
        Err(refusal) => refused(refusal),
    }
}

fn no_such_file() -> Response {
    (StatusCode::NOT_FOUND, "this node has no such file of the log\n").into_response()
}

/// Without log.directory. Another node may have what is asked for.
fn no_log_here() -> Response {
    (StatusCode::MISDIRECTED_REQUEST, "this node serves no files of the log: ask another\n").into_response()
}
