//! Rotation of the authority's keys, in phases.
//!
//! ```text
//!          activate          the next one            forget, when nothing
//!                             is activated           that it signed is alive
//! standby ──────────▶ active ──────────────▶ retired ──────────▶ gone
//!    │                                          │
//!    └─────────────▶ revoked ◀─────────────────┘     revoke, when compromised
//! ```
//!
//! A key is *prepared* (it is published and trusted, so that agents, relying parties and the other nodes learn of it),
//! then *activated*, which retires the key before it. A retired CA stays trusted, and signs its revocation list and a
//! certificate for the new CA: bots that were offline all the while find in with it.

use chrono::TimeDelta;
use join_domain::Timestamp;

use crate::keys::{AuthorityKey, AuthorityKeys, KeysError, Phase, Purpose};

impl AuthorityKeys {
    /// Makes a key on standby.
    ///
    /// # Errors
    /// [`KeysError::NotRotatable`] for the log and sealing keys: the log's key is its identity, and what is sealed or
    /// hashed needs the sealing key for ever (the master key above it may change at any time: seal again under another).
    /// [`KeysError::AlreadyOnStandby`] when there is one.
    pub fn prepare(&mut self, purpose: Purpose, now: Timestamp) -> Result<&AuthorityKey, KeysError> {
        if matches!(purpose, Purpose::Log | Purpose::Sealing) {
            return Err(KeysError::NotRotatable(purpose.as_str()));
        }
        if self.standby(purpose).is_some() {
            return Err(KeysError::AlreadyOnStandby(purpose.as_str()));
        }
        self.keys.push(AuthorityKey::generate(purpose, Phase::Standby, &self.cluster, now));
        Ok(self.keys.last().expect("it was added just now"))
    }

    /// Lets the key on standby sign from now on, and retires the one before it.
    ///
    /// Wait after [`prepare`](Self::prepare) until everybody has learned of the key: nodes and relying parties by their
    /// refresh period, bots by their renewals.
    ///
    /// # Errors
    /// [`KeysError::NothingOnStandby`].
    pub fn activate(&mut self, purpose: Purpose, now: Timestamp) -> Result<&AuthorityKey, KeysError> {
        let next = self.standby(purpose).ok_or(KeysError::NothingOnStandby(purpose.as_str()))?;
        for key in self.keys.iter_mut().filter(|key| key.purpose == purpose && key.phase == Phase::Active) {
            key.enter(Phase::Retired, now);
        }
        self.keys[next].enter(Phase::Active, now);
        Ok(&self.keys[next])
    }

    /// Ends the trust in a compromised key at once.
    ///
    /// # Errors
    /// [`KeysError::StillActive`] for the key that signs, [`KeysError::Unknown`].
    pub fn revoke(&mut self, kid: &str, now: Timestamp) -> Result<(), KeysError> {
        let at = self.position(kid)?;
        if self.keys[at].phase == Phase::Active {
            return Err(KeysError::StillActive(kid.to_owned()));
        }
        self.keys[at].enter(Phase::Revoked, now);
        Ok(())
    }

    /// Removes a retired key when nothing that it signed is alive: `longest_life` after it was retired.
    ///
    /// # Errors
    /// [`KeysError::StillNeeded`] before that time, [`KeysError::NotRetired`], [`KeysError::Unknown`];
    /// [`KeysError::KeptForEver`] for a join state key: a bot that was away for long shows a document under it.
    pub fn forget(&mut self, kid: &str, longest_life: TimeDelta, now: Timestamp) -> Result<(), KeysError> {
        let at = self.position(kid)?;
        let key = &self.keys[at];
        if key.phase != Phase::Retired {
            return Err(KeysError::NotRetired { kid: kid.to_owned(), phase: key.phase });
        }
        if key.purpose == Purpose::JoinState {
            return Err(KeysError::KeptForEver(kid.to_owned()));
        }
        let until = key.phase_since + longest_life;
        if now < until {
            return Err(KeysError::StillNeeded { kid: kid.to_owned(), until });
        }
        self.keys.remove(at);
        Ok(())
    }

    fn standby(&self, purpose: Purpose) -> Option<usize> {
        self.keys.iter().position(|key| key.purpose == purpose && key.phase == Phase::Standby)
    }

    fn position(&self, kid: &str) -> Result<usize, KeysError> {
        self.keys.iter().position(|key| key.kid == kid).ok_or_else(|| KeysError::Unknown(kid.to_owned()))
    }
}

impl AuthorityKey {
    fn enter(&mut self, phase: Phase, now: Timestamp) {
        self.phase = phase;
        self.phase_since = now;
    }
}
