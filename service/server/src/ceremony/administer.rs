//! What administrators ask for. Each act is one append; on a conflict it looks again and decides again.

use join_domain::{
    Timestamp,
    decision::administer::{self, GrantAsked, SecretSource, TokenWritten},
    envelope::StreamId,
    event::{BotCreated, BotUpdated, Event, LockCreated, LockDeleted, LockUpdated, Nothing},
    id::{BotId, GrantId, LockId, Name, TokenId},
    refusal::{Code, Refusal},
    resource::{BotSpec, LockTarget, TokenSpec},
    state::{BotState, LockState, Namespace, TokenState},
};
use join_ledger::{Append, AppendError, Change, SecretChange, Stored, StreamAppend};

use super::{Ceremonies, OrRefuse as _, internal, not_found, secret::REGISTRATION_SECRET};
use crate::caller::Administrator;

/// How often an act is decided again after a conflict.
const MAX_TRIES: usize = 16;

/// The revision of what is written once and never changed: of exemptions and bot instances.
pub(crate) const ONLY_REVISION: u64 = 1;

/// An append, and what to answer once it is durable.
type Decided<T> = Result<(Append, T), Refusal>;

/// A lock as written.
#[derive(Debug)]
pub struct LockWritten {
    /// Its id, when one was written.
    pub id: Option<LockId>,
    /// What it locks.
    pub target: LockTarget,
    /// Why.
    pub message: String,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// The revision that was edited.
    pub revision: String,
}

impl Ceremonies {
    /// Creates a bot.
    ///
    /// # Errors
    /// ALREADY_EXISTS.
    pub async fn create_bot(&self, admin: &Administrator, name: Name, spec: BotSpec) -> Result<Name, Refusal> {
        self.write(|| async {
            if self.find_bot(&name).await?.is_some() {
                return Err(exists("bot", &name));
            }
            Ok((self.new_bot(admin, &name, &spec).into(), ()))
        })
        .await?;
        Ok(name)
    }

    /// Creates or replaces a bot.
    ///
    /// # Errors
    /// STALE_REVISION.
    pub async fn upsert_bot(
        &self,
        admin: &Administrator,
        name: Name,
        spec: BotSpec,
        revision: &str,
    ) -> Result<Name, Refusal> {
        self.write(|| async {
            let found = self.find_bot(&name).await?;
            check_revision(revision, found.as_ref().map(|(stored, _)| stored.version))?;
            let append = match found {
                None => self.new_bot(admin, &name, &spec),
                Some((stored, _)) => {
                    let updated = Event::BotUpdated(BotUpdated { spec: spec.clone() });
                    self.next(admin, &stored, vec![updated])
                }
            };
            Ok((append.into(), ()))
        })
        .await?;
        Ok(name)
    }

    /// Deletes a bot; refused while tokens name it.
    ///
    /// # Errors
    /// NOT_FOUND, STALE_REVISION, INVALID_REQUEST.
    pub async fn delete_bot(&self, admin: &Administrator, name: &Name, revision: &str) -> Result<(), Refusal> {
        self.write(|| async {
            let (stored, bot) = self.bot(name).await?;
            check_revision(revision, Some(stored.version))?;
            let tokens = self.ledger.tokens_of_bot(bot.id).await.or_refuse()?;
            if let Some(token) = tokens.first() {
                return Err(Refusal::invalid(
                    "name",
                    format!("bot `{name}` is joined by token `{token}`: remove that first"),
                ));
            }
            let deleted = Event::BotDeleted(Nothing {});
            Ok((self.next(admin, &stored, vec![deleted]).into(), ()))
        })
        .await
    }

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
            Ok((self.token_written(admin, None, &name, &spec, written_secret.as_deref()).await?.into(), ()))
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
            Ok((self.token_written(admin, found, &name, &spec, written_secret.as_deref()).await?.into(), ()))
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
            let released = administer::locks_ended_by_deletion(&token, &locks);
            let first = self.next(admin, &stored, vec![administer::delete_token()]);
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

    /// Creates a lock.
    ///
    /// # Errors
    /// ALREADY_EXISTS, INVALID_REQUEST.
    pub async fn create_lock(&self, admin: &Administrator, written: &LockWritten) -> Result<LockId, Refusal> {
        self.check_expiry(written)?;
        let id = written.id.unwrap_or_else(|| LockId(self.entropy.uuid()));
        self.write(|| async {
            if self.ledger.load(StreamId::from(id)).await.or_refuse()?.is_some() {
                let exists = format!("lock `{id}` exists, or did: leave the name out");
                return Err(Refusal::new(Code::AlreadyExists, exists));
            }
            Ok((self.new_lock(admin, id, written).into(), ()))
        })
        .await?;
        Ok(id)
    }

    /// Creates a lock, or replaces message and expiry of one.
    ///
    /// # Errors
    /// STALE_REVISION, INVALID_REQUEST.
    pub async fn upsert_lock(&self, admin: &Administrator, written: &LockWritten) -> Result<LockId, Refusal> {
        let Some(id) = written.id else { return self.create_lock(admin, written).await };
        self.check_expiry(written)?;
        self.write(|| async {
            if self.ledger.load(StreamId::from(id)).await.or_refuse()?.is_none() {
                check_revision(&written.revision, None)?;
                return Ok((self.new_lock(admin, id, written).into(), ()));
            }
            let (stored, lock) = self.lock(id).await?;
            check_revision(&written.revision, Some(stored.version))?;
            if lock.target != written.target {
                return Err(Refusal::invalid("spec.target", "what a lock locks can't be changed: create another lock"));
            }
            let updated =
                Event::LockUpdated(LockUpdated { message: written.message.clone(), expires: written.expires });
            Ok((self.next(admin, &stored, vec![updated]).into(), ()))
        })
        .await?;
        Ok(id)
    }

    /// Removes a lock.
    ///
    /// # Errors
    /// NOT_FOUND, STALE_REVISION.
    pub async fn delete_lock(&self, admin: &Administrator, id: LockId, revision: &str) -> Result<(), Refusal> {
        self.write(|| async {
            let (stored, _) = self.lock(id).await?;
            check_revision(revision, Some(stored.version))?;
            let deleted = Event::LockDeleted(LockDeleted { reason: None });
            Ok((self.next(admin, &stored, vec![deleted]).into(), ()))
        })
        .await
    }

    /// A live bot.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn bot(&self, name: &Name) -> Result<(Stored, BotState), Refusal> {
        self.find_bot(name).await?.ok_or_else(|| not_found("bot", name))
    }

    /// A live token.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn token(&self, name: &Name) -> Result<(Stored, TokenState), Refusal> {
        self.find_token(name).await?.ok_or_else(|| not_found("token", name))
    }

    /// A lock that was not removed.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn lock(&self, id: LockId) -> Result<(Stored, LockState), Refusal> {
        let stored = self.ledger.load(StreamId::from(id)).await.or_refuse()?;
        let found = stored.and_then(|stored| {
            let lock = stored.lock().filter(|lock| lock.live)?.clone();
            Some((stored, lock))
        });
        found.ok_or_else(|| not_found("lock", id))
    }

    /// The registration secret that can still be used, in the clear.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn pending_secret(&self, token: &TokenState) -> Result<Option<String>, Refusal> {
        if !token.takes_secret(self.ledger.now()) {
            return Ok(None);
        }
        let sealed = self.ledger.secret(StreamId::from(token.id), REGISTRATION_SECRET).await.or_refuse()?;
        let Some(sealed) = sealed else { return Ok(None) };
        let keyring = self.keyring.get();
        let opened = keyring.keys.sealer().open(REGISTRATION_SECRET, &token.id.to_string(), &sealed);
        let opened = opened.map_err(internal)?;
        String::from_utf8(opened.to_vec()).map(Some).map_err(|_| internal("a stored secret is no text"))
    }

    async fn find_bot(&self, name: &Name) -> Result<Option<(Stored, BotState)>, Refusal> {
        let stored = self.ledger.find(Namespace::BotName, name.as_str()).await.or_refuse()?;
        Ok(stored.and_then(|stored| {
            let bot = stored.bot()?.clone();
            Some((stored, bot))
        }))
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

    fn new_bot(&self, admin: &Administrator, name: &Name, spec: &BotSpec) -> StreamAppend {
        let stream = StreamId::from(BotId(self.entropy.uuid()));
        let created = Event::BotCreated(BotCreated { name: name.clone(), spec: spec.clone() });
        StreamAppend::begin(stream, self.change(admin, vec![created]))
    }

    fn new_lock(&self, admin: &Administrator, id: LockId, written: &LockWritten) -> StreamAppend {
        let created = Event::LockCreated(LockCreated {
            target: written.target.clone(),
            message: written.message.clone(),
            expires: written.expires,
            cause: None,
            by: format!("admin/{}", admin.name),
        });
        StreamAppend::begin(StreamId::from(id), self.change(admin, vec![created]))
    }

    /// A new token, or another specification of the one that was found.
    async fn token_written(
        &self,
        admin: &Administrator,
        found: Option<(Stored, TokenState)>,
        name: &Name,
        spec: &TokenSpec,
        secret: Option<&str>,
    ) -> Result<StreamAppend, Refusal> {
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
        let (append, id, source) = match found {
            None => {
                let (event, source) = administer::create_token(written)?;
                let id = TokenId(self.entropy.uuid());
                (StreamAppend::begin(StreamId::from(id), self.change(admin, vec![event])), id, source)
            }
            Some((stored, token)) => {
                let (event, source) = administer::update_token(&token, written)?;
                (self.next(admin, &stored, vec![event]), token.id, source)
            }
        };
        Ok(self.storing_secret(append, id, source, secret, &generated))
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

    fn change(&self, admin: &Administrator, events: Vec<Event>) -> Change {
        Change { events, decided_at: self.ledger.now(), origin: admin.origin() }
    }

    /// What follows in a stream that is there.
    fn next(&self, admin: &Administrator, stored: &Stored, events: Vec<Event>) -> StreamAppend {
        StreamAppend::following(stored, self.change(admin, events))
    }

    fn check_expiry(&self, written: &LockWritten) -> Result<(), Refusal> {
        match written.expires {
            Some(end) if end <= self.ledger.now() => {
                Err(Refusal::invalid("metadata.expires", "it is past: the lock would lock nothing"))
            }
            _ => Ok(()),
        }
    }

    /// Decides and appends; looks and decides again when somebody else was faster, also with a name.
    async fn write<T, F: Future<Output = Decided<T>>>(&self, decide: impl Fn() -> F) -> Result<T, Refusal> {
        for _ in 0..MAX_TRIES {
            let (append, answer) = decide().await?;
            match self.ledger.append(append).await {
                Ok(_) => return Ok(answer),
                Err(AppendError::Conflict) => {}
                Err(AppendError::ClaimTaken { namespace: Namespace::BotName | Namespace::TokenName, .. }) => {}
                Err(error) => return Err(error).or_refuse(),
            }
        }
        Err(AppendError::Conflict).or_refuse()
    }
}

fn exists(kind: &str, name: &Name) -> Refusal {
    Refusal::new(Code::AlreadyExists, format!("{kind} `{name}` exists already: `joinctl create -f` replaces it"))
}

/// An edit must be of the newest revision, when it says of which.
fn check_revision(written: &str, current: Option<u64>) -> Result<(), Refusal> {
    match current {
        _ if written.is_empty() => Ok(()),
        Some(current) if written == current.to_string() => Ok(()),
        Some(current) => Err(Refusal::new(
            Code::StaleRevision,
            format!(
                "the edit is of revision {written}, and revision {current} is the newest: read it again, then edit"
            ),
        )),
        None => Err(Refusal::new(Code::StaleRevision, "what was edited does not exist any more")),
    }
}
