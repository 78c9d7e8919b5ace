//! The ledger on a real PostgreSQL, a fresh database for each test.

mod append;
mod connection;
mod failover;
mod fence;
mod fitness;
mod log;
mod migrations;
mod privilege;
mod read;
mod rebuild;
mod schema;
mod secret;
mod snapshot;
mod support;
mod view;
