//! An existing client of the public interface can talk to us: this one knows nothing but the names and numbers of
//! `tests/wire/minimal.proto`, which are written by hand from protocol.md, section 9, and none of our own fields.

use std::sync::{Arc, LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, client::Grpc};

use crate::world::{Certificate, Dynamic, Key, Network, REGISTERED, RENEWED, Refused, World};

static MINIMAL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire");
    let files = protox::compile(["minimal.proto"], [directory]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
});

fn message(name: &str) -> MessageDescriptor {
    MINIMAL.get_message_by_name(&format!("teleport.join.v1.{name}")).unwrap()
}

/// A join of a client that is made of nothing but descriptors. Messages are written and shown as JSON.
struct Client {
    requests: mpsc::Sender<DynamicMessage>,
    answers: Streaming<DynamicMessage>,
}

impl Client {
    async fn connect(network: &Arc<Network>, certificate: Option<&Certificate>) -> Self {
        let mut grpc = Grpc::new(network.grpc(0, certificate).await.unwrap());
        grpc.ready().await.unwrap();
        let (requests, stream) = mpsc::channel(8);
        let service = MINIMAL.get_service_by_name("teleport.join.v1.JoinService").unwrap();
        let join = service.methods().next().unwrap();
        let path = format!("/{}/{}", service.full_name(), join.name()).parse().unwrap();
        let request = tonic::Request::new(ReceiverStream::new(stream));
        let answers = grpc.streaming(request, path, Dynamic(join.output())).await.unwrap().into_inner();
        Self { requests, answers }
    }

    async fn send(&self, request: Value) {
        let request = DynamicMessage::deserialize(message("JoinRequest"), request).unwrap();
        self.requests.send(request).await.unwrap();
    }

    async fn receive(&mut self) -> Result<Value, Refused> {
        let answer = self.answers.message().await?.expect("an answer");
        assert_eq!(answer.unknown_fields().count(), 0, "it has no field that the client does not know");
        let options = SerializeOptions::new().use_proto_field_name(true);
        Ok(answer.serialize_with_options(serde_json::value::Serializer, &options).unwrap())
    }

    async fn begin(&mut self, token: &str, secret: &str, join_state: &[u8], subject: &Key) {
        self.send(json!({ "client_init": {
            "join_method": "bound_keypair", "token_name": token, "system_role": "Bot", "forwarded_by_proxy": false
        } }))
        .await;
        let init = self.receive().await.unwrap();
        assert_eq!(
            init,
            json!({ "init": {
            "join_method": "bound_keypair", "signature_algorithm_suite": "balanced-v1"
        } })
        );
        let keys = json!({
            "public_tls_key": STANDARD.encode(subject.spki()), "public_ssh_key": STANDARD.encode(subject.ssh_wire())
        });
        self.send(json!({ "bound_keypair_init": {
            "client_params": { "bot_params": { "public_keys": keys, "expires": "2027-03-01T13:00:00Z" } },
            "initial_join_secret": secret,
            "previous_join_state": STANDARD.encode(join_state),
        } }))
        .await;
    }

    async fn solve(&mut self, key: &Key) -> Result<Value, Refused> {
        let answer = self.receive().await?;
        let challenge = &answer["challenge"]["bound_keypair_challenge"];
        assert_eq!(bytes(&challenge["public_key"]), key.line().into_bytes());
        let solution = key.solve(challenge["challenge"].as_str().unwrap());
        let solution = json!({ "solution": STANDARD.encode(solution) });
        self.send(json!({ "solution": { "bound_keypair_challenge_solution": solution } })).await;
        self.receive().await
    }
}

fn bytes(base64: &Value) -> Vec<u8> {
    STANDARD.decode(base64.as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_of_the_public_interface_joins_renews_and_is_refused() {
    let world = World::start().await;
    let bot = world.bot("example").limit(1).await;
    world.catch_up("example").await;
    let (key, subject) = (Key::ed25519(), Key::p256());

    // First join, by registration secret.
    let mut client = Client::connect(&world.network, None).await;
    client.begin("example", &bot.secret, b"", &subject).await;
    let asked = client.receive().await.unwrap();
    let suite = json!({ "signature_algorithm_suite": "balanced-v1" });
    assert_eq!(asked, json!({ "challenge": { "bound_keypair_rotation_request": suite } }));
    let line = json!({ "public_key": STANDARD.encode(key.line()) });
    client.send(json!({ "solution": { "bound_keypair_rotation_response": line } })).await;
    let first = client.solve(&key).await.unwrap();
    let first = &first["result"]["bot_result"];
    assert_eq!(bytes(&first["bound_keypair_result"]["public_key"]), key.line().into_bytes());
    assert_eq!(first["certificates"]["tls_ca_certs"].as_array().unwrap().len(), 1);
    assert_eq!(first["certificates"]["ssh_ca_keys"].as_array().unwrap().len(), 1);
    ssh_key::Certificate::from_bytes(&bytes(&first["certificates"]["ssh_cert"])).unwrap();
    assert_eq!(world.news("example").await, REGISTERED);

    // A renewal, with what the first join gave.
    let certificate = Certificate { der: bytes(&first["certificates"]["tls_cert"]), key: subject };
    let join_state = bytes(&first["bound_keypair_result"]["join_state"]);
    let subject = Key::p256();
    let mut client = Client::connect(&world.network, Some(&certificate)).await;
    client.begin("example", "", &join_state, &subject).await;
    let renewed = client.solve(&key).await.unwrap();
    let der = bytes(&renewed["result"]["bot_result"]["certificates"]["tls_cert"]);
    let newest = Certificate { der, key: subject };
    assert_eq!(newest.claims()["generation"], 2);
    assert_eq!(newest.instance(), certificate.instance());
    assert_eq!(world.news("example").await, RENEWED);

    // An error: no recovery is left.
    let mut client = Client::connect(&world.network, None).await;
    client.begin("example", "", &join_state, &Key::p256()).await;
    let refused = client.solve(&key).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.status.as_str()), ("RECOVERY_LIMIT_EXHAUSTED", "PermissionDenied"));
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

#[tokio::test]
async fn a_client_of_the_public_interface_rotates() {
    let world = World::start().await;
    let mut bot = world.bot("example").limit(2).await;
    bot.joining().like_a_plain_client().await.unwrap();
    world.admin.rotate("example").await.unwrap();
    let (old, new) = (bot.key().clone(), Key::p256());

    let mut client = Client::connect(&world.network, Some(bot.certificate())).await;
    client.begin("example", "", bot.disk.join_state.as_ref().unwrap().as_bytes(), &Key::p256()).await;
    let asked = client.solve(&old).await.unwrap();
    assert!(asked["challenge"].get("bound_keypair_rotation_request").is_some());
    let line = json!({ "public_key": STANDARD.encode(new.line()) });
    client.send(json!({ "solution": { "bound_keypair_rotation_response": line } })).await;
    let rotated = client.solve(&new).await.unwrap();

    assert_eq!(bytes(&rotated["result"]["bot_result"]["bound_keypair_result"]["public_key"]), new.line().into_bytes());
    assert_eq!(world.token("example").await.bound_public_key, new.line());
    world.check().await;
}

#[tokio::test]
async fn a_client_of_the_public_interface_may_give_up() {
    let world = World::start().await;
    let bot = world.bot("example").await;
    let mut client = Client::connect(&world.network, None).await;
    client.begin("example", &bot.secret, b"", &Key::p256()).await;
    client.receive().await.unwrap();

    let reason = "REASON_UNSUPPORTED_MESSAGE_TYPE";
    client.send(json!({ "giving_up": { "reason": reason, "msg": "no keys today" } })).await;

    assert_eq!(client.receive().await.unwrap_err(), "CHALLENGE_FAILED", "it had shown the secret");
    assert_eq!(world.locks().await, 0);
    world.check().await;
}

/// The two descriptions agree in every name, number and type that the minimal one has.
#[test]
fn the_served_interface_has_the_same_names_and_numbers() {
    let ours = &*join_proto::DESCRIPTORS;
    for described in MINIMAL.all_messages().filter(|message| message.package_name() == "teleport.join.v1") {
        let served = ours.get_message_by_name(described.full_name()).expect("it is served");
        for field in described.fields() {
            let same = served.get_field(field.number()).unwrap_or_else(|| panic!("{} is missing", field.full_name()));
            assert_eq!(same.name(), field.name());
            assert_eq!(format!("{:?}", same.kind()), format!("{:?}", field.kind()), "{}", field.full_name());
            assert_eq!(
                (same.cardinality(), same.supports_presence()),
                (field.cardinality(), field.supports_presence())
            );
        }
        let own =
            served.fields().filter(|field| described.get_field(field.number()).is_none() && field.number() < 1000);
        let own: Vec<String> = own.map(|field| field.name().to_owned()).collect();
        let unserved = ["iam_init", "ec2_init", "oracle_init", "iam_challenge_solution", "oracle_challenge_solution"];
        assert!(own.iter().all(|name| unserved.contains(&name.as_str())), "{}: {own:?}", described.name());
    }
}
