//! What one stream alone may have at a time: the names of live tokens and bots, and the keys that are bound (protocol,
//! sections 1 and 2).

use std::collections::HashMap;

use join_domain::{
    Timestamp,
    envelope::{Entry, StreamId},
    state::{Claim, State},
};

use crate::{
    finding::{Fault, Finding, Findings, Place},
    rules::AT_ONCE,
};

/// Who has what, as the log goes on.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    holders: HashMap<Claim, StreamId>,
    overlaps: Vec<Overlap>,
}

/// Something that a second stream got while the first one had it. Of two that met, the one that gives it up may stand
/// second in the log.
#[derive(Debug)]
struct Overlap {
    claim: Claim,
    first: StreamId,
    second: Place,
    since: Timestamp,
}

impl Claims {
    /// Follows an entry, from what its stream had before to what it has after.
    pub(crate) fn follow(&mut self, log_index: u64, entry: &Entry, before: &[Claim], after: &State) {
        let after = after.claims();
        for claim in before.iter().filter(|claim| !after.contains(claim)) {
            if self.holders.get(claim) == Some(&entry.stream) {
                self.holders.remove(claim);
            } else {
                let met = |it: &Overlap| it.is_of(entry.stream, claim) && entry.recorded_at < it.since + AT_ONCE;
                self.overlaps.retain(|overlap| !met(overlap));
            }
        }
        for claim in after.into_iter().filter(|claim| !before.contains(claim)) {
            let first = self.holders.insert(claim.clone(), entry.stream);
            if let Some(first) = first.filter(|first| *first != entry.stream) {
                let second = Place {
                    log_index: Some(log_index),
                    stream: Some(entry.stream.to_string()),
                    version: Some(entry.first_version),
                };
                self.overlaps.push(Overlap { claim, first, second, since: entry.recorded_at });
            }
        }
    }

    /// After the last entry: what two streams had.
    pub(crate) fn end(self, findings: &mut Findings) {
        for Overlap { claim: Claim { namespace, value }, first, second, .. } in self.overlaps {
            let namespace = namespace.as_str().replace('_', " ");
            let what = format!("it gets the {namespace} `{value}`, which is that of {first} still");
            findings.add(Finding::new(Fault::ForbiddenHistory, second, what));
        }
    }
}

impl Overlap {
    fn is_of(&self, first: StreamId, claim: &Claim) -> bool {
        self.first == first && self.claim == *claim
    }
}
