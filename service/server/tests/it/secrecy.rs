//! Nothing that opens a door stands in an event, a log, an error, a metric, or in the clear in the database.

use std::{
    io,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use join_proto::v1;
use rstest::rstest;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt as _};

use crate::world::{Bot, Conversation, Http, Key, Refused, Transport, World, attempt_id, data};

/// Everything that is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

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
        self.add(&format!("{name} in base64"), STANDARD.encode(secret).trim_end_matches('='));
        // As `{:?}` prints bytes.
        self.add(&format!("{name} as numbers"), format!("{:?}", &secret[..16]).trim_matches(['[', ']']));
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
        let pkcs8 = key.pkcs8();
        self.add_bytes(name, &pkcs8[pkcs8.len() / 2..]);
        let seed = if matches!(key, Key::Ed25519(_)) { &pkcs8[16..48] } else { &pkcs8[36..68] };
        self.add_bytes(name, seed);
    }

    fn must_not_be_in(&self, place: &str, text: &str) {
        for (name, secret) in &self.0 {
            if let Some(at) = text.find(secret.as_str()) {
                let around = text[at.saturating_sub(200)..at].chars().rev().take(150).collect::<Vec<_>>();
                let around: String = around.into_iter().rev().collect();
                panic!("{place} shows {name}, after: {around}");
            }
        }
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
    let log = Log::default();
    let everything = EnvFilter::new("trace,rustls=debug,h2=debug");
    let lines = tracing_subscriber::fmt::layer().with_writer(log.clone()).with_ansi(false);
    let _captured = tracing::subscriber::set_default(tracing_subscriber::registry().with(everything).with(lines));
    let world = World::start().await;
    let mut secrets = Secrets::default();
    secrets.add_bytes("the master key", &hex::decode(&world.master).unwrap());

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
    let told = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(told.contains("example is locked"), "the log was captured");
    secrets.must_not_be_in("the log", &told);
    drop(export);
    world.check().await;
}
