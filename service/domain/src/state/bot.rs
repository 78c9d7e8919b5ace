//! A bot: created → updated … → deleted.

use serde::{Deserialize, Serialize};

use super::Recorded;
use crate::{
    Timestamp,
    event::Event,
    id::{BotId, Name},
    resource::BotSpec,
};

/// A bot as its events leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotState {
    /// Its id.
    pub id: BotId,
    /// Its name.
    pub name: Name,
    /// What it may do.
    pub spec: BotSpec,
    /// False once deleted.
    pub live: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

impl BotState {
    pub(super) fn begin(id: BotId, event: &Event, recorded: Recorded<'_>) -> Option<Self> {
        match event {
            Event::BotCreated(created) => Some(Self {
                id,
                name: created.name.clone(),
                spec: created.spec.clone(),
                live: true,
                created_at: recorded.at,
            }),
            _ => None,
        }
    }

    pub(super) fn apply(&mut self, event: &Event) -> Option<()> {
        match event {
            Event::BotUpdated(updated) if self.live => self.spec = updated.spec.clone(),
            Event::BotDeleted(_) if self.live => self.live = false,
            _ => return None,
        }
        Some(())
    }

    /// True while tokens may join it.
    pub fn admits(&self, now: Timestamp) -> bool {
        self.live && self.spec.expires.is_none_or(|end| now < end)
    }
}
