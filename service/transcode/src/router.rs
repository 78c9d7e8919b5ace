//! The routes, and the way from an HTTP request through the gRPC service to an HTTP answer.

use std::{convert::Infallible, error::Error, future::ready, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{FromRequestParts as _, Query, RawPathParams, Request},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use join_proto::v1::Role;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tonic::{Status, metadata::MetadataMap};
use tower::Service;

use crate::{
    calls::{self, BadCall, Call},
    codec::DynamicCodec,
    json::{Fields, to_json},
    problem::Problem,
    request::{self, Pairs},
};

/// How long the head of a streamed answer waits for the first message, so that an early error has its HTTP status. A
/// stream that has nothing to say yet begins without.
const FIRST_MESSAGE: Duration = Duration::from_secs(1);
/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(30);
/// How much is read of a body that nobody needs, in bytes.
const DRAINED: usize = 2 << 20;

/// Headers that are about the HTTP connection or body, and would be wrong on the gRPC request. Those named `grpc-…` are
/// left out too.
const NOT_FORWARDED: [HeaderName; 9] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The largest HTTP bodies, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of calls that need no identity: joining.
    pub strangers: usize,
    /// Of calls that need a role.
    pub administrators: usize,
}

impl Default for Limits {
    /// 64 KiB for strangers, 1 MiB for administrators.
    fn default() -> Self {
        Self { strangers: 64 << 10, administrators: 1 << 20 }
    }
}

/// Who may call. It is asked before a body is read, so that nobody fills memory with messages that are refused anyway.
pub trait Door: Clone + Send + Sync + 'static {
    /// Lets in whoever has the role, and may leave in the extensions who it is.
    ///
    /// # Errors
    /// What is answered to all others.
    fn admit(&self, role: Role, extensions: &mut Extensions) -> impl Future<Output = Result<(), Status>> + Send;
}

/// A route for every call of `joinauthority.v1`, which lets in whom `door` does and asks `grpc` in-process.
///
/// The gRPC request has the extensions and headers of the HTTP request. Unary answers are JSON, streams are NDJSON: a
/// message a line, and an error that comes late as the last line. Where a call streams at `PATH:switch` what another
/// one pages through at `PATH`, `PATH?switch=true` is the same.
///
/// The router answers unknown paths itself: merge into it only routers without a fallback.
///
/// # Errors
/// [`BadCall`] when a method's option is missing or can't be right.
pub fn router<S, B>(pool: &DescriptorPool, grpc: S, door: impl Door, limits: Limits) -> Result<Router, BadCall>
where
    S: Service<Request<tonic::body::Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let calls = calls::calls(pool)?;
    let mut router = Router::new();
    for call in &calls {
        let filter = MethodFilter::try_from(call.verb.clone()).expect("options name only methods that axum knows");
        let route = Arc::new(Route {
            call: Arc::clone(call),
            streamed: call.streaming_twin(&calls).map(|(switch, twin)| (switch.to_owned(), Arc::clone(twin))),
            limits,
        });
        let (grpc, door) = (grpc.clone(), door.clone());
        let handler = move |request: Request| {
            let (route, grpc, door) = (Arc::clone(&route), grpc.clone(), door.clone());
            async move { route.answer(grpc, door, request).await.unwrap_or_else(Problem::into_response) }
        };
        router = router.route(&call.path, on(filter, handler));
    }
    Ok(router
        .fallback(async move |request: Request| {
            let problem = Problem::not_found(request.uri().path());
            drain(request.into_body()).await;
            problem
        })
        .method_not_allowed_fallback(async move |request: Request| {
            let problem = Problem::method_not_allowed(request.method(), request.uri().path());
            drain(request.into_body()).await;
            problem
        }))
}

struct Route {
    call: Arc<Call>,
    /// The query parameter that asks for a stream, and the call that streams.
    streamed: Option<(String, Arc<Call>)>,
    limits: Limits,
}

impl Route {
    async fn answer<S, B>(&self, grpc: S, door: impl Door, request: Request) -> Result<Response, Problem>
    where
        S: Service<Request<tonic::body::Body>, Response = Response<B>>,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|rejection| Problem::invalid(format!("the path: {rejection}")))?;
        let path = path.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let Query(mut query) = Query::<Pairs>::try_from_uri(&parts.uri)
            .map_err(|rejection| Problem::invalid(format!("the query: {rejection}")))?;
        let call = self.choose(&mut query)?;
        if let Err(status) = door.admit(call.role, &mut parts.extensions).await {
            drain(body).await;
            return Err(status.into());
        }
        let body = self.read(body, &parts.headers).await?;
        let message = request::message(call, &path, &query, &body)?;

        let metadata = MetadataMap::from_headers(forwarded(parts.headers));
        let request = tonic::Request::from_parts(metadata, parts.extensions, message);
        // A step of a join has only what is set: the members that are there tell the client what to do next.
        let fields = if call.is_for_anyone() { Fields::Set } else { Fields::All };
        // The service is ours: its answers are as long as they are.
        let mut grpc = tonic::client::Grpc::new(grpc).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
        let codec = DynamicCodec { answer: call.method.output() };
        if call.method.is_server_streaming() {
            let answers = grpc.server_streaming(request, call.grpc_path.clone(), codec).await?;
            lines(answers.into_inner(), fields).await
        } else {
            let answer = grpc.unary(request, call.grpc_path.clone(), codec).await?;
            Ok(success("application/json", to_json(answer.get_ref(), fields)?.to_string().into()))
        }
    }

    /// The call that is meant: this one, or its streaming twin when the query says so.
    fn choose(&self, query: &mut Pairs) -> Result<&Call, Problem> {
        let Some((switch, twin)) = &self.streamed else { return Ok(&self.call) };
        let mut streamed = false;
        for (_, value) in query.extract_if(.., |(name, _)| name == switch) {
            // `?follow` alone is clear enough.
            let value = if value.is_empty() { "true" } else { value.as_str() };
            streamed = value
                .parse()
                .map_err(|_| Problem::invalid(format!("query parameter {switch}: expected `true` or `false`")))?;
        }
        Ok(if streamed { twin } else { &self.call })
    }

    async fn read(&self, body: Body, headers: &HeaderMap) -> Result<Bytes, Problem> {
        let limit = if self.call.is_for_anyone() { self.limits.strangers } else { self.limits.administrators };
        let read = tokio::time::timeout(BODY, Limited::new(body, limit).collect());
        let read = read.await.map_err(|_| Problem::invalid("the body did not come in time"))?;
        let body = read.map_err(|error| {
            Problem::invalid(if error.is::<LengthLimitError>() {
                format!("the body is larger than the {limit} bytes that are allowed")
            } else {
                "the body ended before its time".to_owned()
            })
        })?;
        let body = body.to_bytes();
        match headers.get(header::CONTENT_TYPE) {
            Some(kind) if !body.is_empty() && !is_json(kind) => Err(Problem::not_json()),
            _ => Ok(body),
        }
    }
}

/// Reads a body that nobody needs, and keeps nothing of it. An answer over HTTP/2 that comes before the body's end resets
/// the stream, and some clients lose the answer then.
pub async fn drain(mut body: Body) {
    let mut left = DRAINED;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // A body that is too large or too slow is its sender's own loss.
    let _ = tokio::time::timeout(BODY, read).await;
}

fn is_json(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn forwarded(mut headers: HeaderMap) -> HeaderMap {
    let reserved: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("grpc-") || NOT_FORWARDED.contains(name))
        .cloned()
        .collect();
    for name in reserved {
        headers.remove(name);
    }
    headers
}

/// One line per message, each sent as it comes; an error is the last.
async fn lines(mut answers: tonic::Streaming<DynamicMessage>, fields: Fields) -> Result<Response, Problem> {
    let first = match tokio::time::timeout(FIRST_MESSAGE, answers.next()).await {
        Ok(Some(Err(status))) => return Err(status.into()),
        Ok(first) => first,
        Err(_nothing_yet) => None,
    };
    let answers = stream::iter(first).chain(answers);
    let lines = answers.map(move |answer| to_json(&answer?, fields)).scan(false, |failed, line| {
        let go_on = !std::mem::replace(failed, line.is_err());
        let line = line.unwrap_or_else(|problem| problem.to_json());
        ready(go_on.then(|| Ok::<_, Infallible>(format!("{line}\n"))))
    });
    Ok(success("application/x-ndjson", Body::from_stream(lines)))
}

fn success(content_type: &'static str, body: Body) -> Response {
    // Some answers hold a registration secret.
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::OK, headers, body).into_response()
}
