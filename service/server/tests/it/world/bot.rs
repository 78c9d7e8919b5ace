//! A client of the joining protocol. Its state on disk is a value: a thief is a clone.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use x509_parser::{
    asn1_rs::{FromDer as _, Utf8String},
    certificate::X509Certificate,
    extensions::GeneralName,
};

use super::{
    conversation::{Ask, Conversation, Credentials, Step, Transport},
    key::{Key, attempt_id},
    network::{Certificate, Network},
    refused::Refused,
};

/// What a host keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// Keypairs, the newest last.
    pub(crate) keys: Vec<Key>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) join_state: Option<String>,
    /// Written before anything is sent, until a result is stored.
    pub(crate) attempt: Option<Attempt>,
}

#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) id: String,
    pub(crate) subject: Key,
    /// Made when a key was asked for.
    pub(crate) new_key: Option<Key>,
}

#[derive(Debug, Clone)]
pub(crate) struct Bot {
    pub(crate) network: Arc<Network>,
    pub(crate) token: String,
    pub(crate) secret: String,
    /// Makes keypairs.
    pub(crate) keygen: fn() -> Key,
    pub(crate) transport: Transport,
    pub(crate) node: usize,
    pub(crate) disk: Disk,
}

/// What was asked in a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Key,
    Challenge,
}

/// An accepted join.
#[derive(Clone)]
pub(crate) struct Joined {
    pub(crate) credentials: Credentials,
    pub(crate) certificate: Certificate,
    /// Everything that was asked, in order.
    pub(crate) asked: Vec<Asked>,
}

impl Bot {
    /// Joins as an honest client does, with all that it has.
    pub(crate) async fn join(&mut self) -> Result<Joined, Refused> {
        self.joining().await
    }

    /// The next join, to be altered before it begins.
    pub(crate) fn joining(&mut self) -> Joining<'_> {
        let attempt =
            self.disk.attempt.get_or_insert_with(|| Attempt { id: attempt_id(), subject: Key::p256(), new_key: None });
        let ask = Ask {
            token: self.token.clone(),
            certificate: self.disk.certificate.clone(),
            secret: self.secret.clone(),
            join_state: self.disk.join_state.clone().unwrap_or_default().into_bytes(),
            attempt: attempt.id.clone(),
            subject: attempt.subject.clone(),
            held: self.disk.keys.iter().chain(&attempt.new_key).cloned().collect(),
            life: None,
        };
        Joining { bot: self, ask, signer: None, new_key: NewKey::Own, keeps: true }
    }

    /// The keypair that it uses.
    pub(crate) fn key(&self) -> &Key {
        self.disk.keys.last().expect("the bot has a keypair")
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        self.disk.certificate.as_ref().expect("the bot has joined")
    }

    /// Begins anew: the attempt that is pending is forgotten, as no honest client does.
    pub(crate) fn forget_attempt(&mut self) {
        self.disk.attempt = None;
    }

    fn new_key(&mut self) -> Key {
        let attempt = self.disk.attempt.as_mut().expect("a join is under way");
        attempt.new_key.get_or_insert_with(self.keygen).clone()
    }

    fn holder_of(&self, line: &str) -> Key {
        let pending = self.disk.attempt.iter().filter_map(|attempt| attempt.new_key.as_ref());
        let held = self.disk.keys.iter().chain(pending).find(|key| key.line() == line);
        // An honest client gives up here; this one tries what it has.
        held.or(self.disk.keys.last()).cloned().unwrap_or_else(self.keygen)
    }

    /// Stores a result and ends the attempt, in one step.
    fn keep(&mut self, joined: &Joined) {
        let bound = self.holder_of(&joined.credentials.key);
        assert_eq!(bound.line(), joined.credentials.key, "the bound key is one that the bot holds");
        self.disk = Disk {
            keys: vec![bound],
            certificate: Some(joined.certificate.clone()),
            join_state: Some(joined.credentials.join_state.clone()),
            attempt: None,
        };
    }
}

/// How a client answers when it is asked for a new key.
#[derive(Debug, Clone)]
enum NewKey {
    /// With the one of its attempt.
    Own,
    /// With this text.
    Line(String),
}

/// A join that has not begun, and how it is to differ from an honest one.
pub(crate) struct Joining<'a> {
    bot: &'a mut Bot,
    ask: Ask,
    signer: Option<Key>,
    new_key: NewKey,
    keeps: bool,
}

impl<'a> Joining<'a> {
    pub(crate) fn without_certificate(mut self) -> Self {
        self.ask.certificate = None;
        self
    }

    pub(crate) fn with_certificate(mut self, certificate: &Certificate) -> Self {
        self.ask.certificate = Some(certificate.clone());
        self
    }

    pub(crate) fn without_join_state(mut self) -> Self {
        self.ask.join_state.clear();
        self
    }

    pub(crate) fn with_join_state(mut self, document: &str) -> Self {
        self.ask.join_state = document.as_bytes().to_vec();
        self
    }

    pub(crate) fn with_secret(mut self, secret: &str) -> Self {
        self.ask.secret = secret.to_owned();
        self
    }

    /// As clients do that know nothing of attempts and held keys.
    pub(crate) fn like_a_plain_client(mut self) -> Self {
        self.ask.attempt.clear();
        self.ask.held.clear();
        self
    }

    pub(crate) fn with_attempt(mut self, id: &str) -> Self {
        self.ask.attempt = id.to_owned();
        self
    }

    pub(crate) fn for_subject(mut self, subject: Key) -> Self {
        self.ask.subject = subject;
        self
    }

    pub(crate) fn signed_by(mut self, key: &Key) -> Self {
        self.signer = Some(key.clone());
        self
    }

    /// Answers a request for a new key with this text.
    pub(crate) fn offering(mut self, line: &str) -> Self {
        self.new_key = NewKey::Line(line.to_owned());
        self
    }

    pub(crate) fn for_life(mut self, life: TimeDelta) -> Self {
        self.ask.life = Some(life);
        self
    }

    /// The answer comes, but is lost before it is stored.
    pub(crate) fn losing_the_answer(mut self) -> Self {
        self.keeps = false;
        self
    }

    /// What the client says at first.
    pub(crate) fn ask(&self) -> &Ask {
        &self.ask
    }

    /// Goes as far as the first question.
    pub(crate) async fn begin(self) -> Result<Ceremony<'a>, Refused> {
        let Self { bot, ask, signer, new_key, keeps } = self;
        let (conversation, step) = Conversation::open(&bot.network, bot.node, bot.transport, &ask).await?;
        Ok(Ceremony { bot, ask, signer, new_key, keeps, conversation, step, asked: Vec::new() })
    }
}

impl<'a> IntoFuture for Joining<'a> {
    type Output = Result<Joined, Refused>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.begin().await?.finish().await })
    }
}

/// A join that was asked something.
pub(crate) struct Ceremony<'a> {
    bot: &'a mut Bot,
    ask: Ask,
    signer: Option<Key>,
    new_key: NewKey,
    keeps: bool,
    pub(crate) conversation: Conversation,
    pub(crate) step: Step,
    asked: Vec<Asked>,
}

impl Ceremony<'_> {
    /// Answers what was asked.
    pub(crate) async fn answer(mut self) -> Result<Self, Refused> {
        self.step = match &self.step {
            Step::Challenge { key, document } => {
                self.asked.push(Asked::Challenge);
                let signer = self.signer.clone().unwrap_or_else(|| self.bot.holder_of(key));
                self.conversation.solve(signer.solve(document)).await?
            }
            Step::KeyRequest => {
                self.asked.push(Asked::Key);
                let line = match &self.new_key {
                    NewKey::Own => self.bot.new_key().line(),
                    NewKey::Line(line) => line.clone(),
                };
                self.conversation.offer(line).await?
            }
            Step::Joined(_) => panic!("nothing was asked"),
        };
        Ok(self)
    }

    /// Answers until the end.
    pub(crate) async fn finish(mut self) -> Result<Joined, Refused> {
        loop {
            if let Step::Joined(credentials) = self.step {
                let certificate = Certificate { der: credentials.tls.clone(), key: self.ask.subject };
                let joined = Joined { credentials, certificate, asked: self.asked };
                if self.keeps {
                    self.bot.keep(&joined);
                }
                return Ok(joined);
            }
            self = self.answer().await?;
        }
    }

    /// The document that is to be signed.
    pub(crate) fn document(&self) -> &str {
        match &self.step {
            Step::Challenge { document, .. } => document,
            other => panic!("no challenge: {other:?}"),
        }
    }
}

impl Joined {
    pub(crate) fn serial(&self) -> String {
        self.certificate.read(|certificate| hex::encode(certificate.raw_serial()))
    }

    pub(crate) fn instance(&self) -> String {
        self.certificate.instance()
    }

    /// The claims of the join state document.
    pub(crate) fn join_state_claims(&self) -> serde_json::Value {
        claims_of(&self.credentials.join_state)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.certificate.claims()["generation"].as_u64().unwrap()
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (serial, generation) = (self.serial(), self.generation());
        f.debug_struct("Joined").field("serial", &serial).field("generation", &generation).finish_non_exhaustive()
    }
}

impl Certificate {
    pub(crate) fn read<T>(&self, of: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        of(&X509Certificate::from_der(&self.der).unwrap().1)
    }

    /// In POSIX seconds.
    pub(crate) fn not_after(&self) -> i64 {
        self.read(|certificate| certificate.validity().not_after.timestamp())
    }

    /// `spiffe://<cluster>/bot/<bot>/<instance>`.
    pub(crate) fn uri(&self) -> String {
        self.read(|certificate| {
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            let uri = names.value.general_names.iter().find_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            });
            uri.unwrap()
        })
    }

    pub(crate) fn instance(&self) -> String {
        self.uri().rsplit('/').next().unwrap().to_owned()
    }

    /// The extension of our own (protocol, section 8).
    pub(crate) fn claims(&self) -> serde_json::Value {
        self.read(|certificate| {
            let ours = |id: &x509_parser::oid_registry::Oid<'_>| id.to_id_string() == "2.25.424518259384859741";
            let extension = certificate.extensions().iter().find(|extension| ours(&extension.oid)).unwrap();
            assert!(!extension.critical);
            let (_, json) = Utf8String::from_der(extension.value).unwrap();
            serde_json::from_str(json.as_ref()).unwrap()
        })
    }
}

/// Header and payload of a compact JWS.
pub(crate) fn jws_parts(document: &str) -> (String, String) {
    let part = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let mut parts = document.split('.');
    (part(parts.next().unwrap()), part(parts.next().unwrap()))
}

pub(crate) fn claims_of<T: serde::de::DeserializeOwned>(document: &str) -> T {
    serde_json::from_str(&jws_parts(document).1).unwrap()
}
