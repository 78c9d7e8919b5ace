//! What the log is tested and measured with: histories of any length, as a fleet of bots writes them, archives of them, a
//! witness, and how it checks that one tree is the beginning of another.

mod archive;
mod consistency;
mod files;
mod fleet;
mod witness;

pub use archive::Archive;
pub use consistency::is_consistent;
pub use files::files;
pub use fleet::{Fleet, id};
pub use witness::Witness;
