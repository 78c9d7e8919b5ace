//! The proof that no lost answer ever locks a bot out.
//!
//! A real service, real agents and a real PostgreSQL are interrupted at every step of every kind of join, one fault a
//! case: connections are cut, processes are killed, disks fail, copies of disks are used. After each case the bot must
//! have joined without an administrator, everything must be counted as if the join had happened once, nothing may be
//! locked that was not copied, and the live state must be what the history folds to.
//!
//! `make faults` runs every case; `cargo test -p join-faults` a sample of each kind.

pub mod administrator;
pub mod clock;
pub mod database;
pub mod disk;
pub mod fault;
pub mod framing;
pub mod history;
pub mod host;
pub mod http;
pub mod joind;
pub mod json_bot;
pub mod kinds;
pub mod process;
pub mod proxy;
pub mod report;
pub mod scenario;
pub mod world;
