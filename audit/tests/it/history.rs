//! Histories as the domain writes them, and what follows from them.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use join_domain::Timestamp;
use join_domain::envelope::{Entry, Origin, StreamId, StreamKind};
use join_domain::event::{
    AdministratorIssued, BotCreated, BotUpdated, Event, LockCreated, LockUpdated, Nothing, TokenCreated, TokenReopened,
};
use join_domain::id::BotId;
use join_domain::resource::{BotSpec, LockTarget, Recovery, TokenSpec};
use join_domain::state::State;
use serde_json::{Value, json};
use uuid::Uuid;

/// Entries in log order, and the states to which they lead.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) entries: Vec<Entry>,
    states: BTreeMap<StreamId, (u64, State)>,
}

impl History {
    /// A history with several kinds of streams, and often several events an entry.
    pub(crate) fn of(entries: usize) -> Self {
        let mut history = Self::default();
        for (stream, events) in (0..).flat_map(round).take(entries) {
            history.append(stream, events);
        }
        history
    }

    pub(crate) fn append(&mut self, stream: StreamId, events: Vec<Event>) {
        let decided_at = moment(self.entries.len());
        self.append_as("admin/example \"quoted\" é", stream, events, decided_at);
    }

    pub(crate) fn append_as(&mut self, actor: &str, stream: StreamId, events: Vec<Event>, decided_at: Timestamp) {
        let before = self.states.get(&stream);
        let entry = Entry {
            stream,
            first_version: before.map_or(1, |(version, _)| version + 1),
            events,
            decided_at,
            recorded_at: decided_at + TimeDelta::seconds(1),
            origin: Origin { actor: actor.into(), address: Some("192.0.2.7".into()), ..Origin::default() },
        };
        let state = State::after(before.map(|(_, state)| state.clone()), &entry).unwrap();
        self.states.insert(stream, (entry.last_version(), state));
        self.entries.push(entry);
    }

    /// What its events made of a stream.
    pub(crate) fn state(&self, stream: StreamId) -> &State {
        &self.states[&stream].1
    }

    pub(crate) fn envelopes(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.to_envelope().unwrap()).collect()
    }

    /// The rows that an honest service claims.
    pub(crate) fn views(&self) -> Vec<Value> {
        self.states
            .iter()
            .map(|(stream, (version, state))| json!({ "stream": stream.to_string(), "version": version, "state": state }))
            .collect()
    }
}

/// What happens again and again: a bot with its token, an administrator and a lock; and the end of the bot before.
fn round(number: u128) -> Vec<(StreamId, Vec<Event>)> {
    let [bot, token, lock, administrator] =
        [StreamKind::Bot, StreamKind::Token, StreamKind::Lock, StreamKind::Administrator]
            .map(|kind| stream(kind, number));
    let mut happens = vec![
        (bot, vec![bot_created(number)]),
        (token, vec![token_created(number, bot)]),
        (administrator, vec![administrator_issued(number)]),
        (bot, vec![bot_updated("reader"), bot_updated("writer")]),
        (token, vec![reopened("disk lost"), reopened("disk lost again")]),
        (lock, vec![lock_created(number)]),
        (lock, vec![lock_updated("second thoughts")]),
    ];
    if let Some(before) = number.checked_sub(1) {
        happens.push((stream(StreamKind::Bot, before), vec![bot_updated("auditor"), Event::BotDeleted(Nothing {})]));
    }
    happens
}

pub(crate) fn stream(kind: StreamKind, number: u128) -> StreamId {
    StreamId { kind, id: Uuid::from_u128(0x1000 + number) }
}

pub(crate) fn moment(number: usize) -> Timestamp {
    Timestamp::from_timestamp(1_760_000_000 + number as i64, 123_456_000).unwrap()
}

pub(crate) fn bot_created(number: u128) -> Event {
    Event::BotCreated(BotCreated { name: format!("bot-{number}").parse().unwrap(), spec: BotSpec::default() })
}

pub(crate) fn bot_updated(role: &str) -> Event {
    Event::BotUpdated(BotUpdated { spec: BotSpec { roles: vec![role.into()], ..BotSpec::default() } })
}

pub(crate) fn token_created(number: u128, bot: StreamId) -> Event {
    Event::TokenCreated(TokenCreated {
        name: format!("token-{number}").parse().unwrap(),
        bot: BotId(bot.id),
        spec: TokenSpec {
            roles: vec!["Bot".into()],
            bot_name: format!("bot-{number}").parse().unwrap(),
            initial_public_key: None,
            must_register_before: None,
            recovery: Recovery::default(),
            rotate_after: None,
            labels: [("site".to_owned(), "north".to_owned())].into(),
            expires: None,
        },
        secret: Some("0a".repeat(32)),
    })
}

pub(crate) fn reopened(reason: &str) -> Event {
    Event::TokenReopened(TokenReopened { reason: reason.into(), secret: "0b".repeat(32) })
}

fn administrator_issued(number: u128) -> Event {
    Event::AdministratorIssued(AdministratorIssued {
        name: format!("admin-{number}"),
        role: "operator".into(),
        serial: "77".into(),
        not_after: moment(1_000_000),
    })
}

fn lock_created(number: u128) -> Event {
    Event::LockCreated(LockCreated {
        target: LockTarget::JoinToken(format!("token-{number}").parse().unwrap()),
        message: "host is being moved".into(),
        expires: None,
        cause: None,
        by: "admin/example".into(),
    })
}

fn lock_updated(message: &str) -> Event {
    Event::LockUpdated(LockUpdated { message: message.into(), expires: None })
}
