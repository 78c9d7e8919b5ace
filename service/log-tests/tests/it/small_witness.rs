//! The small witness on a port of its own.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use join_log::{Checkpoint, SignedNote, VerifierKey};
use join_server::config;

pub(crate) struct Witness {
    pub(crate) key: VerifierKey,
    url: String,
    memory: Arc<Mutex<Memory>>,
}

struct Memory {
    witness: join_log_tests::Witness,
    answers: Vec<u16>,
    shown: Option<String>,
}

type Answer = (StatusCode, [(&'static str, String); 1], String);

impl Witness {
    pub(crate) async fn start() -> Self {
        let witness = join_log_tests::Witness::default();
        let key = witness.key();
        let memory = Arc::new(Mutex::new(Memory { witness, answers: Vec::new(), shown: None }));
        let router = Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .route("/{log}/checkpoint", get(checkpoint))
            .with_state(Arc::clone(&memory));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { key, url, memory }
    }

    pub(crate) fn configured(&self) -> config::Witness {
        config::Witness { key: self.key.to_string(), url: self.url.clone() }
    }

    /// The key of the log that it knows; before, it knows none.
    pub(crate) fn knows(&self, log: VerifierKey) {
        self.memory.lock().unwrap().witness.knows(log);
    }

    /// It has seen more than anybody else.
    pub(crate) fn has_seen(&self, size: u64) {
        self.memory.lock().unwrap().witness.has_seen(size);
    }

    /// It has seen this checkpoint.
    pub(crate) fn has_cosigned(&self, checkpoint: &Checkpoint) {
        self.memory.lock().unwrap().witness.has_cosigned(checkpoint.size, checkpoint.root);
    }

    /// What it has seen is shown from now on.
    pub(crate) fn shows(&self, checkpoint: &Checkpoint) {
        let mut memory = self.memory.lock().unwrap();
        let note = SignedNote::sign(checkpoint, &[]);
        memory.shown = Some(format!("{}\n{}\n", note.text(), memory.witness.cosign(note.text(), now())));
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
    let answer = memory.witness.answer(&body, now());
    memory.answers.push(answer.status);
    let content_type = answer.content_type.unwrap_or_else(|| "text/plain".to_owned());
    (StatusCode::from_u16(answer.status).unwrap(), [("content-type", content_type)], answer.body)
}

/// As far as it was told to, it shows what it has seen below the same address.
async fn checkpoint(State(memory): State<Arc<Mutex<Memory>>>) -> Result<String, StatusCode> {
    memory.lock().unwrap().shown.clone().ok_or(StatusCode::NOT_FOUND)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
