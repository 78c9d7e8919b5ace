//! A refusal as a client sees it, over either transport.

use std::fmt;

use http::StatusCode;
use serde_json::Value;
use tonic::Status;
use tonic_types::StatusExt as _;

/// The code of a connection that broke, or was not made.
pub(crate) const UNREACHABLE: &str = "unreachable";

#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// The stable code.
    pub(crate) code: String,
    pub(crate) message: String,
    /// The lock that the refusal names.
    pub(crate) lock: Option<String>,
    /// gRPC status code, or HTTP status.
    pub(crate) status: String,
    /// Seconds until the client may come again.
    pub(crate) retry_after: Option<u64>,
}

impl Refused {
    pub(crate) fn from_json(status: StatusCode, body: &Value) -> Self {
        let error = &body["error"];
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        Self {
            code: text("code").unwrap_or_else(|| panic!("an error without a code: {body}")),
            message: text("message").unwrap_or_else(|| panic!("an error without a message: {body}")),
            lock: text("lock_id"),
            status: status.as_u16().to_string(),
            retry_after: error["retry_after"].as_u64(),
        }
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        if let Some(info) = &info {
            assert_eq!(info.domain, "joinauthority");
        }
        let broken = if status.code() == tonic::Code::Unavailable { UNREACHABLE } else { "" };
        Self {
            code: info.as_ref().map_or(broken.to_owned(), |info| info.reason.clone()),
            message: status.message().to_owned(),
            lock: info.and_then(|info| info.metadata.get("lock_id").cloned()),
            status: format!("{:?}", status.code()),
            retry_after: status.get_details_retry_info().and_then(|retry| Some(retry.retry_delay?.as_secs())),
        }
    }
}

/// There was nobody to refuse.
fn unreachable(error: &dyn fmt::Display) -> Refused {
    Refused {
        code: UNREACHABLE.to_owned(),
        message: error.to_string(),
        lock: None,
        status: String::new(),
        retry_after: None,
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        unreachable(&error)
    }
}

impl From<hyper::Error> for Refused {
    fn from(error: hyper::Error) -> Self {
        unreachable(&error)
    }
}

/// So that a test reads `assert_eq!(bot.join().await.unwrap_err(), "LOCKED")`.
impl PartialEq<str> for Refused {
    fn eq(&self, code: &str) -> bool {
        self.code == code
    }
}

impl PartialEq<&str> for Refused {
    fn eq(&self, code: &&str) -> bool {
        self.code == *code
    }
}

impl Refused {
    /// The authority ended a stream without a word.
    pub(crate) fn ended() -> Self {
        Self { code: "ended".to_owned(), ..unreachable(&"the stream ended") }
    }
}
