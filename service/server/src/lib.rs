//! The join authority's service. The flow reads off the modules: request → ceremony → decision (in `join-domain`) →
//! ledger (in `join-ledger`) → credential (in `join-credential`).

pub mod administrators;
pub mod app;
pub mod caller;
pub mod ceremony;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod entropy;
pub mod gather;
mod handshake;
pub mod keyring;
pub mod listen;
pub mod logbook;
pub mod office;
mod places;
pub mod readiness;
pub mod request;
pub mod revocation;
pub mod service;
mod slow;
pub mod telemetry;
pub mod tls;
pub mod witness;
