//! Bots: what each holds, and how it joins.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::SendRequest;
use join_domain::extension::BotExtension;
use rustls::{HandshakeKind, pki_types::CertificateDer, sign::CertifiedKey};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    ceremony::{self, Ask, Granted, JoinError, Transport},
    connection::{Connection, Handshakes, Target},
    import::token_name,
    key::{BoundKey, SubjectKey, scrambled},
};

/// Subject keys are made in advance; bots share them, for their making is not what is measured.
const SUBJECT_KEYS: usize = 64;

/// How a join without a certificate is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Connections {
    /// Over one of a few that stay open.
    Kept,
    /// Over a new one that resumes an earlier session, where the authority lets it.
    Resumed,
    /// Over a new one with a full handshake.
    New,
}

impl Connections {
    /// As rows are named.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Kept => "kept connections",
            Self::Resumed => "resumption asked for",
            Self::New => "full handshake each",
        }
    }
}

/// Bots of one authority.
pub(crate) struct Fleet {
    pub(crate) target: Target,
    pub(crate) bots: Vec<Bot>,
    kept: Vec<Mutex<Connection>>,
    /// What keys are made from; none where nobody may guess them.
    pub(crate) seed: Option<u64>,
    transport: Transport,
    /// Handshakes that were seen: full, and resumed; and kept connections that were opened again.
    full_handshakes: AtomicU64,
    resumed_handshakes: AtomicU64,
    reopened: AtomicU64,
    /// Joins whose bot was still at another one when they were due.
    pub(crate) waited: AtomicU64,
}

/// One bot.
pub(crate) struct Bot {
    pub(crate) token: String,
    pub(crate) number: u64,
    subject: Arc<SubjectKey>,
    pub(crate) state: Mutex<State>,
}

/// What a bot keeps between joins.
#[derive(Clone)]
pub(crate) struct State {
    key: Arc<BoundKey>,
    /// Made in advance, for when the authority asks for one.
    next_key: Arc<BoundKey>,
    secret: String,
    certificate: Option<Arc<CertifiedKey>>,
    join_state: Vec<u8>,
    /// Joins that were accepted.
    pub(crate) accepted: u64,
    /// Generation of the certificate.
    pub(crate) generation: u64,
    /// Recoveries so far, the first join included.
    pub(crate) recoveries: u64,
    /// Rotations so far.
    pub(crate) rotations: u64,
}

impl Fleet {
    /// Bots of the imported tokens with these numbers, whose keys are those of the seed.
    pub(crate) fn preregistered(
        target: Target,
        seed: u64,
        numbers: impl IntoIterator<Item = u64>,
    ) -> anyhow::Result<Self> {
        let tokens = numbers.into_iter().map(|number| (number, token_name(number), String::new()));
        Self::with_tokens(target, Some(seed), tokens)
    }

    /// Bots that register by secret, with keys that nobody can guess: of each, the token's name and its secret.
    pub(crate) fn registering(
        target: Target,
        tokens: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let tokens = (0..).zip(tokens).map(|(number, (token, secret))| (number, token, secret));
        Self::with_tokens(target, None, tokens)
    }

    /// Of each, its number, the token's name, and a secret where it has one.
    fn with_tokens(
        target: Target,
        seed: Option<u64>,
        tokens: impl Iterator<Item = (u64, String, String)>,
    ) -> anyhow::Result<Self> {
        let subjects: Vec<_> =
            (0..SUBJECT_KEYS).map(|_| SubjectKey::generate().map(Arc::new)).collect::<anyhow::Result<_>>()?;
        let bots = tokens.zip(subjects.iter().cycle()).map(|((number, token, secret), subject)| {
            let state = State {
                key: Arc::new(bound_key(seed, number, 0)?),
                next_key: Arc::new(bound_key(seed, number, 1)?),
                secret,
                certificate: None,
                join_state: Vec::new(),
                accepted: 0,
                generation: 0,
                recoveries: 0,
                rotations: 0,
            };
            Ok(Bot { token, number, subject: Arc::clone(subject), state: Mutex::new(state) })
        });
        Ok(Self {
            target,
            bots: bots.collect::<anyhow::Result<_>>()?,
            kept: Vec::new(),
            seed,
            transport: Transport::Grpc,
            full_handshakes: AtomicU64::new(0),
            resumed_handshakes: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        })
    }

    /// The same bots in an order of the seed.
    pub(crate) fn shuffled(mut self, seed: u64) -> Self {
        self.bots.sort_by_key(|bot| scrambled(seed.wrapping_add(scrambled(bot.number))));
        self
    }

    /// The same over another transport.
    pub(crate) fn over(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Opens connections that stay.
    pub(crate) async fn keep_connections(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let connection = self.target.connect(None).await?;
            self.note(&connection);
            self.kept.push(Mutex::new(connection));
        }
        Ok(())
    }

    /// Another node takes the place of the one that is gone.
    pub(crate) fn move_to(&mut self, target: Target) {
        self.target = target;
    }

    /// How many bots there are.
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.bots.len()).unwrap_or(u64::MAX)
    }

    /// Handshakes so far.
    pub(crate) fn handshakes(&self) -> Handshakes {
        let [full, resumed, reopened] = [&self.full_handshakes, &self.resumed_handshakes, &self.reopened]
            .map(|count| count.load(Ordering::Relaxed));
        Handshakes { full, resumed, reopened }
    }

    /// Joins that were accepted so far, of all of them.
    pub(crate) async fn accepted(&self) -> u64 {
        let mut accepted = 0;
        for bot in &self.bots {
            accepted += bot.state.lock().await.accepted;
        }
        accepted
    }

    /// The bot whose turn it is.
    pub(crate) fn bot(&self, number: u64) -> &Bot {
        &self.bots[usize::try_from(number % self.size()).unwrap_or_default()]
    }

    /// One of the connections that stay. A node closes those on which nobody speaks: such a one is opened again.
    async fn kept(&self, number: u64) -> Result<SendRequest<Bytes>, JoinError> {
        let index = usize::try_from(number).unwrap_or_default().checked_rem(self.kept.len());
        let index = index.ok_or_else(|| JoinError::Broken("no connection is kept".to_owned()))?;
        let mut connection = self.kept[index].lock().await;
        if connection.is_closed() {
            *connection = self.noted(self.target.connect(None).await)?;
            self.reopened.fetch_add(1, Ordering::Relaxed);
        }
        Ok(connection.requests.clone())
    }

    /// A new connection, whose handshake is counted.
    fn noted(&self, connected: anyhow::Result<Connection>) -> Result<Connection, JoinError> {
        let connection = connected.map_err(|error| JoinError::Unconnected(format!("{error:#}")))?;
        self.note(&connection);
        Ok(connection)
    }

    fn note(&self, connection: &Connection) {
        let counter = match connection.handshake {
            HandshakeKind::Resumed => &self.resumed_handshakes,
            _ => &self.full_handshakes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The turn of a bot, which joins once at a time. Its wait is in the latency of the join that is due, so how many
    /// waited is counted.
    async fn turn<'b>(&self, bot: &'b Bot) -> MutexGuard<'b, State> {
        match bot.state.try_lock() {
            Ok(state) => state,
            Err(_) => {
                self.waited.fetch_add(1, Ordering::Relaxed);
                bot.state.lock().await
            }
        }
    }

    /// A renewal: a new connection with the newest certificate. A bot that has none joins for the first time.
    pub(crate) async fn renew(&self, number: u64) -> Result<(), JoinError> {
        let bot = self.bot(number);
        let mut state = self.turn(bot).await;
        let connection = self.noted(self.target.connect(state.certificate.as_ref()).await)?;
        let renewal = state.certificate.is_some();
        self.join_as(bot, &mut state, &connection.requests, renewal).await
    }

    /// A first join or a recovery: without a certificate.
    pub(crate) async fn recover(&self, number: u64, connections: Connections) -> Result<(), JoinError> {
        let bot = self.bot(number);
        let mut state = self.turn(bot).await;
        let new = match connections {
            Connections::Kept => return self.join_as(bot, &mut state, &self.kept(number).await?, false).await,
            Connections::Resumed => self.target.resume().await,
            Connections::New => self.target.connect(None).await,
        };
        let new = self.noted(new)?;
        self.join_as(bot, &mut state, &new.requests, false).await
    }

    /// A copy of a bot's disk comes with what it holds, and keeps nothing of what it gets.
    pub(crate) async fn recover_as_copy(&self, number: u64, copy: &State) -> Result<(), JoinError> {
        let bot = self.bot(number);
        self.join_as(bot, &mut copy.clone(), &self.kept(number).await?, false).await
    }

    /// A call that says nothing, over a kept connection.
    pub(crate) async fn call_nothing(&self, number: u64) -> Result<(), JoinError> {
        ceremony::empty_call(&self.kept(number).await?).await
    }

    async fn join_as(
        &self,
        bot: &Bot,
        state: &mut State,
        requests: &SendRequest<Bytes>,
        renewal: bool,
    ) -> Result<(), JoinError> {
        let registers = !state.secret.is_empty();
        let ask = Ask {
            token: &bot.token,
            key: &state.key,
            next_key: if registers { &state.key } else { &state.next_key },
            subject: &bot.subject,
            secret: &state.secret,
            join_state: &state.join_state,
        };
        let granted = ceremony::join(requests, self.transport, &ask).await?;
        let rotated = granted.new_key && !registers;
        state.keep(granted, renewal, &bot.subject);
        if rotated {
            state.rotations += 1;
            let next = bound_key(self.seed, bot.number, state.rotations + 1);
            let next = next.map_err(|error| JoinError::Broken(error.to_string()))?;
            state.key = std::mem::replace(&mut state.next_key, Arc::new(next));
        }
        Ok(())
    }
}

fn bound_key(seed: Option<u64>, number: u64, rotation: u64) -> anyhow::Result<BoundKey> {
    seed.map_or_else(BoundKey::generate, |seed| BoundKey::of(seed, number, rotation))
}

impl State {
    /// Stores a result.
    fn keep(&mut self, granted: Granted, renewal: bool, subject: &SubjectKey) {
        let chain = vec![CertificateDer::from(granted.certificate)];
        self.certificate = Some(Arc::new(CertifiedKey::new(chain, Arc::clone(&subject.signer))));
        self.join_state = granted.join_state;
        self.accepted += 1;
        if renewal {
            self.generation += 1;
        } else {
            self.generation = 1;
            self.recoveries += 1;
        }
        self.secret.clear();
    }

    /// The generation that the certificate itself names, to compare with what was counted.
    pub(crate) fn certified_generation(&self) -> anyhow::Result<u64> {
        use x509_parser::prelude::FromDer as _;
        let chain = &self.certificate.as_ref().context("the bot has no certificate")?.cert;
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&chain[0])?;
        let said = BotExtension::of(&certificate).context("the certificate lacks the authority's extension")?;
        Ok(said.generation)
    }
}
