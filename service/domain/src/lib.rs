//! The rules of bound keypair joining.
//!
//! Everything here is pure: a decision takes the state folded from events, the facts of one attempt and the time, and
//! returns the events to record and the answer to give. There is no I/O, clock or randomness in this crate.
//!
//! Read in this order: [`event`] (what can have happened), [`state`] (folds of events), [`decision`] (rules),
//! [`proof`] (the bytes that are signed), [`extension`] (what a certificate says), [`refusal`] (how a rule says no).

pub mod decision;
pub mod envelope;
pub mod event;
pub mod extension;
pub mod id;
pub mod key;
pub mod proof;
pub mod refusal;
pub mod resource;
pub mod state;
pub mod text;
pub mod upcast;

/// A moment, in UTC with microseconds; always the database's time.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
