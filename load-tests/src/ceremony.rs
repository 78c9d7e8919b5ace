//! One join, message by message, over gRPC or as JSON over HTTP.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Request, StatusCode, header};
use join_proto::teleport::{
    self as wire, challenge, challenge_solution, client_params, join_request, join_response, result,
};
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tonic_types::StatusExt as _;

use crate::key::{BoundKey, SubjectKey, attempt_id};

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// The stream of `teleport.join.v1`.
    Grpc,
    /// `POST /v1/join` and `POST /v1/join/continue`.
    Http,
}

/// Why a join failed.
#[derive(Debug)]
pub(crate) enum JoinError {
    /// The authority refused, by this code.
    Refused(String),
    /// There was no connection to be had.
    Unconnected(String),
    /// The connection or the protocol broke.
    Broken(String),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => f.write_str(code),
            Self::Unconnected(why) => write!(f, "not connected: {why}"),
            Self::Broken(why) => write!(f, "broken: {why}"),
        }
    }
}

impl std::error::Error for JoinError {}

fn broken(error: impl fmt::Display) -> JoinError {
    JoinError::Broken(error.to_string())
}

/// What a client shows.
pub(crate) struct Ask<'a> {
    pub(crate) token: &'a str,
    pub(crate) key: &'a BoundKey,
    /// The key that takes its place when the authority asks for one; also the one to register.
    pub(crate) next_key: &'a BoundKey,
    pub(crate) subject: &'a SubjectKey,
    pub(crate) secret: &'a str,
    pub(crate) join_state: &'a [u8],
}

/// What an accepted join hands out.
pub(crate) struct Granted {
    /// X.509 certificate, DER.
    pub(crate) certificate: Vec<u8>,
    pub(crate) join_state: Vec<u8>,
    /// True when the authority asked for a new key.
    pub(crate) new_key: bool,
}

enum Step {
    Challenge { key: String, document: String },
    KeyRequest,
    Joined(Granted),
}

/// Joins.
pub(crate) async fn join(
    requests: &SendRequest<Bytes>,
    transport: Transport,
    ask: &Ask<'_>,
) -> Result<Granted, JoinError> {
    let attempt = attempt_id();
    let mut conversation = match transport {
        Transport::Grpc => Conversation::Stream(Stream::open(requests).await?),
        Transport::Http => Conversation::Calls { requests: requests.clone(), continuation: String::new() },
    };
    let mut step = conversation.begin(ask, &attempt).await?;
    let mut new_key = false;
    loop {
        step = match step {
            Step::Challenge { key, document } => {
                let signer = if key == ask.key.line { ask.key } else { ask.next_key };
                conversation.solve(signer.solve(&document)).await?
            }
            Step::KeyRequest => {
                new_key = true;
                conversation.offer(&ask.next_key.line).await?
            }
            Step::Joined(granted) => return Ok(Granted { new_key, ..granted }),
        };
    }
}

/// A stream of the join service that says nothing, to its end: what a call costs by itself.
pub(crate) async fn empty_call(requests: &SendRequest<Bytes>) -> Result<(), JoinError> {
    let mut stream = Stream::open(requests).await?;
    stream.send.send_data(Bytes::new(), true).map_err(broken)?;
    match stream.receive().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(broken("an answer came to nothing")),
        Err(error) => Err(error),
    }
}

/// What GET of a path says.
pub(crate) async fn status_of(requests: &SendRequest<Bytes>, path: &str) -> anyhow::Result<StatusCode> {
    let request = Request::get(format!("https://authority{path}")).body(())?;
    let (response, _) = requests.clone().ready().await?.send_request(request, true)?;
    Ok(response.await?.status())
}

enum Conversation {
    Stream(Stream),
    Calls { requests: SendRequest<Bytes>, continuation: String },
}

impl Conversation {
    async fn begin(&mut self, ask: &Ask<'_>, attempt: &str) -> Result<Step, JoinError> {
        match self {
            Self::Stream(stream) => {
                let mut frames = BytesMut::with_capacity(2048);
                for payload in [client_init(ask), bound_keypair_init(ask, attempt)] {
                    put(&mut frames, &wire::JoinRequest { payload: Some(payload) })?;
                }
                stream.say(frames).await
            }
            Self::Calls { .. } => {
                let open = json!({
                    "token": ask.token,
                    "attempt_id": attempt,
                    "registration_secret": ask.secret,
                    "join_state": String::from_utf8_lossy(ask.join_state),
                    "public_tls_key": STANDARD.encode(&ask.subject.spki),
                    "public_ssh_key": STANDARD.encode(&ask.subject.ssh),
                    "held_keys": [&ask.key.line],
                });
                self.post("/v1/join", &open).await
            }
        }
    }

    async fn solve(&mut self, solution: String) -> Result<Step, JoinError> {
        match self {
            Self::Stream(stream) => {
                let solution = wire::BoundKeypairChallengeSolution { solution: solution.into_bytes() };
                stream.answer(challenge_solution::Payload::BoundKeypairChallengeSolution(solution)).await
            }
            Self::Calls { continuation, .. } => {
                let answer = json!({ "continuation": continuation, "solution": solution });
                self.post("/v1/join/continue", &answer).await
            }
        }
    }

    async fn offer(&mut self, key: &str) -> Result<Step, JoinError> {
        match self {
            Self::Stream(stream) => {
                let response = wire::BoundKeypairRotationResponse { public_key: key.as_bytes().to_vec() };
                stream.answer(challenge_solution::Payload::BoundKeypairRotationResponse(response)).await
            }
            Self::Calls { continuation, .. } => {
                let answer = json!({ "continuation": continuation, "public_key": key });
                self.post("/v1/join/continue", &answer).await
            }
        }
    }

    async fn post(&mut self, path: &str, body: &Value) -> Result<Step, JoinError> {
        let Self::Calls { requests, continuation } = self else { return Err(broken("a stream takes no calls")) };
        let mut step = call_json(requests, "POST", path, Some(body)).await?;
        if let Some(joined) = step.get("result") {
            return Ok(Step::Joined(granted_from_json(joined)?));
        }
        *continuation = step["continuation"].as_str().ok_or_else(|| broken("no continuation"))?.to_owned();
        if step.get("rotation_request").is_some() {
            return Ok(Step::KeyRequest);
        }
        let mut take = |name: &str| match step[name].take() {
            Value::String(text) => Ok(text),
            _ => Err(broken(format!("no {name}"))),
        };
        Ok(Step::Challenge { key: take("public_key")?, document: take("challenge")? })
    }
}

/// One call as JSON over HTTP.
pub(crate) async fn call_json(
    requests: &SendRequest<Bytes>,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, JoinError> {
    let (status, mut stream) = call(requests, method, path, body).await?;
    let mut text = BytesMut::new();
    while let Some(data) = stream.data().await {
        take(&mut stream, &mut text, data)?;
    }
    if status.is_success() {
        return serde_json::from_slice(&text).map_err(|error| broken(format!("{status}: {error}")));
    }
    Err(told(status, &text))
}

async fn call(
    requests: &SendRequest<Bytes>,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, RecvStream), JoinError> {
    let request = Request::builder()
        .method(method)
        .uri(format!("https://authority{path}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(())
        .map_err(broken)?;
    let mut requests = requests.clone().ready().await.map_err(broken)?;
    let (response, mut send) = requests.send_request(request, body.is_none()).map_err(broken)?;
    if let Some(body) = body {
        // A call that was refused meanwhile takes no body, and its answer says why.
        let _ = send.send_data(serde_json::to_vec(body).map_err(broken)?.into(), true);
    }
    let response = response.await.map_err(broken)?;
    Ok((response.status(), response.into_body()))
}

/// What a text says that is an error.
fn told(status: StatusCode, text: &[u8]) -> JoinError {
    let answer: Value = serde_json::from_slice(text).unwrap_or_default();
    match answer["error"]["code"].as_str() {
        Some(code) => JoinError::Refused(code.to_owned()),
        None => broken(format!("{status}: {}", String::from_utf8_lossy(text))),
    }
}

/// An answer that comes message by message: JSON, a line each.
pub(crate) struct Lines {
    status: StatusCode,
    body: RecvStream,
    received: BytesMut,
    /// So much of what was received holds no end of a line.
    searched: usize,
}

impl Lines {
    /// Asks for them.
    pub(crate) async fn get(requests: &SendRequest<Bytes>, path: &str) -> Result<Self, JoinError> {
        let (status, body) = call(requests, "GET", path, None).await?;
        Ok(Self { status, body, received: BytesMut::new(), searched: 0 })
    }

    /// The next message; none at the end.
    pub(crate) async fn next<Message: DeserializeOwned>(&mut self) -> Result<Option<Message>, JoinError> {
        loop {
            if let Some(at) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.received.split_to(self.searched + at + 1);
                self.searched = 0;
                // An error that comes late is the last line.
                if line.starts_with(br#"{"error":"#) {
                    return Err(told(self.status, &line));
                }
                return serde_json::from_slice(&line).map(Some).map_err(broken);
            }
            self.searched = self.received.len();
            match self.body.data().await {
                Some(data) => take(&mut self.body, &mut self.received, data)?,
                None if self.received.is_empty() => return Ok(None),
                None => return Err(told(self.status, &self.received)),
            }
        }
    }
}

struct Stream {
    send: SendStream<Bytes>,
    response: Option<h2::client::ResponseFuture>,
    body: Option<RecvStream>,
    received: BytesMut,
}

impl Stream {
    async fn open(requests: &SendRequest<Bytes>) -> Result<Self, JoinError> {
        let request = Request::builder()
            .method("POST")
            .uri("https://authority/teleport.join.v1.JoinService/Join")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())
            .map_err(broken)?;
        let mut requests = requests.clone().ready().await.map_err(broken)?;
        let (response, send) = requests.send_request(request, false).map_err(broken)?;
        Ok(Self { send, response: Some(response), body: None, received: BytesMut::new() })
    }

    async fn answer(&mut self, payload: challenge_solution::Payload) -> Result<Step, JoinError> {
        let solution = join_request::Payload::Solution(wire::ChallengeSolution { payload: Some(payload) });
        let mut frame = BytesMut::with_capacity(1024);
        put(&mut frame, &wire::JoinRequest { payload: Some(solution) })?;
        self.say(frame).await
    }

    /// Sends a message, and waits for the next thing that matters. A call that was refused meanwhile takes no more
    /// messages, and its answer says why.
    async fn say(&mut self, frame: BytesMut) -> Result<Step, JoinError> {
        match self.send.send_data(frame.freeze(), false) {
            Ok(()) => self.step().await,
            Err(error) => Err(self.receive().await.err().unwrap_or_else(|| broken(error))),
        }
    }

    /// The next thing that matters.
    async fn step(&mut self) -> Result<Step, JoinError> {
        loop {
            let Some(message) = self.receive().await? else { return Err(broken("the stream ended")) };
            let message = wire::JoinResponse::decode(message).map_err(broken)?;
            return match message.payload {
                Some(join_response::Payload::Init(_)) => continue,
                Some(join_response::Payload::Challenge(asked)) => match asked.payload {
                    Some(challenge::Payload::BoundKeypairChallenge(asked)) => Ok(Step::Challenge {
                        key: String::from_utf8(asked.public_key).map_err(broken)?,
                        document: asked.challenge,
                    }),
                    Some(challenge::Payload::BoundKeypairRotationRequest(_)) => Ok(Step::KeyRequest),
                    None => Err(broken("an empty challenge")),
                },
                Some(join_response::Payload::Result(joined)) => Ok(Step::Joined(granted(joined)?)),
                None => Err(broken("an empty answer")),
            };
        }
    }

    /// The next message; none at the end of a call that went well.
    async fn receive(&mut self) -> Result<Option<Bytes>, JoinError> {
        if let Some(response) = self.response.take() {
            let response = response.await.map_err(broken)?;
            ended_well(response.headers())?;
            self.body = Some(response.into_body());
        }
        let Some(body) = &mut self.body else { return Err(broken("the call failed before")) };
        loop {
            if let Some(length) = self.received.get(1..5).and_then(|length| <[u8; 4]>::try_from(length).ok()) {
                let length = usize::try_from(u32::from_be_bytes(length)).map_err(broken)?;
                if self.received.len() >= 5 + length {
                    self.received.advance(5);
                    return Ok(Some(self.received.split_to(length).freeze()));
                }
            }
            match body.data().await {
                Some(data) => take(body, &mut self.received, data)?,
                None => {
                    let trailers = body.trailers().await.map_err(broken)?.unwrap_or_default();
                    ended_well(&trailers)?;
                    return Ok(None);
                }
            }
        }
    }
}

fn take(body: &mut RecvStream, to: &mut BytesMut, data: Result<Bytes, h2::Error>) -> Result<(), JoinError> {
    let data = data.map_err(broken)?;
    to.extend_from_slice(&data);
    body.flow_control().release_capacity(data.len()).map_err(broken)
}

/// Headers or trailers that carry no failure.
fn ended_well(headers: &HeaderMap) -> Result<(), JoinError> {
    let Some(status) = tonic::Status::from_header_map(headers) else { return Ok(()) };
    if status.code() == tonic::Code::Ok {
        return Ok(());
    }
    Err(match status.get_details_error_info() {
        Some(info) => JoinError::Refused(info.reason),
        None => broken(format!("{:?}: {}", status.code(), status.message())),
    })
}

/// A gRPC frame: not compressed, the length, the message.
fn put(frames: &mut BytesMut, message: &wire::JoinRequest) -> Result<(), JoinError> {
    frames.put_u8(0);
    frames.put_u32(u32::try_from(message.encoded_len()).map_err(broken)?);
    message.encode(frames).map_err(broken)
}

fn client_init(ask: &Ask<'_>) -> join_request::Payload {
    join_request::Payload::ClientInit(wire::ClientInit {
        join_method: Some("bound_keypair".to_owned()),
        token_name: ask.token.to_owned(),
        system_role: "Bot".to_owned(),
        ..wire::ClientInit::default()
    })
}

fn bound_keypair_init(ask: &Ask<'_>, attempt: &str) -> join_request::Payload {
    let keys = wire::PublicKeys { public_tls_key: ask.subject.spki.clone(), public_ssh_key: ask.subject.ssh.clone() };
    let bot = wire::BotParams { public_keys: Some(keys), expires: None };
    join_request::Payload::BoundKeypairInit(wire::BoundKeypairInit {
        client_params: Some(wire::ClientParams { payload: Some(client_params::Payload::BotParams(bot)) }),
        initial_join_secret: ask.secret.to_owned(),
        previous_join_state: ask.join_state.to_vec(),
        attempt_id: attempt.to_owned(),
        held_keys: vec![ask.key.line.clone().into_bytes()],
    })
}

fn granted(joined: wire::Result) -> Result<Granted, JoinError> {
    let Some(result::Payload::BotResult(bot)) = joined.payload else { return Err(broken("not a bot's result")) };
    match (bot.certificates, bot.bound_keypair_result) {
        (Some(certificates), Some(bound)) => {
            Ok(Granted { certificate: certificates.tls_cert, join_state: bound.join_state, new_key: false })
        }
        _ => Err(broken("an incomplete result")),
    }
}

fn granted_from_json(joined: &Value) -> Result<Granted, JoinError> {
    let text = |name: &str| joined[name].as_str().ok_or_else(|| broken(format!("no {name}")));
    let (_, pem) = x509_parser::pem::parse_x509_pem(text("tls_cert")?.as_bytes()).map_err(broken)?;
    Ok(Granted { certificate: pem.contents, join_state: text("join_state")?.as_bytes().to_vec(), new_key: false })
}
