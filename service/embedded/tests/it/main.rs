//! The crate on the real thing: every test runs a PostgreSQL of its own.

mod directories;
mod endings;
mod life;
mod tool;
mod world;
