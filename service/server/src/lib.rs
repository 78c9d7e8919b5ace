//! The join authority's service. The flow reads off the modules: connection → request → ceremony → decision (in `join-domain`) →
//! ledger (in `join-ledger`) → credential (in `join-credential`).

pub mod administrators;
pub mod app;
pub mod caller;
pub mod ceremony;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod connection;
pub mod entropy;
pub mod keyring;
pub mod logbook;
pub mod readiness;
pub mod request;
pub mod revocation;
pub mod service;
pub mod telemetry;
