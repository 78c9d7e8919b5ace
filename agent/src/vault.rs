//! The state in its storage: each step of an attempt is durable before anything depends on it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use join_domain::{id::AttemptId, key::PublicKey};

use crate::{
    credentials::Credentials,
    entropy::Entropy,
    key::PrivateKey,
    state::{Accepted, Attempt, State},
    storage::{Storage, StorageError},
};

/// The document that holds everything.
const STATE: &str = "state.json";
/// A copy of the certificate for people. While it is there the certificate is presented; who deletes it makes the next
/// join a recovery.
const CERTIFICATE: &str = "tlscert";

/// The state in its storage.
pub struct Vault {
    storage: Arc<dyn Storage>,
    state: State,
}

impl Vault {
    /// Reads the state as it is stored; an empty storage holds an empty state.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when what is stored is not what was written.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self, StorageError> {
        let state = match storage.read(STATE).map_err(failed("read", &*storage, STATE))? {
            None => State::default(),
            Some(document) => State::from_document(&document)
                .map_err(|why| StorageError::Damaged { place: place(&*storage, STATE), why })?,
        };
        Ok(Self { storage, state })
    }

    /// The state as it is stored.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The attempt to send: the pending one, or a new one. It is written also when it is there already, so that a
    /// storage which can't be written is found out before a join whose result it could not keep.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub fn begin(&mut self, entropy: &dyn Entropy, now: DateTime<Utc>) -> Result<(), StorageError> {
        let attempt = self.state.pending.clone().unwrap_or_else(|| Attempt {
            id: AttemptId::from_bits(entropy.bits()),
            subject: PrivateKey::generate_p256(),
            offers: Vec::new(),
            began_at: now,
        });
        self.save(State { pending: Some(attempt), ..self.state.clone() })
    }

    /// The attempt that has begun.
    pub fn attempt(&self) -> &Attempt {
        self.state.pending.as_ref().expect("`begin` comes first and only a result ends an attempt")
    }

    /// The public half of a new keypair to be bound, one that was not challenged in this ceremony. It is made and
    /// written first when the attempt has none yet.
    ///
    /// # Errors
    /// When it could not be made durable; then its public half must not be sent.
    pub fn offer(&mut self, challenged: &[PublicKey]) -> Result<PublicKey, StorageError> {
        let mut attempt = self.attempt().clone();
        if let Some(offer) = attempt.offers.iter().find(|key| !challenged.contains(key.public())) {
            return Ok(offer.public().clone());
        }
        let key = PrivateKey::generate_ed25519();
        let public = key.public().clone();
        attempt.offers.push(key);
        self.save(State { pending: Some(attempt), ..self.state.clone() })?;
        Ok(public)
    }

    /// Keeps the attempt's new keypairs but offers them no more: the authority will not bind one of them.
    /// Returns whether there were any.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub fn set_offers_aside(&mut self) -> Result<bool, StorageError> {
        let mut state = self.state.clone();
        let Some(attempt) = &mut state.pending else { return Ok(false) };
        let offers = std::mem::take(&mut attempt.offers);
        if offers.is_empty() {
            return Ok(false);
        }
        state.keys.extend(offers);
        self.save(state).map(|()| true)
    }

    /// Stores a result and ends the attempt, in one replacement.
    ///
    /// # Errors
    /// When it could not be made durable; then the attempt goes on.
    pub fn accept(&mut self, accepted: Accepted) -> Result<(), StorageError> {
        // The certificate goes first: were it missing beside a newer state, the next join would be a recovery.
        let certificate = accepted.credentials.tls_cert.as_bytes();
        self.storage.replace(CERTIFICATE, certificate).map_err(failed("write", &*self.storage, CERTIFICATE))?;
        self.save(self.state.clone().accept(accepted))
    }

    /// Adds a keypair that will be preregistered.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub fn add_key(&mut self, key: PrivateKey) -> Result<(), StorageError> {
        let mut state = self.state.clone();
        state.keys.push(key);
        self.save(state)
    }

    /// The certificate and key to present, unless somebody deleted the certificate's file.
    ///
    /// # Errors
    /// When it can't be found out.
    pub fn presentable(&self) -> Result<Option<&Credentials>, StorageError> {
        let Some(accepted) = &self.state.accepted else { return Ok(None) };
        let there = self.storage.read(CERTIFICATE).map_err(failed("read", &*self.storage, CERTIFICATE))?.is_some();
        Ok(there.then_some(&accepted.credentials))
    }

    fn save(&mut self, state: State) -> Result<(), StorageError> {
        self.storage.replace(STATE, &state.to_document()).map_err(failed("write", &*self.storage, STATE))?;
        self.state = state;
        Ok(())
    }
}

fn failed(
    action: &'static str,
    storage: &dyn Storage,
    name: &'static str,
) -> impl FnOnce(std::io::Error) -> StorageError {
    move |error| StorageError::Io { action, place: place(storage, name), error }
}

fn place(storage: &dyn Storage, name: &str) -> String {
    format!("{}/{name}", storage.place())
}
