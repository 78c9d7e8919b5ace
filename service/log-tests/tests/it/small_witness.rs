//! A small but real witness (c2sp.org/tlog-witness), on a port of its own.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use join_log::{Checkpoint, Hash, SignatureLine, SignedNote, VerifierKey};
use join_log_tests::is_consistent;
use join_server::config;

const NAME: &str = "witness.example/w1";

pub(crate) struct Witness {
    pub(crate) key: VerifierKey,
    url: String,
    memory: Arc<Mutex<Memory>>,
}

/// What it remembers of the one log that it knows.
struct Memory {
    pair: Ed25519KeyPair,
    log_key: Option<VerifierKey>,
    size: u64,
    root: Hash,
    answers: Vec<u16>,
    shown: Option<String>,
}

type Answer = (StatusCode, [(&'static str, &'static str); 1], String);

impl Witness {
    pub(crate) async fn start() -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[0x20; 32]).unwrap();
        let key = BASE64.encode([&[4], pair.public_key().as_ref()].concat());
        let id: String = key_id(&pair).iter().map(|byte| format!("{byte:02x}")).collect();
        let memory = Memory { pair, log_key: None, size: 0, root: [0; 32], answers: Vec::new(), shown: None };
        let memory = Arc::new(Mutex::new(memory));
        let router = Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .route("/{log}/checkpoint", get(checkpoint))
            .with_state(Arc::clone(&memory));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { key: format!("{NAME}+{id}+{key}").parse().unwrap(), url, memory }
    }

    pub(crate) fn configured(&self) -> config::Witness {
        config::Witness { key: self.key.to_string(), url: self.url.clone() }
    }

    /// The key of the log that it knows; before, it knows none.
    pub(crate) fn knows(&self, log: VerifierKey) {
        self.memory.lock().unwrap().log_key = Some(log);
    }

    /// It has seen more than anybody else.
    pub(crate) fn has_seen(&self, size: u64) {
        self.memory.lock().unwrap().size = size;
    }

    /// It has seen this checkpoint.
    pub(crate) fn has_cosigned(&self, checkpoint: &Checkpoint) {
        let mut memory = self.memory.lock().unwrap();
        (memory.size, memory.root) = (checkpoint.size, checkpoint.root);
    }

    /// What it has seen is shown from now on.
    pub(crate) fn shows(&self, checkpoint: &Checkpoint) {
        let mut memory = self.memory.lock().unwrap();
        let note = SignedNote::sign(checkpoint, &[]);
        memory.shown = Some(format!("{}\n{}\n", note.text(), memory.cosign(note.text())));
    }

    /// Nothing is shown any more.
    pub(crate) fn shows_nothing(&self) {
        self.memory.lock().unwrap().shown = None;
    }

    /// Status codes of its answers.
    pub(crate) fn answers(&self) -> Vec<u16> {
        self.memory.lock().unwrap().answers.clone()
    }
}

async fn add_checkpoint(State(memory): State<Arc<Mutex<Memory>>>, body: String) -> Answer {
    let mut memory = memory.lock().unwrap();
    let answer = memory.answer(&body);
    memory.answers.push(answer.0.as_u16());
    answer
}

/// As far as it was told to, it shows what it has seen below the same address.
async fn checkpoint(State(memory): State<Arc<Mutex<Memory>>>) -> Result<String, StatusCode> {
    memory.lock().unwrap().shown.clone().ok_or(StatusCode::NOT_FOUND)
}

impl Memory {
    fn cosign(&self, text: &str) -> SignatureLine {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let signature = self.pair.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
        let signature = [&time.to_be_bytes(), signature.as_ref()].concat();
        SignatureLine { name: NAME.to_owned(), key_id: key_id(&self.pair), signature }
    }

    fn answer(&mut self, body: &str) -> Answer {
        let plain = |status, body: &str| (status, [("content-type", "text/plain")], body.to_owned());
        let (head, note) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let old: u64 = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let proof: Vec<Hash> = lines.map(|line| BASE64.decode(line).unwrap().try_into().unwrap()).collect();
        let note: SignedNote = note.parse().unwrap();
        let checkpoint = note.checkpoint().unwrap();
        let Some(log) = &self.log_key else { return plain(StatusCode::NOT_FOUND, "unknown log") };
        if !note.is_signed_by(log) {
            return plain(StatusCode::FORBIDDEN, "untrusted");
        }
        if old != self.size {
            return (StatusCode::CONFLICT, [("content-type", "text/x.tlog.size")], format!("{}\n", self.size));
        }
        let follows = match old {
            0 => proof.is_empty(),
            _ => is_consistent(old, self.root, checkpoint.size, checkpoint.root, &proof),
        };
        if !follows {
            return plain(StatusCode::UNPROCESSABLE_ENTITY, "inconsistent");
        }
        (self.size, self.root) = (checkpoint.size, checkpoint.root);
        plain(StatusCode::OK, &format!("{}\n", self.cosign(note.text())))
    }
}

fn key_id(pair: &Ed25519KeyPair) -> [u8; 4] {
    let identity = [NAME.as_bytes(), b"\n\x04", pair.public_key().as_ref()].concat();
    digest(&SHA256, &identity).as_ref()[..4].try_into().unwrap()
}
