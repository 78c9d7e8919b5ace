//! What an error looks like: the JSON twin of a gRPC status.

use std::collections::HashMap;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use join_proto::ERROR_DOMAIN;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A status as the JSON twin answers it: for what has no gRPC call.
pub fn problem(status: Status) -> Response {
    Problem::from(status).into_response()
}

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: String,
    message: String,
    /// What `google.rpc.ErrorInfo` says besides, such as `lock_id`.
    facts: HashMap<String, String>,
    /// In whole seconds, rounded up.
    retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), facts: HashMap::new(), retry_after: None }
    }

    /// A request that can't be understood; the message names the field.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
    }

    pub(crate) fn not_json() -> Self {
        let message = "the body must be JSON: send it with `content-type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_REQUEST", message)
    }

    pub(crate) fn not_found(path: &str) -> Self {
        let message = format!("there is nothing at {path}; /openapi.json lists all calls");
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    pub(crate) fn method_not_allowed(method: &http::Method, path: &str) -> Self {
        let message = format!("{path} does not take {method}; the header `allow` says what it takes");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", message)
    }

    /// The answer can't be written as JSON.
    pub(crate) fn unprintable(error: &serde_json::Error) -> Self {
        let message = format!("the answer can't be written as JSON ({error}); ask for it in gRPC");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut error = json!(self.facts);
        error["code"] = json!(self.code);
        error["message"] = json!(self.message);
        if let Some(seconds) = self.retry_after {
            error["retry_after"] = json!(seconds);
        }
        json!({ "error": error })
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let (http, usual_code) = wire(status.code());
        let mut problem = Self::new(http, usual_code, status.message());
        if let Some(info) = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN) {
            problem.code = info.reason;
            problem.facts = info.metadata;
        }
        problem.retry_after = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay)
            .map(|delay| delay.as_secs() + u64::from(delay.subsec_nanos() > 0));
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.to_json())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The HTTP status of a gRPC code, and the error code when the service named none (the transport never does).
const fn wire(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
            (StatusCode::BAD_REQUEST, "INVALID_REQUEST")
        }
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "ACCESS_DENIED"),
        Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        Code::AlreadyExists => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
        Code::Aborted => (StatusCode::CONFLICT, "CONFLICT"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED"),
        Code::Unavailable | Code::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "UNAVAILABLE"),
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
    }
}
