//! Names of tokens, their bots and lineages, for the views that know a token by its id.

use std::collections::{HashMap, HashSet};

use join_domain::{
    envelope::{Entry, StreamKind},
    event::Event,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::LedgerError;

/// What the other views need to know of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) bot_name: String,
    /// The lineage that joined last.
    pub(super) instance: Option<Uuid>,
}

#[derive(Default)]
pub(super) struct Tokens {
    known: HashMap<Uuid, Token>,
    changed: HashSet<Uuid>,
}

impl Tokens {
    pub(super) async fn read(connection: &mut PgConnection, entries: &[Entry]) -> Result<Self, LedgerError> {
        let tokens = entries.iter().filter(|entry| entry.stream.kind == StreamKind::Token);
        let ids: HashSet<Uuid> = tokens.map(|entry| entry.stream.id).collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let rows =
            sqlx::query!("SELECT token_id, name, bot_name, instance_id FROM token_view WHERE token_id = ANY($1)", &ids)
                .fetch_all(connection)
                .await?;
        let mut tokens = Self::default();
        for row in rows {
            let token = Token { name: row.name, bot_name: row.bot_name, instance: row.instance_id };
            tokens.known.insert(row.token_id, token);
        }
        Ok(tokens)
    }

    pub(super) fn apply(&mut self, entry: &Entry, event: &Event) {
        let id = entry.stream.id;
        if let Event::TokenCreated(created) = event {
            let (name, bot_name) = (created.name.to_string(), created.spec.bot_name.to_string());
            self.known.insert(id, Token { name, bot_name, instance: None });
            self.changed.insert(id);
        }
        let Some(token) = self.known.get_mut(&id) else { return };
        let has_changed = match event {
            Event::TokenUpdated(updated) => replace(&mut token.bot_name, updated.spec.bot_name.to_string()),
            Event::JoinAccepted(join) => replace(&mut token.instance, Some(join.instance.0)),
            _ => false,
        };
        if has_changed {
            self.changed.insert(id);
        }
    }

    /// The token that an entry is about.
    pub(super) fn of(&self, entry: &Entry) -> Option<&Token> {
        self.known.get(&entry.stream.id)
    }

    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let changed = self.changed.iter().filter_map(|id| Some((*id, self.known.get(id)?)));
        let (ids, tokens): (Vec<_>, Vec<_>) = changed.unzip();
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO token_view (token_id, name, bot_name, instance_id)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[])
             ON CONFLICT (token_id) DO UPDATE SET bot_name = excluded.bot_name, instance_id = excluded.instance_id",
            &ids as _,
            &tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>() as _,
            &tokens.iter().map(|token| token.bot_name.as_str()).collect::<Vec<_>>() as _,
            &tokens.iter().map(|token| token.instance).collect::<Vec<_>>() as _
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// True when it was another one.
fn replace<T: PartialEq>(place: &mut T, now: T) -> bool {
    let has_changed = *place != now;
    *place = now;
    has_changed
}
