//! What the crate promises, through its public interface; certificates are also shown to OpenSSL and OpenSSH.

mod administrators;
mod bots;
mod keys;
mod presented;
mod revocation;
mod sealing;
mod servers;
mod subjects;
mod tools;
mod world;
