//! An authority in miniature. It checks challenges, join states and generations with the project's own code and issues
//! real credentials; what the real one does beyond that (limits, locks, exemptions, the ledger) is not the agent's
//! business. Anything that would look like a second holder sets `locked`, for good.

mod ceremony;
mod tls;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use chrono::TimeDelta;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use join_agent::{clock::Clock as _, trust::Pin};
use join_credential::{AuthorityKeys, Issuer, Purpose, Serial, pin::ca_pin};
use join_domain::{
    id::{AttemptId, Name},
    key::PublicKey,
    proof::Challenge,
    refusal::Code,
};
use join_proto::teleport::{
    self as wire,
    join_service_server::{JoinService, JoinServiceServer},
};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::CertificateDer;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use self::{ceremony::Ceremony, tls::AnyClient};
use crate::host::TestClock;

pub(crate) const SECRET: &str = "the registration secret";

/// What goes wrong with the next join.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// Nothing is answered at all.
    Silence,
    /// The stream breaks when the join begins.
    LoseRequest,
    /// The join is accepted, and the stream breaks.
    LoseAnswer,
    /// A refusal, before anything is asked.
    Refuse(Box<Status>),
    /// A challenge with this claim changed.
    Challenge(fn(&mut Challenge)),
    /// A result with something changed.
    Result(fn(&mut wire::BotResult)),
}

impl Trouble {
    pub(crate) fn refuse(code: Code) -> Self {
        Self::refuse_with(code, ErrorDetails::new())
    }

    pub(crate) fn refuse_with(code: Code, details: ErrorDetails) -> Self {
        Self::Refuse(Box::new(refusal(code, details)))
    }
}

/// What the authority knows.
pub(crate) struct Book {
    pub(crate) keys: AuthorityKeys,
    pub(crate) secret: Option<String>,
    pub(crate) bound: Option<PublicKey>,
    pub(crate) retired: Vec<PublicKey>,
    pub(crate) rotate: bool,
    /// The longest life, whatever was asked for.
    pub(crate) max_life: TimeDelta,
    pub(crate) trouble: VecDeque<Trouble>,
    /// Streams opened.
    pub(crate) streams: u32,
    /// Joins accepted, not counting resumes.
    pub(crate) accepted: u32,
    pub(crate) resumed: u32,
    pub(crate) recoveries: u32,
    pub(crate) locked: Option<&'static str>,
    /// The initial messages as they came.
    pub(crate) inits: Vec<wire::BoundKeypairInit>,
    pub(crate) gave_up: Vec<wire::GivingUp>,
    generation: u64,
    latest: Option<Latest>,
}

impl Book {
    /// What an administrator does for a reinstalled host.
    pub(crate) fn reopen(&mut self) {
        self.retired.extend(self.bound.take());
        self.secret = Some(SECRET.to_owned());
        self.recoveries = 0;
        self.latest = None;
    }
}

struct Latest {
    attempt: AttemptId,
    subject_keys: String,
    serial: Serial,
    not_before: chrono::DateTime<chrono::Utc>,
    not_after: chrono::DateTime<chrono::Utc>,
}

#[derive(Clone)]
pub(crate) struct Authority {
    book: Arc<Mutex<Book>>,
    clock: TestClock,
    pub(crate) address: SocketAddr,
    names: Vec<String>,
}

impl Authority {
    pub(crate) async fn start(clock: TestClock) -> Self {
        Self::start_as(clock, &["127.0.0.1", "localhost"]).await
    }

    /// An authority whose certificate carries these names.
    pub(crate) async fn start_as(clock: TestClock, names: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster: Name = "test.example".parse().unwrap();
        let book = Book {
            keys: AuthorityKeys::generate(cluster, clock.now()),
            secret: Some(SECRET.to_owned()),
            bound: None,
            retired: Vec::new(),
            rotate: false,
            max_life: TimeDelta::days(1),
            trouble: VecDeque::new(),
            streams: 0,
            accepted: 0,
            resumed: 0,
            recoveries: 0,
            locked: None,
            inits: Vec::new(),
            gave_up: Vec::new(),
            generation: 0,
            latest: None,
        };
        let authority = Self {
            book: Arc::new(Mutex::new(book)),
            clock,
            address: listener.local_addr().unwrap(),
            names: names.iter().map(ToString::to_string).collect(),
        };
        tokio::spawn(authority.clone().serve(listener));
        authority
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub(crate) fn pin(&self) -> Pin {
        ca_pin(self.book().keys.active(Purpose::X509Ca).certificate().unwrap()).unwrap().parse().unwrap()
    }

    pub(crate) fn trouble(&self, trouble: impl IntoIterator<Item = Trouble>) {
        self.book().trouble.extend(trouble);
    }

    /// A new CA signs from now on; the old one stays trusted.
    pub(crate) fn rotate_ca(&self) {
        let mut book = self.book();
        book.keys.prepare(Purpose::X509Ca, self.clock.now()).unwrap();
        book.keys.activate(Purpose::X509Ca, self.clock.now()).unwrap();
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(self.clone().connection(tcp));
        }
    }

    async fn connection(self, tcp: tokio::net::TcpStream) {
        let Ok(tls) = TlsAcceptor::from(self.tls()).accept(tcp).await else { return };
        let certificate = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        let (broken, mut breaks) = mpsc::channel(1);
        let service = JoinServiceServer::new(Peer { authority: self, certificate, broken });
        let builder = Builder::new(TokioExecutor::new());
        tokio::select! {
            _ = builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(service)) => {}
            _ = breaks.recv() => {}
        }
    }

    fn tls(&self) -> Arc<ServerConfig> {
        let identity =
            Issuer::new(&self.book().keys).unwrap().generate_server_identity(&self.names, self.clock.now()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(AnyClient(provider)))
            .with_single_cert(identity.chain, identity.key.into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

struct Peer {
    authority: Authority,
    certificate: Vec<CertificateDer<'static>>,
    /// Told to break the connection.
    broken: mpsc::Sender<()>,
}

#[tonic::async_trait]
impl JoinService for Peer {
    type JoinStream = ReceiverStream<Result<wire::JoinResponse, Status>>;

    async fn join(
        &self,
        request: tonic::Request<Streaming<wire::JoinRequest>>,
    ) -> Result<tonic::Response<Self::JoinStream>, Status> {
        let silent = matches!(self.authority.book().trouble.front(), Some(Trouble::Silence));
        if silent {
            self.authority.book().trouble.pop_front();
            std::future::pending::<()>().await;
        }
        let (answers, stream) = mpsc::channel(4);
        let ceremony = Ceremony {
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            broken: self.broken.clone(),
            requests: request.into_inner(),
            answers: answers.clone(),
        };
        tokio::spawn(async move {
            if let Err(status) = ceremony.run().await {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(stream)))
    }
}

/// A refusal as it is sent.
fn refusal(code: Code, mut details: ErrorDetails) -> Status {
    let metadata = details.error_info().map(|info| info.metadata.clone()).unwrap_or_default();
    details.set_error_info(code.as_str(), "joinauthority", metadata);
    let grpc = match code {
        Code::Unavailable | Code::AuthorityBehind => tonic::Code::Unavailable,
        Code::Conflict => tonic::Code::Aborted,
        Code::RateLimited => tonic::Code::ResourceExhausted,
        _ => tonic::Code::PermissionDenied,
    };
    Status::with_error_details(grpc, format!("refused with {code}"), details)
}
