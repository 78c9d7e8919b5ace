//! A small authority behind the router: it gives back what it was asked, or fails as it was asked to.

use std::{collections::HashMap, pin::Pin, time::Duration};

use axum::{Router, body::Body, response::Response};
use futures::{Stream, stream};
use http::{Extensions, Request as HttpRequest, StatusCode, header};
use http_body_util::BodyExt as _;
use join_proto::{
    DESCRIPTORS,
    v1::{
        ceremony_server::{Ceremony, CeremonyServer},
        cluster_server::{Cluster, ClusterServer},
        ledger_server::{Ledger, LedgerServer},
        resources_server::{Resources, ResourcesServer},
        *,
    },
};
use join_transcode::{Door, Limits};
use prost_types::{Struct, Timestamp, Value, value::Kind};
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response as Answer, Status as GrpcStatus, service::Routes};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::ServiceExt as _;

/// What a connection leaves in the extensions of its requests.
#[derive(Clone)]
pub(crate) struct Peer(pub(crate) &'static str);

/// Answers of `WatchLocks`, sent by the test.
pub(crate) type Locks = mpsc::Receiver<Result<LockList, GrpcStatus>>;

pub(crate) struct Authority {
    locks: tokio::sync::Mutex<Option<Locks>>,
}

/// The router before an authority whose locks come from `locks`.
pub(crate) fn router_with(locks: Option<Locks>) -> Router {
    let authority = std::sync::Arc::new(Authority { locks: tokio::sync::Mutex::new(locks) });
    let grpc = Routes::new(ClusterServer::from_arc(authority.clone()))
        .add_service(CeremonyServer::from_arc(authority.clone()))
        .add_service(LedgerServer::from_arc(authority.clone()))
        .add_service(ResourcesServer::from_arc(authority));
    join_transcode::router(&DESCRIPTORS, grpc, Everybody, Limits::default()).unwrap()
}

/// A door that turns nobody away.
#[derive(Clone)]
pub(crate) struct Everybody;

impl Door for Everybody {
    async fn admit(&self, _: Role, _: &mut Extensions) -> Result<(), GrpcStatus> {
        Ok(())
    }
}

pub(crate) async fn send(request: HttpRequest<Body>) -> Response {
    router_with(None).oneshot(request).await.unwrap()
}

pub(crate) fn request(verb: &str, uri: &str, body: impl Into<Body>) -> HttpRequest<Body> {
    HttpRequest::builder().method(verb).uri(uri).body(body.into()).unwrap()
}

/// Sends JSON (or nothing, when `body` is empty) and reads JSON.
pub(crate) async fn ask(verb: &str, uri: &str, body: impl Into<Body>) -> (StatusCode, Json) {
    let response = send(request(verb, uri, body)).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    (response.status(), serde_json::from_slice(&bytes(response).await).unwrap())
}

pub(crate) async fn bytes(response: Response) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

/// The messages of an NDJSON answer.
pub(crate) async fn lines(response: Response) -> Vec<Json> {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-ndjson");
    let text = String::from_utf8(bytes(response).await).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn refusal(code: Code, reason: &str, lock: Option<&str>, retry: Option<Duration>) -> GrpcStatus {
    let metadata: HashMap<String, String> = lock.map(|id| ("lock_id".to_owned(), id.to_owned())).into_iter().collect();
    let mut details = ErrorDetails::with_error_info(reason, "joinauthority", metadata);
    details.set_retry_info(retry);
    GrpcStatus::with_error_details(code, format!("refused: {reason}"), details)
}

fn named(name: &str) -> Option<Metadata> {
    Some(Metadata { name: name.to_owned(), ..Metadata::default() })
}

#[tonic::async_trait]
impl Cluster for Authority {
    /// Tells what the request came with.
    async fn get_ca(&self, request: Request<Empty>) -> Result<Answer<Ca>, GrpcStatus> {
        let header = |name| request.metadata().get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
        let names = ["traceparent", "x-request-id", "grpc-encoding", "content-length", "te"];
        Ok(Answer::new(Ca {
            cluster_name: request.extensions().get::<Peer>().map_or("nobody", |peer| peer.0).to_owned(),
            pins: names.into_iter().map(header).collect(),
            ..Ca::default()
        }))
    }

    async fn get_status(&self, _: Request<Empty>) -> Result<Answer<Status>, GrpcStatus> {
        Ok(Answer::new(Status { log_next_index: u64::MAX, ..Status::default() }))
    }

    type WatchLocksStream = ReceiverStream<Result<LockList, GrpcStatus>>;

    async fn watch_locks(&self, _: Request<Empty>) -> Result<Answer<Self::WatchLocksStream>, GrpcStatus> {
        match self.locks.lock().await.take() {
            Some(locks) => Ok(Answer::new(ReceiverStream::new(locks))),
            None => Err(refusal(Code::PermissionDenied, "ROLE_REQUIRED", None, None)),
        }
    }

    async fn verify_views(&self, _: Request<Empty>) -> Result<Answer<ViewsReport>, GrpcStatus> {
        Err(GrpcStatus::unavailable("the database is away"))
    }
}

#[tonic::async_trait]
impl Ceremony for Authority {
    /// A challenge that tells what was sent.
    async fn open(&self, request: Request<OpenRequest>) -> Result<Answer<CeremonyStep>, GrpcStatus> {
        let sent = request.into_inner();
        Ok(Answer::new(CeremonyStep {
            challenge: format!("{} {:?} {:?}", sent.token, sent.public_tls_key, sent.held_keys),
            continuation: "sealed".to_owned(),
            ..CeremonyStep::default()
        }))
    }

    async fn r#continue(&self, request: Request<ContinueRequest>) -> Result<Answer<CeremonyStep>, GrpcStatus> {
        match request.into_inner().solution.as_str() {
            "locked" => Err(refusal(Code::PermissionDenied, "LOCKED", Some("7f3a"), None)),
            "fast" => Err(refusal(Code::ResourceExhausted, "RATE_LIMITED", None, Some(Duration::from_millis(1200)))),
            _ => Ok(Answer::new(CeremonyStep {
                rotation_request: Some(RotationRequest::default()),
                ..Default::default()
            })),
        }
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, GrpcStatus>> + Send>>;

/// One event that tells the filter.
fn told(filter: &ListEventsRequest) -> EventList {
    let number = |n: f64| Value { kind: Some(Kind::NumberValue(n)) };
    let data = Struct {
        fields: [
            ("page_size".to_owned(), number(f64::from(filter.page_size))),
            ("half".to_owned(), number(0.5)),
            ("since".to_owned(), number(filter.since.map_or(-1.0, |at| at.seconds as f64))),
        ]
        .into(),
    };
    let event = Event {
        kind: filter.kinds.join("+"),
        token: filter.token.clone(),
        version: 9_007_199_254_740_993,
        decided_at: Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
        data: Some(data),
        ..Event::default()
    };
    EventList { events: vec![event], ..EventList::default() }
}

#[tonic::async_trait]
impl Ledger for Authority {
    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Answer<EventList>, GrpcStatus> {
        Ok(Answer::new(told(request.get_ref())))
    }

    type FollowEventsStream = Events<EventList>;

    async fn follow_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Answer<Self::FollowEventsStream>, GrpcStatus> {
        let filter = request.into_inner();
        Ok(Answer::new(Box::pin(stream::iter([Ok(told(&filter)), Ok(EventList::default())]))))
    }

    type ReplayStream = Events<ReplayResponse>;

    async fn replay(&self, request: Request<ReplayRequest>) -> Result<Answer<Self::ReplayStream>, GrpcStatus> {
        let step = ReplayStep { why: request.into_inner().name, ..ReplayStep::default() };
        Ok(Answer::new(Box::pin(stream::iter([Ok(ReplayResponse { steps: vec![step] })]))))
    }

    type ExportViewsStream = Events<ViewsChunk>;

    async fn export_views(
        &self,
        request: Request<ExportViewsRequest>,
    ) -> Result<Answer<Self::ExportViewsStream>, GrpcStatus> {
        let chunk = ViewsChunk { end: Some(request.into_inner().size), ..ViewsChunk::default() };
        Ok(Answer::new(Box::pin(stream::iter([Ok(chunk)]))))
    }

    type ExportStream = Events<ExportChunk>;

    /// One entry, then a failure; with an index that is too high, nothing but the failure.
    async fn export(&self, request: Request<ExportRequest>) -> Result<Answer<Self::ExportStream>, GrpcStatus> {
        let from = request.into_inner().from_index;
        let entry = ExportedEntry { log_index: from, envelope: "{}".to_owned() };
        let chunk = Ok(ExportChunk { entries: vec![entry], end: None });
        let failure = Err(refusal(Code::Unavailable, "UNAVAILABLE", None, None));
        let answers = if from < 100 { vec![chunk, failure] } else { vec![failure] };
        Ok(Answer::new(Box::pin(stream::iter(answers))))
    }
}

macro_rules! resources {
    ($($unused:ident($request:ident) -> $answer:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl Resources for Authority {
            async fn get_bot(&self, request: Request<GetRequest>) -> Result<Answer<Bot>, GrpcStatus> {
                let asked = request.into_inner();
                let code = Code::from(asked.name.parse::<i32>().unwrap_or(5));
                Err(GrpcStatus::new(code, asked.name))
            }
            async fn upsert_bot(&self, request: Request<UpsertBotRequest>) -> Result<Answer<Bot>, GrpcStatus> {
                let asked = request.into_inner();
                Ok(Answer::new(Bot { metadata: named(&asked.name), ..asked.bot.unwrap_or_default() }))
            }
            async fn delete_bot(&self, request: Request<DeleteRequest>) -> Result<Answer<Empty>, GrpcStatus> {
                match request.into_inner().revision.as_str() {
                    "" | "new" => Ok(Answer::new(Empty {})),
                    _ => Err(refusal(Code::Aborted, "STALE_REVISION", None, None)),
                }
            }
            async fn create_token(&self, request: Request<Token>) -> Result<Answer<Token>, GrpcStatus> {
                Ok(Answer::new(request.into_inner()))
            }
            async fn reopen(&self, request: Request<ReasonRequest>) -> Result<Answer<Token>, GrpcStatus> {
                let asked = request.into_inner();
                Ok(Answer::new(Token { kind: asked.reason, metadata: named(&asked.name), ..Token::default() }))
            }
            $(async fn $unused(&self, _: Request<$request>) -> Result<Answer<$answer>, GrpcStatus> {
                Err(GrpcStatus::unimplemented("not in this test"))
            })*
        }
    };
}

resources! {
    list_bots(ListRequest) -> BotList,
    create_bot(Bot) -> Bot,
    get_token(GetRequest) -> Token,
    list_tokens(ListRequest) -> TokenList,
    upsert_token(UpsertTokenRequest) -> Token,
    delete_token(DeleteRequest) -> Empty,
    rotate_token(NameRequest) -> Token,
    reinstate(ReasonRequest) -> TokenList,
    reinstate_selected(SelectedReasonRequest) -> TokenList,
    get_bot_instance(GetRequest) -> BotInstance,
    list_bot_instances(ListBotInstancesRequest) -> BotInstanceList,
    get_lock(GetRequest) -> Lock,
    list_locks(ListRequest) -> LockList,
    create_lock(Lock) -> Lock,
    upsert_lock(UpsertLockRequest) -> Lock,
    delete_lock(DeleteRequest) -> Empty,
    get_exemption(GetRequest) -> Exemption,
    list_exemptions(ListRequest) -> ExemptionList,
    grant_exemption(GrantExemptionRequest) -> ExemptionList,
    revoke_exemption(DeleteRequest) -> Empty,
}
