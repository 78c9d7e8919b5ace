//! How a rule says no: stable codes, one sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{id::LockId, key::KeyError};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// A stable error code (protocol, section 10).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name),+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as it is sent.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

codes! {
    /// Malformed or oversized message, bad field.
    InvalidRequest = "INVALID_REQUEST",
    /// Unknown or expired token, role not allowed: one answer for all.
    AccessDenied = "ACCESS_DENIED",
    /// Registration secret missing, wrong or expired: one answer for all.
    RegistrationSecretRequired = "REGISTRATION_SECRET_REQUIRED",
    /// Bad signature, wrong key, changed document, reused or expired challenge.
    ChallengeFailed = "CHALLENGE_FAILED",
    /// First join with existing credentials.
    BindingNotAllowed = "BINDING_NOT_ALLOWED",
    /// No recovery left.
    RecoveryLimitExhausted = "RECOVERY_LIMIT_EXHAUSTED",
    /// Join state needed and missing.
    JoinStateRequired = "JOIN_STATE_REQUIRED",
    /// Join state wrong or outdated.
    JoinStateInvalid = "JOIN_STATE_INVALID",
    /// Certificate generation is not the stored one.
    GenerationMismatch = "GENERATION_MISMATCH",
    /// Certificate of an instance that is not the bound one.
    InstanceMismatch = "INSTANCE_MISMATCH",
    /// Proven possession of a key that a rotation retired.
    RetiredKey = "RETIRED_KEY",
    /// Authentic evidence newer than the store.
    AuthorityBehind = "AUTHORITY_BEHIND",
    /// A lock is in force.
    Locked = "LOCKED",
    /// No new key, or its challenge failed.
    RotationFailed = "ROTATION_FAILED",
    /// Rotation answered with a key this token had.
    KeyReused = "KEY_REUSED",
    /// The key belongs to another token.
    KeyAlreadyBound = "KEY_ALREADY_BOUND",
    /// Key type or size not accepted.
    UnsupportedKey = "UNSUPPORTED_KEY",
    /// Lost a race; retry the same attempt.
    Conflict = "CONFLICT",
    /// Too many attempts; retry after the delay.
    RateLimited = "RATE_LIMITED",
    /// Database away or shutting down; retry the same attempt.
    Unavailable = "UNAVAILABLE",
    /// Another join method or message.
    Unimplemented = "UNIMPLEMENTED",
    /// Administration without an identity.
    Unauthenticated = "UNAUTHENTICATED",
    /// Administration with an identity whose role does not allow the call.
    RoleRequired = "ROLE_REQUIRED",
    /// No such resource.
    NotFound = "NOT_FOUND",
    /// A resource of that name exists.
    AlreadyExists = "ALREADY_EXISTS",
    /// An edit of an outdated revision.
    StaleRevision = "STALE_REVISION",
    /// Our fault; an id to look for in the log.
    Internal = "INTERNAL",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What programs look at.
    pub code: Code,
    /// What people read: what was wrong, and what to do.
    pub message: String,
    /// The lock that is in force, or that this refusal created.
    pub lock: Option<LockId>,
}

impl Refusal {
    /// A refusal with its message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), lock: None }
    }

    /// A malformed request: names the field.
    pub fn invalid(field: &str, why: impl fmt::Display) -> Self {
        Self::new(Code::InvalidRequest, format!("{field}: {why}"))
    }

    /// A public key that can't be taken: names the field.
    pub fn of_key(field: &str, why: &KeyError) -> Self {
        let code = match why {
            KeyError::Unsupported(_) => Code::UnsupportedKey,
            KeyError::Malformed | KeyError::Fingerprint => Code::InvalidRequest,
        };
        Self::new(code, format!("{field}: {why}"))
    }

    /// One answer for unknown, expired and forbidden, so that strangers learn nothing.
    pub fn access_denied() -> Self {
        Self::new(
            Code::AccessDenied,
            "the token does not exist, has expired, or does not allow this role; an administrator can check it with \
             `joinctl get token/NAME`",
        )
    }
}
