//! A private PostgreSQL server from the machine's own binaries, for `joind dev`, tests, the demo and benchmarks.
//!
//! A [`Cluster`] lives in one directory, listens on a Unix socket that only its owner can reach, never on TCP, and ends
//! with the process that started it, however that process ends. It is not meant for production: there `joind serve`
//! takes the address of a server that somebody operates.
//!
//! ```no_run
//! use join_embedded::{Cluster, Options};
//!
//! let cluster = Cluster::start("joind-data/postgres".as_ref(), &Options::durable())?;
//! println!("{}", cluster.address().url("postgres", "postgres"));
//! cluster.stop()?;
//! # Ok::<(), join_embedded::Error>(())
//! ```
//!
//! Tests take the server that [`for_tests`] gives and make a database of their own on it:
//!
//! ```no_run
//! let url = join_embedded::for_tests().url("postgres", "postgres");
//! ```
//!
//! The command `private-postgres run -- COMMAND` does the same for anything else, and lets many test processes share one
//! server: `private-postgres run -- cargo test`.
//!
//! # What is in the directory
//!
//! | name           | what it is                                                                     |
//! |----------------|--------------------------------------------------------------------------------|
//! | `data`         | PostgreSQL's data directory; appears under this name only when it is complete  |
//! | `run`          | the socket, unless its path would be too long                                  |
//! | `postgres.log` | PostgreSQL's log since the last start; `postgres.log.old` is the one before     |
//! | `lock`         | held by the process that uses the cluster                                      |
//! | `server.lock`  | held by PostgreSQL itself for as long as any of its processes lives            |
//!
//! # As root
//!
//! PostgreSQL refuses to run as root, so root starts it as the user `postgres`, else `nobody`, and gives that user the
//! directory. A cluster that exists already is run by the user it belongs to.

mod address;
mod binaries;
mod cluster;
mod error;
mod options;
mod owner;
mod socket;
mod supervisor;
mod testing;

pub use address::Address;
pub use binaries::{Binaries, OLDEST_MAJOR};
pub use cluster::Cluster;
pub use error::Error;
pub use options::Options;
pub use testing::{TEST_SERVER_VARIABLE, for_tests};
