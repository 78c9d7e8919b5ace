//! Nothing that opens a door stands in an event, a log, an error, a metric, or in the clear in the database.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use chrono::TimeDelta;
use join_credential::{Purpose, Sealer};
use join_proto::v1;
use join_server::cluster;
use rstest::rstest;

use crate::world::{Bot, Conversation, Http, Key, Log, Refused, Transport, World, attempt_id, data};

/// What nobody else may see, with its name.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 8, "{name} is too short to be looked for");
        self.0.push((name.to_owned(), secret.to_owned()));
    }

    fn add_bytes(&mut self, name: &str, secret: &[u8]) {
        self.add(&format!("{name} in hex"), &hex::encode(secret));
        self.add(&format!("{name} in upper hex"), &hex::encode_upper(secret));
        // Within something longer its base64 begins at any of three places; what its neighbours share is left out.
        for (before, shared) in [(0, 0), (1, 2), (2, 3)] {
            let whole = (before + secret.len()) / 3 * 4;
            let bytes = [&[0; 2][..before], secret].concat();
            for (alphabet, encoded) in [("base64", STANDARD.encode(&bytes)), ("base64url", URL_SAFE.encode(&bytes))] {
                self.add(&format!("{name} in {alphabet} after {before} bytes"), &encoded[shared..whole]);
            }
        }
        // As `{:?}` prints bytes.
        self.add(&format!("{name} as numbers"), format!("{secret:?}").trim_matches(['[', ']']));
    }

    /// The private keys of the authority and of its administrators.
    async fn add_authority(&mut self, world: &World) {
        let master = hex::decode(&world.master).unwrap();
        self.add_bytes("the master key", &master);
        let sealer = Sealer::new(&master.try_into().unwrap());
        let mut known = Vec::new();
        for key in cluster::keys(world.ledger()).await.unwrap() {
            let name = format!("the private key {}", key.purpose.as_str());
            let secret =
                sealer.open(&format!("authority key {}", key.purpose.as_str()), &key.kid, &key.sealed).unwrap();
            match key.purpose {
                Purpose::Sealing => self.add_bytes(&name, &secret),
                _ => {
                    let private = Key::from_pkcs8(&secret);
                    assert_eq!(private.line(), key.public.unwrap().to_authorized_key(), "the key was opened");
                    self.add_key(&name, &private);
                }
            }
            known.push(key.purpose);
        }
        known.sort_unstable();
        assert_eq!(known, Purpose::ALL);
        for administrator in [&world.admin, &world.operator, &world.auditor] {
            self.add_key("an administrator's private key", &administrator.identity().unwrap().key);
        }
    }

    fn add_disk(&mut self, bot: &Bot) {
        for key in bot.disk.keys.iter().chain(bot.disk.attempt.iter().flat_map(|attempt| &attempt.new_key)) {
            self.add_key("a bound private key", key);
        }
        if let Some(attempt) = &bot.disk.attempt {
            self.add_key("a subject private key", &attempt.subject);
            self.add("an attempt id", &attempt.id);
        }
        if let Some(join_state) = &bot.disk.join_state {
            self.add("a join state", join_state.rsplit('.').next().unwrap());
        }
    }

    fn add_key(&mut self, name: &str, key: &Key) {
        self.add_bytes(&format!("{name} as PKCS#8"), &key.pkcs8());
        self.add_bytes(name, &key.secret());
    }

    /// The first one in this text, with its name and what stands before it.
    fn first_in(&self, text: &str) -> Option<(&str, String)> {
        // PEM breaks lines, and where it is quoted its breaks are escaped.
        let text = text.replace("\\r", "").replace("\\n", "").replace(['\r', '\n'], "");
        self.0.iter().find_map(|(name, secret)| {
            let at = text.find(secret.as_str())?;
            let around = text[..at].chars().rev().take(150).collect::<Vec<_>>();
            Some((name.as_str(), around.into_iter().rev().collect()))
        })
    }

    fn must_not_be_in(&self, place: &str, text: &str) {
        if let Some((name, before)) = self.first_in(text) {
            panic!("{place} shows {name}, after: {before}");
        }
    }
}

#[test]
fn a_key_is_found_in_whatever_form() {
    for key in [Key::ed25519(), Key::p256()] {
        let mut secrets = Secrets::default();
        secrets.add_key("it", &key);
        let pem = join_credential::pem("PRIVATE KEY", &key.pkcs8());
        let forms = [
            pem.clone(),
            format!("{pem:?}"),
            STANDARD.encode([b"{".as_slice(), &key.secret(), b"}"].concat()),
            STANDARD.encode([b"{{".as_slice(), &key.secret(), b"}"].concat()),
            URL_SAFE.encode([b"{{{".as_slice(), &key.secret(), b"}"].concat()),
            hex::encode(key.pkcs8()),
            hex::encode_upper(key.secret()),
            format!("{:?}", key.pkcs8()),
        ];
        for form in forms {
            assert!(secrets.first_in(&format!("a line {form} and more")).is_some(), "not seen in {form}");
        }
        assert_eq!(secrets.first_in(&format!("{} {}", key.line(), STANDARD.encode(key.spki()))), None);
    }
}

/// Joins in all ways, and refusals in many. Returns all that refusals said.
async fn live(world: &World, over: Transport, secrets: &mut Secrets) -> Vec<Refused> {
    let mut refusals = Vec::new();
    let mut bot = world.bot("example").limit(3).over(over).await;
    secrets.add("the registration secret", &bot.secret);
    let mut wrong = bot.clone();
    wrong.secret = format!("guess-{}", attempt_id());
    secrets.add("a wrong registration secret", &wrong.secret);
    refusals.push(wrong.join().await.unwrap_err());
    secrets.add_disk(&wrong);

    bot.join().await.unwrap();
    secrets.add_disk(&bot);
    for _ in 0..2 {
        let mut ceremony = bot.joining().begin().await.unwrap();
        let document: serde_json::Value = serde_json::from_str(ceremony.document()).unwrap();
        secrets.add("a nonce", document["nonce"].as_str().unwrap());
        if let Conversation::Calls(calls) = &mut ceremony.conversation {
            secrets.add("a continuation", &calls.continuation);
        }
        ceremony.finish().await.unwrap();
        secrets.add_disk(&bot);
    }
    world.admin.rotate("example").await.unwrap();
    refusals.push(bot.joining().offering("nonsense").await.unwrap_err());
    secrets.add_disk(&bot);
    bot.joining().losing_the_answer().await.unwrap();
    secrets.add_disk(&bot);
    bot.join().await.unwrap();
    world.advance(TimeDelta::hours(2));
    refusals.push(bot.joining().without_join_state().await.unwrap_err());
    refusals.push(bot.joining().signed_by(&Key::ed25519()).await.unwrap_err());
    bot.join().await.unwrap();
    secrets.add_disk(&bot);

    let mut thief = bot.clone();
    thief.join().await.unwrap();
    secrets.add_disk(&thief);
    refusals.push(bot.join().await.unwrap_err());
    refusals.push(thief.join().await.unwrap_err());
    refusals.push(thief.joining().with_join_state("eyJhbGciOiJub25lIn0.e30.").await.unwrap_err());
    secrets.add_disk(&bot);

    let reopened = world.admin.reopen("example").await.unwrap();
    secrets.add("the new registration secret", &reopened);
    let mut written = world.bot("written").secret("a secret that an administrator chose").over(over).await;
    secrets.add("a written registration secret", &written.secret);
    refusals.push(written.joining().offering("nonsense").await.unwrap_err());
    refusals
}

#[rstest]
#[tokio::test]
async fn nothing_secret_is_told(#[values(Transport::Grpc, Transport::Json)] over: Transport) {
    let (log, _capturing) = Log::capture("trace,rustls=debug,h2=debug");
    let world = World::start().await;
    let mut secrets = Secrets::default();
    secrets.add_authority(&world).await;

    let refusals = live(&world, over, &mut secrets).await;

    world.settle().await;
    let events = world.auditor.events(v1::ListEventsRequest { page_size: 1000, ..Default::default() }).await.events;
    assert!(events.len() > 40, "{} events", events.len());
    let shown: String = events.iter().map(|event| format!("{event:?} {}\n", data(event))).collect();
    secrets.must_not_be_in("an event", &shown);
    let mut export = world.auditor.ledger().await.export(v1::ExportRequest::default()).await.unwrap().into_inner();
    while let Some(chunk) = export.message().await.unwrap() {
        let envelopes: String = chunk.entries.into_iter().map(|entry| entry.envelope).collect();
        secrets.must_not_be_in("an envelope", &envelopes);
    }
    for refused in &refusals {
        secrets.must_not_be_in("an error", &refused.message);
    }
    let metrics = Http::plain(world.node(0).metrics_address).await.get("/metrics").await;
    secrets.must_not_be_in("a metric", metrics.text());
    secrets.must_not_be_in("the database", &world.database.dump().await);
    let told = log.text();
    for line in ["example is locked", "/joinauthority.v1.Resources/Reopen 200"] {
        assert!(told.contains(line), "the log has no line with {line}");
    }
    secrets.must_not_be_in("the log", &told);
    drop(export);
    world.check().await;
}
