//! Every stream's version and state, which is all that an audit keeps in memory.

use std::collections::HashMap;

use join_domain::{
    envelope::{Entry, StreamId, StreamKind},
    event::Event,
    state::State,
};
use serde::Deserialize;
use serde_json::Value;

use crate::claims::Claims;
use crate::envelope::Envelope;
use crate::finding::{Fault, Finding, Findings, Place};
use crate::rules::Rules;
use crate::times::Times;

/// Streams by name, and what joins depend on beside their own.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: HashMap<String, Stream>,
    rules: Rules,
    claims: Claims,
    times: Times,
    /// True once an event of a newer version was met in a stream that others depend on: what it means to them is not known.
    newer: bool,
}

#[derive(Debug, Default)]
struct Stream {
    version: u64,
    state: Option<State>,
    /// Once something is wrong or unknown, versions are counted on, but nothing more is said of the state.
    broken: bool,
    /// Whether a view was compared.
    claimed: bool,
}

/// A line of `views.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct View {
    stream: String,
    version: u64,
    state: Value,
}

impl Streams {
    /// How many streams there are.
    pub(crate) fn count(&self) -> u64 {
        self.streams.len() as u64
    }

    /// Takes the next entry of the log: its versions have to follow, and its events have to be possible.
    pub(crate) fn follow(&mut self, log_index: u64, envelope: &Envelope, text: &str, findings: &mut Findings) {
        let name = &envelope.stream;
        let stream = match self.streams.get_mut(name) {
            Some(stream) => stream,
            None => self.streams.entry(name.clone()).or_default(),
        };
        let at = |version| Place { log_index: Some(log_index), stream: Some(name.clone()), version: Some(version) };
        let expected = stream.version + 1;
        if envelope.first_version != expected {
            let what = format!("version {expected} was to come: an entry is missing, repeated or out of order");
            findings.add(Finding::new(Fault::StreamVersion, at(envelope.first_version), what));
            stream.broken = true;
        }
        stream.version = envelope.first_version.saturating_add(envelope.len() - 1);
        if stream.broken {
            return;
        }
        let unfollowed = |fault, version, why| Finding::new(fault, at(version), why);
        let entry = Entry::from_envelope(text).map_err(|error| {
            let fault = if error.is_newer() { Fault::Newer } else { Fault::ImpossibleHistory };
            unfollowed(fault, envelope.first_version, error.to_string())
        });
        let followed = entry.and_then(|entry| {
            let claims_move = entry.events.iter().any(Event::may_move_claims);
            let before = claims_move.then(|| stream.state.as_ref().map(State::claims).unwrap_or_default());
            let (decided, recorded) = (self.times.reached(entry.decided_at), self.times.reached(entry.recorded_at));
            if let Err(why) = self.times.follow(&entry) {
                findings.add(Finding::new(Fault::TimeWentBack, at(envelope.first_version), why));
            }
            if let Err(why) = self.rules.check(stream.state.as_ref(), &entry, decided)
                && !self.newer
            {
                findings.add(Finding::new(Fault::ForbiddenHistory, at(envelope.first_version), why));
            }
            let state = State::after(stream.state.take(), &entry).map_err(|error| {
                let why = format!("`{}` cannot follow what came before", error.event);
                unfollowed(Fault::ImpossibleHistory, error.version, why)
            })?;
            self.rules.take(&state, recorded);
            if let Some(before) = before {
                self.claims.follow(log_index, &entry, recorded, &before, &state.claims());
            }
            Ok(state)
        });
        match followed {
            Ok(state) => stream.state = Some(state),
            Err(finding) => {
                self.newer |= finding.fault == Fault::Newer && others_depend_on(name);
                findings.add(finding);
                stream.broken = true;
            }
        }
    }

    /// After the last entry.
    pub(crate) fn end(&mut self, findings: &mut Findings) {
        if !self.newer {
            std::mem::take(&mut self.claims).end(findings);
        }
    }

    /// Compares a claimed view with what follows from the events.
    pub(crate) fn compare(&mut self, view: &View, findings: &mut Findings) {
        let mut wrong = |what: String| {
            let place = Place { log_index: None, stream: Some(view.stream.clone()), version: Some(view.version) };
            findings.add(Finding::new(Fault::WrongView, place, what));
        };
        let Some(stream) = self.streams.get_mut(&view.stream) else {
            return wrong("a view is claimed of a stream that has no events".to_owned());
        };
        if std::mem::replace(&mut stream.claimed, true) {
            return wrong("the view is claimed twice".to_owned());
        }
        if stream.broken {
            return;
        }
        if stream.version != view.version {
            return wrong(format!("the claimed view is of another version: the stream is at {}", stream.version));
        }
        let state = serde_json::to_value(&stream.state).unwrap_or_default();
        if state == view.state {
            return;
        }
        // A state that another version wrote lacks what was added since, or has more.
        let is_same = |folded: &State| State::deserialize(&view.state).is_ok_and(|claimed| claimed == *folded);
        if !stream.state.as_ref().is_some_and(is_same) {
            wrong(format!("the claimed view does not follow from the events{}", difference(&state, &view.state)));
        } else if has_more(&view.state, &state) {
            let place = Place { log_index: None, stream: Some(view.stream.clone()), version: Some(view.version) };
            let what = format!("the claimed view says more than is known here{}", difference(&state, &view.state));
            findings.add(Finding::new(Fault::Newer, place, what));
        }
    }

    /// After the last view: every stream that has to have one had one.
    pub(crate) fn all_claimed(&self, findings: &mut Findings) {
        let missing = |stream: &Stream| !stream.claimed && stream.state.as_ref().is_some_and(has_view);
        if let Some(name) = self.streams.iter().filter(|(_, stream)| missing(stream)).map(|(name, _)| name).min() {
            let place = Place { log_index: None, stream: Some(name.clone()), version: None };
            findings.add(Finding::new(Fault::MissingView, place, "the stream has events, but no view is claimed"));
        }
    }
}

/// Whether a view has to be there. What is no resource may go without.
fn has_view(state: &State) -> bool {
    !matches!(state, State::Administrator(_) | State::Cluster)
}

/// Whether joins of other streams, or their names and keys, follow from the stream.
fn others_depend_on(stream: &str) -> bool {
    let record = |stream: StreamId| matches!(stream.kind, StreamKind::Cluster | StreamKind::Administrator);
    !stream.parse().is_ok_and(record)
}

/// The first part in which two JSON values differ, as a path such as `.spec.roles`; never its content.
fn difference(folded: &Value, claimed: &Value) -> String {
    let (Value::Object(folded), Value::Object(claimed)) = (folded, claimed) else { return String::new() };
    let keys = folded.keys().chain(claimed.keys());
    let differs = |key: &&String| folded.get(*key) != claimed.get(*key);
    let Some(key) = keys.filter(differs).min() else { return String::new() };
    let deeper = folded.get(key).zip(claimed.get(key)).map(|(folded, claimed)| difference(folded, claimed));
    let deeper = deeper.unwrap_or_default();
    format!(" at .{key}{}", deeper.strip_prefix(" at ").unwrap_or_default())
}

/// Whether the claimed value has a field that the folded one has not.
fn has_more(claimed: &Value, folded: &Value) -> bool {
    match (claimed, folded) {
        (Value::Object(claimed), Value::Object(folded)) => {
            claimed.iter().any(|(key, claimed)| folded.get(key).is_none_or(|folded| has_more(claimed, folded)))
        }
        (Value::Array(claimed), Value::Array(folded)) => {
            claimed.iter().zip(folded).any(|(claimed, folded)| has_more(claimed, folded))
        }
        _ => false,
    }
}
