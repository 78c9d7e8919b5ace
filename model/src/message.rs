//! What travels. A first request has no effect at the authority, so a message here is everything up to the solved
//! challenge: it is made when the challenge is, and decided whenever it arrives, as often as it arrives.

use join_domain::event::ChallengePurpose;

use crate::{
    Tick,
    holder::{Certificate, Holder, JoinState, Key},
};

/// A solved challenge on its way to the authority.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// What the authority sees of it.
    pub shown: Shown,
    /// Who sent it.
    pub from: Holder,
    /// True when its sender waits for the answer; an answer is taken from the newest ceremony only.
    pub awaited: bool,
    /// True when it was decided before, other than by a conflict.
    pub decided: bool,
}

/// Everything that a client showed and proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shown {
    /// The attempt, when it names one.
    pub attempt: Option<u8>,
    /// The subject keys.
    pub subject: u8,
    /// How many ticks its certificates are to live.
    pub life: Tick,
    /// The certificate of its connection, which was live when the challenge was issued.
    pub certificate: Option<Certificate>,
    /// The join state.
    pub join_state: Option<JoinState>,
    /// The age of the evidence, as the challenge remembers it.
    pub evidence: u8,
    /// The challenge, by number.
    pub challenge: u8,
    /// When it was issued.
    pub issued: Tick,
    /// The challenged key, which signed.
    pub key: Key,
    /// Why that key.
    pub purpose: Purpose,
    /// The new key, when one was asked for; it signed too.
    pub rotated: Option<Key>,
    /// True when the authority refused this challenge before, and remembers it.
    pub refused: bool,
}

/// Why a key is challenged: the real purpose, in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// [`ChallengePurpose::Bound`].
    Bound,
    /// [`ChallengePurpose::Registration`].
    Registration,
    /// [`ChallengePurpose::Retired`].
    Retired,
}

impl From<Purpose> for ChallengePurpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Bound => Self::Bound,
            Purpose::Registration => Self::Registration,
            Purpose::Retired => Self::Retired,
        }
    }
}
