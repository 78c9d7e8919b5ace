//! An administrator's identity: issued → revoked, or ended by its expiry.

use serde::{Deserialize, Serialize};

use crate::{Timestamp, event::Event};

/// An identity as its events leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdministratorState {
    /// Who has it.
    pub name: String,
    /// `admin`, `operator` or `auditor`.
    pub role: String,
    /// X.509 serial number, hex.
    pub serial: String,
    /// When it ends by itself.
    pub not_after: Timestamp,
    /// False once revoked.
    pub live: bool,
}

impl AdministratorState {
    pub(super) fn begin(event: &Event) -> Option<Self> {
        match event {
            Event::AdministratorIssued(issued) => Some(Self {
                name: issued.name.clone(),
                role: issued.role.clone(),
                serial: issued.serial.clone(),
                not_after: issued.not_after,
                live: true,
            }),
            _ => None,
        }
    }

    pub(super) fn apply(&mut self, event: &Event) -> Option<()> {
        match event {
            Event::AdministratorRevoked(_) if self.live => self.live = false,
            _ => return None,
        }
        Some(())
    }
}
