//! Registration secrets: events have their keyed hashes, and what is sent is compared in constant time.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use join_domain::decision::opening::SecretShown;

use super::Ceremonies;

/// Purpose of the stored registration secret, and of its keyed hash.
pub const REGISTRATION_SECRET: &str = "registration-secret";

/// What no secret has as its hash.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The keyed hash of the secret that a client sent, if it sent one.
pub(super) struct SentSecret(Option<String>);

impl Ceremonies {
    /// The keyed hash of a registration secret, as events keep it.
    pub(crate) fn secret_hash(&self, secret: &str) -> String {
        hex::encode(self.keyring.get().secrets.hash(secret.as_bytes()))
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
