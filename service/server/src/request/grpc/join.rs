//! `teleport.join.v1.JoinService`: one stream is one join.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{SinkExt as _, Stream, StreamExt as _, channel::mpsc, future, stream, stream::BoxStream};
use join_domain::{
    decision::join::Life,
    proof::{CHALLENGE_LIFE, SubjectKeys},
    refusal::{Code, Refusal},
};
use join_proto::{
    ALGORITHM_SUITE, JOIN_METHOD,
    teleport::{
        self as wire, challenge, challenge_solution, client_params, join_request, join_response,
        join_service_server::JoinService, result,
    },
};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    app::App,
    caller::Peer,
    ceremony::{
        internal,
        join::{Ask, Joined, Step},
        pending::{Pending, Stage},
    },
    request::{observe, problem, values},
};

/// How long a client that has shown nothing yet may take for a message: it has all it needs to send the first two.
const BEGINNING: Duration = Duration::from_secs(10);
/// How the stream is called in log and metrics.
pub const JOIN_ROUTE: &str = "/teleport.join.v1.JoinService/Join";

/// The joining service.
pub struct Joining(pub Arc<App>);

#[tonic::async_trait]
impl JoinService for Joining {
    type JoinStream = BoxStream<'static, Answer>;

    async fn join(&self, request: Request<Streaming<wire::JoinRequest>>) -> Result<Response<Self::JoinStream>, Status> {
        let peer = self.0.peer(request.extensions()).await.map_err(problem::status)?;
        // Two answers wait until the connection takes them: the first two are made at once, and leave in one piece.
        let (answers, told) = mpsc::channel(1);
        let (_, extensions, inbound) = request.into_parts();
        let conversation = Conversation {
            app: Arc::clone(&self.0),
            peer,
            inbound,
            awaiting: Awaiting::ClientInit,
            token: None,
            outcome: "gone",
            started: Instant::now(),
            span: tracing::Span::current(),
        };
        let conversation = self.0.to_its_end(&extensions, conversation.run(answers));
        Ok(Response::new(all_of(told, conversation).boxed()))
    }
}

/// What the client is sent.
type Answer = Result<wire::JoinResponse, Status>;

/// The answers of a conversation. One that broke down says so: its end alone would look as if all had been said.
fn all_of(told: mpsc::Receiver<Answer>, conversation: JoinHandle<()>) -> impl Stream<Item = Answer> {
    let broken = |ended: Result<(), _>| ended.err().map(|stopped| Err(problem::status(internal(stopped))));
    told.chain(stream::once(conversation).filter_map(move |ended| future::ready(broken(ended))))
}

/// A solution of this kind, as a pattern.
macro_rules! solution {
    ($kind:ident($solution:pat)) => {
        join_request::Payload::Solution(wire::ChallengeSolution {
            payload: Some(challenge_solution::Payload::$kind($solution)),
        })
    };
}

/// What the client must send next.
enum Awaiting {
    ClientInit,
    BoundKeypairInit { token: String },
    Answer(Box<Pending>),
    Nothing,
}

struct Conversation {
    app: Arc<App>,
    peer: Peer,
    inbound: Streaming<wire::JoinRequest>,
    awaiting: Awaiting,
    /// The token's name, once the client has said it.
    token: Option<String>,
    /// How the join ended, for the request log.
    outcome: &'static str,
    started: Instant,
    span: tracing::Span,
}

impl Conversation {
    /// Answers message by message. It is no part of what sends the answers: a client that reads none, or goes away, must
    /// not be able to stop a step halfway, with all that the step holds.
    async fn run(mut self, mut answers: mpsc::Sender<Answer>) {
        loop {
            let answer = match self.next().await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => break,
                Err(refusal) => {
                    let refusal = self.broken_off(refusal).await;
                    self.outcome = refusal.code.as_str();
                    Err(problem::status(refusal))
                }
            };
            let is_last = answer.is_err();
            if answers.feed(answer).await.is_err() || is_last {
                break;
            }
        }
        self.gone();
    }

    /// Takes the next message and answers it; none when the join is over, or the client gone.
    async fn next(&mut self) -> Result<Option<wire::JoinResponse>, Refusal> {
        if matches!(self.awaiting, Awaiting::Nothing) {
            return Ok(None);
        }
        let payload = self.receive().await?;
        match (std::mem::replace(&mut self.awaiting, Awaiting::Nothing), payload) {
            (awaiting, None) => {
                self.awaiting = awaiting;
                Ok(None)
            }
            (awaiting, Some(join_request::Payload::GivingUp(giving_up))) => {
                tracing::info!("the client gives up: {:?} {}", giving_up.reason(), shortened(&giving_up.msg));
                let refusal = match &awaiting {
                    Awaiting::Answer(pending) => self.app.ceremonies.gave_up(pending, &self.peer),
                    _ => None,
                };
                self.awaiting = awaiting;
                refusal.map_or(Ok(None), Err)
            }
            (Awaiting::ClientInit, Some(join_request::Payload::ClientInit(init))) => {
                let token = check_init(init)?;
                self.token = Some(token.chars().take(63).collect());
                self.awaiting = Awaiting::BoundKeypairInit { token };
                Ok(Some(answer(join_response::Payload::Init(wire::ServerInit {
                    join_method: JOIN_METHOD.to_owned(),
                    signature_algorithm_suite: ALGORITHM_SUITE.to_owned(),
                }))))
            }
            (Awaiting::BoundKeypairInit { token }, Some(join_request::Payload::BoundKeypairInit(init))) => {
                let ask = self.ask(token, init)?;
                let step = self.app.ceremonies.open(ask, &self.peer).await?;
                Ok(Some(self.tell(step)))
            }
            (Awaiting::Answer(pending), Some(solution!(BoundKeypairChallengeSolution(solution)))) => {
                let step = self.app.ceremonies.take_solution(pending, &solution.solution, &self.peer).await?;
                Ok(Some(self.tell(step)))
            }
            (Awaiting::Answer(pending), Some(solution!(BoundKeypairRotationResponse(response)))) => {
                let step = self.app.ceremonies.take_key(pending, &response.public_key, &self.peer).await?;
                Ok(Some(self.tell(step)))
            }
            (awaiting, Some(other)) => {
                self.awaiting = awaiting;
                Err(unexpected(&self.awaiting, &other))
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<join_request::Payload>, Refusal> {
        let patience = match self.awaiting {
            Awaiting::ClientInit | Awaiting::BoundKeypairInit { .. } => BEGINNING,
            Awaiting::Answer(_) | Awaiting::Nothing => Duration::from_secs(CHALLENGE_LIFE.unsigned_abs()),
        };
        match tokio::time::timeout(patience, self.inbound.message()).await {
            Err(_) => {
                let why = format!("the stream was silent for {} s", patience.as_secs());
                Err(match &self.awaiting {
                    Awaiting::Answer(pending) => pending.unanswered(&why),
                    _ => Refusal::new(Code::ChallengeFailed, why),
                })
            }
            // The connection broke: there is nobody to answer.
            Ok(Err(status)) if status.code() != tonic::Code::OutOfRange && status.code() != tonic::Code::Internal => {
                Ok(None)
            }
            Ok(Err(status)) => Err(Refusal::invalid("message", format!("it does not read: {}", status.message()))),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(request))) => match request.payload {
                Some(payload) => Ok(Some(payload)),
                None => Err(Refusal::invalid("payload", "the message is empty")),
            },
        }
    }

    /// What had been proven is recorded with the refusal that ends the join.
    async fn broken_off(&mut self, refusal: Refusal) -> Refusal {
        match std::mem::replace(&mut self.awaiting, Awaiting::Nothing) {
            Awaiting::Answer(pending) => self.app.ceremonies.failed(&pending, refusal, &self.peer).await,
            _ => refusal,
        }
    }

    /// What a client leaves behind that went away is dealt with when nobody waits for it.
    fn gone(&mut self) {
        if let Awaiting::Answer(pending) = std::mem::replace(&mut self.awaiting, Awaiting::Nothing) {
            let (app, peer) = (Arc::clone(&self.app), self.peer.clone());
            self.app.background.spawn(async move { app.ceremonies.abandoned(&pending, &peer).await });
        }
    }

    fn ask(&self, token: String, init: wire::BoundKeypairInit) -> Result<Ask, Refusal> {
        let params = match init.client_params.and_then(|params| params.payload) {
            Some(client_params::Payload::BotParams(params)) => params,
            Some(client_params::Payload::HostParams(_)) => {
                return Err(Refusal::new(Code::Unimplemented, "host certificates are not served: ask as a bot"));
            }
            None => return Err(Refusal::invalid("bound_keypair_init.client_params.bot_params", "it is missing")),
        };
        let keys = params.public_keys.unwrap_or_default();
        let end = values::optional_time("bot_params.expires", params.expires.as_ref())?;
        Ok(Ask {
            token,
            attempt: init.attempt_id,
            secret: init.initial_join_secret,
            join_state: init.previous_join_state,
            subject: SubjectKeys { tls: keys.public_tls_key, ssh: keys.public_ssh_key },
            held_keys: init.held_keys,
            life: end.map(Life::Until),
            is_portable: false,
        })
    }

    fn tell(&mut self, step: Step) -> wire::JoinResponse {
        match step {
            Step::Asked(pending) => {
                let question = match &pending.stage {
                    Stage::RegistrationKey | Stage::RotationKey(_) => {
                        challenge::Payload::BoundKeypairRotationRequest(wire::BoundKeypairRotationRequest {
                            signature_algorithm_suite: ALGORITHM_SUITE.to_owned(),
                        })
                    }
                    Stage::Challenge(issued) | Stage::RotationChallenge(_, issued) => {
                        challenge::Payload::BoundKeypairChallenge(wire::BoundKeypairChallenge {
                            public_key: issued.key.to_authorized_key().into_bytes(),
                            challenge: issued.document.clone(),
                        })
                    }
                };
                self.awaiting = Awaiting::Answer(pending);
                answer(join_response::Payload::Challenge(wire::Challenge { payload: Some(question) }))
            }
            Step::Joined(joined) => {
                self.outcome = "joined";
                answer(join_response::Payload::Result(Self::result(*joined)))
            }
        }
    }

    fn result(joined: Joined) -> wire::Result {
        let issuer = &joined.keyring.issuer;
        let certificates = wire::Certificates {
            tls_cert: joined.tls_certificate,
            tls_ca_certs: issuer.tls_ca_certificates().iter().map(|certificate| certificate.to_vec()).collect(),
            ssh_cert: joined.ssh_certificate,
            ssh_ca_keys: issuer.ssh_ca_keys().to_vec(),
        };
        wire::Result {
            payload: Some(result::Payload::BotResult(wire::BotResult {
                certificates: Some(certificates),
                bound_keypair_result: Some(wire::BoundKeypairResult {
                    join_state: joined.join_state.into_bytes(),
                    public_key: joined.bound_key.to_authorized_key().into_bytes(),
                }),
            })),
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let token = self.token.as_deref().unwrap_or("-");
        let outcome = if std::thread::panicking() { Code::Internal.as_str() } else { self.outcome };
        observe::ended(&self.span, JOIN_ROUTE, outcome, &self.peer, token, self.started);
    }
}

fn check_init(init: wire::ClientInit) -> Result<String, Refusal> {
    if let Some(method) = init.join_method.as_deref().filter(|method| !method.is_empty() && *method != JOIN_METHOD) {
        return Err(Refusal::new(
            Code::Unimplemented,
            format!("join method `{}` is not served: use {JOIN_METHOD}", shortened(method)),
        ));
    }
    if init.system_role != "Bot" {
        return Err(Refusal::access_denied());
    }
    Ok(init.token_name)
}

fn unexpected(awaiting: &Awaiting, got: &join_request::Payload) -> Refusal {
    use join_request::Payload as P;
    let got = match got {
        P::TokenInit(_) => return unserved("token_init"),
        P::IamInit(_) => return unserved("iam_init"),
        P::Ec2Init(_) => return unserved("ec2_init"),
        P::OracleInit(_) => return unserved("oracle_init"),
        solution!(IamChallengeSolution(_)) => return unserved("iam_challenge_solution"),
        solution!(OracleChallengeSolution(_)) => return unserved("oracle_challenge_solution"),
        P::Solution(solution) if solution.payload.is_none() => {
            return Refusal::invalid("solution", "it is empty, or of another join method");
        }
        P::ClientInit(_) => "client_init",
        P::BoundKeypairInit(_) => "bound_keypair_init",
        P::Solution(_) => "solution",
        P::GivingUp(_) => "giving_up",
    };
    let expected = match awaiting {
        Awaiting::ClientInit => "client_init",
        Awaiting::BoundKeypairInit { .. } => "bound_keypair_init",
        Awaiting::Answer(_) | Awaiting::Nothing => "solution",
    };
    Refusal::invalid("payload", format!("{got} came where {expected} is expected"))
}

/// A stranger's words, for a log line or an answer.
fn shortened(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

fn unserved(method: &str) -> Refusal {
    Refusal::new(
        Code::Unimplemented,
        format!("{method} belongs to a join method that is not served: use {JOIN_METHOD}"),
    )
}

fn answer(payload: join_response::Payload) -> wire::JoinResponse {
    wire::JoinResponse { payload: Some(payload) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn codes_of(conversation: impl Future<Output = ()> + Send + 'static) -> Vec<tonic::Code> {
        let (mut answers, told) = mpsc::channel(0);
        let conversation = tokio::spawn(async move {
            answers.feed(Ok(wire::JoinResponse::default())).await.unwrap();
            conversation.await;
        });
        all_of(told, conversation)
            .map(|answer| answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok))
            .collect()
            .await
    }

    #[tokio::test]
    async fn a_conversation_that_broke_down_ends_with_an_error() {
        let broken = async { panic!("it breaks down") };
        assert_eq!(codes_of(broken).await, [tonic::Code::Ok, tonic::Code::Internal]);
        assert_eq!(codes_of(future::ready(())).await, [tonic::Code::Ok]);
    }
}
