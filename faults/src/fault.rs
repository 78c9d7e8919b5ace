//! What can go wrong on the way, and when.

use std::{fmt, sync::Arc};

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Who has connected.
    Client,
    /// Who was connected to.
    Server,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Before or after a message is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// It was said, and does not arrive.
    Before,
    /// It arrives.
    After,
}

impl Moment {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Before, Self::After];

    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// With FIN: what was passed on arrives.
    End,
    /// With RST, as when a host or a gateway forgets the connection.
    Reset,
}

/// Does something to a process, and tells whether there was one to hit.
#[derive(Clone)]
pub struct Blow(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blow")
    }
}

impl Blow {
    /// This, when the time comes.
    pub fn new(does: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(does))
    }
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Act {
    /// The connection ends.
    Cut(Moment, How),
    /// Nothing that the server says arrives from here on. When it has said everything, the connection ends.
    Deafen,
    /// The message stays on the way; for its sender the connection ends. It arrives when it is released.
    Hold,
    /// Somebody is hit. A message before which that happens is lost with it, unless `goes_on`.
    Strike {
        /// When.
        moment: Moment,
        /// What.
        blow: Blow,
        /// True when the connection survives it.
        goes_on: bool,
    },
}

/// One thing that goes wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Whose message.
    pub side: Side,
    /// Which one, from 1 on.
    pub message: usize,
    /// What.
    pub act: Act,
}

/// How many messages each side has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Who has connected.
    pub client: usize,
    /// Who was connected to.
    pub server: usize,
}

impl Counts {
    /// The number of one side.
    pub const fn of(&self, side: Side) -> usize {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    pub(crate) fn add(&mut self, side: Side) -> usize {
        let count = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        *count += 1;
        *count
    }

    /// Every place at which something can go wrong.
    pub fn places(&self) -> impl Iterator<Item = (Side, usize)> + use<> {
        let counts = *self;
        Side::BOTH.into_iter().flat_map(move |side| (1..=counts.of(side)).map(move |message| (side, message)))
    }
}
