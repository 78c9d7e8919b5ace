//! One file per gRPC service.

pub mod ceremony;
pub mod cluster;
pub mod health;
pub mod join;
pub mod ledger;
pub mod resources;
