//! Allocations of one renewal: its certificate read, challenge and solution, the decision, the durable append, and the
//! credentials signed.

use std::sync::Arc;

use allocation_counter::{AllocationInfo, measure};
use aws_lc_rs::{
    encoding::AsDer as _,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use join_credential::MasterKey;
use join_domain::{
    decision::join::Policy,
    envelope::Origin,
    event::{BotCreated, Event, TokenCreated},
    id::{AttemptId, BotId, Name, TokenId},
    key::{Algorithm, PublicKey},
    proof::{SigningKey, SubjectKeys},
    resource::{BotSpec, Recovery, TokenSpec},
};
use join_ledger::{Change, Ledger, PgConnectOptions, Settings, StreamAppend, provision};
use join_server::{
    caller::{Connection, Peer, RequestIds},
    ceremony::{
        Ceremonies,
        behind::Behind,
        join::{Ask, Joined, Step},
        pending::{Pending, Stage},
        strangers::Strangers,
    },
    cluster,
    config::Limits,
    entropy::Entropy,
    keyring::Keyring,
};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Allocations of one renewal that are allowed. Lower it as the path gets leaner; whoever raises it says why.
const ALLOWED: u64 = 257;
/// Bytes that they may take together.
const ALLOWED_BYTES: u64 = 47_000;

#[test]
fn a_renewal_allocates_no_more_than_is_allowed() {
    // One thread does everything, the writer's task included, so that all of it is counted.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut bot = runtime.block_on(Bot::new());
    // Caches, connections and prepared statements come first.
    for _ in 0..10 {
        runtime.block_on(bot.join());
    }
    // The clock is measured now and then, on the same thread: the least of many is a renewal alone.
    let least = (0..20).map(|_| bot.counted(&runtime)).min_by_key(|counted| counted.count_total).unwrap();
    eprintln!("a renewal: {} allocations, {} bytes", least.count_total, least.bytes_total);
    assert_eq!(bot.generation(), 30, "each of them was a renewal");
    assert!(least.count_total <= ALLOWED, "{} allocations, {ALLOWED} are allowed", least.count_total);
    assert!(least.bytes_total <= ALLOWED_BYTES, "{} bytes, {ALLOWED_BYTES} are allowed", least.bytes_total);
}

/// A bot and, in the same process, the authority that it joins.
struct Bot {
    ceremonies: Ceremonies,
    key: SigningKey,
    subject: SubjectKeys,
    joined: Option<Joined>,
}

impl Bot {
    async fn new() -> Self {
        let address = tokio::task::spawn_blocking(join_embedded::for_tests).await.unwrap();
        let superuser: PgConnectOptions = address.url("postgres", "postgres").parse().unwrap();
        let roles = provision::fresh(&superuser, &format!("allocations_{}", std::process::id())).await.unwrap();
        let ledger = Ledger::connect(roles.service, Settings::default()).await.unwrap();
        let (name, master) = (name("test.example"), MasterKey::generate());
        cluster::create(&ledger, &name, &master).await.unwrap();
        let keyring = Keyring::open(name.clone(), cluster::keys(&ledger).await.unwrap(), master).unwrap();
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = PublicKey::from_ed25519(pair.public_key().as_ref().try_into().unwrap());
        create(&ledger, public).await;
        Self {
            ceremonies: Ceremonies {
                keyring: Arc::new(keyring),
                entropy: Entropy::default(),
                cluster: name,
                policy: Policy::default(),
                strangers: Strangers::new(&Limits::default(), ledger.now()),
                behind: Behind::default(),
                ledger,
            },
            key: SigningKey::from_pkcs8(pair.to_pkcs8().unwrap().as_ref(), Algorithm::EdDsa),
            subject: subject(),
            joined: None,
        }
    }

    /// Joins, and counts the authority's allocations.
    fn counted(&mut self, runtime: &Runtime) -> AllocationInfo {
        let connection = self.connection();
        let ask = self.ask();
        let mut pending = None;
        let opened = measure(|| pending = Some(runtime.block_on(self.open(&connection, ask))));
        let (peer, pending) = pending.unwrap();
        let solution = self.solve(&pending);
        let mut joined = None;
        let step = self.ceremonies.take_solution(pending, solution.as_bytes(), &peer);
        let concluded = measure(|| joined = Some(runtime.block_on(step)));
        let Ok(Step::Joined(granted)) = joined.unwrap() else { panic!("not joined") };
        self.joined = Some(*granted);
        AllocationInfo {
            count_total: opened.count_total + concluded.count_total,
            bytes_total: opened.bytes_total + concluded.bytes_total,
            ..concluded
        }
    }

    async fn join(&mut self) {
        let (peer, pending) = self.open(&self.connection(), self.ask()).await;
        let solution = self.solve(&pending);
        let step = self.ceremonies.take_solution(pending, solution.as_bytes(), &peer).await;
        let Ok(Step::Joined(joined)) = step else { panic!("not joined") };
        self.joined = Some(*joined);
    }

    async fn open(&self, connection: &Connection, ask: Ask) -> (Peer, Box<Pending>) {
        let presented = self
            .ceremonies
            .keyring
            .get()
            .certificates
            .read(connection.certificate.as_slice(), self.ceremonies.ledger.now());
        let peer = Peer::new(connection, RequestIds { request: "00000000-000001".into(), trace: None }, presented);
        match self.ceremonies.open(ask, &peer).await {
            Ok(Step::Asked(pending)) => (peer, pending),
            Ok(Step::Joined(_)) => panic!("joined without a challenge"),
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    fn connection(&self) -> Connection {
        let certificate = self.joined.as_ref().map(|joined| CertificateDer::from(joined.tls_certificate.clone()));
        Connection { address: ([127, 0, 0, 1], 40000).into(), certificate }
    }

    fn ask(&self) -> Ask {
        let mut bits = [0; 16];
        aws_lc_rs::rand::fill(&mut bits).unwrap();
        Ask {
            token: "example".to_owned(),
            attempt: AttemptId::from_bits(bits).as_str().to_owned(),
            secret: String::new(),
            join_state: self.joined.iter().flat_map(|joined| joined.join_state.bytes()).collect(),
            subject: self.subject.clone(),
            held_keys: Vec::new(),
            life: None,
            is_portable: false,
        }
    }

    fn solve(&self, pending: &join_server::ceremony::pending::Pending) -> String {
        let Stage::Challenge(issued) = &pending.stage else { panic!("no challenge") };
        self.key.solve(&issued.document).unwrap()
    }

    fn generation(&self) -> u64 {
        let presented = self
            .ceremonies
            .keyring
            .get()
            .certificates
            .read(self.connection().certificate.as_slice(), self.ceremonies.ledger.now());
        match presented {
            join_credential::Presented::Bot(bot) => bot.generation,
            other => panic!("{other:?}"),
        }
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn subject() -> SubjectKeys {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let part = |part: &[u8]| [&u32::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat();
    SubjectKeys {
        tls: pair.public_key().as_der().unwrap().as_ref().to_vec(),
        ssh: [part(b"ecdsa-sha2-nistp256"), part(b"nistp256"), part(point)].concat(),
    }
}

async fn create(ledger: &Ledger, key: PublicKey) {
    let change = |event| Change {
        events: vec![event],
        decided_at: ledger.now(),
        origin: Origin { actor: "admin/test".to_owned(), ..Origin::default() },
    };
    let bot = BotId(Uuid::from_u128(1));
    let spec = BotSpec {
        roles: vec!["deployer".to_owned()],
        traits: [("logins".to_owned(), vec!["deploy".to_owned()])].into(),
        ..BotSpec::default()
    };
    let created = Event::BotCreated(BotCreated { name: name("example"), spec });
    ledger.append(StreamAppend::begin(bot.into(), change(created))).await.unwrap();
    let spec = TokenSpec {
        roles: vec!["Bot".to_owned()],
        bot_name: name("example"),
        initial_public_key: Some(key),
        must_register_before: None,
        recovery: Recovery::default(),
        rotate_after: None,
        labels: [("team".to_owned(), "infra".to_owned())].into(),
        expires: None,
    };
    let created = TokenCreated { name: name("example"), bot, spec, secret: None };
    let token = TokenId(Uuid::from_u128(2));
    ledger.append(StreamAppend::begin(token.into(), change(Event::TokenCreated(created)))).await.unwrap();
}
