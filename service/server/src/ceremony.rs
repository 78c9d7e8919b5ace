//! Load → decide → append → issue. [`join`] admits bots, [`administer`] carries out what administrators ask for.

pub mod administer;
pub mod behind;
pub mod join;
pub mod pending;
pub mod secret;
pub mod strangers;

use std::sync::Arc;

use join_domain::{
    decision::join::Policy,
    id::Name,
    refusal::{Code, Refusal},
    state::Namespace,
};
use join_ledger::{AppendError, Ledger, LedgerError};

use self::{behind::Behind, strangers::Strangers};
use crate::{entropy::Entropy, keyring::Keyring, telemetry};

/// Everything that ceremonies need.
pub struct Ceremonies {
    /// The history and what is folded from it.
    pub ledger: Ledger,
    /// The authority's keys, and who signs with them.
    pub keyring: Arc<Keyring>,
    /// Randomness.
    pub entropy: Entropy,
    /// The cluster's name.
    pub cluster: Name,
    /// Lives of certificates.
    pub policy: Policy,
    /// Those who proved nothing: counted and limited.
    pub strangers: Strangers,
    /// Tokens of which the store knows less than their holders.
    pub behind: Behind,
}

/// What the ledger could not do, as an answer to the caller.
pub(crate) fn unavailable(why: impl std::fmt::Display) -> Refusal {
    tracing::warn!("unavailable: {why}");
    Refusal::new(Code::Unavailable, "the authority cannot reach its database at the moment: retry the same attempt")
}

/// Our fault: the log has the details, the client an id to look for.
pub(crate) fn internal(error: impl std::fmt::Display) -> Refusal {
    let request = telemetry::current_request().unwrap_or_else(|| "-".into());
    tracing::error!("internal error: {error}");
    Refusal::new(
        Code::Internal,
        format!("the authority failed; an administrator finds the cause in its log under request {request}"),
    )
}

/// What was asked for by its name does not exist.
pub(crate) fn not_found(kind: &str, name: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no {kind} `{name}`"))
}

/// Failures of the ledger as answers; a trait, for neither type is this crate's own.
pub(crate) trait OrRefuse<T> {
    /// The value, or the refusal that the caller gets.
    fn or_refuse(self) -> Result<T, Refusal>;
}

impl<T> OrRefuse<T> for Result<T, LedgerError> {
    fn or_refuse(self) -> Result<T, Refusal> {
        self.map_err(|error| match error {
            LedgerError::Unavailable(_) => unavailable(error),
            other => internal(other),
        })
    }
}

impl<T> OrRefuse<T> for Result<T, AppendError> {
    fn or_refuse(self) -> Result<T, Refusal> {
        self.map_err(|error| match error {
            AppendError::Conflict | AppendError::AttemptSeen => {
                Refusal::new(Code::Conflict, "somebody else changed it at the same moment: try again")
            }
            AppendError::ClaimTaken { namespace: Namespace::Key, .. } => {
                Refusal::new(Code::KeyAlreadyBound, "the key belongs to another token: one key binds one token")
            }
            AppendError::ClaimTaken { value, .. } => {
                Refusal::new(Code::AlreadyExists, format!("`{value}` exists already"))
            }
            AppendError::TooLarge(_) => Refusal::new(Code::InvalidRequest, format!("{error}: leave something out")),
            AppendError::Overloaded => {
                Refusal::new(Code::RateLimited, "the authority is overloaded: retry the same attempt later")
            }
            AppendError::OutcomeUnknown(_) | AppendError::Unavailable(_) => unavailable(error),
            other => internal(other),
        })
    }
}
