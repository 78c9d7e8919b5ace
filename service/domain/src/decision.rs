//! The rules: (state, facts, time) → events and an answer. Nothing here asks for anything.
//!
//! [`opening`] says which key to ask for, [`join`] decides once possession is proven, [`administer`] is what
//! administrators may do.

pub mod administer;
pub mod join;
pub mod opening;

use crate::{
    Timestamp,
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
}
