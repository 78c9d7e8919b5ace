//! Tokens: created, replaced, deleted; and what is done for one whose bot can't join by itself.

use std::collections::HashMap;

use join_domain::{
    decision::administer::{self, GrantAsked, ONLY_REVISION, SecretSource, TokenWritten},
    envelope::StreamId,
    event::Event,
    id::{GrantId, LockId, Name, TokenId},
    refusal::Refusal,
    resource::{LockTarget, TokenSpec},
    state::{LockState, Namespace, TokenState},
};
use join_ledger::{Append, SecretChange, Stored, StreamAppend};
use uuid::Uuid;

use super::{check_revision, exists};
use crate::{
    caller::Administrator,
    ceremony::{Ceremonies, OrRefuse as _, internal, not_found, secret::REGISTRATION_SECRET},
};

impl Ceremonies {
    /// Creates a token, with a registration secret unless a key is preregistered.
    ///
    /// # Errors
    /// ALREADY_EXISTS, KEY_ALREADY_BOUND, INVALID_REQUEST with the field.
    pub async fn create_token(
        &self,
        admin: &Administrator,
        name: Name,
        spec: TokenSpec,
        written_secret: Option<String>,
    ) -> Result<Name, Refusal> {
        self.write(|| async {
            if self.find_token(&name).await?.is_some() {
                return Err(exists("token", &name));
            }
            Ok((self.token_written(admin, None, &name, &spec, written_secret.as_deref()).await?, ()))
        })
        .await?;
        Ok(name)
    }

    /// Creates or replaces a token; the status stays, unless bot or roles change.
    ///
    /// # Errors
    /// STALE_REVISION, KEY_ALREADY_BOUND, KEY_REUSED, INVALID_REQUEST with the field.
    pub async fn upsert_token(
        &self,
        admin: &Administrator,
        name: Name,
        spec: TokenSpec,
        written_secret: Option<String>,
        revision: &str,
    ) -> Result<Name, Refusal> {
        self.write(|| async {
            let found = self.find_token(&name).await?;
            check_revision(revision, found.as_ref().map(|(_, token)| token.revision))?;
            Ok((self.token_written(admin, found, &name, &spec, written_secret.as_deref()).await?, ()))
        })
        .await?;
        Ok(name)
    }

    /// Deletes a token; its history stays.
    ///
    /// # Errors
    /// NOT_FOUND, STALE_REVISION.
    pub async fn delete_token(&self, admin: &Administrator, name: &Name, revision: &str) -> Result<(), Refusal> {
        self.write(|| async {
            let (stored, token) = self.token(name).await?;
            check_revision(revision, Some(token.revision))?;
            let (stored_locks, locks) = self.own_locks(name).await?;
            let event = administer::delete_token();
            let released = administer::locks_ended_by(&event, &token, &locks);
            let first = self.next(admin, &stored, vec![event]);
            let first = first.with_secret(SecretChange::Delete { purpose: REGISTRATION_SECRET });
            Ok((self.releasing(admin, first, &stored_locks, released), ()))
        })
        .await
    }

    /// Asks for a new key at the next join.
    ///
    /// # Errors
    /// NOT_FOUND; INVALID_REQUEST when the token can't rotate.
    pub async fn rotate(&self, admin: &Administrator, name: &Name) -> Result<(), Refusal> {
        self.write(|| async {
            let (stored, token) = self.token(name).await?;
            let event = administer::rotate(&token, self.ledger.now())?;
            Ok((self.next(admin, &stored, vec![event]).into(), ()))
        })
        .await
    }

    /// Grants an exemption to one token.
    ///
    /// # Errors
    /// NOT_FOUND, INVALID_REQUEST with the field.
    pub async fn grant(&self, admin: &Administrator, name: &Name, asked: &GrantAsked) -> Result<GrantId, Refusal> {
        self.write(|| async {
            let (stored, _) = self.token(name).await?;
            let id = GrantId(self.entropy.uuid());
            let event = administer::grant(asked, id, self.ledger.now())?;
            Ok((self.next(admin, &stored, vec![event]).into(), id))
        })
        .await
    }

    /// Revokes an open exemption.
    ///
    /// # Errors
    /// NOT_FOUND, STALE_REVISION.
    pub async fn revoke(
        &self,
        admin: &Administrator,
        token: &Name,
        id: GrantId,
        revision: &str,
    ) -> Result<(), Refusal> {
        check_revision(revision, Some(ONLY_REVISION))?;
        self.write(|| async {
            let (stored, token) = self.token(token).await?;
            let event = administer::revoke(&token, id, self.ledger.now())?;
            Ok((self.next(admin, &stored, vec![event]).into(), ()))
        })
        .await
    }

    /// Admits a locked bot again, with nothing changed on its host.
    ///
    /// # Errors
    /// NOT_FOUND; INVALID_REQUEST without a reason.
    pub async fn reinstate(&self, admin: &Administrator, name: &Name, reason: &str) -> Result<(), Refusal> {
        self.write(|| async {
            let (stored, token) = self.token(name).await?;
            let (stored_locks, locks) = self.own_locks(name).await?;
            let id = GrantId(self.entropy.uuid());
            let act = administer::reinstate(&token, &locks, reason, id, self.ledger.now())?;
            let first = self.next(admin, &stored, act.events);
            Ok((self.releasing(admin, first, &stored_locks, act.released), ()))
        })
        .await
    }

    /// Unbinds key and instance, and opens registration with a new secret.
    ///
    /// # Errors
    /// NOT_FOUND; INVALID_REQUEST without a reason.
    pub async fn reopen(&self, admin: &Administrator, name: &Name, reason: &str) -> Result<(), Refusal> {
        self.write(|| async {
            let (stored, token) = self.token(name).await?;
            let (stored_locks, locks) = self.own_locks(name).await?;
            let secret = self.entropy.secret();
            let act = administer::reopen(&token, &locks, reason, self.secret_hash(&secret))?;
            let first = self.next(admin, &stored, act.events);
            let first = self.storing_secret(first, token.id, SecretSource::Generated, None, &secret);
            Ok((self.releasing(admin, first, &stored_locks, act.released), ()))
        })
        .await
    }

    /// A live token.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn token(&self, name: &Name) -> Result<(Stored, TokenState), Refusal> {
        self.find_token(name).await?.ok_or_else(|| not_found("token", name))
    }

    /// The registration secrets that can still be used, in the clear.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn pending_secrets(&self, tokens: &[&TokenState]) -> Result<HashMap<TokenId, String>, Refusal> {
        let now = self.ledger.now();
        let waiting: Vec<Uuid> =
            tokens.iter().filter(|token| token.takes_secret(now)).map(|token| token.id.0).collect();
        if waiting.is_empty() {
            return Ok(HashMap::new());
        }
        let keyring = self.keyring.get();
        let open = |(id, sealed): (Uuid, Vec<u8>)| {
            let opened = keyring.keys.sealer().open(REGISTRATION_SECRET, &TokenId(id).to_string(), &sealed);
            let text = String::from_utf8(opened.map_err(internal)?.to_vec());
            Ok((TokenId(id), text.map_err(|_| internal("a stored secret is no text"))?))
        };
        self.ledger.secrets(&waiting, REGISTRATION_SECRET).await.or_refuse()?.into_iter().map(open).collect()
    }

    async fn find_token(&self, name: &Name) -> Result<Option<(Stored, TokenState)>, Refusal> {
        let stored = self.ledger.find(Namespace::TokenName, name.as_str()).await.or_refuse()?;
        Ok(stored.and_then(|stored| {
            let token = stored.token()?.clone();
            Some((stored, token))
        }))
    }

    /// The live locks on the token itself, as they are stored and what they say.
    async fn own_locks(&self, name: &Name) -> Result<(Vec<Stored>, Vec<LockState>), Refusal> {
        let stored = self.ledger.locks_on(&[LockTarget::JoinToken(name.clone())]).await.or_refuse()?;
        let locks = stored.iter().filter_map(|stored| stored.lock().cloned()).collect();
        Ok((stored, locks))
    }

    /// A new token, or another specification of the one that was found.
    async fn token_written(
        &self,
        admin: &Administrator,
        found: Option<(Stored, TokenState)>,
        name: &Name,
        spec: &TokenSpec,
        secret: Option<&str>,
    ) -> Result<Append, Refusal> {
        let generated = self.entropy.secret();
        let (_, bot) = self.find_bot(&spec.bot_name).await?.ok_or_else(|| {
            Refusal::invalid("spec.bot_name", format!("bot `{}` does not exist: create it first", spec.bot_name))
        })?;
        let written = TokenWritten {
            name: name.clone(),
            bot: bot.id,
            spec: spec.clone(),
            written_secret: secret.map(|secret| self.secret_hash(secret)),
            generated_secret: self.secret_hash(&generated),
        };
        let Some((stored, token)) = found else {
            let (event, source) = administer::create_token(written)?;
            let id = TokenId(self.entropy.uuid());
            let first = StreamAppend::begin(StreamId::from(id), self.change(admin, vec![event]));
            return Ok(self.storing_secret(first, id, source, secret, &generated).into());
        };
        let (event, source) = administer::update_token(&token, written)?;
        let (stored_locks, locks) = self.own_locks(name).await?;
        let released = administer::locks_ended_by(&event, &token, &locks);
        let first = self.next(admin, &stored, vec![event]);
        let first = self.storing_secret(first, token.id, source, secret, &generated);
        Ok(self.releasing(admin, first, &stored_locks, released))
    }

    /// Keeps, replaces or forgets the stored secret with the append that decides about it.
    fn storing_secret(
        &self,
        append: StreamAppend,
        token: TokenId,
        source: SecretSource,
        written: Option<&str>,
        generated: &str,
    ) -> StreamAppend {
        let secret = match source {
            SecretSource::Kept => return append,
            SecretSource::None => return append.with_secret(SecretChange::Delete { purpose: REGISTRATION_SECRET }),
            SecretSource::Written => written.unwrap_or_default(),
            SecretSource::Generated => generated,
        };
        let sealed = self.keyring.get().keys.sealer().seal(REGISTRATION_SECRET, &token.to_string(), secret.as_bytes());
        append.with_secret(SecretChange::Put { purpose: REGISTRATION_SECRET, sealed })
    }

    /// An append to a token, with the locks that end with it.
    fn releasing(
        &self,
        admin: &Administrator,
        first: StreamAppend,
        locks: &[Stored],
        released: Vec<(LockId, Event)>,
    ) -> Append {
        let mut streams = vec![first];
        for (id, event) in released {
            let lock = locks.iter().find(|stored| stored.stream == StreamId::from(id));
            streams.extend(lock.map(|lock| self.next(admin, lock, vec![event])));
        }
        Append::all(streams)
    }
}
