//! Messages that are not those of an honest client (protocol, section 9).

use std::time::Duration;

use join_proto::teleport::{
    self as wire, ClientInit, GivingUp, HostParams, TokenInit, challenge_solution::Payload as Solution, client_params,
    join_request::Payload, join_response,
};
use rstest::rstest;
use serde_json::json;

use crate::world::{
    Bot, CLUSTER, Conversation, Http, Key, NOTHING, REFUSED_AFTER_SECRET, Refused, Step, Stream, Transport, World,
    answer, bound_keypair_init, client_init, offered, open_request, solved,
};

async fn stream(world: &World) -> Stream {
    Stream::open(&world.network, 0, None).await.unwrap()
}

fn init(bot: &mut Bot) -> wire::BoundKeypairInit {
    let network = std::sync::Arc::clone(&bot.network);
    bound_keypair_init(&network, bot.joining().ask())
}

#[tokio::test]
async fn a_client_may_wait_for_each_answer() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let mut stream = stream(&world).await;

    stream.send(client_init("example")).await;
    let Some(join_response::Payload::Init(answer)) = stream.receive().await.unwrap() else { panic!("ServerInit") };
    assert_eq!(
        (answer.join_method.as_str(), answer.signature_algorithm_suite.as_str()),
        ("bound_keypair", "balanced-v1")
    );
    stream.send(Payload::BoundKeypairInit(init(&mut bot))).await;
    assert!(matches!(stream.step().await.unwrap(), Step::KeyRequest));
    let key = Key::ed25519();
    stream.send(offered(key.line())).await;
    let Step::Challenge { key: asked, document } = stream.step().await.unwrap() else { panic!("a challenge") };
    assert_eq!(asked, key.line());
    stream.send(solved(key.solve(&document))).await;
    let Step::Joined(credentials) = stream.step().await.unwrap() else { panic!("joined") };
    assert_eq!(credentials.key, key.line());
    assert!(stream.receive().await.unwrap().is_none(), "nothing follows a result");
    world.check().await;
}

#[tokio::test]
async fn a_challenge_is_what_the_protocol_says() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    let challenged = bot.joining().begin().await.unwrap();
    let document: serde_json::Value = serde_json::from_str(challenged.document()).unwrap();
    let members: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["attempt_id", "aud", "exp", "iat", "iss", "nbf", "nonce", "sub", "subject_keys"]);
    let now = world.now().timestamp();
    for (claim, value) in [("iat", now), ("nbf", now - 10), ("exp", now + 60)] {
        assert_eq!(document[claim], value, "{claim}");
    }
    assert_eq!((document["iss"].as_str(), document["aud"].as_str()), (Some(CLUSTER), Some(CLUSTER)));
    let nonce = document["nonce"].as_str().unwrap().to_owned();
    assert!(nonce.len() >= 32 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit()));
    challenged.finish().await.unwrap();

    let again = bot.joining().like_a_plain_client().begin().await.unwrap();
    let document: serde_json::Value = serde_json::from_str(again.document()).unwrap();
    assert_ne!(document["nonce"], nonce);
    assert!(document.get("attempt_id").is_none());
    again.finish().await.unwrap();
    world.check().await;
}

#[rstest]
#[case::token_init(Payload::TokenInit(TokenInit::default()))]
#[case::iam_init(Payload::IamInit(wire::IamInit {}))]
#[case::ec2_init(Payload::Ec2Init(wire::Ec2Init {}))]
#[case::oracle_init(Payload::OracleInit(wire::OracleInit {}))]
#[case::iam_solution(answer(Solution::IamChallengeSolution(wire::IamChallengeSolution {})))]
#[case::oracle_solution(answer(Solution::OracleChallengeSolution(wire::OracleChallengeSolution {})))]
#[tokio::test]
async fn messages_of_other_methods_are_not_implemented(#[case] message: Payload, #[values(0, 1, 2)] after: usize) {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let mut stream = stream(&world).await;
    for message in [client_init("example"), Payload::BoundKeypairInit(init(&mut bot))].into_iter().take(after) {
        stream.send(message).await;
        stream.receive().await.unwrap();
    }

    stream.send(message).await;

    let refused = stream.step().await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.status.as_str()), ("UNIMPLEMENTED", "Unimplemented"));
    assert!(refused.message.contains("bound_keypair"), "it says what is served: {}", refused.message);
    world.check().await;
}

#[tokio::test]
async fn other_methods_roles_and_hosts_are_not_served() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let Payload::ClientInit(honest) = client_init("example") else { unreachable!() };
    let refused = async |message: ClientInit| {
        let mut stream = stream(&world).await;
        stream.send(Payload::ClientInit(message)).await;
        stream.step().await.unwrap_err()
    };

    assert_eq!(refused(ClientInit { join_method: Some("iam".into()), ..honest.clone() }).await, "UNIMPLEMENTED");
    assert_eq!(refused(ClientInit { system_role: "Node".into(), ..honest.clone() }).await, "ACCESS_DENIED");
    assert_eq!(refused(ClientInit { system_role: String::new(), ..honest.clone() }).await, "ACCESS_DENIED");

    let mut hosts = stream(&world).await;
    hosts.send(Payload::ClientInit(honest)).await;
    let params = client_params::Payload::HostParams(HostParams::default());
    let params = Some(wire::ClientParams { payload: Some(params) });
    hosts.send(Payload::BoundKeypairInit(wire::BoundKeypairInit { client_params: params, ..init(&mut bot) })).await;
    assert_eq!(hosts.step().await.unwrap_err(), "UNIMPLEMENTED");
    world.check().await;
}

#[tokio::test]
async fn the_join_method_may_be_left_to_the_token() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let Payload::ClientInit(honest) = client_init("example") else { unreachable!() };
    for method in [None, Some(String::new())] {
        let mut stream = stream(&world).await;
        let supplied = wire::client_init::ProxySuppliedParameters {
            remote_addr: "192.0.2.1:1".to_owned(),
            client_version: "18".to_owned(),
        };
        let message = ClientInit {
            join_method: method,
            forwarded_by_proxy: true,
            proxy_supplied_parameters: Some(supplied),
            ..honest.clone()
        };
        stream.send(Payload::ClientInit(message)).await;
        stream.send(Payload::BoundKeypairInit(init(&mut bot))).await;
        assert!(matches!(stream.step().await.unwrap(), Step::KeyRequest));
    }
    bot.secret.clear();
    world.settle().await;
    let told = world.new_events("example").await;
    assert!(told.iter().all(|event| !event.remote_addr.starts_with("192.0.2.1")), "what a proxy says is not trusted");
    world.check().await;
}

#[rstest]
#[case::solution_first(vec![solved("x".into())])]
#[case::key_first(vec![offered("x".into())])]
#[case::client_init_twice(vec![client_init("example"), client_init("example")])]
#[case::solution_too_early(vec![client_init("example"), solved("x".into())])]
#[tokio::test]
async fn messages_have_an_order(#[case] messages: Vec<Payload>) {
    let world = World::start().await;
    world.bot("example").await;
    let mut stream = stream(&world).await;
    for message in messages {
        stream.send(message).await;
    }

    let refused = stream.step().await.unwrap_err();

    assert_eq!((refused.code.as_str(), refused.status.as_str()), ("INVALID_REQUEST", "InvalidArgument"));
    assert!(refused.message.contains("expected"), "{}", refused.message);
    world.check().await;
}

#[tokio::test]
async fn answers_out_of_turn_after_a_proof_are_recorded() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    world.catch_up("example").await;
    let empty = Payload::Solution(wire::ChallengeSolution { payload: None });
    for message in [solved("no key".into()), client_init("example"), empty, offered("no key".into())] {
        let Conversation::Stream(mut stream) = bot.joining().begin().await.unwrap().conversation else {
            panic!("a stream was opened")
        };
        stream.send(message).await;
        let refused = stream.step().await.unwrap_err();
        assert_eq!(refused, "INVALID_REQUEST");
        assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET, "{}", refused.message);
    }
    // An empty message, and one that is no message.
    let Conversation::Stream(mut stream) = bot.joining().begin().await.unwrap().conversation else {
        panic!("a stream was opened")
    };
    stream.send_message(wire::JoinRequest { payload: None }).await;
    assert_eq!(stream.step().await.unwrap_err(), "INVALID_REQUEST");
    assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET);
    assert_eq!(world.locks().await, 0);
    bot.join().await.unwrap();
    world.check().await;
}

/// A second call has exactly one answer; one that has none, or two, comes after the secret all the same.
#[tokio::test]
async fn calls_that_answer_nothing_after_a_proof_are_recorded() {
    let world = World::start().await;
    let mut bot = world.bot("example").over(Transport::Json).await;
    world.catch_up("example").await;
    for answer in [json!({}), json!({ "solution": "x", "public_key": Key::ed25519().line() })] {
        let Conversation::Calls(mut calls) = bot.joining().begin().await.unwrap().conversation else {
            panic!("calls were made")
        };
        assert_eq!(calls.go_on(answer).await.unwrap_err(), "INVALID_REQUEST");
        assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET);
    }
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn giving_up_ends_the_stream(#[values(0, 1, 2)] after: usize) {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.catch_up("example").await;
    let mut stream = stream(&world).await;
    for message in [client_init("example"), Payload::BoundKeypairInit(init(&mut bot))].into_iter().take(after) {
        stream.send(message).await;
        stream.receive().await.unwrap();
    }

    stream.send(Payload::GivingUp(GivingUp { reason: 3, msg: "no\nkey".to_owned() })).await;

    assert!(stream.receive().await.unwrap().is_none());
    assert_eq!(world.news("example").await, NOTHING);
    world.check().await;
}

#[tokio::test]
async fn a_message_over_64_kib_is_refused() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    world.catch_up("example").await;
    let large = wire::BoundKeypairInit { previous_join_state: vec![b'x'; 64 * 1024], ..init(&mut bot) };
    let mut stream = stream(&world).await;
    stream.send(client_init("example")).await;
    stream.send(Payload::BoundKeypairInit(large)).await;

    let refused = stream.step().await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.status.as_str()), ("INVALID_REQUEST", "InvalidArgument"));

    let mut request = open_request(bot.joining().ask());
    request["join_state"] = json!("x".repeat(64 * 1024));
    let mut http = world.stranger().http().await;
    let refused = http.post("/v1/join", &request).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.status.as_str()), ("INVALID_REQUEST", "400"));
    assert_eq!(world.news("example").await, NOTHING);
    bot.join().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_document_just_below_the_limit_is_only_wrong() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(9).await;
    bot.join().await.unwrap();
    let large = "x".repeat(60 * 1024);

    assert_eq!(bot.joining().with_join_state(&large).await.unwrap_err(), "JOIN_STATE_INVALID");

    let told = world.new_events("example").await;
    assert!(told.iter().all(|event| format!("{event:?}").len() < 8 * 1024), "it is not kept");
    world.check().await;
}

#[tokio::test]
async fn a_stream_that_goes_silent_ends_after_a_minute_and_a_stranger_s_sooner() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    world.catch_up("example").await;
    let mut strange = stream(&world).await;
    strange.send(client_init("example")).await;
    strange.receive().await.unwrap();
    let Conversation::Stream(mut proven) = bot.joining().begin().await.unwrap().conversation else {
        panic!("a stream was opened")
    };

    for (seconds, silent) in [(11, &mut strange), (50, &mut proven)] {
        // So much time passes for the service's timers.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
        let refused = silent.step().await.unwrap_err();
        assert_eq!(refused, "CHALLENGE_FAILED");
        assert!(refused.message.contains("silent"), "{}", refused.message);
    }
    assert_eq!(world.news("example").await, REFUSED_AFTER_SECRET, "only of the one who had proven something");
    world.check().await;
}

#[tokio::test]
async fn a_client_that_vanishes_after_its_secret_is_recorded() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    world.catch_up("example").await;

    drop(bot.joining().begin().await.unwrap());

    let told = world.next_events("example").await;
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), REFUSED_AFTER_SECRET);
    assert_eq!(world.token("example").await.registration_secret, bot.secret);
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_solution_is_a_jws_over_the_very_document(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    world.catch_up("example").await;
    let key = bot.key().clone();
    let header = r#"{"alg":"EdDSA","typ":"JWT"}"#;
    type Solution<'k> = &'k dyn Fn(&str) -> String;
    let spoiled: [(&str, Solution); 8] = [
        ("another document", &|document| key.solve(&document.replace("\"iat\"", "\"Iat\""))),
        ("white space", &|document| key.solve(&format!("{document} "))),
        ("another nonce", &|document| key.solve(&document.replacen("\"nonce\":\"", "\"nonce\":\"0", 1))),
        ("no type", &|document| key.jws(r#"{"alg":"EdDSA"}"#, document)),
        ("another algorithm", &|document| key.jws(r#"{"alg":"ES256","typ":"JWT"}"#, document)),
        ("no algorithm", &|document| {
            let unsigned = key.jws(r#"{"alg":"none","typ":"JWT"}"#, document);
            format!("{}.", unsigned.rsplit_once('.').unwrap().0)
        }),
        ("no signature", &|document| format!("{}.", key.jws(header, document).rsplit_once('.').unwrap().0)),
        ("no JWS", &|_| "nonsense".to_owned()),
    ];
    for (what, solution) in spoiled {
        let mut ceremony = bot.joining().begin().await.unwrap();
        let solution = solution(ceremony.document());
        let Err(refused) = ceremony.conversation.solve(solution).await else { panic!("{what} was taken") };
        assert_eq!(refused, "CHALLENGE_FAILED", "{what}");
    }
    assert_eq!(world.news("example").await, NOTHING);
    assert_eq!(world.locks().await, 0);
    bot.join().await.unwrap();
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_solution_of_another_challenge_is_none(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    let key = bot.key().clone();
    let mut twin = bot.clone();
    let other = twin.joining().begin().await.unwrap();
    let solution = key.solve(other.document());

    let mut ceremony = bot.joining().begin().await.unwrap();
    let refused = ceremony.conversation.solve(solution).await.unwrap_err();

    assert_eq!(refused, "CHALLENGE_FAILED");
    world.check().await;
}

/// A key of P-384 in PKIX form.
const P384: &str = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEvhZLWzJm7pNWL+kXh53MKKZ+rGz1DocDRFwWRRioIjbRbB7LhuaQ\
                    Bx3/2KagkFiG7ZjBWrUaNV5EDzUjUlZ+KJ/skS/GCZ3sTurjIlNFE4cMKDgq186RCVOwlahjFLCv";

#[rstest]
#[case::subject_key(|open: &mut serde_json::Value| open["public_tls_key"] = json!(P384), "public_keys: public_tls_key: ")]
#[case::held_key(|open: &mut serde_json::Value| open["held_keys"] = json!([include_str!("keys/rsa3072.pub")]), "held_keys[0]: ")]
#[tokio::test]
async fn a_key_of_another_kind_is_not_accepted(#[case] spoil: fn(&mut serde_json::Value), #[case] field: &str) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(Transport::Json).await;
    world.catch_up("example").await;
    let mut request = open_request(bot.joining().ask());
    spoil(&mut request);

    let refused = world.stranger().http().await.post("/v1/join", &request).await.unwrap_err();

    assert_eq!((refused.code.as_str(), refused.status.as_str()), ("UNSUPPORTED_KEY", "400"));
    assert!(refused.message.starts_with(field), "{}", refused.message);
    assert_eq!(world.news("example").await, NOTHING);
    world.check().await;
}

#[rstest]
#[case::no_subject_keys(|open: &mut serde_json::Value| { open["public_tls_key"] = json!(""); open["public_ssh_key"] = json!(""); }, "public_keys: public_tls_key: missing")]
#[case::nonsense_for_a_key(|open: &mut serde_json::Value| open["public_tls_key"] = json!("AAAA"), "public_keys")]
#[case::two_different_keys_are_fine_but_not_nonsense(|open: &mut serde_json::Value| open["public_ssh_key"] = json!("AAAA"), "public_keys")]
#[case::no_base64(|open: &mut serde_json::Value| open["public_tls_key"] = json!("?"), "public_tls_key")]
#[case::no_attempt(|open: &mut serde_json::Value| open["attempt_id"] = json!(""), "attempt_id")]
#[case::a_short_attempt(|open: &mut serde_json::Value| open["attempt_id"] = json!("abc"), "attempt_id")]
#[case::an_attempt_in_capitals(|open: &mut serde_json::Value| open["attempt_id"] = json!("A".repeat(32)), "attempt_id")]
#[case::no_key_that_is_held(|open: &mut serde_json::Value| open["held_keys"] = json!(["key"]), "held_keys[0]")]
#[case::many_keys_that_are_held(|open: &mut serde_json::Value| open["held_keys"] = json!(vec![Key::ed25519().line(); 17]), "held_keys")]
#[case::a_long_secret(|open: &mut serde_json::Value| open["registration_secret"] = json!("s".repeat(257)), "registration_secret")]
#[case::no_life(|open: &mut serde_json::Value| open["ttl"] = json!("soon"), "ttl")]
#[case::an_unknown_field(|open: &mut serde_json::Value| open["passphrase"] = json!("x"), "passphrase")]
#[tokio::test]
async fn a_request_that_cannot_be_names_its_field(#[case] spoil: fn(&mut serde_json::Value), #[case] field: &str) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(Transport::Json).await;
    world.catch_up("example").await;
    let mut request = open_request(bot.joining().ask());
    spoil(&mut request);

    let refused = world.stranger().http().await.post("/v1/join", &request).await.unwrap_err();

    assert_eq!((refused.code.as_str(), refused.status.as_str()), ("INVALID_REQUEST", "400"));
    assert!(refused.message.contains(field), "{}", refused.message);
    assert!(!refused.message.contains(&bot.secret));
    assert_eq!(world.news("example").await, NOTHING);
    world.check().await;
}

#[tokio::test]
async fn a_continuation_takes_one_answer() {
    let world = World::start().await;
    let mut bot = world.bot("example").over(Transport::Json).await;
    bot.join().await.unwrap();
    bot.secret.clear();
    let Conversation::Calls(calls) = bot.joining().begin().await.unwrap().conversation else { panic!("calls") };
    let mut http = world.stranger().http().await;
    let mut post = async |body: serde_json::Value| http.post("/v1/join/continue", &body).await.unwrap_err();
    let continuation = calls.continuation;

    let both = json!({ "continuation": continuation, "solution": "x", "public_key": "y" });
    assert_eq!(post(both).await, "INVALID_REQUEST");
    assert_eq!(post(json!({ "continuation": continuation })).await, "INVALID_REQUEST");
    assert_eq!(
        post(json!({ "continuation": continuation, "public_key": Key::ed25519().line() })).await,
        "INVALID_REQUEST"
    );
    for forged in ["", "x", &continuation[1..], &format!("{continuation}A"), &"A".repeat(70_000)] {
        let refused = post(json!({ "continuation": forged, "solution": "x" })).await;
        assert!(["CHALLENGE_FAILED", "INVALID_REQUEST"].contains(&refused.code.as_str()), "{refused:?}");
    }
    world.check().await;
}

#[tokio::test]
async fn http_takes_json_only() {
    let world = World::start().await;
    let mut bot = world.bot("example").await;
    let mut http = world.stranger().http().await;
    for body in [json!([]), json!("join"), json!(null), json!({ "token": 1 })] {
        assert_eq!(http.post("/v1/join", &body).await.unwrap_err(), "INVALID_REQUEST");
    }
    let request = open_request(bot.joining().ask());
    let plain: Result<_, Refused> =
        Http::connect(&world.network, 0, None).await.unwrap().post("/v1/join", &request).await;
    plain.expect("the same request is good");
    world.check().await;
}

#[rstest]
#[case::ed25519(Key::ed25519)]
#[case::p256(Key::p256)]
#[tokio::test]
async fn the_subject_key_may_be_of_any_kind_that_certificates_take(
    #[values(Transport::Grpc, Transport::Json)] over: Transport,
    #[case] kind: fn() -> Key,
) {
    let world = World::start().await;
    let mut bot = world.bot("example").over(over).await;
    let subject = kind();

    let joined = bot.joining().for_subject(subject.clone()).await.unwrap();

    assert!(joined.certificate.read(|certificate| certificate.public_key().raw == subject.spki()));
    let ssh: ssh_key::Certificate = joined.credentials.ssh.parse().unwrap();
    assert_eq!(ssh_key::PublicKey::from(ssh.public_key().clone()).to_bytes().unwrap(), subject.ssh_wire());
    assert_eq!(bot.join().await.expect("the certificate serves to renew").generation(), 2);
    world.check().await;
}
