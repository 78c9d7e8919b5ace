//! How a refusal goes over the wire: one table, without a wildcard arm.

use std::{collections::HashMap, time::Duration};

use join_domain::refusal::{Code, Refusal};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "joinauthority";

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
pub fn status(refusal: &Refusal) -> Status {
    let mut metadata = HashMap::new();
    if let Some(lock) = refusal.lock {
        metadata.insert("lock_id".to_owned(), lock.to_string());
    }
    let mut details = ErrorDetails::with_error_info(refusal.code.as_str(), DOMAIN, metadata);
    if refusal.code == Code::RateLimited {
        details.set_retry_info(Some(RETRY_AFTER));
    }
    Status::with_error_details(grpc_code(refusal.code), refusal.message.clone(), details)
}

/// A malformed request: names the field.
pub fn invalid(field: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::InvalidRequest, format!("{field}: {why}"))
}
