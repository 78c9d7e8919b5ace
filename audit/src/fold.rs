//! What the events mean: the fold of the domain, the one thing that the auditor shares with the service.

use join_domain::{envelope::EnvelopeError, upcast::UpcastError};
use serde_json::Value;

use crate::finding::Fault;
pub(crate) use join_domain::{
    envelope::{Entry, StreamId},
    state::State,
};

/// An entry that can't be followed.
#[derive(Debug)]
pub(crate) struct Unfollowed {
    pub(crate) fault: Fault,
    /// The version of the event that does not fit, where one alone is to blame.
    pub(crate) version: Option<u64>,
    pub(crate) why: String,
}

/// The entry of an envelope.
pub(crate) fn read(envelope: &str) -> Result<Entry, Unfollowed> {
    Entry::from_envelope(envelope).map_err(|error| {
        let is_newer = matches!(error, EnvelopeError::Event(UpcastError::Newer { .. } | UpcastError::UnknownKind(_)));
        let fault = if is_newer { Fault::Newer } else { Fault::ImpossibleHistory };
        Unfollowed { fault, version: None, why: error.to_string() }
    })
}

/// The state of a stream after one more entry.
pub(crate) fn after(before: Option<State>, entry: &Entry) -> Result<State, Unfollowed> {
    State::after(before, entry).map_err(|error| Unfollowed {
        fault: Fault::ImpossibleHistory,
        version: Some(error.version),
        why: format!("`{}` cannot follow what came before", error.event),
    })
}

/// The state as a view claims it.
pub(crate) fn as_claimed(state: &State) -> Value {
    serde_json::to_value(state).unwrap_or_default()
}

/// Whether a view has to be there. What is no resource may go without.
pub(crate) fn has_view(state: &State) -> bool {
    !matches!(state, State::Administrator(_) | State::Record)
}
