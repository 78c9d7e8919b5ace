//! Histories of any length, as a fleet of bots writes them, and archives of them: what the log is tested and measured with.

mod archive;
mod fleet;

pub use archive::Archive;
pub use fleet::{Fleet, id};
