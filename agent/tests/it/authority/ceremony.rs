//! One join, from the authority's side.

use join_agent::clock::Clock as _;
use join_credential::{BotGrant, CertificateReader, Issuer, Presented, Serial, Subject};
use join_domain::{
    id::{AttemptId, InstanceId, Name, TokenId},
    key::PublicKey,
    proof::{Challenge, JoinState, SubjectKeys},
    refusal::Code,
};
use join_proto::teleport::{
    self as wire, challenge::Payload as Asked, challenge_solution::Payload as Solution,
    client_params::Payload as Params, join_request::Payload as Request, join_response::Payload as Response,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use tonic_types::ErrorDetails;
use uuid::Uuid;

use super::{Authority, Book, Latest, Trouble, refusal};

/// The shortest life, whatever was asked for.
const MIN_LIFE: chrono::TimeDelta = chrono::TimeDelta::seconds(10);

pub(super) struct Ceremony {
    pub(super) authority: Authority,
    pub(super) certificate: Vec<CertificateDer<'static>>,
    /// Told to break the connection.
    pub(super) broken: mpsc::Sender<()>,
    pub(super) requests: Streaming<wire::JoinRequest>,
    pub(super) answers: mpsc::Sender<Result<wire::JoinResponse, Status>>,
}

impl Ceremony {
    pub(super) async fn run(mut self) -> Result<(), Status> {
        let trouble = {
            let mut book = self.authority.book();
            book.streams += 1;
            book.trouble.pop_front()
        };
        let Request::ClientInit(_) = self.next().await? else { return Err(Status::invalid_argument("client_init")) };
        self.answer(Response::Init(wire::ServerInit {
            join_method: "bound_keypair".into(),
            signature_algorithm_suite: "balanced-v1".into(),
        }))
        .await;
        let Request::BoundKeypairInit(init) = self.next().await? else {
            return Err(Status::invalid_argument("bound_keypair_init"));
        };
        self.authority.book().inits.push(init.clone());
        match &trouble {
            Some(Trouble::LoseRequest) => {
                let _ = self.broken.send(()).await;
                return Ok(());
            }
            Some(Trouble::Refuse(status)) => return Err(Status::clone(status)),
            _ => {}
        }
        let result = self.join(init, &trouble).await?;
        match trouble {
            Some(Trouble::LoseAnswer) => {
                let _ = self.broken.send(()).await;
            }
            Some(Trouble::Result(change)) => {
                let mut result = result;
                change(&mut result);
                self.send_result(result).await;
            }
            _ => self.send_result(result).await,
        }
        Ok(())
    }

    async fn join(
        &mut self,
        init: wire::BoundKeypairInit,
        trouble: &Option<Trouble>,
    ) -> Result<wire::BotResult, Status> {
        let Some(Params::BotParams(bot)) = init.client_params.and_then(|params| params.payload) else {
            return Err(Status::invalid_argument("bot_params"));
        };
        let keys = bot.public_keys.unwrap();
        let subject = SubjectKeys { tls: keys.public_tls_key, ssh: keys.public_ssh_key };
        let attempt: AttemptId = init.attempt_id.parse().unwrap();

        let bound = self.authority.book().bound.clone();
        let live = self.live_generation();
        let (challenged, first) = match &bound {
            Some(bound) => (bound.clone(), false),
            None if live.is_some() => return Err(refusal(Code::BindingNotAllowed, ErrorDetails::new())),
            None if self.authority.book().secret.as_deref() != Some(&init.initial_join_secret) => {
                return Err(refusal(Code::RegistrationSecretRequired, ErrorDetails::new()));
            }
            None => (self.new_key().await?, true),
        };
        self.challenge(&challenged, &attempt, &subject, trouble).await?;

        let resume = self
            .authority
            .book()
            .latest
            .as_ref()
            .is_some_and(|latest| latest.attempt == attempt && latest.subject_keys == subject.hash());
        if resume {
            let mut book = self.authority.book();
            book.resumed += 1;
            return Ok(self.result(&book, &subject));
        }
        self.check_evidence(&init.previous_join_state, live, first)?;
        let mut key = challenged;
        if self.authority.book().rotate {
            let new = self.new_key().await?;
            if new == key {
                return Err(refusal(Code::KeyReused, ErrorDetails::new()));
            }
            self.challenge(&new, &attempt, &subject, trouble).await?;
            let mut book = self.authority.book();
            book.retired.push(key);
            book.rotate = false;
            key = new;
        }
        let expires = bot.expires.unwrap();
        let now = self.authority.clock.now();
        let mut book = self.authority.book();
        book.accepted += 1;
        book.bound = Some(key);
        book.secret = None;
        if live.is_none() {
            book.recoveries += 1;
            book.generation = 1;
        } else {
            book.generation += 1;
        }
        let max_life = book.max_life;
        let mut serial = [0; 16];
        serial[12..].copy_from_slice(&book.accepted.to_be_bytes());
        book.latest = Some(Latest {
            attempt,
            subject_keys: subject.hash(),
            serial: Serial::from_random(serial),
            not_before: now - chrono::TimeDelta::minutes(2),
            // A bot whose clock is slow may ask for a time that is over.
            not_after: chrono::DateTime::from_timestamp(expires.seconds, 0)
                .unwrap()
                .clamp(now + MIN_LIFE, now + max_life),
        });
        Ok(self.result(&book, &subject))
    }

    /// The generation that the client's certificate names, if it is alive.
    fn live_generation(&self) -> Option<u64> {
        let book = self.authority.book();
        let clients = CertificateReader::new(&book.keys).unwrap();
        match clients.read(&self.certificate, self.authority.clock.now()) {
            Presented::Bot(bot) => Some(bot.generation),
            _ => None,
        }
    }

    fn check_evidence(&self, join_state: &[u8], live: Option<u64>, first: bool) -> Result<(), Status> {
        let mut book = self.authority.book();
        if book.locked.is_some() {
            return Err(refusal(Code::Locked, ErrorDetails::new()));
        }
        if first || book.recoveries == 0 {
            return Ok(());
        }
        let state = JoinState::open(join_state, book.keys.cluster(), |kid| book.keys.join_state_key(kid));
        if state.is_ok_and(|state| state.recovery_sequence != book.recoveries) || join_state.is_empty() {
            book.locked = Some("join state");
            return Err(refusal(Code::JoinStateInvalid, ErrorDetails::new()));
        }
        if live.is_some_and(|generation| generation != book.generation) {
            book.locked = Some("generation");
            return Err(refusal(Code::GenerationMismatch, ErrorDetails::new()));
        }
        Ok(())
    }

    async fn new_key(&mut self) -> Result<PublicKey, Status> {
        let ask = wire::BoundKeypairRotationRequest { signature_algorithm_suite: "balanced-v1".into() };
        let Solution::BoundKeypairRotationResponse(response) =
            self.ask(Asked::BoundKeypairRotationRequest(ask)).await?
        else {
            return Err(refusal(Code::RotationFailed, ErrorDetails::new()));
        };
        let key = PublicKey::from_authorized_key(&response.public_key).unwrap();
        if self.authority.book().retired.contains(&key) {
            return Err(refusal(Code::KeyReused, ErrorDetails::new()));
        }
        Ok(key)
    }

    async fn challenge(
        &mut self,
        key: &PublicKey,
        attempt: &AttemptId,
        subject: &SubjectKeys,
        trouble: &Option<Trouble>,
    ) -> Result<(), Status> {
        let now = self.authority.clock.now();
        let cluster = self.authority.book().keys.cluster().clone();
        let nonce = [self.authority.book().streams.to_be_bytes()[3]; 32];
        let mut challenge = Challenge::issue(&cluster, key, Some(attempt.clone()), subject.hash(), nonce, now);
        if let Some(Trouble::Challenge(change)) = trouble {
            change(&mut challenge);
        }
        let document = challenge.to_document();
        let ask = wire::BoundKeypairChallenge {
            public_key: key.to_authorized_key().into_bytes(),
            challenge: document.clone(),
        };
        let Solution::BoundKeypairChallengeSolution(solution) = self.ask(Asked::BoundKeypairChallenge(ask)).await?
        else {
            return Err(refusal(Code::ChallengeFailed, ErrorDetails::new()));
        };
        challenge
            .check(&document, key, &solution.solution, now)
            .map_err(|_| refusal(Code::ChallengeFailed, ErrorDetails::new()))
    }

    fn result(&self, book: &Book, subject: &SubjectKeys) -> wire::BotResult {
        let latest = book.latest.as_ref().unwrap();
        let issuer = Issuer::new(&book.keys).unwrap();
        let bot: Name = "robot".parse().unwrap();
        let token = TokenId(Uuid::from_u128(1));
        let instance = InstanceId(Uuid::from_u128(u128::from(book.recoveries)));
        let cluster = book.keys.cluster().to_string();
        let join_state = JoinState {
            iss: cluster.clone(),
            aud: cluster,
            sub: bot.to_string(),
            iat: latest.not_before.timestamp(),
            nbf: latest.not_before.timestamp(),
            bot_instance_id: instance,
            recovery_sequence: book.recoveries,
            recovery_limit: 1,
            recovery_mode: "standard".into(),
            token_id: Some(token),
        };
        let credentials = issuer
            .issue(&BotGrant {
                token,
                bot: &bot,
                instance,
                generation: book.generation,
                serial: latest.serial,
                not_before: latest.not_before,
                not_after: latest.not_after,
                roles: &[],
                principals: &["deploy".to_owned()],
                subject: &Subject::read(subject).unwrap(),
                join_state: &join_state,
            })
            .unwrap();
        wire::BotResult {
            certificates: Some(wire::Certificates {
                tls_cert: credentials.tls_certificate,
                tls_ca_certs: issuer.tls_ca_certificates().iter().map(|ca| ca.to_vec()).collect(),
                ssh_cert: credentials.ssh_certificate,
                ssh_ca_keys: issuer.ssh_ca_keys().to_vec(),
            }),
            bound_keypair_result: Some(wire::BoundKeypairResult {
                join_state: credentials.join_state.into_bytes(),
                public_key: book.bound.as_ref().unwrap().to_authorized_key().into_bytes(),
            }),
        }
    }

    async fn ask(&mut self, asked: Asked) -> Result<Solution, Status> {
        self.answer(Response::Challenge(wire::Challenge { payload: Some(asked) })).await;
        match self.next().await? {
            Request::Solution(wire::ChallengeSolution { payload: Some(solution) }) => Ok(solution),
            Request::GivingUp(giving_up) => {
                self.authority.book().gave_up.push(giving_up);
                Err(refusal(Code::ChallengeFailed, ErrorDetails::new()))
            }
            _ => Err(Status::invalid_argument("solution")),
        }
    }

    async fn next(&mut self) -> Result<Request, Status> {
        let message = self.requests.message().await?.ok_or_else(|| Status::cancelled("the client went away"))?;
        message.payload.ok_or_else(|| Status::invalid_argument("payload"))
    }

    async fn answer(&self, response: Response) {
        let _ = self.answers.send(Ok(wire::JoinResponse { payload: Some(response) })).await;
    }

    async fn send_result(&self, result: wire::BotResult) {
        let payload = Some(wire::result::Payload::BotResult(result));
        self.answer(Response::Result(wire::Result { payload })).await;
    }
}
