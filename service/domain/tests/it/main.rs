//! The rule book as tests: given a history, when a client or an administrator acts, then exactly this is recorded and
//! answered. `laws.rs` states what holds in every history; the rest goes rule by rule.

mod administration;
mod attempts;
mod authority_behind;
mod catalogue;
mod envelope;
mod evidence;
mod exemptions;
mod key;
mod laws;
mod locks;
mod modes;
mod onboarding;
mod order;
mod proof;
mod rejoining;
mod rotation;
mod scenario;
mod stored;
