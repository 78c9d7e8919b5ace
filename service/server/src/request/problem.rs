//! How a refusal goes over the wire: one table, without a wildcard arm.

use std::{collections::HashMap, time::Duration};

use axum::response::Response;
use http::header;
use join_domain::refusal::{Code, Refusal};
use join_proto::ERROR_DOMAIN;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::telemetry::{METRICS, TurnedAway};

/// After how long a client that was too fast may come again.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The gRPC status of each code.
pub const fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidRequest | Code::KeyReused | Code::UnsupportedKey => tonic::Code::InvalidArgument,
        Code::AccessDenied
        | Code::RegistrationSecretRequired
        | Code::ChallengeFailed
        | Code::RecoveryLimitExhausted
        | Code::JoinStateRequired
        | Code::JoinStateInvalid
        | Code::GenerationMismatch
        | Code::InstanceMismatch
        | Code::RetiredKey
        | Code::Locked
        | Code::RoleRequired => tonic::Code::PermissionDenied,
        Code::BindingNotAllowed | Code::RotationFailed => tonic::Code::FailedPrecondition,
        Code::AuthorityBehind | Code::Unavailable => tonic::Code::Unavailable,
        Code::KeyAlreadyBound | Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::Conflict | Code::StaleRevision => tonic::Code::Aborted,
        Code::RateLimited => tonic::Code::ResourceExhausted,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::NotFound => tonic::Code::NotFound,
        Code::Internal => tonic::Code::Internal,
    }
}

/// The status of a refusal, with its code in `google.rpc.ErrorInfo`.
pub fn status(refusal: Refusal) -> Status {
    let mut metadata = HashMap::new();
    if let Some(lock) = refusal.lock {
        metadata.insert("lock_id".to_owned(), lock.to_string());
    }
    let mut details = ErrorDetails::with_error_info(refusal.code.as_str(), ERROR_DOMAIN, metadata);
    if refusal.code == Code::RateLimited {
        details.set_retry_info(Some(RETRY_AFTER));
    }
    Status::with_error_details(grpc_code(refusal.code), refusal.message, details)
}

/// What gRPC sends of what a call answers.
pub fn reply<T>(answer: Result<T, Refusal>) -> Result<tonic::Response<T>, Status> {
    answer.map(tonic::Response::new).map_err(status)
}

/// The answer to a request that is not let in, in the form that its client reads.
pub fn turn_away<B>(request: &http::Request<B>, refusal: Refusal) -> Response {
    METRICS.turned_away(TurnedAway::Request);
    let kind = request.headers().get(header::CONTENT_TYPE);
    match kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        true => status(refusal).into_http(),
        false => join_transcode::problem(status(refusal)),
    }
}

/// Gives the code INVALID_REQUEST to answers of the gRPC library itself, for messages that don't decode or are too large:
/// it calls that an internal error, or out of range. What we answer has details, so it is left as it is.
pub async fn malformed<B: Default>(response: http::Response<B>) -> http::Response<B> {
    let headers = response.headers();
    let of_library = ["13", "11"].iter().any(|code| headers.get("grpc-status").is_some_and(|status| status == code));
    if !of_library || headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    let why = Status::from_header_map(headers).map(|status| status.message().to_owned()).unwrap_or_default();
    status(Refusal::invalid("message", why)).into_http()
}
