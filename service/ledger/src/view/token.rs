//! Names of tokens and their bots, for the views that know a token by its id.

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
        let rows = sqlx::query!("SELECT token_id, name, bot_name FROM token_view WHERE token_id = ANY($1)", &ids)
            .fetch_all(connection)
            .await?;
        let mut tokens = Self::default();
        for row in rows {
            let token = Token { name: row.name, bot_name: row.bot_name };
            tokens.known.insert(row.token_id, token);
        }
        Ok(tokens)
    }

    pub(super) fn apply(&mut self, entry: &Entry, event: &Event) {
        let id = entry.stream.id;
        if let Event::TokenCreated(created) = event {
            let (name, bot_name) = (created.name.to_string(), created.spec.bot_name.to_string());
            self.known.insert(id, Token { name, bot_name });
            self.changed.insert(id);
        }
        if let (Event::TokenUpdated(updated), Some(token)) = (event, self.known.get_mut(&id)) {
            token.bot_name = updated.spec.bot_name.to_string();
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
            "INSERT INTO token_view (token_id, name, bot_name)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[])
             ON CONFLICT (token_id) DO UPDATE SET bot_name = excluded.bot_name",
            &ids as _,
            &tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>() as _,
            &tokens.iter().map(|token| token.bot_name.as_str()).collect::<Vec<_>>() as _
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}
