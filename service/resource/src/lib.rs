//! Resources on the wire ↔ the domain's own types. What can't be one is refused with the field's path, in one way by the
//! authority and by those who look before they send.

mod bot;
mod exemption;
mod head;
mod lock;
mod time;
mod token;

pub use self::{
    bot::{read_bot, write_bot},
    exemption::{read_exemption, write_exemption},
    head::Head,
    lock::{lock_target, read_lock, write_lock},
    time::{from_wire_time, optional_time, to_wire_time},
    token::{read_token, write_token},
};

use join_domain::refusal::Refusal;
use serde::Serialize;

/// The most bytes of a specification, as JSON.
pub const MAX_SPEC: usize = 16 * 1024;

/// Each join records its bot's roles and logins, so what a resource holds must fit into an entry of the log many times.
fn check_size(spec: &impl Serialize) -> Result<(), Refusal> {
    match serde_json::to_vec(spec) {
        Ok(text) if text.len() <= MAX_SPEC => Ok(()),
        _ => Err(Refusal::invalid("spec", format!("larger than {MAX_SPEC} bytes with its labels"))),
    }
}

/// The beginning of what was written, for an error that repeats it.
fn shown(text: &str) -> String {
    text.escape_debug().take(80).collect()
}
