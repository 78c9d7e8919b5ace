//! Whether the times that entries tell go the way of the log. Only the order is sealed when it comes about: a time is what
//! its writer says, so the rules go by the order wherever both tell something.

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    envelope::{Entry, StreamKind},
};

/// Longer than an append takes: entries that were recorded within it of each other may stand in either order, unless they
/// are of one stream.
pub(crate) const AT_ONCE: TimeDelta = TimeDelta::seconds(60);

/// How far the log had come.
#[derive(Debug, Default)]
pub(crate) struct Times {
    latest: Option<Timestamp>,
}

impl Times {
    /// When something happened that stands here and tells this time: not before what stands before it.
    pub(crate) fn reached(&self, told: Timestamp) -> Timestamp {
        self.latest.map_or(told, |latest| latest.max(told))
    }

    /// Takes the next entry of the log, and says why its times can't be those of its place.
    pub(crate) fn follow(&mut self, entry: &Entry) -> Result<(), String> {
        let (decided, recorded) = (entry.decided_at, entry.recorded_at);
        let reached = self.reached(recorded);
        self.latest = Some(reached);
        // What is summed up about the cluster may have waited for the database, and nothing follows from its times.
        let waits = entry.stream.kind == StreamKind::Cluster;
        let earliest = if waits { recorded } else { recorded.min(decided) };
        if earliest + AT_ONCE < reached {
            return Err(format!(
                "it says that it is of {earliest}, and stands behind what is of {reached}: it was backdated, or a clock was \
                 set back or had stood still"
            ));
        }
        if !waits && decided > recorded + AT_ONCE {
            return Err(format!("it says that it was decided at {decided}, and recorded before that, at {recorded}"));
        }
        Ok(())
    }
}
