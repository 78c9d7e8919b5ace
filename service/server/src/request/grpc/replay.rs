//! A token's states, entry by entry: page by page, however long its history is.

use std::{collections::VecDeque, sync::Arc};

use join_domain::{
    Timestamp,
    envelope::{Entry, StreamId, StreamKind},
    id::Name,
    refusal::{Code, Refusal},
    state::State,
};
use join_ledger::Kinds;
use join_proto::v1;
use tonic::Status;

use super::ledger::wire_events;
use crate::{
    app::App,
    ceremony::{OrRefuse as _, internal},
    request::{problem, resource, values, watcher::Watcher, why},
};

/// Entries of a page.
const PAGE: u32 = 200;

/// A replay between two pages.
pub(super) struct Replaying {
    app: Arc<App>,
    watcher: Watcher,
    name: Name,
    at: Option<Timestamp>,
    /// The tokens of that name that are left, oldest first.
    left: VecDeque<StreamId>,
    /// The next version of the first of them.
    from: u64,
    /// Its state before that.
    state: Option<State>,
}

impl Replaying {
    /// Finds all tokens that ever had the name.
    ///
    /// # Errors
    /// NOT_FOUND when there never was one; UNAVAILABLE.
    pub(super) async fn begin(app: Arc<App>, watcher: Watcher, request: &v1::ReplayRequest) -> Result<Self, Refusal> {
        let name: Name = request.name.parse().map_err(|error| Refusal::invalid("name", error))?;
        let at = values::optional_time("at", request.at.as_ref())?;
        let left = app.ceremonies.ledger.namesakes(StreamKind::Token, &name).await.or_refuse()?;
        if left.is_empty() {
            return Err(Refusal::new(Code::NotFound, format!("there never was a token `{name}`")));
        }
        Ok(Self { app, watcher, name, at, left: left.into(), from: 1, state: None })
    }

    /// The next page; none when all is told.
    ///
    /// # Errors
    /// UNAUTHENTICATED once the caller does not count any more; UNAVAILABLE.
    pub(super) async fn page(&mut self) -> Result<Option<v1::ReplayResponse>, Status> {
        while let Some(stream) = self.left.front().copied() {
            self.watcher.still_counts().await?;
            let page = self.app.ceremonies.ledger.stream(stream, self.from, PAGE).await.or_refuse();
            let page = page.map_err(problem::status)?;
            let last = page.entries.last().map_or(self.from, |entry| entry.first_version);
            let places = self.app.ceremonies.ledger.places(stream, self.from, last).await.or_refuse();
            let places = places.map_err(problem::status)?;
            let mut steps = Vec::new();
            let mut next = page.next;
            for entry in page.entries {
                // What follows a later entry is later, whatever the clock of its node said.
                if self.at.is_some_and(|at| entry.recorded_at > at) {
                    next = None;
                    break;
                }
                let place = places.get(&entry.first_version).copied();
                steps.push(self.step(&entry, place).map_err(problem::status)?);
            }
            match next {
                Some(version) => self.from = version,
                None => {
                    self.left.pop_front();
                    (self.from, self.state) = (1, None);
                }
            }
            if !steps.is_empty() {
                return Ok(Some(v1::ReplayResponse { steps }));
            }
        }
        Ok(None)
    }

    fn step(&mut self, entry: &Entry, place: Option<u64>) -> Result<v1::ReplayStep, Refusal> {
        let why = why::explain(self.state.as_ref(), entry);
        let after = State::after(self.state.take(), entry).map_err(internal)?;
        let state = match &after {
            State::Token(token) => Some(resource::write_token(token, None, entry.decided_at)),
            _ => None,
        };
        self.state = Some(after);
        Ok(v1::ReplayStep { events: wire_events(entry, place, self.name.as_str(), &Kinds::default())?, why, state })
    }
}
