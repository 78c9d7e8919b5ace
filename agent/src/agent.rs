//! The agent: one join at a time, each step durable before anything depends on it.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use join_domain::{proof::LEEWAY, refusal::Code};
use secrecy::SecretString;
use serde::Serialize;
use tracing::{info, warn};

use crate::{
    ceremony::{Ceremony, Outcome},
    clock::Clock,
    config::{Config, Keypair, SecretError},
    connection,
    credentials::{Credentials, Facts},
    entropy::Entropy,
    error::JoinError,
    output::Identity,
    state::{Accepted, State},
    storage::{Storage, StorageError},
    trust::Trust,
    vault::Vault,
};

/// The bot's side of joining.
pub struct Agent {
    config: Config,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// How far the authority's clock is ahead of this host's, as of the last join.
    ahead: TimeDelta,
    /// Whether the last join asked by another idea of the authority's clock.
    asked_wrongly: bool,
    /// Whether it was said that certificates live shorter than they are asked for.
    told_short: bool,
}

/// A join that was accepted, and whose result is stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Joined {
    /// The cluster joined.
    pub cluster: String,
    /// What the new certificate says.
    pub certificate: Facts,
    /// The attempt that was accepted.
    pub attempt: String,
    /// The key that is bound now, in authorized_keys form.
    pub bound_key: String,
    /// Whether a client certificate was presented: with a live one the join was a renewal.
    pub presented_certificate: bool,
}

impl Agent {
    /// An agent; nothing is read, written or sent yet.
    pub fn new(config: Config, storage: Arc<dyn Storage>, clock: impl Clock, entropy: impl Entropy) -> Self {
        let (clock, entropy) = (Arc::new(clock), Arc::new(entropy));
        Self { config, storage, clock, entropy, ahead: TimeDelta::zero(), asked_wrongly: false, told_short: false }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    /// The state as it is stored.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn state(&self) -> Result<State, StorageError> {
        Vault::open(self.storage.clone()).map(|vault| vault.state().clone())
    }

    /// Whether the storage holds what an accepted join of this token brought.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn has_joined(&self) -> Result<bool, StorageError> {
        Ok(self.state()?.accepted.is_some_and(|accepted| accepted.token == self.config.token))
    }

    /// Joins: the pending attempt if there is one, else a new one. When this returns, the result is durable; when it
    /// fails, the attempt is still pending and the next call sends the same again. Dropping the future is safe at any
    /// point. Outputs are written by [`Agent::write_outputs`].
    ///
    /// # Errors
    /// [`JoinError`]; its `next` says whether trying again can help.
    pub async fn join_once(&mut self) -> Result<Joined, JoinError> {
        let mut vault = Vault::open(self.storage.clone())?;
        self.check_outputs(&vault)?;
        self.check_identity(&vault, None)?;
        let secret = self.secret(&vault)?;
        vault.begin(&*self.entropy, self.clock.now())?;

        let mut certificate = vault.presentable()?.cloned();
        let mut offered_anew = false;
        let outcome = loop {
            match self.ceremony(&mut vault, certificate.as_ref(), secret.as_ref()).await {
                Err(error) if certificate.is_some() && without_certificate(&error) => {
                    warn!(
                        join.refusal = error.code().map(Code::as_str),
                        "{error}; trying once more without the certificate"
                    );
                    certificate = None;
                }
                Err(error) if !offered_anew && with_another_key(&error) && vault.set_offers_aside()? => {
                    warn!(
                        join.refusal = error.code().map(Code::as_str),
                        "{error}; trying once more with another new key"
                    );
                    offered_anew = true;
                }
                outcome => break outcome?,
            }
        };
        let Outcome { accepted, ahead } = outcome;
        let joined = self.joined(&vault, &accepted, certificate.is_some())?;
        vault.accept(accepted)?;
        // Only now: a result that could not be stored is asked for again, and ends when it was wished to end at first.
        let leeway = TimeDelta::seconds(LEEWAY);
        self.asked_wrongly = ahead.checked_sub(&self.ahead).is_none_or(|error| error.abs() > leeway);
        self.ahead = ahead;
        info!(
            join.token = %self.config.token,
            join.user = %joined.certificate.user,
            join.instance = joined.certificate.instance,
            certificate.serial = %joined.certificate.serial,
            certificate.not_after = %joined.certificate.not_after,
            "joined {} as {}", joined.cluster, joined.certificate.user
        );
        if ahead.abs() > leeway {
            let side = if ahead > TimeDelta::zero() { "behind" } else { "ahead of" };
            warn!("this host's clock is {} s {side} the authority's: set it", ahead.abs().num_seconds());
        }
        self.tell_when_short(&joined.certificate);
        Ok(joined)
    }

    /// Says once that the authority grants less than was asked for.
    fn tell_when_short(&mut self, certificate: &Facts) {
        let granted = certificate.not_after - certificate.not_before;
        let is_short = !self.asked_wrongly && granted + TimeDelta::seconds(LEEWAY) < self.ttl();
        if is_short && !std::mem::replace(&mut self.told_short, true) {
            warn!(
                certificate.not_after = %certificate.not_after,
                "certificate_ttl is {}, and the authority grants less: this certificate ends at {}",
                humantime::format_duration(self.config.certificate_ttl),
                certificate.not_after
            );
        }
    }

    /// How far the authority's clock is ahead of this host's, as of the last join.
    pub(crate) fn ahead(&self) -> TimeDelta {
        self.ahead
    }

    /// The time as the authority told it last. Its certificates live by that, whatever this host's clock says.
    pub(crate) fn authority_now(&self) -> DateTime<Utc> {
        let now = self.clock.now();
        now.checked_add_signed(self.ahead).unwrap_or(now)
    }

    /// Whether the last join brought less than half of the life that was wished, and its wish went by a clock that was found
    /// to be wrong: the next one asks by the right one.
    pub(crate) fn is_cut_short(&self, joined: &Joined) -> bool {
        self.asked_wrongly && joined.certificate.not_after - self.authority_now() < self.ttl() / 2
    }

    fn ttl(&self) -> TimeDelta {
        TimeDelta::from_std(self.config.certificate_ttl).unwrap_or(TimeDelta::MAX)
    }

    /// Writes the stored credentials to every output that has others. Without a join yet there is nothing to write.
    ///
    /// # Errors
    /// When the state can't be read or an output can't be written.
    pub fn write_outputs(&self) -> Result<(), JoinError> {
        let Some(accepted) = self.state()?.accepted else { return Ok(()) };
        let stale = self.config.outputs.iter().filter(|output| !output.holds(&accepted.credentials));
        // One that can't be written takes nothing from the others.
        let written: Vec<_> = stale.map(|output| output.write(&accepted.credentials)).collect();
        Ok(written.into_iter().collect::<Result<(), _>>()?)
    }

    /// Writes outputs that are missing or of another join, if the stored certificate still lives: so that programs on this
    /// host can go on while the authority is away.
    ///
    /// # Errors
    /// When the state can't be read or an output can't be written.
    pub fn restore_outputs(&self) -> Result<(), JoinError> {
        // Of another token, it is another bot's: the configuration names its storage by mistake.
        let accepted = self.state()?.accepted.filter(|accepted| accepted.token == self.config.token);
        let Some(accepted) = accepted else { return Ok(()) };
        let lives = accepted.credentials.facts().is_some_and(|facts| facts.not_after > self.authority_now());
        if lives { self.write_outputs() } else { Ok(()) }
    }

    async fn ceremony(
        &self,
        vault: &mut Vault,
        certificate: Option<&Credentials>,
        secret: Option<&SecretString>,
    ) -> Result<Outcome, JoinError> {
        let trust = self.trust(vault)?;
        let connection = connection::open(&self.config.authority, trust, certificate, self.clock.clone()).await?;
        self.check_identity(vault, Some(&connection.cluster))?;
        let now = self.clock.now();
        let expires = self.authority_now().checked_add_signed(self.ttl()).unwrap_or(now);
        let Config { token, keypair, .. } = &self.config;
        let outcome = Ceremony { vault, token, keypair, secret, expires, now }.run(connection).await;
        outcome.map_err(|error| match error {
            JoinError::KeyNotHeld(key) if self.config.is_without_key() => JoinError::NoStaticKey(key),
            error => error,
        })
    }

    /// Makes sure that what a join brings can be written. A bot whose certificate is near its end joins all the same: it
    /// would have to recover, for the sake of one output.
    fn check_outputs(&self, vault: &Vault) -> Result<(), JoinError> {
        let checked = self.config.outputs.iter().try_for_each(Identity::check);
        let stored = vault.state().accepted.as_ref().and_then(|accepted| accepted.credentials.facts());
        let left = stored.map(|facts| (facts.not_after - self.authority_now(), facts.not_after - facts.not_before));
        match (checked, left) {
            (Err(failed), Some((left, life))) if left > TimeDelta::zero() && left < life / 3 => {
                warn!("{failed}; renewing all the same, before the certificate ends");
                Ok(())
            }
            (checked, _) => Ok(checked?),
        }
    }

    /// What is configured, and since the first join also the CAs that came with the last one: so that a bot finds back
    /// after it slept through a rotation of the CA.
    fn trust(&self, vault: &Vault) -> Result<Trust, JoinError> {
        let mut trust = self.config.trust.clone();
        trust.cas.extend(vault.state().accepted.iter().flat_map(|accepted| accepted.credentials.ca_ders()));
        match trust.is_empty() {
            false => Ok(trust),
            true if self.config.from_uri => Err(JoinError::NoPinInUri),
            true => Err(JoinError::NoTrust),
        }
    }

    /// The registration secret. A first join can't do without one that is configured. Once a key was offered, that join may
    /// have been accepted, and its answer lost; later the secret is of use only when an administrator has opened the token
    /// again. So from then on its file may be gone, and one that can't be read stops no join.
    fn secret(&self, vault: &Vault) -> Result<Option<SecretString>, SecretError> {
        let Keypair::Managed { registration_secret: Some(secret) } = &self.config.keypair else { return Ok(None) };
        let State { accepted, pending, .. } = vault.state();
        let may_be_bound = accepted.is_some() || pending.as_ref().is_some_and(|attempt| !attempt.offers.is_empty());
        match secret.read() {
            Err(unread) if may_be_bound => {
                if !unread.is_missing {
                    warn!("{unread}; going on without it, which is right as long as the key is bound");
                }
                Ok(None)
            }
            secret => secret.map(Some),
        }
    }

    /// A join state shown for another token would look like a theft of that one.
    fn check_identity(&self, vault: &Vault, cluster: Option<&str>) -> Result<(), JoinError> {
        let Some(Accepted { token, cluster: stored, .. }) = &vault.state().accepted else { return Ok(()) };
        let asked = cluster.unwrap_or(stored);
        if *token == self.config.token && stored == asked {
            return Ok(());
        }
        Err(JoinError::OtherIdentity {
            storage: self.storage.place(),
            stored: format!("{token} of {stored}"),
            asked: format!("{} of {asked}", self.config.token),
        })
    }

    fn joined(&self, vault: &Vault, accepted: &Accepted, presented_certificate: bool) -> Result<Joined, JoinError> {
        let unreadable = || JoinError::Unexpected("the result's certificate names no user or no time".to_owned());
        Ok(Joined {
            cluster: accepted.cluster.clone(),
            certificate: accepted.credentials.facts().ok_or_else(unreadable)?,
            attempt: vault.attempt().id.as_str().to_owned(),
            bound_key: accepted.bound_key.to_authorized_key(),
            presented_certificate,
        })
    }
}

fn without_certificate(error: &JoinError) -> bool {
    matches!(error.code(), Some(Code::BindingNotAllowed | Code::InstanceMismatch))
}

fn with_another_key(error: &JoinError) -> bool {
    matches!(error.code(), Some(Code::KeyReused | Code::KeyAlreadyBound))
}
