//! What administrators ask for. Each act is one append; on a conflict it looks again and decides again.

mod bot;
mod lock;
mod token;

use join_domain::{
    event::Event,
    id::Name,
    refusal::{Code, Refusal},
    state::Namespace,
};
use join_ledger::{Append, AppendError, Change, Stored, StreamAppend};

use super::{Ceremonies, OrRefuse as _};
use crate::caller::Administrator;

/// How often an act is decided again after a conflict.
const MAX_TRIES: usize = 16;

/// An append, and what to answer once it is durable.
type Decided<T> = Result<(Append, T), Refusal>;

impl Ceremonies {
    fn change(&self, admin: &Administrator, events: Vec<Event>) -> Change {
        Change { events, decided_at: self.ledger.now(), origin: admin.origin() }
    }

    /// What follows in a stream that is there.
    fn next(&self, admin: &Administrator, stored: &Stored, events: Vec<Event>) -> StreamAppend {
        StreamAppend::following(stored, self.change(admin, events))
    }

    /// Decides and appends; looks and decides again when somebody else was faster, also with a name.
    async fn write<T, F: Future<Output = Decided<T>>>(&self, decide: impl Fn() -> F) -> Result<T, Refusal> {
        for _ in 0..MAX_TRIES {
            let (append, answer) = decide().await?;
            match self.ledger.append(append).await {
                Ok(_) => return Ok(answer),
                Err(AppendError::Conflict) => {}
                Err(AppendError::ClaimTaken { namespace: Namespace::BotName | Namespace::TokenName, .. }) => {}
                Err(error) => return Err(error).or_refuse(),
            }
        }
        Err(AppendError::Conflict).or_refuse()
    }
}

fn exists(kind: &str, name: &Name) -> Refusal {
    Refusal::new(Code::AlreadyExists, format!("{kind} `{name}` exists already: `joinctl create -f` replaces it"))
}

/// An edit must be of the newest revision, when it says of which.
fn check_revision(written: &str, current: Option<u64>) -> Result<(), Refusal> {
    match current {
        _ if written.is_empty() => Ok(()),
        Some(current) if written == current.to_string() => Ok(()),
        Some(current) => Err(Refusal::new(
            Code::StaleRevision,
            format!(
                "the edit is of revision {written}, and revision {current} is the newest: read it again, then edit"
            ),
        )),
        None => Err(Refusal::new(Code::StaleRevision, "what was edited does not exist any more")),
    }
}
