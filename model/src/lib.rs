//! A model of a token, its owner, a thief with a copy of the owner's disk, and a network that loses, repeats and
//! delays; every state that it can reach within its bounds is visited.
//!
//! The authority in the model is not a copy of the rules: it *is* [`join_domain`]'s opening, decision, administration
//! and fold. So what is proven here is proven of the code, within the bounds of a [`Setup`]. The agents are modelled
//! (section 6 of the protocol says what they must do), signatures are reduced to "holds the key".
//!
//! Read in this order: [`holder`] (disks and what an agent does with them), [`message`] (what travels), [`authority`]
//! (the real rules behind a memory), [`world`] (states and steps), [`property`] (what must hold), [`rule`] (rules that
//! can be left out, to see what they are for).

pub mod authority;
pub mod holder;
pub mod message;
pub mod property;
pub mod rule;
pub mod story;
mod translation;
pub mod world;

pub use rule::Rule;
pub use world::{Bounds, Setup, Start, World};

/// Time in the model: a certificate that is issued for one tick has ended in the next, and so has the time in which its
/// attempt can be resumed.
pub type Tick = u8;
