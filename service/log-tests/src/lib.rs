//! What the log is tested and measured with: histories of any length, as a fleet of bots writes them, archives of them, and
//! how a witness checks that one tree is the beginning of another.

mod archive;
mod consistency;
mod fleet;

pub use archive::Archive;
pub use consistency::is_consistent;
pub use fleet::{Fleet, id};
