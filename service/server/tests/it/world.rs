//! A cluster of a test's own: database, clock, nodes, administrators, and the bots that join it.
//!
//! Actors speak over the network only. Behind it the world does what a test could otherwise only wait for: it moves the
//! clock, and brings log and views forward.

mod administrator;
mod bot;
mod conversation;
mod database;
mod dynamic;
mod http;
mod key;
mod kinds;
mod log;
mod network;
mod onboarding;
mod process;
mod refused;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::TimeDelta;
use join_credential::{BotGrant, Issuer, MasterKey, Role, Serial, Subject};
use join_domain::{
    Timestamp,
    id::{Name, TokenId},
    proof::{JoinState, SubjectKeys},
};
use join_ledger::{Clock as _, Ledger, ManualClock};
use join_proto::v1;
use join_server::{
    administrators, cluster,
    config::Limits,
    service::{self, Node, Parts},
};
use tempfile::TempDir;

pub(crate) use self::{
    administrator::{Administrator, bound_keypair, delete, exemption_spec, get, onboarding as onboarding_of, recovery},
    bot::{Asked, Bot, Disk, Joined, claims_of, jws_parts},
    conversation::{
        Ask, Conversation, Step, Stream, Transport, answer, bound_keypair_init, client_init, offered, open_request,
        solved,
    },
    database::{Database, Held},
    dynamic::Dynamic,
    http::{Answer, Http},
    key::{Key, attempt_id},
    kinds::*,
    log::Log,
    network::{Certificate, Network},
    onboarding::{Onboarding, bot_resource},
    process::{Finished, Installed, Running, joind, open_directory, terminate},
    refused::Refused,
};

/// The cluster's name.
pub(crate) const CLUSTER: &str = "test.example";

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The cluster and everybody around it.
pub(crate) struct World {
    pub(crate) database: Database,
    /// The master key, in hex.
    pub(crate) master: String,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) network: Arc<Network>,
    pub(crate) admin: Administrator,
    pub(crate) operator: Administrator,
    pub(crate) auditor: Administrator,
    limits: Limits,
    pub(crate) nodes: Vec<Node>,
    identities: Arc<TempDir>,
    /// Where the first node keeps the log's files.
    log: TempDir,
    /// How far each token's history was read.
    read: Mutex<HashMap<String, String>>,
    checked: bool,
}

impl World {
    /// A cluster of one node.
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::on(Database::fresh().await, limits).await
    }

    pub(crate) async fn on(database: Database, limits: Limits) -> Self {
        let clock = Arc::new(ManualClock::new("2027-03-01T12:00:00.25Z".parse().unwrap()));
        let master = hex::encode(random_bytes::<32>());
        let ledger = database.ledger(Arc::clone(&clock)).await;
        let (name, key) = (name(CLUSTER), MasterKey::parse(&master).unwrap());
        cluster::create(&ledger, &name, &key).await.unwrap();
        let identities = Arc::new(tempfile::tempdir().unwrap());
        for role in Role::ALL {
            let directory = identities.path().join(role.as_str());
            issue(&ledger, &key, role, &directory).await;
        }
        let issuer = Issuer::new(&cluster::open_keys(&ledger, &key).await.unwrap()).unwrap();
        let pin = join_credential::pin::ca_pin(&issuer.tls_ca_certificates()[0]).unwrap();
        ledger.close().await;
        Self::serve(database, master, clock, pin, identities, limits).await
    }

    async fn serve(
        database: Database,
        master: String,
        clock: Arc<ManualClock>,
        pin: String,
        identities: Arc<TempDir>,
        limits: Limits,
    ) -> Self {
        let network = Arc::new(Network { clock: Arc::clone(&clock), pin, nodes: Mutex::default() });
        let actor = |role: &str| Administrator::with_identity(Arc::clone(&network), &identities.path().join(role));
        let mut world = Self {
            admin: actor("admin"),
            operator: actor("operator"),
            auditor: actor("auditor"),
            database,
            master,
            clock,
            network,
            limits,
            nodes: Vec::new(),
            identities,
            log: tempfile::tempdir().unwrap(),
            read: Mutex::default(),
            checked: false,
        };
        world.another_node().await;
        world
    }

    /// One more node on the same database; returns its number.
    pub(crate) async fn another_node(&mut self) -> usize {
        let node = self.start_node(false).await;
        self.network.nodes.lock().unwrap().push(node.address);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    async fn start_node(&self, keeps_log: bool) -> Node {
        let ledger = self.database.ledger(Arc::clone(&self.clock)).await;
        let started = service::start(Parts {
            cluster: Some(name(CLUSTER)),
            log_directory: keeps_log.then(|| self.log.path().to_owned()),
            limits: self.limits.clone(),
            ..Parts::on_loopback(ledger, MasterKey::parse(&self.master).unwrap())
        });
        started.await.unwrap()
    }

    /// Stops the nodes and starts one again.
    pub(crate) async fn restart(&mut self) {
        self.stop_nodes().await;
        self.another_node().await;
    }

    /// The same, and the node keeps the log's files from now on.
    pub(crate) async fn restart_with_log(&mut self) {
        self.stop_nodes().await;
        let node = self.start_node(true).await;
        self.network.nodes.lock().unwrap().push(node.address);
        self.nodes.push(node);
    }

    async fn stop_nodes(&mut self) {
        self.settle().await;
        self.network.nodes.lock().unwrap().clear();
        for node in self.nodes.drain(..) {
            node.stop().await;
        }
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// The database as it is now, to be restored later.
    pub(crate) async fn backup(&mut self) -> Database {
        self.stop_nodes().await;
        let copy = self.database.copy().await;
        self.another_node().await;
        copy
    }

    /// The cluster as it was at the backup, with the same keys and the same clock.
    pub(crate) async fn restored(&self, backup: Database) -> Self {
        Self::serve(
            backup,
            self.master.clone(),
            Arc::clone(&self.clock),
            self.network.pin.clone(),
            Arc::clone(&self.identities),
            self.limits.clone(),
        )
        .await
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn advance(&self, by: TimeDelta) {
        self.clock.advance(by);
    }

    /// A bot and its token, both of this name.
    pub(crate) fn bot(&self, name: &str) -> Onboarding<'_> {
        Onboarding::of(&self.admin, &self.network, name)
    }

    /// Somebody with no identity at all.
    pub(crate) fn stranger(&self) -> Administrator {
        Administrator::with_certificate(Arc::clone(&self.network), None)
    }

    /// A join state document with any content, signed by the authority's own key.
    pub(crate) fn sign(&self, claims: &JoinState) -> String {
        let (key, now) = (Key::p256(), self.now());
        let keys = SubjectKeys { tls: key.spki(), ssh: key.ssh_wire() };
        let credentials = self.node(0).app.ceremonies.keyring.get().issuer.issue(&BotGrant {
            token: claims.token_id.unwrap_or(TokenId(uuid::Uuid::nil())),
            bot: &name("example"),
            instance: claims.bot_instance_id,
            generation: 1,
            serial: Serial::from_random(random_bytes()),
            not_before: now,
            not_after: now + TimeDelta::hours(1),
            roles: &[],
            principals: &[],
            subject: &Subject::read(&keys).unwrap(),
            join_state: claims,
        });
        credentials.unwrap().join_state
    }

    /// The status of a token.
    pub(crate) async fn token(&self, name: &str) -> v1::BoundKeypairStatus {
        self.admin.get_token(name).await.unwrap().status.unwrap().bound_keypair.unwrap()
    }

    /// How many locks there are.
    pub(crate) async fn locks(&self) -> usize {
        self.admin.locks().await.len()
    }

    /// Kinds of the events in a token's history that were not read before.
    pub(crate) async fn news(&self, token: &str) -> Vec<String> {
        self.new_events(token).await.into_iter().map(|event| event.kind).collect()
    }

    /// Events of a token's history that were not read before.
    pub(crate) async fn new_events(&self, token: &str) -> Vec<v1::Event> {
        self.settle().await;
        let cursor = self.read.lock().unwrap().get(token).cloned().unwrap_or_default();
        let request = v1::ListEventsRequest { token: token.to_owned(), cursor, ..v1::ListEventsRequest::default() };
        let list = self.auditor.events(request).await;
        assert!(!list.more, "one page holds what one step of a test does");
        self.read.lock().unwrap().insert(token.to_owned(), list.cursor);
        list.events
    }

    /// The same, once there are some.
    pub(crate) async fn next_events(&self, token: &str) -> Vec<v1::Event> {
        let some = async {
            loop {
                let events = self.new_events(token).await;
                if !events.is_empty() {
                    return events;
                }
            }
        };
        tokio::time::timeout(PATIENCE, some).await.expect("something is recorded")
    }

    /// Passes over what was recorded so far.
    pub(crate) async fn catch_up(&self, token: &str) {
        self.new_events(token).await;
    }

    /// Gives every entry its place in the log, and brings the views up to its end.
    pub(crate) async fn settle(&self) {
        let settled = async {
            for node in &self.nodes {
                node.app.background.close();
                node.app.background.wait().await;
                node.app.background.reopen();
            }
            let ledger = self.ledger();
            loop {
                ledger.sequence_once(4096).await.unwrap();
                ledger.project_once(4096).await.unwrap();
                let positions = ledger.positions().await.unwrap();
                if positions.unsequenced == 0 && positions.views == positions.next_index {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("log and views come to rest");
    }

    /// What the first node says of itself.
    pub(crate) async fn readiness(&self) -> String {
        self.stranger().http().await.get("/readyz").await.text().to_owned()
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.nodes[0].app.ceremonies.ledger
    }

    /// The whole log.
    pub(crate) async fn envelopes(&self) -> Vec<String> {
        let mut envelopes = Vec::new();
        loop {
            let page = self.ledger().log(envelopes.len() as u64, 1000).await.unwrap();
            if page.entries.is_empty() {
                return envelopes;
            }
            envelopes.extend(page.entries.into_iter().map(|entry| entry.envelope));
        }
    }

    /// The end of every test: what is live is what a rebuild from the events gives, and the rules allow them.
    pub(crate) async fn check(mut self) {
        self.settle().await;
        let findings = join_audit::verify_history(self.envelopes().await.iter().map(String::as_str));
        assert!(findings.is_empty(), "the auditor finds: {findings:#?}");
        let comparison = self.ledger().check(|_| {}).await.unwrap();
        assert!(comparison.is_equal(), "live state differs from rebuilt state: {:#?}", comparison.differences);
        self.checked = true;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        assert!(self.checked || std::thread::panicking(), "a test ends with world.check()");
    }
}

async fn issue(ledger: &Ledger, master: &MasterKey, role: Role, directory: &Path) {
    let administrator = name(match role {
        Role::Admin => "ada",
        Role::Operator => "oscar",
        Role::Auditor => "audrey",
    });
    administrators::issue(ledger, master, &administrator, role, directory).await.unwrap();
}

/// The repository that this crate is in.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Looks again and again at something that comes about by itself.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn wire_time(time: Timestamp) -> prost_types::Timestamp {
    join_server::request::values::to_wire_time(time)
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// The content of an event, as it is shown.
pub(crate) fn data(event: &v1::Event) -> serde_json::Value {
    fn value(shown: &prost_types::Value) -> serde_json::Value {
        use prost_types::value::Kind;
        match shown.kind.as_ref().unwrap() {
            Kind::NullValue(_) => serde_json::Value::Null,
            Kind::NumberValue(number) => (*number as i64).into(),
            Kind::StringValue(text) => text.as_str().into(),
            Kind::BoolValue(value) => (*value).into(),
            Kind::StructValue(fields) => {
                fields.fields.iter().map(|(name, field)| (name.clone(), value(field))).collect()
            }
            Kind::ListValue(list) => list.values.iter().map(value).collect(),
        }
    }
    event.data.iter().flat_map(|data| &data.fields).map(|(name, field)| (name.clone(), value(field))).collect()
}
