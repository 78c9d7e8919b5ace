//! Tokens whose holders showed evidence that is newer than the store, until they are admitted: the alarm that the authority
//! lost history. Their agents come again and again, so a node that starts learns of them soon.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use join_domain::{Timestamp, id::Name};
use join_ledger::{Ledger, LedgerError};

use crate::telemetry::METRICS;

/// How many tokens the alarm tells apart.
const MOST: usize = 100_000;
/// How many are looked at in one go.
const STEP: usize = 200;

/// Tokens that are behind, with the moment when that was shown last.
#[derive(Debug, Default)]
pub struct Behind(Mutex<Tokens>);

#[derive(Debug, Default)]
struct Tokens {
    shown: BTreeMap<Name, Timestamp>,
    looked_at: Option<Name>,
}

impl Behind {
    /// A holder showed newer evidence.
    pub fn shown(&self, token: &Name, at: Timestamp) {
        let mut tokens = self.tokens();
        if (tokens.shown.len() < MOST || tokens.shown.contains_key(token))
            && tokens.shown.insert(token.clone(), at).is_none()
        {
            METRICS.behind(true);
        }
    }

    /// The holder was admitted.
    pub fn admitted(&self, token: &Name) {
        if self.tokens().shown.remove(token).is_some() {
            METRICS.behind(false);
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.tokens().shown.len()
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at some more of them: another node may have admitted their holders, or they are gone.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn look(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        for (token, shown) in self.next() {
            let admitted = match ledger.read_token(&token).await? {
                Some(known) => known.token.latest().is_some_and(|latest| latest.at > shown),
                None => true,
            };
            if admitted {
                self.admitted(&token);
            }
        }
        Ok(())
    }

    fn next(&self) -> Vec<(Name, Timestamp)> {
        let mut tokens = self.tokens();
        let after = tokens.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = tokens.shown.range((after, Bound::Unbounded)).take(STEP);
        let next: Vec<_> = next.map(|(token, shown)| (token.clone(), *shown)).collect();
        tokens.looked_at = next.last().map(|(token, _)| token.clone());
        next
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
