//! A lock: created → updated … → deleted, or ended by its expiry.

use serde::{Deserialize, Serialize};

use super::Recorded;
use crate::{Timestamp, event::Event, id::LockId, refusal::Code, resource::LockTarget};

/// A lock as its events leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockState {
    /// Its id, which is its name.
    pub id: LockId,
    /// What it stops.
    pub target: LockTarget,
    /// Why, for people.
    pub message: String,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// The rule that locked; none when an administrator did.
    pub cause: Option<Code>,
    /// Who locked.
    pub by: String,
    /// When.
    pub created_at: Timestamp,
    /// False once removed.
    pub live: bool,
}

impl LockState {
    pub(super) fn begin(id: LockId, event: &Event, recorded: Recorded<'_>) -> Option<Self> {
        match event {
            Event::LockCreated(created) => Some(Self {
                id,
                target: created.target.clone(),
                message: created.message.clone(),
                expires: created.expires,
                cause: created.cause,
                by: created.by.clone(),
                created_at: recorded.at,
                live: true,
            }),
            _ => None,
        }
    }

    pub(super) fn apply(&mut self, event: &Event) -> Option<()> {
        match event {
            Event::LockUpdated(updated) if self.live => {
                self.message.clone_from(&updated.message);
                self.expires = updated.expires;
            }
            Event::LockDeleted(_) if self.live => self.live = false,
            _ => return None,
        }
        Some(())
    }

    /// True while it stops its target.
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.live && self.expires.is_none_or(|end| now < end)
    }
}
