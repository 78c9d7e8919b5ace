//! Holders of a disk, and what an honest agent does with it (protocol, section 6).

use std::fmt;

use crate::{Tick, authority::Answer};

/// Who holds a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// The host that the token was made for.
    Owner,
    /// Whoever copied the owner's disk.
    Thief,
}

impl Holder {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Owner => Self::Thief,
            Self::Thief => Self::Owner,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Thief => "thief",
        })
    }
}

/// A keypair, by number.
pub type Key = u8;

/// A set of private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Keys(u64);

impl Keys {
    /// No key.
    pub const NONE: Self = Self(0);

    /// Adds a key.
    pub fn add(&mut self, key: Key) {
        self.0 |= 1 << key;
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: Key) {
        self.0 &= !(1 << key);
    }

    /// True when the key is held.
    pub const fn hold(self, key: Key) -> bool {
        self.0 & (1 << key) != 0
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = Key> {
        (0..64).filter(move |key| self.hold(*key))
    }
}

/// A client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Certificate {
    /// The lineage.
    pub instance: u8,
    /// The place in it.
    pub generation: u8,
    /// The first tick in which it has ended.
    pub ends: Tick,
    /// The subject keys that it is for.
    pub subject: u8,
}

/// A join state document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinState {
    /// The bound instance after the join.
    pub instance: u8,
    /// The recovery count after the join.
    pub sequence: u8,
}

/// An attempt that has no result yet. It is on the disk before anything of it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pending {
    /// The attempt, by number.
    pub attempt: u8,
    /// The subject keys for which it wants certificates.
    pub subject: u8,
    /// How many ticks they are to live.
    pub life: Tick,
    /// New keys that were made for it; on the disk before their public halves are sent, and offered again.
    pub offers: Keys,
    /// How many that were.
    pub made: u8,
}

impl Pending {
    /// Added to the number of subject keys that a thief put in the place of the attempt's own.
    pub const FORGED: u8 = 128;

    /// True when its subject keys are not those that the attempt was begun with.
    pub const fn is_forged(&self) -> bool {
        self.subject >= Self::FORGED
    }
}

/// What is on a disk. A crash loses nothing of it, a copy takes all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Disk {
    /// Private keys.
    pub keys: Keys,
    /// The newest certificate.
    pub certificate: Option<Certificate>,
    /// The newest join state.
    pub join_state: Option<JoinState>,
    /// The attempt that is under way.
    pub pending: Option<Pending>,
    /// True when it has the registration secret.
    pub secret: bool,
}

impl Disk {
    /// Stores a result and ends the attempt, in one atomic replacement. Keys are deleted only now, when a result names
    /// the bound one.
    pub fn store(&mut self, answer: Answer, subject: u8) {
        let Answer { key, instance, generation, sequence, ends } = answer;
        let held = self.keys.hold(key);
        self.keys = Keys::default();
        if held {
            self.keys.add(key);
        }
        self.certificate = Some(Certificate { instance, generation, ends, subject });
        self.join_state = Some(JoinState { instance, sequence });
        self.pending = None;
    }
}
