//! `joinauthority.v1.Ledger`: the history, for those who check it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use join_domain::{
    envelope::{Entry, StreamId, StreamKind},
    id::Name,
    refusal::{Code, Refusal},
};
use join_ledger::{HistoryFilter, Indexed, Kinds, ShownState, Whose};
use join_proto::v1::{self, ledger_server::Ledger};
use prost_types::{Struct, Value as WireValue, value::Kind};
use serde_json::Value;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Answers, one_by_one, replay::Replaying};
use crate::{
    app::App,
    ceremony::{OrRefuse as _, internal},
    request::{problem, values, watcher::Watcher},
};

/// Entries of a page when nobody says.
const PAGE: u32 = 200;
/// Entries of one chunk of an export.
const CHUNK: u32 = 1000;
/// How often a follower looks for what is new.
const LOOK: Duration = Duration::from_millis(200);

/// The service.
pub struct History(pub Arc<App>);

struct Search {
    filter: HistoryFilter,
    from: u64,
    limit: u32,
}

impl Search {
    fn read(request: &v1::ListEventsRequest) -> Result<Self, Refusal> {
        let filter = HistoryFilter {
            whose: whose(request)?,
            since: values::optional_time("since", request.since.as_ref())?,
            until: values::optional_time("until", request.until.as_ref())?,
            kinds: kinds(request)?,
        };
        let from = match request.cursor.as_str() {
            "" => 0,
            cursor => cursor.parse().map_err(|_| Refusal::invalid("cursor", "not one that a page ended with"))?,
        };
        let limit = values::page_size(request.page_size, PAGE);
        Ok(Self { filter, from, limit })
    }
}

fn whose(request: &v1::ListEventsRequest) -> Result<Whose, Refusal> {
    let named = |field, name: &str| name.parse::<Name>().map_err(|error| Refusal::invalid(field, error));
    match (request.token.as_str(), request.bot.as_str()) {
        ("", "") => Ok(Whose::All),
        (token, "") => named("token", token).map(Whose::Token),
        ("", bot) => named("bot", bot).map(Whose::Bot),
        // No event is of both.
        (..) => Err(Refusal::invalid("bot", "name a token or a bot, not both: each has a history of its own")),
    }
}

fn kinds(request: &v1::ListEventsRequest) -> Result<Kinds, Refusal> {
    let named = request.kinds.iter().flat_map(|kinds| kinds.split(',')).map(str::trim).filter(|kind| !kind.is_empty());
    let kinds = Kinds(named.map(str::to_owned).collect());
    match kinds.unknown() {
        Some(unknown) => Err(Refusal::invalid("kinds", format!("no event is of the kind `{unknown}`"))),
        None => Ok(kinds),
    }
}

#[tonic::async_trait]
impl Ledger for History {
    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Result<Response<v1::EventList>, Status> {
        let listed = async {
            self.0.admitted_administrator(request.extensions()).await?;
            let search = Search::read(request.get_ref())?;
            events_of(&self.0, &search).await.map(|(list, _)| list)
        };
        problem::reply(listed.await)
    }

    type FollowEventsStream = Answers<v1::EventList>;

    async fn follow_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        let watcher = Watcher::of(&self.0, &request).await;
        let following = watcher.and_then(|watcher| Ok((watcher, Search::read(request.get_ref())?)));
        let (watcher, search) = following.map_err(problem::status)?;
        let app = Arc::clone(&self.0);
        let pages = one_by_one(Some((app, watcher, search)), async |following| {
            let (app, mut watcher, mut search) = following?;
            loop {
                if let Err(status) = watcher.still_counts().await {
                    return Some((Err(status), None));
                }
                match events_of(&app, &search).await {
                    Err(refusal) => return Some((Err(problem::status(refusal)), None)),
                    Ok((list, next)) if !list.events.is_empty() => {
                        search.from = next;
                        return Some((Ok(list), Some((app, watcher, search))));
                    }
                    Ok((list, next)) => {
                        search.from = next;
                        if !list.more {
                            tokio::select! {
                                () = app.stopping.cancelled() => return None,
                                () = tokio::time::sleep(LOOK) => {}
                            }
                        }
                    }
                }
            }
        });
        Ok(Response::new(pages))
    }

    type ReplayStream = Answers<v1::ReplayResponse>;

    async fn replay(&self, request: Request<v1::ReplayRequest>) -> Result<Response<Self::ReplayStream>, Status> {
        let replaying = async {
            let watcher = Watcher::of(&self.0, &request).await?;
            Replaying::begin(Arc::clone(&self.0), watcher, request.get_ref()).await
        };
        let replaying = replaying.await.map_err(problem::status)?;
        let pages = one_by_one(Some(replaying), async |replaying| {
            let mut replaying = replaying?;
            match replaying.page().await {
                Ok(None) => None,
                Ok(Some(page)) => Some((Ok(page), Some(replaying))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(pages))
    }

    type ExportViewsStream = Answers<v1::ViewsChunk>;

    async fn export_views(
        &self,
        request: Request<v1::ExportViewsRequest>,
    ) -> Result<Response<Self::ExportViewsStream>, Status> {
        let watcher = Watcher::of(&self.0, &request).await.map_err(problem::status)?;
        let (app, size) = (Arc::clone(&self.0), request.get_ref().size);
        let begin = Some((app, watcher, size, Some(Uuid::nil()), 0));
        let chunks = one_by_one(begin, async |exporting| {
            let (app, mut watcher, size, after, sent) = exporting?;
            let Some(after) = after else {
                return Some((Ok(v1::ViewsChunk { views: Vec::new(), end: Some(sent) }), None));
            };
            if let Err(status) = watcher.still_counts().await {
                return Some((Err(status), None));
            }
            match app.ceremonies.ledger.shown_states(size, after, CHUNK).await.or_refuse() {
                Err(refusal) => Some((Err(problem::status(refusal)), None)),
                Ok(page) => {
                    let sent = sent + u64::try_from(page.states.len()).unwrap_or(u64::MAX);
                    let views = page.states.into_iter().map(shown).collect();
                    Some((Ok(v1::ViewsChunk { views, end: None }), Some((app, watcher, size, page.next, sent))))
                }
            }
        });
        Ok(Response::new(chunks))
    }

    type ExportStream = Answers<v1::ExportChunk>;

    async fn export(&self, request: Request<v1::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let watcher = Watcher::of(&self.0, &request).await.map_err(problem::status)?;
        let from = request.get_ref().from_index;
        // The end is that of the moment when the export began: what comes later is for the next one.
        let end = self.0.ceremonies.ledger.settled().await.or_refuse().map_err(problem::status)?;
        let app = Arc::clone(&self.0);
        let chunks = one_by_one(Some((app, watcher, from, end)), async |exporting| {
            let (app, mut watcher, from, end) = exporting?;
            if from >= end {
                return Some((Ok(v1::ExportChunk { entries: Vec::new(), end: Some(end) }), None));
            }
            if let Err(status) = watcher.still_counts().await {
                return Some((Err(status), None));
            }
            match app.ceremonies.ledger.log(from, CHUNK).await.or_refuse() {
                Err(refusal) => Some((Err(problem::status(refusal)), None)),
                Ok(page) if page.settled < end => {
                    let why =
                        format!("the log had {end} entries and has {}: the database lost some meanwhile", page.settled);
                    Some((Err(problem::status(Refusal::new(Code::Unavailable, why))), None))
                }
                Ok(page) => {
                    let within = page.entries.into_iter().filter(|entry| entry.index < end);
                    let entries: Vec<_> = within.map(exported).collect();
                    Some((Ok(v1::ExportChunk { entries, end: None }), Some((app, watcher, page.next, end))))
                }
            }
        });
        Ok(Response::new(chunks))
    }
}

fn shown(ShownState { stream, version, state }: ShownState) -> v1::ClaimedView {
    v1::ClaimedView { stream: stream.to_string(), version, state }
}

fn exported(entry: Indexed) -> v1::ExportedEntry {
    v1::ExportedEntry { log_index: entry.index, envelope: entry.envelope }
}

/// One page of a search, and where to go on.
async fn events_of(app: &App, search: &Search) -> Result<(v1::EventList, u64), Refusal> {
    let ledger = &app.ceremonies.ledger;
    let page = ledger.history(&search.filter, search.from, search.limit).await.or_refuse()?;
    // Where the log ends was read from the database after the cursor came, so a node that lags refuses none in error.
    if page.settled < search.from {
        let what = format!("cursor: it stands behind {} entries, and the log has {}", search.from, page.settled);
        return Err(Refusal::new(Code::NotFound, format!("{what}: history was lost, or another database answers")));
    }
    let streams: Vec<StreamId> = page.entries.iter().map(|(indexed, _)| indexed.stream).collect();
    let names = ledger.names(&streams).await.or_refuse()?;
    let mut events = Vec::new();
    for (indexed, entry) in &page.entries {
        let name = names.get(&indexed.stream).map_or("", String::as_str);
        events.extend(wire_events(entry, Some(indexed.index), name, &search.filter.kinds)?);
    }
    Ok((v1::EventList { events, cursor: page.next.to_string(), more: !page.is_end() }, page.next))
}

/// The events of an entry that are of some kinds.
pub(super) fn wire_events(
    entry: &Entry,
    index: Option<u64>,
    token: &str,
    kinds: &Kinds,
) -> Result<Vec<v1::Event>, Refusal> {
    let mut events = Vec::with_capacity(entry.events.len());
    for (version, event) in (entry.first_version..).zip(&entry.events) {
        let (kind, schema) = event.kind();
        if !kinds.include(kind) {
            continue;
        }
        let data = event.data().map_err(internal)?;
        events.push(v1::Event {
            stream: entry.stream.to_string(),
            version,
            kind: kind.to_owned(),
            schema,
            decided_at: Some(values::to_wire_time(entry.decided_at)),
            recorded_at: Some(values::to_wire_time(entry.recorded_at)),
            actor: entry.origin.actor.clone(),
            remote_addr: entry.origin.address.clone().unwrap_or_default(),
            attempt: entry.origin.attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
            request_id: entry.origin.request.clone().unwrap_or_default(),
            trace_id: entry.origin.trace.clone().unwrap_or_default(),
            data: to_struct(data),
            log_index: index,
            token: if entry.stream.kind == StreamKind::Token { token.to_owned() } else { String::new() },
        });
    }
    Ok(events)
}

fn to_struct(value: Value) -> Option<Struct> {
    let Value::Object(fields) = value else { return None };
    Some(Struct { fields: fields.into_iter().map(|(name, value)| (name, to_wire(value))).collect::<BTreeMap<_, _>>() })
}

fn to_wire(value: Value) -> WireValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(to_wire).collect() })
        }
        object @ Value::Object(_) => Kind::StructValue(to_struct(object).unwrap_or_default()),
    };
    WireValue { kind: Some(kind) }
}
