//! Who may call what: each call says the role that it needs, and each identity is tried with each call.

use std::convert::Infallible;

use bytes::Bytes;
use chrono::TimeDelta;
use futures::StreamExt as _;
use http::{Method, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use join_proto::{DESCRIPTORS, v1};
use join_server::administrators;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use rstest::rstest;
use serde_json::json;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;

use crate::world::{Administrator, Dynamic, Refused, World};

/// Every call with its declaration.
fn calls() -> Vec<(MethodDescriptor, v1::Call)> {
    let option = DESCRIPTORS.get_extension_by_name("joinauthority.v1.call").unwrap();
    let services = DESCRIPTORS.services().filter(|service| service.package_name() == "joinauthority.v1");
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .map(|method| {
            let call = method.options().get_extension(&option).as_message().unwrap().transcode_to().unwrap();
            (method, call)
        })
        .collect()
}

/// An empty request over gRPC: enough to find out whether the caller may ask.
async fn asks_in_grpc(who: &Administrator, method: &MethodDescriptor) -> Result<(), Refused> {
    let mut grpc = Grpc::new(who.channel().await);
    grpc.ready().await.unwrap();
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name()).parse().unwrap();
    let request = tonic::Request::new(DynamicMessage::new(method.input()));
    let codec = Dynamic(method.output());
    if method.is_server_streaming() {
        grpc.server_streaming(request, path, codec).await?.into_inner().message().await?;
    } else {
        grpc.unary(request, path, codec).await?;
    }
    Ok(())
}

/// The same as JSON over HTTP.
async fn asks_in_json(who: &Administrator, call: &v1::Call) -> Result<(), Refused> {
    let (verb, path) = call.http.split_once(' ').unwrap();
    let verb: Method = verb.parse().unwrap();
    let body = (verb == Method::POST || verb == Method::PUT).then(|| json!({}));
    let answer = who.http().await.send(verb, &path.replace("{name}", "nothing"), body.as_ref()).await?;
    answer.json().map(drop)
}

fn rank(role: &str) -> i32 {
    let role = match role {
        "stranger" | "bot" => v1::Role::Anyone,
        "auditor" => v1::Role::Auditor,
        "operator" => v1::Role::Operator,
        _ => v1::Role::Admin,
    };
    role.into()
}

#[rstest]
#[tokio::test]
async fn each_call_needs_its_role(#[values("stranger", "bot", "auditor", "operator", "admin")] identity: &str) {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    world.settle().await;
    let who = match identity {
        "stranger" => world.stranger(),
        "bot" => Administrator::with_certificate(world.network.clone(), bot.disk.certificate.clone()),
        "auditor" => world.auditor.at(0),
        "operator" => world.operator.at(0),
        _ => world.admin.at(0),
    };
    let mut tried = 0;
    for (method, call) in calls() {
        let answers = [asks_in_grpc(&who, &method).await, {
            // What follows without an end is not awaited over HTTP.
            if method.is_server_streaming() { continue } else { asks_in_json(&who, &call).await }
        }];
        for answer in answers {
            let code = answer.as_ref().map_or_else(|refused| refused.code.as_str(), |()| "ok");
            let (needed, told) = (call.role(), format!("{} as {identity}: {answer:?}", method.full_name()));
            assert_ne!(needed, v1::Role::Unspecified, "{told}");
            if i32::from(needed) <= rank(identity) {
                assert!(!["UNAUTHENTICATED", "ROLE_REQUIRED", "INTERNAL"].contains(&code), "{told}");
            } else if matches!(identity, "stranger" | "bot") {
                assert_eq!(code, "UNAUTHENTICATED", "{told}");
            } else {
                assert_eq!(code, "ROLE_REQUIRED", "{told}");
                let role = needed.as_str_name().trim_start_matches("ROLE_").to_lowercase();
                assert!(answer.unwrap_err().message.contains(&format!("the role {role}")), "it names the role");
            }
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried} calls were tried");
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn a_stranger_follows_nothing() {
    let world = World::start().await;
    for path in ["/v1/events?follow=true", "/v1/events:follow", "/v1/export", "/v1/locks:watch"] {
        let answer = world.stranger().http().await.get(path).await;
        assert_eq!(answer.json().unwrap_err(), "UNAUTHENTICATED", "{path}");
    }
    world.check().await;
}

#[tokio::test]
async fn an_identity_ends_with_its_time() {
    let mut world = World::start().await;
    world.bot("example").await;
    world.advance(TimeDelta::days(365) - TimeDelta::minutes(1));
    // A node that runs renews its own certificate in time.
    world.restart().await;
    world.admin.get_token("example").await.unwrap();

    world.advance(TimeDelta::minutes(2));

    assert_eq!(world.admin.get_token("example").await.unwrap_err(), "UNAUTHENTICATED");
    world.check().await;
}

#[tokio::test]
async fn an_administrator_of_another_cluster_is_nobody_here() {
    let (world, elsewhere) = (World::start().await, World::start().await);
    let ada = elsewhere.admin.identity();

    let guest = Administrator::with_certificate(world.network.clone(), ada);

    assert_eq!(guest.get_token("example").await.unwrap_err(), "UNAUTHENTICATED");
    elsewhere.check().await;
    world.check().await;
}

#[tokio::test]
async fn an_administrators_certificate_is_no_bots() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(2).await;
    let ada = world.admin.identity().unwrap();

    bot.joining().with_certificate(&ada).await.expect("it is no existing credential of a bot");
    bot.joining().with_certificate(&ada).await.expect("a recovery, not a renewal");

    assert_eq!(world.token("example").await.recovery_count, 2);
    world.check().await;
}

#[tokio::test]
async fn only_an_admin_sees_a_registration_secret() {
    let world = World::start().await;
    let bot = world.bot("example").await;
    for (who, sees) in [(&world.admin, true), (&world.operator, false), (&world.auditor, false)] {
        let listed = who.resources().await.list_tokens(v1::ListRequest::default()).await.unwrap().into_inner();
        let replay = v1::ReplayRequest { name: "example".to_owned(), at: None };
        world.settle().await;
        let replayed = who.replay(replay).await.unwrap();
        let past = v1::GetRequest { name: "example".to_owned(), at: Some(crate::world::wire_time(world.now())) };
        let past = who.resources().await.get_token(past).await.unwrap().into_inner();
        for token in [who.get_token("example").await.unwrap(), listed.tokens[0].clone()] {
            let status = token.status.as_ref().unwrap().bound_keypair.as_ref().unwrap();
            assert_eq!(status.registration_secret, if sees { bot.secret.as_str() } else { "" });
            assert!(status.registration_secret_pending, "others see that there is one");
            assert_eq!(format!("{token:?}").contains(&bot.secret), sees);
        }
        assert!(!format!("{replayed:?}{past:?}").contains(&bot.secret), "a secret of the past is nobody's to see");
    }
    world.check().await;
}

/// The door lets an administrator in before the message is read, which may take its time.
#[tokio::test]
async fn an_identity_that_is_revoked_while_a_message_is_on_its_way_changes_nothing() {
    let world = World::start().await;
    let stream = world.network.connect(0, world.admin.identity().as_ref(), "h2").await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (begin, rest) = tokio::sync::mpsc::unbounded_channel::<Frame<Bytes>>();
    let rest = StreamBody::new(UnboundedReceiverStream::new(rest).map(Ok::<_, Infallible>));
    let lock = json!({"kind": "lock", "version": "v2", "spec": {"target": {"user": "bot-example"}}}).to_string();
    let request = Request::post("https://localhost/v1/locks").header("content-type", "application/json").body(rest);
    let (first, last) = lock.split_at(lock.len() - 1);
    begin.send(Frame::data(Bytes::copy_from_slice(first.as_bytes()))).unwrap();
    let answer = tokio::spawn(client.send_request(request.unwrap()));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!answer.is_finished(), "it was let in, and its message is awaited");

    for identity in administrators::list(world.ledger()).await.unwrap() {
        if identity.role == "admin" {
            let serial = identity.serial.parse().unwrap();
            administrators::revoke(world.ledger(), &serial, "stolen").await.unwrap();
        }
    }
    begin.send(Frame::data(Bytes::copy_from_slice(last.as_bytes()))).unwrap();
    drop(begin);

    assert_eq!(answer.await.unwrap().unwrap().status(), http::StatusCode::UNAUTHORIZED);
    assert!(world.ledger().locks_in_force(world.now()).await.unwrap().is_empty());
    world.check().await;
}
