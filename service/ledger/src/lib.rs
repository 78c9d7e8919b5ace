//! The ledger: what happened, in order, and the states that follow from it. The only crate that speaks SQL.
//!
//! ```text
//!  decision ─▶ append ─▶ entry + guard rows + outbox      one statement, one commit
//!                              │ after the commit
//!                              ▼
//!                          sequencer ─▶ log_entry ─▶ views, log writer, followers
//! ```
//!
//! Start with [`Ledger::connect`]. The join path is [`Ledger::token`] and [`TokenSlot::append`]: while the token is
//! cached it costs one statement, shared with the joins that wait beside it. Everything read in the log's order comes
//! from [`Ledger::log`].

mod append;
mod cache;
mod clock;
mod copy;
mod error;
mod fitness;
mod head;
mod history;
mod import;
mod lease;
mod ledger;
mod log;
mod lookup;
mod measure;
mod migrate;
mod past;
pub mod provision;
mod read;
mod reader;
mod rebuild;
mod recent;
mod row;
mod secret;
mod sequencer;
mod settings;
mod shown;
mod statement;
mod stream;
mod transaction;
mod turns;
mod view;
mod writer;

pub use append::{Append, Change, SecretChange, StreamAppend};
pub use cache::{KnownToken, TokenSlot};
pub use clock::{Clock, ManualClock};
pub use error::{AppendError, LedgerError, MAX_ENTRY};
pub use head::{EntryMark, LogDecision, LogHead, Recording, Stops};
pub use history::{HistoryFilter, HistoryPage, Kinds, Whose};
pub use import::Import;
pub use ledger::Ledger;
pub use log::{Indexed, LogPage};
pub use measure::Positions;
pub use migrate::{MIGRATOR, Schema, migrate};
pub use read::{Cursor, ListFilter, Listed, NotACursor};
pub use rebuild::{Comparison, Difference, Progress, Stage};
pub use row::{ServerRun, Stored};
pub use secret::{KeyChanges, StoredKey};
pub use sequencer::Assigned;
pub use settings::Settings;
pub use shown::{ShownPage, ShownState};
pub use sqlx::postgres::{PgConnectOptions, PgSslMode};
pub use stream::StreamPage;
pub use view::{Authentication, Instance, InstanceFilter, RevokedCertificate};
