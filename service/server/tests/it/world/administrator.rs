//! An administrator or auditor: a role, and the calls that tests need.

use std::{path::Path, sync::Arc};

use join_proto::v1::{
    self, cluster_client::ClusterClient, ledger_client::LedgerClient, resources_client::ResourcesClient,
};
use tonic::transport::Channel;

use super::{
    http::Http,
    key::Key,
    network::{Certificate, Network},
    refused::Refused,
};

pub(crate) struct Administrator {
    network: Arc<Network>,
    identity: Option<Certificate>,
    pub(crate) node: usize,
}

impl Administrator {
    /// With the identity of a directory.
    pub(crate) fn with_identity(network: Arc<Network>, directory: &Path) -> Self {
        let read = |file: &str| {
            let pem = std::fs::read(directory.join(file)).unwrap();
            x509_parser::pem::parse_x509_pem(&pem).unwrap().1.contents
        };
        let identity = Certificate { der: read("tls.crt"), key: Key::from_pkcs8(&read("tls.key")) };
        Self { network, identity: Some(identity), node: 0 }
    }

    /// With a certificate of another kind, or none.
    pub(crate) fn with_certificate(network: Arc<Network>, identity: Option<Certificate>) -> Self {
        Self { network, identity, node: 0 }
    }

    /// The same, asking another node.
    pub(crate) fn at(&self, node: usize) -> Self {
        Self { network: Arc::clone(&self.network), identity: self.identity.clone(), node }
    }

    pub(crate) fn identity(&self) -> Option<Certificate> {
        self.identity.clone()
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.network.grpc(self.node, self.identity.as_ref()).await.unwrap()
    }

    pub(crate) async fn http(&self) -> Http {
        Http::connect(&self.network, self.node, self.identity.as_ref()).await.unwrap()
    }

    pub(crate) async fn resources(&self) -> ResourcesClient<Channel> {
        ResourcesClient::new(self.channel().await)
    }

    pub(crate) async fn ledger(&self) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel().await)
    }

    pub(crate) async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel().await)
    }

    pub(crate) async fn create_bot(&self, bot: v1::Bot) -> Result<v1::Bot, Refused> {
        Ok(self.resources().await.create_bot(bot).await?.into_inner())
    }

    pub(crate) async fn upsert_bot(&self, bot: v1::Bot) -> Result<v1::Bot, Refused> {
        let request = v1::UpsertBotRequest { name: name_of(bot.metadata.as_ref()), bot: Some(bot) };
        Ok(self.resources().await.upsert_bot(request).await?.into_inner())
    }

    pub(crate) async fn get_bot(&self, name: &str) -> Result<v1::Bot, Refused> {
        Ok(self.resources().await.get_bot(get(name)).await?.into_inner())
    }

    pub(crate) async fn delete_bot(&self, name: &str) -> Result<(), Refused> {
        self.resources().await.delete_bot(delete(name)).await?;
        Ok(())
    }

    pub(crate) async fn create_token(&self, token: v1::Token) -> Result<v1::Token, Refused> {
        Ok(self.resources().await.create_token(token).await?.into_inner())
    }

    pub(crate) async fn upsert_token(&self, token: v1::Token) -> Result<v1::Token, Refused> {
        let request = v1::UpsertTokenRequest { name: name_of(token.metadata.as_ref()), token: Some(token) };
        Ok(self.resources().await.upsert_token(request).await?.into_inner())
    }

    pub(crate) async fn get_token(&self, name: &str) -> Result<v1::Token, Refused> {
        Ok(self.resources().await.get_token(get(name)).await?.into_inner())
    }

    pub(crate) async fn delete_token(&self, name: &str) -> Result<(), Refused> {
        self.resources().await.delete_token(delete(name)).await?;
        Ok(())
    }

    /// Reads a token, changes it, and writes it back, as `joinctl edit` does.
    pub(crate) async fn edit(&self, name: &str, change: impl FnOnce(&mut v1::Token)) -> Result<v1::Token, Refused> {
        let mut token = self.get_token(name).await?;
        change(&mut token);
        self.upsert_token(token).await
    }

    pub(crate) async fn set_limit(&self, name: &str, limit: u32) {
        self.edit(name, |token| recovery(token).limit = Some(limit)).await.unwrap();
    }

    pub(crate) async fn set_mode(&self, name: &str, mode: &str) {
        self.edit(name, |token| recovery(token).mode = Some(mode.to_owned())).await.unwrap();
    }

    pub(crate) async fn set_rotate_after(&self, name: &str, time: Option<prost_types::Timestamp>) {
        self.edit(name, |token| bound_keypair(token).rotate_after = time).await.unwrap();
    }

    pub(crate) async fn rotate(&self, name: &str) -> Result<v1::Token, Refused> {
        let request = v1::NameRequest { name: name.to_owned() };
        Ok(self.resources().await.rotate_token(request).await?.into_inner())
    }

    /// All steps of a replay.
    pub(crate) async fn replay(&self, request: v1::ReplayRequest) -> Result<Vec<v1::ReplayStep>, Refused> {
        let mut pages = self.ledger().await.replay(request).await?.into_inner();
        let mut steps = Vec::new();
        while let Some(page) = pages.message().await? {
            steps.extend(page.steps);
        }
        Ok(steps)
    }

    pub(crate) async fn reinstate(&self, name: &str) -> Result<v1::TokenList, Refused> {
        Ok(self.resources().await.reinstate(because(name)).await?.into_inner())
    }

    /// Opens registration again; returns the new secret.
    pub(crate) async fn reopen(&self, name: &str) -> Result<String, Refused> {
        let token = self.resources().await.reopen(because(name)).await?.into_inner();
        Ok(token.status.unwrap().bound_keypair.unwrap().registration_secret)
    }

    pub(crate) async fn lock(&self, target: v1::LockTarget) -> Result<v1::Lock, Refused> {
        self.lock_until(target, None).await
    }

    pub(crate) async fn lock_until(
        &self,
        target: v1::LockTarget,
        expires: Option<prost_types::Timestamp>,
    ) -> Result<v1::Lock, Refused> {
        let lock = v1::Lock {
            metadata: Some(v1::Metadata { expires, ..v1::Metadata::default() }),
            spec: Some(v1::LockSpec { target: Some(target), message: "the host is being checked".to_owned() }),
            ..v1::Lock::default()
        };
        Ok(self.resources().await.create_lock(lock).await?.into_inner())
    }

    pub(crate) async fn unlock(&self, name: &str) -> Result<(), Refused> {
        self.resources().await.delete_lock(delete(name)).await?;
        Ok(())
    }

    pub(crate) async fn locks(&self) -> Vec<v1::Lock> {
        self.resources().await.list_locks(v1::ListRequest::default()).await.unwrap().into_inner().locks
    }

    pub(crate) async fn grant(&self, token: &str, kind: &str) -> Result<v1::Exemption, Refused> {
        let exemption = v1::Exemption { spec: Some(exemption_spec(token, kind)), ..v1::Exemption::default() };
        Ok(self.grant_as(exemption, "").await?.remove(0))
    }

    pub(crate) async fn grant_as(
        &self,
        exemption: v1::Exemption,
        selector: &str,
    ) -> Result<Vec<v1::Exemption>, Refused> {
        let request = v1::GrantExemptionRequest { exemption: Some(exemption), selector: selector.to_owned() };
        Ok(self.resources().await.grant_exemption(request).await?.into_inner().exemptions)
    }

    pub(crate) async fn revoke(&self, exemption: &str) -> Result<(), Refused> {
        self.resources().await.revoke_exemption(delete(exemption)).await?;
        Ok(())
    }

    /// State and uses left of each exemption, in the order in which they were granted.
    pub(crate) async fn exemptions(&self) -> Vec<(String, String, u32)> {
        let listed = self.resources().await.list_exemptions(v1::ListRequest::default()).await.unwrap().into_inner();
        let shown = listed.exemptions.into_iter().map(|exemption| {
            let status = exemption.status.unwrap();
            (exemption.spec.unwrap().kind, status.state, status.uses_left)
        });
        shown.collect()
    }

    pub(crate) async fn instances(&self) -> Vec<v1::BotInstance> {
        let all = v1::ListBotInstancesRequest::default();
        self.resources().await.list_bot_instances(all).await.unwrap().into_inner().bot_instances
    }

    pub(crate) async fn events(&self, request: v1::ListEventsRequest) -> v1::EventList {
        self.ledger().await.list_events(request).await.unwrap().into_inner()
    }

    pub(crate) async fn status(&self) -> v1::Status {
        self.cluster().await.get_status(v1::Empty {}).await.unwrap().into_inner()
    }
}

pub(crate) fn bound_keypair(token: &mut v1::Token) -> &mut v1::BoundKeypairSpec {
    token.spec.get_or_insert_default().bound_keypair.get_or_insert_default()
}

pub(crate) fn recovery(token: &mut v1::Token) -> &mut v1::Recovery {
    bound_keypair(token).recovery.get_or_insert_default()
}

pub(crate) fn onboarding(token: &mut v1::Token) -> &mut v1::Onboarding {
    bound_keypair(token).onboarding.get_or_insert_default()
}

pub(crate) fn exemption_spec(token: &str, kind: &str) -> v1::ExemptionSpec {
    v1::ExemptionSpec {
        token_name: token.to_owned(),
        kind: kind.to_owned(),
        reason: "the host was checked".to_owned(),
        ..v1::ExemptionSpec::default()
    }
}

pub(crate) fn get(name: &str) -> v1::GetRequest {
    v1::GetRequest { name: name.to_owned(), at: None }
}

pub(crate) fn delete(name: &str) -> v1::DeleteRequest {
    v1::DeleteRequest { name: name.to_owned(), revision: String::new() }
}

fn because(name: &str) -> v1::ReasonRequest {
    v1::ReasonRequest { name: name.to_owned(), reason: "the host was checked".to_owned() }
}

fn name_of(metadata: Option<&v1::Metadata>) -> String {
    metadata.map(|metadata| metadata.name.clone()).unwrap_or_default()
}
