//! What one stream alone may have at a time: the names of live tokens and bots, and the keys that are bound (protocol,
//! sections 1 and 2).

use std::collections::{HashMap, hash_map::Entry};

use join_domain::{
    Timestamp,
    envelope::{self, StreamId},
    state::Claim,
};

use crate::{
    finding::{Fault, Finding, Findings, Place},
    times::AT_ONCE,
};

/// Who has what, as the log goes on.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    holders: HashMap<Claim, StreamId>,
    /// What a second stream got while the first one, which is named here, had it.
    overlaps: HashMap<(Claim, StreamId), Overlap>,
}

/// Of two that met, the one that gives it up may stand second in the log.
#[derive(Debug)]
struct Overlap {
    second: Place,
    since: Timestamp,
}

impl Claims {
    /// Follows an entry, recorded `at` this time by its place in the log, from what its stream had before to what it has
    /// after.
    pub(crate) fn follow(
        &mut self,
        log_index: u64,
        entry: &envelope::Entry,
        at: Timestamp,
        before: &[Claim],
        after: &[Claim],
    ) {
        for claim in before.iter().filter(|claim| !after.contains(claim)) {
            if self.holders.get(claim) == Some(&entry.stream) {
                self.holders.remove(claim);
            } else if let Entry::Occupied(overlap) = self.overlaps.entry((claim.clone(), entry.stream))
                && at < overlap.get().since + AT_ONCE
            {
                overlap.remove();
            }
        }
        for claim in after.iter().filter(|claim| !before.contains(claim)) {
            let first = self.holders.insert(claim.clone(), entry.stream);
            if let Some(first) = first.filter(|first| *first != entry.stream) {
                let second = Place {
                    log_index: Some(log_index),
                    stream: Some(entry.stream.to_string()),
                    version: Some(entry.first_version),
                };
                let overlap = Overlap { second, since: at };
                self.overlaps.entry((claim.clone(), first)).or_insert(overlap);
            }
        }
    }

    /// After the last entry: what two streams had.
    pub(crate) fn end(self, findings: &mut Findings) {
        let mut overlaps: Vec<_> = self.overlaps.into_iter().collect();
        overlaps.sort_by_key(|(_, overlap)| overlap.second.log_index);
        for ((Claim { namespace, value }, first), Overlap { second, .. }) in overlaps {
            let namespace = namespace.as_str().replace('_', " ");
            let what = format!("it gets the {namespace} `{value}`, which is that of {first} still");
            findings.add(Finding::new(Fault::ForbiddenHistory, second, what));
        }
    }
}
