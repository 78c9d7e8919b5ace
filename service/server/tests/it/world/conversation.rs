//! The messages of one join, over either transport.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use join_ledger::Clock as _;
use join_proto::teleport::{
    self as wire, challenge, challenge_solution, client_params, join_request, join_response,
    join_service_client::JoinServiceClient, result,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{http::Http, key::Key, network::Certificate, network::Network, refused::Refused};

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// The stream of `teleport.join.v1`.
    Grpc,
    /// `POST /v1/join` and `POST /v1/join/continue`.
    Json,
}

/// All that a client says at first.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) token: String,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) secret: String,
    pub(crate) join_state: Vec<u8>,
    /// Empty for a client that knows nothing of attempts.
    pub(crate) attempt: String,
    pub(crate) subject: Key,
    pub(crate) held: Vec<Key>,
    pub(crate) life: Option<TimeDelta>,
}

/// What the authority says.
#[derive(Debug)]
pub(crate) enum Step {
    Challenge { key: String, document: String },
    KeyRequest,
    Joined(Credentials),
}

/// What an accepted join hands out, in one form for both transports.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// DER.
    pub(crate) tls: Vec<u8>,
    pub(crate) tls_cas: Vec<Vec<u8>>,
    /// OpenSSH lines.
    pub(crate) ssh: String,
    pub(crate) ssh_cas: Vec<String>,
    pub(crate) join_state: String,
    /// The bound key, as a line of authorized_keys.
    pub(crate) key: String,
}

pub(crate) enum Conversation {
    Stream(Stream),
    Calls(Calls),
}

impl Conversation {
    pub(crate) async fn open(
        network: &Arc<Network>,
        node: usize,
        transport: Transport,
        ask: &Ask,
    ) -> Result<(Self, Step), Refused> {
        match transport {
            Transport::Grpc => {
                let mut stream = Stream::open(network, node, ask.certificate.as_ref()).await?;
                stream.send(client_init(&ask.token)).await;
                stream.send(join_request::Payload::BoundKeypairInit(bound_keypair_init(network, ask))).await;
                let step = stream.step().await?;
                Ok((Self::Stream(stream), step))
            }
            Transport::Json => {
                let mut calls = Calls {
                    http: Http::connect(network, node, ask.certificate.as_ref()).await?,
                    continuation: String::new(),
                };
                let step = calls.call("/v1/join", &open_request(ask)).await?;
                Ok((Self::Calls(calls), step))
            }
        }
    }

    pub(crate) async fn solve(&mut self, solution: String) -> Result<Step, Refused> {
        match self {
            Self::Stream(stream) => {
                stream.send(solved(solution)).await;
                stream.step().await
            }
            Self::Calls(calls) => calls.go_on(json!({ "solution": solution })).await,
        }
    }

    pub(crate) async fn offer(&mut self, key: String) -> Result<Step, Refused> {
        match self {
            Self::Stream(stream) => {
                stream.send(offered(key)).await;
                stream.step().await
            }
            Self::Calls(calls) => calls.go_on(json!({ "public_key": key })).await,
        }
    }
}

/// A stream, message by message.
pub(crate) struct Stream {
    requests: mpsc::Sender<wire::JoinRequest>,
    answers: Streaming<wire::JoinResponse>,
}

impl Stream {
    pub(crate) async fn open(
        network: &Arc<Network>,
        node: usize,
        certificate: Option<&Certificate>,
    ) -> Result<Self, Refused> {
        let (requests, stream) = mpsc::channel(8);
        let mut client = JoinServiceClient::new(network.grpc(node, certificate).await?);
        let answers = client.join(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { requests, answers })
    }

    pub(crate) async fn send(&self, payload: join_request::Payload) {
        self.send_message(wire::JoinRequest { payload: Some(payload) }).await;
    }

    /// A stream that the authority has ended takes nothing more; what it said is read next.
    pub(crate) async fn send_message(&self, message: wire::JoinRequest) {
        drop(self.requests.send(message).await);
    }

    /// The next message; none when the authority ended the stream.
    pub(crate) async fn receive(&mut self) -> Result<Option<join_response::Payload>, Refused> {
        Ok(self.answers.message().await?.map(|message| message.payload.expect("an answer says something")))
    }

    /// The next thing that matters.
    pub(crate) async fn step(&mut self) -> Result<Step, Refused> {
        loop {
            return Ok(match self.receive().await? {
                None => return Err(Refused::ended()),
                Some(join_response::Payload::Init(init)) => {
                    assert_eq!(init.join_method, "bound_keypair");
                    assert_eq!(init.signature_algorithm_suite, "balanced-v1");
                    continue;
                }
                Some(join_response::Payload::Challenge(asked)) => match asked.payload.unwrap() {
                    challenge::Payload::BoundKeypairChallenge(asked) => {
                        Step::Challenge { key: text(asked.public_key), document: asked.challenge }
                    }
                    challenge::Payload::BoundKeypairRotationRequest(asked) => {
                        assert_eq!(asked.signature_algorithm_suite, "balanced-v1");
                        Step::KeyRequest
                    }
                },
                Some(join_response::Payload::Result(joined)) => Step::Joined(Credentials::from_wire(joined)),
            });
        }
    }
}

/// Calls that carry the state between them.
pub(crate) struct Calls {
    pub(crate) http: Http,
    pub(crate) continuation: String,
}

impl Calls {
    pub(crate) async fn go_on(&mut self, mut answer: Value) -> Result<Step, Refused> {
        answer["continuation"] = json!(self.continuation);
        self.call("/v1/join/continue", &answer).await
    }

    async fn call(&mut self, path: &str, request: &Value) -> Result<Step, Refused> {
        let mut step = self.http.post(path, request).await?;
        if let Some(joined) = step.get("result") {
            return Ok(Step::Joined(Credentials::from_json(joined)));
        }
        self.continuation = step["continuation"].as_str().expect("a step that is not the last continues").to_owned();
        if step.get("rotation_request").is_some() {
            return Ok(Step::KeyRequest);
        }
        let mut take = |name: &str| step[name].take().as_str().unwrap().to_owned();
        Ok(Step::Challenge { key: take("public_key"), document: take("challenge") })
    }
}

impl Credentials {
    fn from_wire(joined: wire::Result) -> Self {
        let Some(result::Payload::BotResult(bot)) = joined.payload else { panic!("not a bot's result") };
        let (certificates, bound) = (bot.certificates.unwrap(), bot.bound_keypair_result.unwrap());
        let ssh_key = |wire: &Vec<u8>| ssh_key::PublicKey::from_bytes(wire).unwrap().to_openssh().unwrap();
        Self {
            tls: certificates.tls_cert,
            tls_cas: certificates.tls_ca_certs,
            ssh: ssh_key::Certificate::from_bytes(&certificates.ssh_cert).unwrap().to_openssh().unwrap(),
            ssh_cas: certificates.ssh_ca_keys.iter().map(ssh_key).collect(),
            join_state: text(bound.join_state),
            key: text(bound.public_key),
        }
    }

    fn from_json(joined: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
        Self {
            tls: from_pem(&text(&joined["tls_cert"])),
            tls_cas: list(&joined["tls_ca_certs"]).iter().map(|pem| from_pem(pem)).collect(),
            ssh: text(&joined["ssh_cert"]),
            ssh_cas: list(&joined["ssh_ca_keys"]),
            join_state: text(&joined["join_state"]),
            key: text(&joined["public_key"]),
        }
    }
}

pub(crate) fn client_init(token: &str) -> join_request::Payload {
    join_request::Payload::ClientInit(wire::ClientInit {
        join_method: Some("bound_keypair".to_owned()),
        token_name: token.to_owned(),
        system_role: "Bot".to_owned(),
        ..wire::ClientInit::default()
    })
}

pub(crate) fn bound_keypair_init(network: &Network, ask: &Ask) -> wire::BoundKeypairInit {
    let end = ask.life.map(|life| network.clock.now() + life);
    let bot = wire::BotParams {
        public_keys: Some(wire::PublicKeys {
            public_tls_key: ask.subject.spki(),
            public_ssh_key: ask.subject.ssh_wire(),
        }),
        expires: end.map(|end| prost_types::Timestamp { seconds: end.timestamp(), nanos: 0 }),
    };
    wire::BoundKeypairInit {
        client_params: Some(wire::ClientParams { payload: Some(client_params::Payload::BotParams(bot)) }),
        initial_join_secret: ask.secret.clone(),
        previous_join_state: ask.join_state.clone(),
        attempt_id: ask.attempt.clone(),
        held_keys: ask.held.iter().map(|key| key.line().into_bytes()).collect(),
    }
}

pub(crate) fn open_request(ask: &Ask) -> Value {
    json!({
        "token": ask.token,
        "attempt_id": ask.attempt,
        "registration_secret": ask.secret,
        "join_state": std::str::from_utf8(&ask.join_state).unwrap(),
        "public_tls_key": STANDARD.encode(ask.subject.spki()),
        "public_ssh_key": STANDARD.encode(ask.subject.ssh_wire()),
        "held_keys": ask.held.iter().map(Key::line).collect::<Vec<_>>(),
        "ttl": ask.life.map(|life| format!("{}s", life.num_seconds())).unwrap_or_default(),
    })
}

pub(crate) fn solved(solution: String) -> join_request::Payload {
    answer(challenge_solution::Payload::BoundKeypairChallengeSolution(wire::BoundKeypairChallengeSolution {
        solution: solution.into_bytes(),
    }))
}

pub(crate) fn offered(key: String) -> join_request::Payload {
    answer(challenge_solution::Payload::BoundKeypairRotationResponse(wire::BoundKeypairRotationResponse {
        public_key: key.into_bytes(),
    }))
}

pub(crate) fn answer(payload: challenge_solution::Payload) -> join_request::Payload {
    join_request::Payload::Solution(wire::ChallengeSolution { payload: Some(payload) })
}

fn from_pem(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
