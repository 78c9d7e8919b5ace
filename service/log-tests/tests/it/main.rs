//! The verifiable log of the running service, on a real PostgreSQL.

mod authority;
mod fleet;
mod import;
mod kill;
mod nodes;
mod rollback;
mod small_witness;
mod witness;
