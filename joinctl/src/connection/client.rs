//! The authority's calls, by kind of resource.

use anyhow::{Context as _, bail};
use join_proto::{
    Address,
    v1::{
        Ca, DeleteRequest, Empty, GetRequest, GrantExemptionRequest, ListBotInstancesRequest, ListRequest, Status,
        Token, UpsertBotRequest, UpsertLockRequest, UpsertTokenRequest, cluster_client::ClusterClient,
        ledger_client::LedgerClient, resources_client::ResourcesClient,
    },
};
use prost_types::Timestamp;
use tonic::transport::Channel;

use super::patience::Patient;
use crate::{
    moment::{self, Moment},
    resource::{GRANTED_FOR_GOOD, Kind, Resource},
    token,
};

/// How many resources or events are asked for at a time.
pub(crate) const PAGE_SIZE: u32 = 1000;
/// The largest answer taken. A page of events with long payloads passes the library's 4 MiB.
pub(super) const MAX_ANSWER: usize = 64 << 20;

/// A connected caller.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Patient,
    address: Address,
}

/// Which resources of a kind are wanted; empty fields select all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) selector: String,
    pub(crate) at: Option<Timestamp>,
    /// Bot instances only.
    pub(crate) bot: String,
    /// Bot instances only.
    pub(crate) health: String,
}

impl Client {
    pub(crate) fn new(channel: Channel, address: Address) -> Self {
        Self { channel: Patient::new(channel), address }
    }

    /// The same, whose bots are sent to another address.
    pub(crate) fn with_join_address(self, address: Address) -> Self {
        Self { address, ..self }
    }

    /// Where bots are sent: to the address that this was connected to, unless another was named.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn channel(&self) -> Patient {
        self.channel.clone()
    }

    pub(crate) fn resources(&self) -> ResourcesClient<Patient> {
        ResourcesClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn ledger(&self) -> LedgerClient<Patient> {
        LedgerClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Patient> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        Ok(self.cluster().get_status(Empty {}).await?.into_inner())
    }

    /// The authority's time: durations count from it, whatever this machine's clock says.
    pub(crate) async fn now(&self) -> anyhow::Result<Timestamp> {
        self.status().await?.database_time.context("the authority did not tell its time")
    }

    pub(crate) async fn resolve(&self, moment: Option<Moment>) -> anyhow::Result<Option<Timestamp>> {
        Ok(match moment {
            None => None,
            Some(Moment::At(time)) => Some(time),
            Some(ago) => Some(ago.seen_from(self.now().await?)?),
        })
    }

    /// A moment that must have been. What will be, nobody knows.
    pub(crate) async fn past(&self, moment: Option<Moment>) -> anyhow::Result<Option<Timestamp>> {
        let Some(moment) = moment else {
            return Ok(None);
        };
        let now = self.now().await?;
        let at = moment.seen_from(now)?;
        if moment::is_before(&now, &at) {
            bail!(
                "--at: {} is in the future: the authority's time is {}",
                moment::milliseconds(&at),
                moment::milliseconds(&now)
            );
        }
        Ok(Some(at))
    }

    /// The end of something that begins now and lasts that long.
    pub(crate) async fn expiry(&self, ttl: Option<humantime::Duration>) -> anyhow::Result<Option<Timestamp>> {
        match ttl {
            None => Ok(None),
            Some(ttl) => Ok(Some(moment::after(self.now().await?, *ttl)?)),
        }
    }

    pub(crate) async fn get(&self, kind: Kind, name: &str, at: Option<Timestamp>) -> anyhow::Result<Resource> {
        let request = GetRequest { name: name.to_owned(), at };
        let mut calls = self.resources();
        Ok(match kind {
            Kind::Bot => Resource::Bot(calls.get_bot(request).await?.into_inner()),
            Kind::Token => Resource::Token(calls.get_token(request).await?.into_inner()),
            Kind::BotInstance => Resource::BotInstance(calls.get_bot_instance(request).await?.into_inner()),
            Kind::Lock => Resource::Lock(calls.get_lock(request).await?.into_inner()),
            Kind::Exemption => Resource::Exemption(calls.get_exemption(request).await?.into_inner()),
        })
    }

    /// The resource, or nothing when there is none of that name.
    pub(crate) async fn find(&self, kind: Kind, name: &str) -> anyhow::Result<Option<Resource>> {
        match self.get(kind, name, None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All of a kind, for kinds of which there are few.
    pub(crate) async fn all(&self, kind: Kind, selection: &Selection) -> anyhow::Result<Vec<Resource>> {
        let (mut all, mut cursor) = self.page(kind, selection, String::new()).await?;
        while !cursor.is_empty() {
            let (more, next) = self.page(kind, selection, cursor).await?;
            all.extend(more);
            cursor = next;
        }
        Ok(all)
    }

    /// One page of a kind, and the cursor of the next; an empty cursor begins, and ends.
    pub(crate) async fn page(
        &self,
        kind: Kind,
        selection: &Selection,
        cursor: String,
    ) -> anyhow::Result<(Vec<Resource>, String)> {
        let Selection { selector, at, bot, health } = selection.clone();
        let mut calls = self.resources();
        let request = ListRequest { selector, page_size: PAGE_SIZE, cursor: cursor.clone(), at };
        Ok(match kind {
            Kind::Bot => {
                let list = calls.list_bots(request).await?.into_inner();
                (list.bots.into_iter().map(Resource::Bot).collect(), list.next_cursor)
            }
            Kind::Token => {
                let list = calls.list_tokens(request).await?.into_inner();
                (list.tokens.into_iter().map(Resource::Token).collect(), list.next_cursor)
            }
            Kind::BotInstance => {
                let request = ListBotInstancesRequest {
                    bot_name: bot,
                    health,
                    page_size: PAGE_SIZE,
                    cursor,
                    selector: request.selector,
                    at: request.at,
                };
                let list = calls.list_bot_instances(request).await?.into_inner();
                (list.bot_instances.into_iter().map(Resource::BotInstance).collect(), list.next_cursor)
            }
            Kind::Lock => {
                let list = calls.list_locks(request).await?.into_inner();
                (list.locks.into_iter().map(Resource::Lock).collect(), list.next_cursor)
            }
            Kind::Exemption => {
                let list = calls.list_exemptions(request).await?.into_inner();
                (list.exemptions.into_iter().map(Resource::Exemption).collect(), list.next_cursor)
            }
        })
    }

    pub(crate) async fn create(&self, resource: Resource) -> anyhow::Result<Resource> {
        let mut calls = self.resources();
        Ok(match resource {
            Resource::Bot(bot) => Resource::Bot(calls.create_bot(bot).await?.into_inner()),
            Resource::Token(token) => Resource::Token(calls.create_token(token).await?.into_inner()),
            Resource::Lock(lock) => Resource::Lock(calls.create_lock(lock).await?.into_inner()),
            Resource::Exemption(exemption) => {
                let request = GrantExemptionRequest { exemption: Some(exemption), selector: String::new() };
                let granted = calls.grant_exemption(request).await?.into_inner().exemptions;
                Resource::Exemption(granted.into_iter().next().context("the authority did not tell what it granted")?)
            }
            Resource::BotInstance(_) => bail!("bot_instance is read only"),
        })
    }

    /// Creates, or replaces what has the name.
    pub(crate) async fn upsert(&self, resource: Resource) -> anyhow::Result<Resource> {
        let name = resource.name().to_owned();
        let mut calls = self.resources();
        Ok(match resource {
            Resource::Bot(bot) => {
                Resource::Bot(calls.upsert_bot(UpsertBotRequest { name, bot: Some(bot) }).await?.into_inner())
            }
            Resource::Token(token) => {
                Resource::Token(calls.upsert_token(UpsertTokenRequest { name, token: Some(token) }).await?.into_inner())
            }
            Resource::Lock(lock) => {
                Resource::Lock(calls.upsert_lock(UpsertLockRequest { name, lock: Some(lock) }).await?.into_inner())
            }
            Resource::Exemption(_) => {
                bail!(GRANTED_FOR_GOOD)
            }
            Resource::BotInstance(_) => bail!("bot_instance is read only"),
        })
    }

    /// Deletes; a lock is lifted and an exemption revoked. An empty revision deletes whatever is newest.
    pub(crate) async fn delete(&self, kind: Kind, name: &str, revision: &str) -> anyhow::Result<()> {
        let request = DeleteRequest { name: name.to_owned(), revision: revision.to_owned() };
        let mut calls = self.resources();
        match kind {
            Kind::Bot => calls.delete_bot(request).await?,
            Kind::Token => calls.delete_token(request).await?,
            Kind::Lock => calls.delete_lock(request).await?,
            Kind::Exemption => calls.revoke_exemption(request).await?,
            Kind::BotInstance => {
                bail!("bot_instance is read only: delete its token, or lock it with `joinctl lock --bot-instance-id`")
            }
        };
        Ok(())
    }

    pub(crate) async fn ca(&self) -> anyhow::Result<Ca> {
        Ok(self.cluster().get_ca(Empty {}).await?.into_inner())
    }

    /// Where the bot joins with the token's waiting secret: what `joinbot start identity --join-uri` takes.
    pub(crate) fn joining_uri(&self, token: &Token, ca: &Ca) -> anyhow::Result<String> {
        token::joining_uri(token, &self.address, &ca.pins)
    }
}

/// True for the authority's answer that there is none of that name.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<tonic::Status>().is_some_and(|status| status.code() == tonic::Code::NotFound)
}
