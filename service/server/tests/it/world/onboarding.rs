//! From nothing to a bot that can join: the bot, its token, and what its host was given.

use std::{
    collections::HashMap,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
};

use join_domain::Timestamp;
use join_proto::v1;

use super::{
    administrator::{Administrator, bound_keypair, onboarding, recovery},
    bot::{Bot, Disk},
    conversation::Transport,
    key::Key,
    network::Network,
    wire_time,
};

pub(crate) struct Onboarding<'w> {
    admin: &'w Administrator,
    network: &'w Arc<Network>,
    token: v1::Token,
    transport: Transport,
    keygen: fn() -> Key,
    key: Option<Key>,
}

impl<'w> Onboarding<'w> {
    /// Bot and token of one name; the defaults are those of the resources.
    pub(crate) fn of(admin: &'w Administrator, network: &'w Arc<Network>, name: &str) -> Self {
        let token = v1::Token {
            kind: "token".to_owned(),
            version: "v2".to_owned(),
            metadata: Some(v1::Metadata { name: name.to_owned(), ..v1::Metadata::default() }),
            spec: Some(v1::TokenSpec {
                roles: vec!["Bot".to_owned()],
                bot_name: name.to_owned(),
                join_method: "bound_keypair".to_owned(),
                bound_keypair: None,
            }),
            status: None,
        };
        Self { admin, network, token, transport: Transport::Grpc, keygen: Key::ed25519, key: None }
    }

    pub(crate) fn over(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    pub(crate) fn limit(mut self, limit: u32) -> Self {
        recovery(&mut self.token).limit = Some(limit);
        self
    }

    pub(crate) fn mode(mut self, mode: &str) -> Self {
        recovery(&mut self.token).mode = Some(mode.to_owned());
        self
    }

    pub(crate) fn secret(mut self, secret: &str) -> Self {
        onboarding(&mut self.token).registration_secret = secret.to_owned();
        self
    }

    pub(crate) fn must_register_before(mut self, time: Timestamp) -> Self {
        onboarding(&mut self.token).must_register_before = Some(wire_time(time));
        self
    }

    pub(crate) fn rotate_after(mut self, time: Timestamp) -> Self {
        bound_keypair(&mut self.token).rotate_after = Some(wire_time(time));
        self
    }

    pub(crate) fn expires(mut self, time: Timestamp) -> Self {
        self.token.metadata.get_or_insert_default().expires = Some(wire_time(time));
        self
    }

    pub(crate) fn labels(mut self, labels: &[(&str, &str)]) -> Self {
        let labels: HashMap<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.token.metadata.get_or_insert_default().labels = labels;
        self
    }

    pub(crate) fn of_bot(mut self, bot: &str) -> Self {
        self.token.spec.get_or_insert_default().bot_name = bot.to_owned();
        self
    }

    /// Keypairs are of this kind.
    pub(crate) fn with_keys(mut self, keygen: fn() -> Key) -> Self {
        self.keygen = keygen;
        self
    }

    /// Instead of a registration secret.
    pub(crate) fn preregistered(mut self) -> Self {
        let key = (self.keygen)();
        onboarding(&mut self.token).initial_public_key = key.line();
        self.key = Some(key);
        self
    }

    async fn create(self) -> Bot {
        let admin = self.admin;
        let bot = self.token.spec.as_ref().unwrap().bot_name.clone();
        if admin.get_bot(&bot).await.is_err() {
            admin.create_bot(bot_resource(&bot)).await.unwrap();
        }
        let name = self.token.metadata.as_ref().unwrap().name.clone();
        let token = admin.create_token(self.token).await.unwrap();
        Bot {
            network: Arc::clone(self.network),
            token: name,
            secret: token.status.unwrap().bound_keypair.unwrap().registration_secret,
            keygen: self.keygen,
            transport: self.transport,
            node: 0,
            disk: Disk { keys: self.key.into_iter().collect(), ..Disk::default() },
        }
    }
}

impl<'w> IntoFuture for Onboarding<'w> {
    type Output = Bot;
    type IntoFuture = Pin<Box<dyn Future<Output = Bot> + Send + 'w>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.create())
    }
}

pub(crate) fn bot_resource(name: &str) -> v1::Bot {
    v1::Bot {
        kind: "bot".to_owned(),
        version: "v1".to_owned(),
        metadata: Some(v1::Metadata { name: name.to_owned(), ..v1::Metadata::default() }),
        spec: Some(v1::BotSpec {
            roles: vec!["deployer".to_owned()],
            traits: vec![v1::Trait { name: "logins".to_owned(), values: vec!["deploy".to_owned()] }],
        }),
        status: None,
    }
}
