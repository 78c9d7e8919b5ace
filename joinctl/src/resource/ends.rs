//! When a token admits nobody any more: by its own expiry, or by its bot's.

use std::collections::{BTreeSet, HashMap};

use join_proto::v1::{Metadata, Token};
use prost_types::Timestamp;

use super::{Kind, Reference, Resource};
use crate::{
    connection::{Client, Selection, is_not_found},
    moment::{is_before, seconds},
    token,
};

/// Up to so many bots are asked for one by one; more are listed, of which there may be a million.
const FEW: usize = 32;

/// The bots that have expired, among those of the tokens that were asked about.
#[derive(Default)]
pub(crate) struct ExpiredBots {
    since: HashMap<String, Timestamp>,
    is_complete: bool,
}

/// What has expired, and when.
#[derive(Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) what: Reference,
    pub(crate) at: Timestamp,
}

impl Ended {
    /// That it has expired, and what to type.
    pub(crate) fn told(&self) -> String {
        let Self { what, at } = self;
        format!(
            "{what} expired at {}: move or remove its metadata.expires with `joinctl edit {what}`",
            seconds(Some(at))
        )
    }
}

impl ExpiredBots {
    /// Those of these tokens that had expired at `now`; `at` is the moment that was asked for, if any.
    pub(crate) async fn of(
        client: &Client,
        tokens: &[Token],
        at: Option<Timestamp>,
        now: &Timestamp,
    ) -> anyhow::Result<Self> {
        let mut bots = Self::default();
        bots.learn(client, tokens.iter(), at, now).await?;
        Ok(bots)
    }

    /// Learns of the bots of further tokens.
    pub(crate) async fn learn(
        &mut self,
        client: &Client,
        tokens: impl Iterator<Item = &Token>,
        at: Option<Timestamp>,
        now: &Timestamp,
    ) -> anyhow::Result<()> {
        if self.is_complete {
            return Ok(());
        }
        let names: BTreeSet<&str> = tokens.filter_map(bot_name).collect();
        if names.len() > FEW {
            return self.learn_all(client, at, now).await;
        }
        for name in names {
            match client.get(Kind::Bot, name, at).await {
                Ok(bot) => self.keep(&bot, now),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn learn_all(&mut self, client: &Client, at: Option<Timestamp>, now: &Timestamp) -> anyhow::Result<()> {
        let selection = Selection { at, ..Selection::default() };
        let mut cursor = String::new();
        loop {
            let (bots, next) = client.page(Kind::Bot, &selection, cursor).await?;
            bots.iter().for_each(|bot| self.keep(bot, now));
            if next.is_empty() {
                self.is_complete = true;
                return Ok(());
            }
            cursor = next;
        }
    }

    fn keep(&mut self, bot: &Resource, now: &Timestamp) {
        if let Some(at) = expired(bot.metadata(), now) {
            self.since.insert(bot.name().to_owned(), at);
        }
    }

    /// What keeps the token from admitting anybody at `now`: its own end before its bot's.
    pub(crate) fn ended(&self, token: &Token, now: &Timestamp) -> Option<Ended> {
        let ended = |kind, name: &str, at| Ended { what: Reference { kind, name: name.to_owned() }, at };
        if let Some(at) = expired(token.metadata.as_ref(), now) {
            return Some(ended(Kind::Token, token::name(token), at));
        }
        let bot = bot_name(token)?;
        self.since.get(bot).map(|at| ended(Kind::Bot, bot, *at))
    }
}

fn bot_name(token: &Token) -> Option<&str> {
    token.spec.as_ref().map(|spec| spec.bot_name.as_str()).filter(|name| !name.is_empty())
}

pub(super) fn expired(metadata: Option<&Metadata>, now: &Timestamp) -> Option<Timestamp> {
    metadata?.expires.filter(|end| !is_before(now, end))
}
