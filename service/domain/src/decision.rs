//! The rules: (state, facts, time) → events and an answer. Nothing here asks for anything.
//!
//! [`opening`] says which key to ask for, [`join`] decides once possession is proven, [`administer`] is what
//! administrators may do.

pub mod administer;
pub mod join;
pub mod opening;

use crate::{
    Timestamp,
    refusal::{Code, Refusal},
    state::{BotState, LockState, TokenState},
};

/// What is known of a token when a decision about it is made.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The token.
    pub token: &'a TokenState,
    /// Its bot, while there is one.
    pub bot: Option<&'a BotState>,
    /// Locks that may concern the attempt, in force or not.
    pub locks: &'a [LockState],
    /// True when the attempt was accepted once, by the ledger's word.
    pub attempt_accepted_before: bool,
}

impl<'a> Known<'a> {
    /// The bot, when token and bot both admit at this moment.
    pub fn admitting_bot(&self, now: Timestamp) -> Option<&'a BotState> {
        self.bot.filter(|bot| self.token.admits(now) && bot.admits(now) && bot.name == self.token.spec.bot_name)
    }

    /// Why nobody is admitted, for the history alone: clients are told [`Refusal::access_denied`], whatever the reason.
    pub fn why_denied(&self, now: Timestamp) -> Refusal {
        let Self { token, bot, .. } = *self;
        let name = &token.spec.bot_name;
        let expired = |end: Option<Timestamp>| end.filter(|end| now >= *end);
        let why = if !token.live {
            "the token was deleted".to_owned()
        } else if let Some(end) = expired(token.spec.expires) {
            format!("the token expired at {}", end.to_rfc3339())
        } else {
            match bot.filter(|bot| bot.live && bot.name == *name) {
                None => format!("there is no bot `{name}`, which the token names"),
                Some(bot) => match expired(bot.spec.expires) {
                    Some(end) => format!("the token's bot `{name}` expired at {}", end.to_rfc3339()),
                    None => Refusal::access_denied().message,
                },
            }
        };
        Refusal::new(Code::AccessDenied, why)
    }
}
