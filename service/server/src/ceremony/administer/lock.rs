//! Locks: created, replaced, removed.

use join_domain::{
    decision::administer::LockWritten,
    envelope::StreamId,
    event::{Event, LockCreated, LockDeleted, LockUpdated},
    id::LockId,
    refusal::{Code, Refusal},
    state::LockState,
};
use join_ledger::{Stored, StreamAppend};

use super::check_revision;
use crate::{
    caller::Administrator,
    ceremony::{Ceremonies, OrRefuse as _, not_found},
};

impl Ceremonies {
    /// Creates a lock.
    ///
    /// # Errors
    /// ALREADY_EXISTS, INVALID_REQUEST.
    pub async fn create_lock(&self, admin: &Administrator, written: &LockWritten) -> Result<LockId, Refusal> {
        self.check_expiry(written)?;
        let id = written.id.unwrap_or_else(|| LockId(self.entropy.uuid()));
        self.write(|| async {
            if self.ledger.load(StreamId::from(id)).await.or_refuse()?.is_some() {
                let exists = format!("lock `{id}` exists, or did: leave the name out");
                return Err(Refusal::new(Code::AlreadyExists, exists));
            }
            Ok((self.new_lock(admin, id, written).into(), ()))
        })
        .await?;
        Ok(id)
    }

    /// Creates a lock, or replaces message and expiry of one.
    ///
    /// # Errors
    /// STALE_REVISION, INVALID_REQUEST.
    pub async fn upsert_lock(&self, admin: &Administrator, written: &LockWritten) -> Result<LockId, Refusal> {
        let Some(id) = written.id else { return self.create_lock(admin, written).await };
        self.check_expiry(written)?;
        self.write(|| async {
            if self.ledger.load(StreamId::from(id)).await.or_refuse()?.is_none() {
                check_revision(&written.revision, None)?;
                return Ok((self.new_lock(admin, id, written).into(), ()));
            }
            let (stored, lock) = self.lock(id).await?;
            check_revision(&written.revision, Some(stored.version))?;
            if lock.target != written.target {
                return Err(Refusal::invalid("spec.target", "what a lock locks can't be changed: create another lock"));
            }
            let updated =
                Event::LockUpdated(LockUpdated { message: written.message.clone(), expires: written.expires });
            Ok((self.next(admin, &stored, vec![updated]).into(), ()))
        })
        .await?;
        Ok(id)
    }

    /// Removes a lock.
    ///
    /// # Errors
    /// NOT_FOUND, STALE_REVISION.
    pub async fn delete_lock(&self, admin: &Administrator, id: LockId, revision: &str) -> Result<(), Refusal> {
        self.write(|| async {
            let (stored, _) = self.lock(id).await?;
            check_revision(revision, Some(stored.version))?;
            let deleted = Event::LockDeleted(LockDeleted { reason: None });
            Ok((self.next(admin, &stored, vec![deleted]).into(), ()))
        })
        .await
    }

    /// A lock that was not removed.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn lock(&self, id: LockId) -> Result<(Stored, LockState), Refusal> {
        let stored = self.ledger.load(StreamId::from(id)).await.or_refuse()?;
        let found = stored.and_then(|stored| {
            let lock = stored.lock().filter(|lock| lock.live)?.clone();
            Some((stored, lock))
        });
        found.ok_or_else(|| not_found("lock", id))
    }

    fn new_lock(&self, admin: &Administrator, id: LockId, written: &LockWritten) -> StreamAppend {
        let created = Event::LockCreated(LockCreated {
            target: written.target.clone(),
            message: written.message.clone(),
            expires: written.expires,
            cause: None,
            by: format!("admin/{}", admin.name),
        });
        StreamAppend::begin(StreamId::from(id), self.change(admin, vec![created]))
    }

    fn check_expiry(&self, written: &LockWritten) -> Result<(), Refusal> {
        match written.expires {
            Some(end) if end <= self.ledger.now() => {
                Err(Refusal::invalid("metadata.expires", "it is past: the lock would lock nothing"))
            }
            _ => Ok(()),
        }
    }
}
