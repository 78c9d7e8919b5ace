//! One ceremony: the messages of one join, on one stream.
//!
//! ```text
//!   ClientInit, BoundKeypairInit ─▶
//!                                ◀─ ServerInit
//!                                ◀─ rotation request ┐
//!   new public key               ─▶                  │ as often and in the order
//!                                ◀─ challenge        │ that the authority chooses
//!   solution                     ─▶                  ┘
//!                                ◀─ result
//! ```

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use join_domain::{
    id::Name,
    key::PublicKey,
    proof::{Challenge, MAX_DOCUMENT, UnfitChallenge},
};
use join_proto::{
    JOIN_METHOD,
    teleport::{
        self as wire, challenge::Payload as Asked, challenge_solution::Payload as Solution, giving_up::Reason,
        join_request::Payload as Request, join_response::Payload as Response, join_service_client::JoinServiceClient,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    config::Keypair,
    connection::Connection,
    credentials::{Credentials, UnfitResult},
    error::JoinError,
    key::PrivateKey,
    state::Accepted,
    vault::Vault,
};

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// How long the authority may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the end of the stream is waited for, when nothing depends on it.
const COURTESY: Duration = Duration::from_secs(2);
/// More messages than any ceremony has.
const MAX_ANSWERS: usize = 16;

pub(crate) struct Ceremony<'a> {
    pub(crate) vault: &'a mut Vault,
    pub(crate) token: &'a Name,
    pub(crate) keypair: &'a Keypair,
    pub(crate) secret: Option<&'a SecretString>,
    /// The wished end of the certificates.
    pub(crate) expires: DateTime<Utc>,
    pub(crate) now: DateTime<Utc>,
}

/// How a ceremony ended.
pub(crate) struct Outcome {
    /// What it brought.
    pub(crate) accepted: Accepted,
    /// How far the authority's clock is ahead of this host's, by the last challenge.
    pub(crate) ahead: TimeDelta,
}

impl Ceremony<'_> {
    /// Runs to the result, which is checked but not yet stored.
    pub(crate) async fn run(mut self, connection: Connection) -> Result<Outcome, JoinError> {
        let (requests, stream) = mpsc::channel(2);
        for request in [self.client_init(), self.bound_keypair_init()] {
            send(&requests, request).await?;
        }
        let mut client = JoinServiceClient::new(connection.channel).max_decoding_message_size(MAX_MESSAGE);
        let answers = in_time(client.join(ReceiverStream::new(stream))).await?;
        let mut answers = answers.map_err(|status| JoinError::from_status(&status))?.into_inner();

        let (mut challenged, mut ahead) = (Vec::new(), TimeDelta::zero());
        for _ in 0..MAX_ANSWERS {
            let reply = match next(&mut answers).await? {
                Response::Init(init) if init.join_method == JOIN_METHOD => continue,
                Response::Init(init) => Err(JoinError::Unexpected(format!(
                    "token `{}` has the join method `{}`; this agent has {JOIN_METHOD} only",
                    self.token, init.join_method
                ))),
                Response::Challenge(wire::Challenge { payload: Some(Asked::BoundKeypairChallenge(challenge)) }) => {
                    self.solve(&challenge, &connection.cluster, &mut challenged).map(|(solution, found)| {
                        ahead = found;
                        solution
                    })
                }
                Response::Challenge(wire::Challenge { payload: Some(Asked::BoundKeypairRotationRequest(_)) }) => {
                    self.offer(&challenged)
                }
                Response::Challenge(wire::Challenge { payload: None }) => {
                    Err(JoinError::Unexpected("the authority asks for something that this agent does not know".into()))
                }
                Response::Result(result) => {
                    let accepted = self.accepted(result, connection.cluster)?;
                    drop(requests);
                    let _ = timeout(COURTESY, answers.message()).await;
                    return Ok(Outcome { accepted, ahead });
                }
            };
            match reply {
                Ok(solution) => {
                    let solution = wire::ChallengeSolution { payload: Some(solution) };
                    send(&requests, Request::Solution(solution)).await?;
                }
                Err(error) => {
                    send(&requests, giving_up(&error)).await?;
                    drop(requests);
                    let _ = timeout(COURTESY, answers.message()).await;
                    return Err(error);
                }
            }
        }
        Err(JoinError::Unexpected("the authority goes on asking".into()))
    }

    fn client_init(&self) -> Request {
        Request::ClientInit(wire::ClientInit {
            join_method: Some(JOIN_METHOD.to_owned()),
            token_name: self.token.to_string(),
            system_role: "Bot".to_owned(),
            ..Default::default()
        })
    }

    fn bound_keypair_init(&self) -> Request {
        let attempt = self.vault.attempt();
        let subject = attempt.subject_keys();
        let bot = wire::BotParams {
            public_keys: Some(wire::PublicKeys { public_tls_key: subject.tls, public_ssh_key: subject.ssh }),
            expires: Some(timestamp(self.expires)),
        };
        let join_state = self.vault.state().accepted.as_ref().map(|accepted| accepted.join_state.clone().into_bytes());
        Request::BoundKeypairInit(wire::BoundKeypairInit {
            client_params: Some(wire::ClientParams { payload: Some(wire::client_params::Payload::BotParams(bot)) }),
            initial_join_secret: self.secret.map(|secret| secret.expose_secret().to_owned()).unwrap_or_default(),
            previous_join_state: join_state.unwrap_or_default(),
            attempt_id: attempt.id.as_str().to_owned(),
            held_keys: self.held().map(|key| key.public().to_authorized_key().into_bytes()).collect(),
        })
    }

    fn held(&self) -> impl Iterator<Item = &PrivateKey> {
        let fixed = match self.keypair {
            Keypair::Static(key) => Some(key),
            Keypair::Managed { .. } => None,
        };
        fixed.into_iter().chain(self.vault.state().held())
    }

    /// Signs a challenge, after it was read and found to be this client's own; returns how far the clock by which it was
    /// issued is ahead, too.
    fn solve(
        &self,
        asked: &wire::BoundKeypairChallenge,
        cluster: &str,
        challenged: &mut Vec<PublicKey>,
    ) -> Result<(Solution, TimeDelta), JoinError> {
        let public = PublicKey::from_authorized_key(&asked.public_key)
            .map_err(|error| JoinError::Unexpected(format!("the challenge's public_key: {error}")))?;
        let key = self
            .held()
            .find(|key| *key.public() == public)
            .ok_or_else(|| JoinError::KeyNotHeld(public.fingerprint()))?;
        let attempt = self.vault.attempt();
        let subject_keys = attempt.subject_keys().hash();
        let challenge = Challenge::read(&asked.challenge, cluster, &public, Some(&attempt.id), &subject_keys)?;
        let ahead = challenge.iat.checked_sub(self.now.timestamp()).and_then(TimeDelta::try_seconds);
        let ahead = ahead.ok_or(UnfitChallenge("iat"))?;
        let solution = key
            .solve(&asked.challenge)
            .map_err(|error| JoinError::Unexpected(format!("the challenge was not signed: {error}")))?;
        challenged.push(public);
        let solution = wire::BoundKeypairChallengeSolution { solution: solution.into_bytes() };
        Ok((Solution::BoundKeypairChallengeSolution(solution), ahead))
    }

    /// A new keypair's public half; its private half is durable by then.
    fn offer(&mut self, challenged: &[PublicKey]) -> Result<Solution, JoinError> {
        if let Keypair::Static(_) = self.keypair {
            return Err(JoinError::StaticKey);
        }
        let key = self.vault.offer(challenged)?;
        Ok(Solution::BoundKeypairRotationResponse(wire::BoundKeypairRotationResponse {
            public_key: key.to_authorized_key().into_bytes(),
        }))
    }

    /// Takes a result if it answers this attempt.
    fn accepted(&self, result: wire::Result, cluster: String) -> Result<Accepted, UnfitResult> {
        let Some(wire::result::Payload::BotResult(wire::BotResult {
            certificates: Some(certificates),
            bound_keypair_result: Some(bound),
        })) = result.payload
        else {
            return Err(UnfitResult::new("payload", "is not a bot's by bound keypair"));
        };
        let credentials = Credentials::from_wire(&certificates, &self.vault.attempt().subject)?;
        let bound_key = PublicKey::from_authorized_key(&bound.public_key)
            .map_err(|error| UnfitResult::new("public_key", format_args!("is {error}")))?;
        if !self.held().any(|key| *key.public() == bound_key) {
            return Err(UnfitResult::new("public_key", "is not a key of this agent"));
        }
        let join_state = String::from_utf8(bound.join_state)
            .ok()
            .filter(|document| !document.is_empty() && document.len() <= MAX_DOCUMENT)
            .ok_or_else(|| UnfitResult::new("join_state", "is missing or malformed"))?;
        let token = self.token.clone();
        Ok(Accepted { cluster, token, bound_key, join_state, credentials, stored_at: self.now })
    }
}

fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default();
    prost_types::Timestamp { seconds: time.timestamp(), nanos }
}

/// Says why the ceremony ends here.
fn giving_up(error: &JoinError) -> Request {
    let reason = match error {
        JoinError::KeyNotHeld(_) | JoinError::NoStaticKey(_) | JoinError::Challenge(_) => {
            Reason::ChallengeSolutionFailed
        }
        JoinError::StaticKey => Reason::UnsupportedMessageType,
        _ => Reason::Unspecified,
    };
    // What failed inside this host is not for others.
    let msg = if let JoinError::Storage(_) = error { "storage failed".to_owned() } else { error.to_string() };
    Request::GivingUp(wire::GivingUp { reason: reason.into(), msg })
}

async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, JoinError> {
    let silent = |_| JoinError::Network(format!("the authority was silent for {} s", SILENCE.as_secs()));
    timeout(SILENCE, answer).await.map_err(silent)
}

async fn send(requests: &mpsc::Sender<wire::JoinRequest>, request: Request) -> Result<(), JoinError> {
    in_time(requests.send(wire::JoinRequest { payload: Some(request) }))
        .await?
        .map_err(|_| JoinError::Network("the connection was lost".to_owned()))
}

async fn next(answers: &mut Streaming<wire::JoinResponse>) -> Result<Response, JoinError> {
    match in_time(answers.message()).await?.map_err(|status| JoinError::from_status(&status))? {
        Some(wire::JoinResponse { payload: Some(payload) }) => Ok(payload),
        Some(wire::JoinResponse { payload: None }) => {
            Err(JoinError::Unexpected("the authority sends a message that this agent does not know".into()))
        }
        None => Err(JoinError::Network("the authority ended the stream without a result".to_owned())),
    }
}
