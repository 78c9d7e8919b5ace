//! Bots: created, replaced, deleted.

use join_domain::{
    envelope::StreamId,
    event::{BotCreated, BotUpdated, Event, Nothing},
    id::{BotId, Name},
    refusal::Refusal,
    resource::BotSpec,
    state::{BotState, Namespace},
};
use join_ledger::{Stored, StreamAppend};

use super::{check_revision, exists};
use crate::{
    caller::Administrator,
    ceremony::{Ceremonies, OrRefuse as _, not_found},
};

impl Ceremonies {
    /// Creates a bot.
    ///
    /// # Errors
    /// ALREADY_EXISTS.
    pub async fn create_bot(&self, admin: &Administrator, name: Name, spec: BotSpec) -> Result<Name, Refusal> {
        self.write(|| async {
            if self.find_bot(&name).await?.is_some() {
                return Err(exists("bot", &name));
            }
            Ok((self.new_bot(admin, &name, &spec).into(), ()))
        })
        .await?;
        Ok(name)
    }

    /// Creates or replaces a bot.
    ///
    /// # Errors
    /// STALE_REVISION.
    pub async fn upsert_bot(
        &self,
        admin: &Administrator,
        name: Name,
        spec: BotSpec,
        revision: &str,
    ) -> Result<Name, Refusal> {
        self.write(|| async {
            let found = self.find_bot(&name).await?;
            check_revision(revision, found.as_ref().map(|(stored, _)| stored.version))?;
            let append = match found {
                None => self.new_bot(admin, &name, &spec),
                Some((stored, _)) => {
                    let updated = Event::BotUpdated(BotUpdated { spec: spec.clone() });
                    self.next(admin, &stored, vec![updated])
                }
            };
            Ok((append.into(), ()))
        })
        .await?;
        Ok(name)
    }

    /// Deletes a bot; refused while tokens name it.
    ///
    /// # Errors
    /// NOT_FOUND, STALE_REVISION, INVALID_REQUEST.
    pub async fn delete_bot(&self, admin: &Administrator, name: &Name, revision: &str) -> Result<(), Refusal> {
        self.write(|| async {
            let (stored, bot) = self.bot(name).await?;
            check_revision(revision, Some(stored.version))?;
            let tokens = self.ledger.tokens_of_bot(bot.id).await.or_refuse()?;
            if let Some(token) = tokens.first() {
                return Err(Refusal::invalid(
                    "name",
                    format!("bot `{name}` is joined by token `{token}`: remove that first"),
                ));
            }
            let deleted = Event::BotDeleted(Nothing {});
            Ok((self.next(admin, &stored, vec![deleted]).into(), ()))
        })
        .await
    }

    /// A live bot.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn bot(&self, name: &Name) -> Result<(Stored, BotState), Refusal> {
        self.find_bot(name).await?.ok_or_else(|| not_found("bot", name))
    }

    pub(super) async fn find_bot(&self, name: &Name) -> Result<Option<(Stored, BotState)>, Refusal> {
        let stored = self.ledger.find(Namespace::BotName, name.as_str()).await.or_refuse()?;
        Ok(stored.and_then(|stored| {
            let bot = stored.bot()?.clone();
            Some((stored, bot))
        }))
    }

    fn new_bot(&self, admin: &Administrator, name: &Name, spec: &BotSpec) -> StreamAppend {
        let stream = StreamId::from(BotId(self.entropy.uuid()));
        let created = Event::BotCreated(BotCreated { name: name.clone(), spec: spec.clone() });
        StreamAppend::begin(stream, self.change(admin, vec![created]))
    }
}
