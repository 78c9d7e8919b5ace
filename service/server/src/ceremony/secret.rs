//! Registration secrets: events have their keyed hashes, and what is sent is compared in constant time.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use join_domain::decision::opening::SecretShown;

use chrono::TimeDelta;
use join_ledger::LedgerError;
use uuid::Uuid;

use super::Ceremonies;

/// Purpose of the stored registration secret, and of its keyed hash.
pub const REGISTRATION_SECRET: &str = "registration-secret";

/// How long after its end, and after the token's last change, a stored secret is kept: the end may still be moved, and the
/// secret shown again.
const KEPT_AFTER_END: TimeDelta = TimeDelta::days(1);
/// Tokens that are looked at together.
const LOOK_AT: u32 = 1000;

/// What no secret has as its hash.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The keyed hash of the secret that a client sent, if it sent one.
pub(super) struct SentSecret(Option<String>);

impl Ceremonies {
    /// The keyed hash of a registration secret, as events keep it.
    pub(crate) fn secret_hash(&self, secret: &str) -> String {
        hex::encode(self.keyring.get().secrets.hash(secret.as_bytes()))
    }

    /// Deletes stored secrets that nobody could register with for a day. It looks at some tokens, from behind the one that
    /// it returned the last time; none when it got to the end.
    ///
    /// # Errors
    /// When the database can't be read; what was deleted until then is gone.
    pub async fn forget_ended_secrets(&self, after: Option<Uuid>) -> Result<Option<Uuid>, LedgerError> {
        let stored = self.ledger.with_secret(REGISTRATION_SECRET, after, LOOK_AT).await?;
        let then = self.ledger.now() - KEPT_AFTER_END;
        for token in &stored {
            if token.token().is_none_or(|token| !token.admits(then) || !token.takes_secret(then)) {
                self.ledger.forget_secret(token, REGISTRATION_SECRET, then).await?;
            }
        }
        let is_full = u32::try_from(stored.len()).is_ok_and(|found| found >= LOOK_AT);
        Ok(stored.last().filter(|_| is_full).map(|last| last.stream.id))
    }

    pub(super) fn sent_secret(&self, secret: &str) -> SentSecret {
        SentSecret((!secret.is_empty()).then(|| self.secret_hash(secret)))
    }
}

impl SentSecret {
    /// Compares in constant time, with the same work for every outcome.
    pub(super) fn compare(&self, open: Option<&str>, spent: Option<&str>) -> SecretShown {
        let Some(sent) = &self.0 else { return SecretShown::None };
        let equals = |stored: Option<&str>| {
            verify_slices_are_equal(sent.as_bytes(), stored.unwrap_or(NO_HASH).as_bytes()).is_ok()
        };
        match (equals(open), equals(spent)) {
            (true, _) => SecretShown::Right,
            (false, true) => SecretShown::Spent,
            (false, false) => SecretShown::Wrong,
        }
    }
}
