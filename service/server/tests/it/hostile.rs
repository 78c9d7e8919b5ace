//! What strangers may send: any bytes at all. Never a panic, never a fault of ours, and the next bot joins.

use std::{
    convert::Infallible,
    io, iter,
    num::NonZero,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use join_proto::{
    teleport::{
        BotParams, BoundKeypairInit, ClientInit, ClientParams, JoinRequest, PublicKeys, client_params,
        join_request::{self, Payload},
    },
    v1,
};
use join_server::config::Limits;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};

use crate::world::{Ask, Installed, Network, Onboarding, Running, World, bound_keypair_init, client_init, until};

const CASES: usize = 250;

/// The same cases in every run.
fn cases<S: Strategy>(strategy: S) -> Vec<S::Value> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..CASES).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// A valid text with a few bytes changed, removed or added.
fn near(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0..3u8);
    prop::collection::vec(edit, 0..6).prop_map(move |edits| {
        let mut bytes = valid.clone();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match how {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

async fn client(network: &Network) -> SendRequest<Full<Bytes>> {
    let stream = network.connect(0, None, "h2").await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn request(path: &str, kind: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::post(format!("https://authority{path}"))
        .header(CONTENT_TYPE, kind)
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

/// Posts a body; the HTTP status and, for gRPC, the status of the call.
async fn post(client: &mut SendRequest<Full<Bytes>>, path: &str, kind: &str, body: Vec<u8>) -> (u16, Option<i32>) {
    client.ready().await.unwrap();
    let sent = client.send_request(request(path, kind, body));
    let answer = tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap().unwrap();
    let (head, body) = answer.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).cloned();
    (head.status.as_u16(), status.map(|status| status.to_str().unwrap().parse().unwrap()))
}

/// Waits until a join that says nothing is answered like this.
async fn answers(client: &mut SendRequest<Full<Bytes>>, status: u16) {
    let begun = Instant::now();
    while post(client, "/v1/join", "application/json", b"{}".to_vec()).await.0 != status {
        assert!(begun.elapsed() < Duration::from_secs(30), "no answer with {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let frame = |message: &Vec<u8>| {
        [&[0], u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message.as_slice()].concat()
    };
    messages.iter().flat_map(frame).collect()
}

fn init() -> Vec<u8> {
    let init = ClientInit { token_name: "example".to_owned(), system_role: "Bot".to_owned(), ..ClientInit::default() };
    JoinRequest { payload: Some(join_request::Payload::ClientInit(init)) }.encode_to_vec()
}

fn malformed_init() -> Vec<u8> {
    let keys = PublicKeys { public_tls_key: vec![0x30; 91], public_ssh_key: vec![7; 104] };
    let params = client_params::Payload::BotParams(BotParams { public_keys: Some(keys), expires: None });
    let init = BoundKeypairInit {
        client_params: Some(ClientParams { payload: Some(params) }),
        initial_join_secret: "a secret".to_owned(),
        previous_join_state: b"eyJhbGciOiJFZERTQSJ9.e30.c2ln".to_vec(),
        attempt_id: "0123456789abcdef0123456789abcdef".to_owned(),
        held_keys: vec![b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGt5".to_vec()],
    };
    JoinRequest { payload: Some(join_request::Payload::BoundKeypairInit(init)) }.encode_to_vec()
}

fn open_request() -> Vec<u8> {
    let open = v1::OpenRequest {
        token: "example".to_owned(),
        attempt_id: "0123456789abcdef0123456789abcdef".to_owned(),
        registration_secret: "a secret".to_owned(),
        join_state: "eyJhbGciOiJFZERTQSJ9.e30.c2ln".to_owned(),
        public_tls_key: vec![0x30; 91],
        public_ssh_key: vec![7; 104],
        held_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGt5".to_owned()],
        ttl: "1h".to_owned(),
    };
    open.encode_to_vec()
}

/// A service in a process of its own: other tests take memory of this one.
struct Measured {
    installed: Installed,
    running: Running,
}

impl Measured {
    async fn start() -> Self {
        let installed = Installed::with_cluster().await;
        let running = installed.serve().await;
        Self { installed, running }
    }

    async fn a_bot_still_joins(self) {
        let admin = self.running.administrator(&self.installed.path("admin"));
        let mut bot = Onboarding::of(&admin, &self.running.network, "afterwards").await;
        bot.join().await.unwrap();
        assert!(self.running.stop().await.success());
    }
}

async fn a_bot_still_joins(world: World) {
    let mut bot = world.bot("afterwards").await;
    bot.join().await.unwrap();
    world.check().await;
}

type Unfinished = UnsyncBoxBody<Bytes, Infallible>;

async fn client_of_unfinished(network: &Network) -> SendRequest<Unfinished> {
    let stream = network.connect(0, None, "h2").await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Leaves the service no room for an answer.
async fn client_that_reads_nothing(network: &Network) -> SendRequest<Unfinished> {
    let stream = network.connect(0, None, "h2").await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (client, connection) = builder.initial_stream_window_size(0).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Says that it has room for all, and never reads from the wire.
async fn client_that_leaves_all_on_the_wire(network: &Network) -> SendRequest<Full<Bytes>> {
    let stream = OneWay(network.connect(0, None, "h2").await.unwrap());
    let room = i32::MAX.unsigned_abs();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(room).initial_connection_window_size(room);
    let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Takes what is written, and has nothing to read.
struct OneWay(TlsStream<TcpStream>);

impl AsyncRead for OneWay {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for OneWay {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A request that begins with these pieces, and ends only with the token.
fn unfinished<P>(path: &str, kind: &str, begun: P, end: &CancellationToken) -> Request<Unfinished>
where
    P: IntoIterator<Item: Into<Bytes>, IntoIter: Send + 'static>,
{
    let begun = stream::iter(begun).map(|piece| Ok::<_, Infallible>(Frame::data(piece.into())));
    let body = StreamBody::new(begun.chain(stream::pending()).take_until(end.clone().cancelled_owned()));
    Request::post(format!("https://localhost{path}")).header(CONTENT_TYPE, kind).body(body.boxed_unsync()).unwrap()
}

#[tokio::test]
async fn a_request_that_does_not_end_is_given_up_after_half_a_minute() {
    let world = World::start().await;
    let mut client = client_of_unfinished(&world.network).await;
    // A message that says it has a thousand bytes, and has three.
    let request = unfinished(
        "/joinauthority.v1.Ceremony/Open",
        "application/grpc",
        [b"\0\0\0\x03\xe8abc".as_slice()],
        &CancellationToken::new(),
    );

    let answer = tokio::time::timeout(Duration::from_secs(45), client.send_request(request)).await.unwrap().unwrap();

    assert!(answer.headers().contains_key("grpc-status"), "{answer:?}");
    world.check().await;
}

#[tokio::test]
async fn nothing_is_kept_of_what_strangers_send_to_administration() {
    let service = Measured::start().await;
    let mut client = client_of_unfinished(&service.running.network).await;
    let mut message = framed(&[vec![b'x'; 1_000_000]]);
    message.truncate(999_000);
    let pieces: Vec<Bytes> = message.chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
    let (before, end) = (service.running.resident_mb(), CancellationToken::new());
    let sent = Arc::new(Semaphore::new(0));
    let mut waiting = Vec::new();
    for (path, kind) in
        [("/joinauthority.v1.Resources/UpsertToken", "application/grpc"), ("/v1/tokens", "application/json")]
    {
        for _ in 0..50 {
            client.ready().await.unwrap();
            // A piece is asked for when there is room for it, so all before the last one were taken.
            let sent = Arc::clone(&sent);
            let no_more = iter::from_fn(move || {
                sent.add_permits(1);
                None
            });
            waiting.push(client.send_request(unfinished(path, kind, pieces.clone().into_iter().chain(no_more), &end)));
        }
    }
    let all = tokio::time::timeout(Duration::from_secs(30), sent.acquire_many(100)).await;
    all.expect("100 MB are taken").unwrap().forget();
    let grown = service.running.resident_mb().saturating_sub(before);
    assert!(grown < 20, "{grown} MB more");
    end.cancel();
    futures::future::join_all(waiting).await;
    service.a_bot_still_joins().await;
}

#[tokio::test]
async fn open_requests_are_limited_and_told_so_in_the_form_that_was_asked() {
    let world = World::with(Limits { streams_per_address: NonZero::new(4).unwrap(), ..Limits::default() }).await;
    let mut stranger = client_of_unfinished(&world.network).await;
    let (mut unanswered, end) = (Vec::new(), CancellationToken::new());
    for _ in 0..4 {
        stranger.ready().await.unwrap();
        let join = unfinished("/teleport.join.v1.JoinService/Join", "application/grpc", [Vec::new()], &end);
        unanswered.push(stranger.send_request(join));
    }
    let mut client = client(&world.network).await;
    // The requests above have been sent, but perhaps not read.
    answers(&mut client, 429).await;
    let limited = post(&mut client, "/v1/join", "application/json", b"{}".to_vec()).await;
    assert_eq!(limited, (429, None));
    let limited = post(&mut client, "/teleport.join.v1.JoinService/Join", "application/grpc", framed(&[init()])).await;
    assert_eq!(limited, (200, Some(8)), "RESOURCE_EXHAUSTED");

    end.cancel();
    futures::future::join_all(unanswered).await;
    answers(&mut client, 400).await;
    a_bot_still_joins(world).await;
}

/// Each question of a token that nobody remembers takes a connection to the database, of which there are ten.
#[tokio::test]
async fn who_reads_no_answer_keeps_nothing_that_others_need() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let mut stranger = client_that_reads_nothing(&world.network).await;
    let (mut unread, end) = (Vec::new(), CancellationToken::new());
    for number in 0..40 {
        let ask = Ask { token: format!("invented-{number}"), ..bot.joining().ask().clone() };
        let asked = [client_init(&ask.token), Payload::BoundKeypairInit(bound_keypair_init(&world.network, &ask))];
        let messages = asked.map(|payload| JoinRequest { payload: Some(payload) }.encode_to_vec());
        let join = unfinished("/teleport.join.v1.JoinService/Join", "application/grpc", [framed(&messages)], &end);
        stranger.ready().await.unwrap();
        let watch = unfinished("/grpc.health.v1.Health/Watch", "application/grpc", [framed(&[Vec::new()])], &end);
        unread.extend([stranger.send_request(join), stranger.send_request(watch)]);
    }
    // They have all been sent, and those that can go on have.
    tokio::time::sleep(Duration::from_millis(500)).await;

    bot.join().await.expect("a token that this node does not remember");

    end.cancel();
    drop(unread);
    a_bot_still_joins(world).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_not_made_ahead() {
    let service = Measured::start().await;
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("joinauthority.v1.Resources".to_owned())),
    };
    let asked = framed(&vec![ask.encode_to_vec(); 50]);
    let before = service.running.resident_mb();
    let (mut strangers, mut unread) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let mut stranger = client_that_leaves_all_on_the_wire(&service.running.network).await;
        for _ in 0..25 {
            stranger.ready().await.unwrap();
            let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
            unread.push(stranger.send_request(request(path, "application/grpc", asked.clone())));
        }
        strangers.push(stranger);
    }
    // There is more than 300 MB to say.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = service.running.resident_mb().saturating_sub(before);
    // What was begun of each is 50 MB.
    assert!(grown < 80, "{grown} MB more");
    drop((strangers, unread));
    service.a_bot_still_joins().await;
}

#[tokio::test]
async fn who_does_not_wait_for_a_list_begins_no_other() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    world.settle().await;
    let held = world.database.hold_certificates().await;
    let readings = async || world.database.waiting("FROM certificate_view").await;
    for _ in 0..8 {
        let mut stranger = world.stranger().http().await;
        let asked = tokio::time::timeout(Duration::from_millis(200), stranger.get("/crl"));
        asked.await.expect_err("nothing can be read");
    }
    until("one reads", async || readings().await > 0).await;
    assert_eq!(readings().await, 1);
    bot.join().await.expect("there are connections left for joins");

    held.release().await;
    assert_eq!(world.stranger().http().await.get("/crl").await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn handshakes_that_nobody_goes_on_with_keep_nobody_waiting() {
    let world = World::start().await;
    let mut silent = Vec::new();
    for _ in 0..800 {
        silent.push(TcpStream::connect(world.network.address(0)).await.unwrap());
    }
    let connected = tokio::time::timeout(Duration::from_secs(5), world.network.connect(0, None, "h2")).await;
    assert!(connected.expect("a turn, long before the silent ones are given up").is_ok());
    drop(silent);
    a_bot_still_joins(world).await;
}

#[tokio::test]
async fn too_many_header_bytes_are_refused() {
    let world = World::start().await;
    let mut client = client(&world.network).await;
    let request = |bytes: usize| {
        let get = Request::get("https://localhost/healthz").header("x-large", "x".repeat(bytes));
        get.body(Full::new(Bytes::new())).unwrap()
    };
    for (bytes, status) in [(1000, 200), (20_000, 431), (1000, 200)] {
        client.ready().await.unwrap();
        assert_eq!(client.send_request(request(bytes)).await.unwrap().status(), status, "{bytes} bytes in HTTP/2");
    }
    client.send_request(request(200_000)).await.expect_err("who goes on and on is cut off");
    for (bytes, status) in [(1000, 200), (15_000, 200), (20_000, 431), (100_000, 431)] {
        let answer = world.stranger().http().await.raw(request(bytes)).await.unwrap();
        assert_eq!(answer.status, status, "{bytes} bytes in HTTP/1.1");
    }
    a_bot_still_joins(world).await;
}

#[tokio::test]
async fn no_protobuf_bytes_are_a_fault_of_ours() {
    let world = World::start().await;
    drop(world.bot("example").await);
    let mut client = client(&world.network).await;
    let path = "/teleport.join.v1.JoinService/Join";
    for (first, second) in cases((near(init()), near(malformed_init()))) {
        let body = framed(&[first, second]);
        let (http, grpc) = post(&mut client, path, "application/grpc", body.clone()).await;
        assert_eq!(http, 200, "{}", hex::encode(&body));
        // 2 is UNKNOWN, 13 INTERNAL, 15 DATA_LOSS: the codes of faults.
        assert!(!matches!(grpc, Some(2 | 13 | 15)), "status {grpc:?} for {}", hex::encode(&body));
    }
    a_bot_still_joins(world).await;
}

#[tokio::test]
async fn no_bytes_of_a_call_are_a_fault_of_ours() {
    let world = World::start().await;
    drop(world.bot("example").await);
    let mut client = client(&world.network).await;
    let path = "/joinauthority.v1.Ceremony/Open";
    for body in cases(near(open_request())) {
        let (http, grpc) = post(&mut client, path, "application/grpc", framed(std::slice::from_ref(&body))).await;
        assert_eq!(http, 200, "{}", hex::encode(&body));
        // 2 is UNKNOWN, 13 INTERNAL, 15 DATA_LOSS: the codes of faults.
        assert!(!matches!(grpc, None | Some(2 | 13 | 15)), "status {grpc:?} for {}", hex::encode(&body));
    }
    for malformed in [framed(&[vec![0xff; 40]]), framed(&[vec![0; 100_000]])] {
        let (_, grpc) = post(&mut client, path, "application/grpc", malformed).await;
        assert_eq!(grpc, Some(3), "INVALID_ARGUMENT");
    }
    a_bot_still_joins(world).await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_takes_no_memory() {
    let service = Measured::start().await;
    let mut client = client(&service.running.network).await;
    let calls = [
        ("/teleport.join.v1.JoinService/Join", "application/grpc"),
        ("/joinauthority.v1.Ceremony/Open", "application/grpc"),
        ("/v1/join", "application/json"),
    ];
    let large = vec![b'x'; 2_000_000];
    for (path, kind) in calls {
        post(&mut client, path, kind, framed(std::slice::from_ref(&large))).await;
    }
    let before = service.running.resident_mb();
    for _ in 0..40 {
        for (path, kind) in calls {
            let (http, grpc) = post(&mut client, path, kind, framed(std::slice::from_ref(&large))).await;
            assert!(grpc == Some(3) || http == 400, "{path}: {http} {grpc:?}");
        }
    }
    // 240 MB were sent.
    let grown = service.running.resident_mb().saturating_sub(before);
    assert!(grown < 20, "{grown} MB more");
    service.a_bot_still_joins().await;
}

#[tokio::test]
async fn no_frame_bytes_stop_the_service() {
    let world = World::start().await;
    let mut client = client(&world.network).await;
    for body in cases(near(framed(&[init(), malformed_init()]))) {
        let (http, _) = post(&mut client, "/teleport.join.v1.JoinService/Join", "application/grpc", body.clone()).await;
        assert_eq!(http, 200, "{}", hex::encode(&body));
    }
    a_bot_still_joins(world).await;
}

#[tokio::test]
async fn no_http_body_is_a_fault_of_ours() {
    let world = World::start().await;
    drop(world.bot("example").await);
    let mut client = client(&world.network).await;
    let open = br#"{"token":"example","attempt_id":"0123456789abcdef0123456789abcdef","registration_secret":"x",
        "join_state":"a.b.c","public_tls_key":"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE","public_ssh_key":"AAAA",
        "held_keys":["ssh-ed25519 AAAA"],"ttl":"1h"}"#;
    let answer = br#"{"continuation":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","solution":"a.b.c"}"#;
    for (open, answer) in cases((near(open.to_vec()), near(answer.to_vec()))) {
        for (path, body) in [("/v1/join", open), ("/v1/join/continue", answer)] {
            let (http, _) = post(&mut client, path, "application/json", body.clone()).await;
            assert!((400..500).contains(&http), "{path} answered {http} to {}", String::from_utf8_lossy(&body));
        }
    }
    a_bot_still_joins(world).await;
}
