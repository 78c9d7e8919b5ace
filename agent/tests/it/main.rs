//! The agent against a small authority of its own: real TLS, real challenges, real certificates, and troubles on order.

mod attempts;
mod authority;
mod cli;
mod config;
mod config_properties;
mod daemon;
mod daemon_process;
mod faults;
mod host;
mod install;
mod keypair;
mod outputs;
mod refusals;
mod storage;
mod systemd;
mod trust;
