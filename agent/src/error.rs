//! How a join fails, and what comes next: retry, wait, or an administrator.

use std::time::Duration;

use join_domain::{proof::UnfitChallenge, refusal::Code};
use tonic_types::StatusExt as _;

use crate::{
    config::SecretError,
    credentials::UnfitResult,
    output::OutputError,
    storage::StorageError,
    trust::{SOURCE_OF_PINS, Untrusted},
};

/// A join that did not succeed. The pending attempt stays, and is the one that is sent next.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The authority said no.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// The authority could not be reached, or the connection was lost.
    #[error("{0}")]
    Network(String),
    /// The server is not the authority.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// The server's certificate does not hold.
    #[error("the server's certificate is not valid: {0}")]
    Certificate(String),
    /// Nothing says which authority to trust.
    #[error(
        "there is nothing to know the authority by, and a first contact without is refused: set `ca_pins` or `ca_path`; \
         {SOURCE_OF_PINS}"
    )]
    NoTrust,
    /// The same, when everything came from a joining URI.
    #[error(
        "the join URI lacks `ca-pin=…`, so that there is nothing to know the authority by, and a first contact without is \
         refused: append `?ca-pin=sha256:…` to the URI; {SOURCE_OF_PINS}"
    )]
    NoPinInUri,
    /// The configured registration secret is not there.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The storage belongs to another token or cluster.
    #[error(
        "{storage} holds the identity of token `{stored}`, the configuration names `{asked}`: give each token a storage \
         directory of its own"
    )]
    OtherIdentity {
        /// The storage.
        storage: String,
        /// Token and cluster that it belongs to.
        stored: String,
        /// Token and cluster that are asked for.
        asked: String,
    },
    /// The authority challenges a key that is not here.
    #[error("the token is bound to the key {0}, which this agent does not hold")]
    KeyNotHeld(String),
    /// The same, where no key outlives the process and none is given.
    #[error("no static key: the token is bound to the key {0}, and storage in memory keeps none")]
    NoStaticKey(String),
    /// A static key can't be replaced.
    #[error("the authority asks for a new key, but a static key cannot be rotated by the agent")]
    StaticKey,
    /// A challenge that must not be signed.
    #[error(transparent)]
    Challenge(#[from] UnfitChallenge),
    /// A result that is not an answer to this attempt.
    #[error(transparent)]
    Result(#[from] UnfitResult),
    /// The server did what the protocol does not allow.
    #[error("{0}")]
    Unexpected(String),
    /// The state can't be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An output can't be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// The authority's refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", .code.map_or("refused", Code::as_str))]
pub struct Refused {
    /// The stable code; none when the server is not one of this project or newer than this agent.
    pub code: Option<Code>,
    /// What the server says to people.
    pub message: String,
    /// The lock that is in force, when the server names one.
    pub lock_id: Option<String>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// Whether the gRPC status is one of those that pass by themselves.
    transient: bool,
}

/// What to do after a failed join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again soon.
    Retry,
    /// Try again after the server's delay.
    RetryAfter(Duration),
    /// Try again, but somebody has to do something first: seldom.
    RetrySlowly,
    /// Give up: somebody has to do something first.
    Stop,
}

impl JoinError {
    /// The refusal's code, when it is a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refused) => refused.code,
            _ => None,
        }
    }

    /// What to do next.
    pub fn next(&self) -> Next {
        match self {
            Self::Network(_) => Next::Retry,
            Self::Refused(refused) => refused.next(),
            // A full disk is emptied again; a damaged state is not repaired by waiting.
            Self::Storage(StorageError::Io { .. }) | Self::Output(_) => Next::Retry,
            // The server may be of another version; it is not asked every second.
            Self::Unexpected(_) | Self::Result(_) => Next::RetrySlowly,
            Self::Storage(_)
            | Self::Untrusted(_)
            | Self::Certificate(_)
            | Self::NoTrust
            | Self::NoPinInUri
            | Self::Secret(_)
            | Self::OtherIdentity { .. }
            | Self::KeyNotHeld(_)
            | Self::NoStaticKey(_)
            | Self::StaticKey
            | Self::Challenge(_) => Next::Stop,
        }
    }

    /// Reads a status: a refusal of the authority, or a connection that was lost.
    pub(crate) fn from_status(status: &tonic::Status) -> Self {
        use tonic::Code as Grpc;
        let transient = matches!(
            status.code(),
            Grpc::Unavailable | Grpc::Aborted | Grpc::ResourceExhausted | Grpc::DeadlineExceeded | Grpc::Internal
        );
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == join_proto::ERROR_DOMAIN);
        // Statuses without details of ours that speak of transport were most likely made on this side of the wire.
        if info.is_none() && (transient || matches!(status.code(), Grpc::Unknown | Grpc::Cancelled)) {
            return Self::Network(format!("the connection failed: {}", status.message()));
        }
        Self::Refused(Box::new(Refused {
            code: info.and_then(|info| Code::ALL.iter().copied().find(|code| code.as_str() == info.reason)),
            message: status.message().to_owned(),
            lock_id: info.and_then(|info| info.metadata.get("lock_id").cloned()),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            transient,
        }))
    }
}

impl Refused {
    fn next(&self) -> Next {
        match (self.code, self.retry_after) {
            (Some(Code::AuthorityBehind), _) => Next::RetrySlowly,
            (Some(Code::Conflict | Code::Unavailable | Code::RateLimited | Code::Internal), None) => Next::Retry,
            (Some(Code::Conflict | Code::Unavailable | Code::RateLimited | Code::Internal), Some(delay)) => {
                Next::RetryAfter(delay)
            }
            (None, delay) if self.transient => delay.map_or(Next::Retry, Next::RetryAfter),
            _ => Next::Stop,
        }
    }
}
