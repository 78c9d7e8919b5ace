//! How the ledger fails. What the database says stays inside: callers learn what it means for them.

use std::borrow::Cow;

use join_domain::{
    envelope::EnvelopeError,
    state::{FoldError, Namespace},
};

/// A read or a maintenance step that failed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database can't be reached, or did not answer in time. Nothing was changed.
    #[error("the database cannot be reached: {0}")]
    Unavailable(sqlx::Error),
    /// The database answered with an error that is a fault of ours or of its operator.
    #[error("{}", refused(.0))]
    Database(sqlx::Error),
    /// The database holds something that no version of this program wrote.
    #[error("the ledger is damaged: {0}")]
    Corrupt(String),
    /// The database is not fit for this version.
    #[error("{0}")]
    Unfit(String),
    /// The schema could not be migrated.
    #[error("the schema could not be migrated: {0}")]
    Migrate(sqlx::migrate::MigrateError),
}

/// What the database said, without the line of its own source.
fn refused(error: &sqlx::Error) -> String {
    let Some(said) = error.as_database_error() else { return format!("the database refused a statement: {error}") };
    match said.code().as_deref() {
        // invalid_catalog_name
        Some("3D000") => {
            format!("there is no such database: {}; see the URLs under `database` in the configuration", said.message())
        }
        // invalid_authorization_specification, invalid_password
        Some("28000" | "28P01") => {
            format!(
                "the database lets nobody in: {}; see the URLs under `database` in the configuration",
                said.message()
            )
        }
        _ => format!("the database refused a statement: {}", said.message()),
    }
}

impl LedgerError {
    /// True when it may pass with nothing changed here: the database is away, starts, or takes nothing at the moment. What
    /// the client itself can't do with its URL, such as reading the certificate that the URL names, does not pass.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unavailable(error) => !matches!(error, sqlx::Error::Configuration(_) | sqlx::Error::Tls(_)),
            _ => false,
        }
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Corrupt(error.to_string())
            }
            sqlx::Error::Database(_) if !is_connection_lost(&error) && !takes_nothing(&error) => Self::Database(error),
            _ => Self::Unavailable(error),
        }
    }
}

impl From<FoldError> for LedgerError {
    fn from(error: FoldError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<EnvelopeError> for LedgerError {
    fn from(error: EnvelopeError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// The most bytes of an entry of the verifiable log (c2sp.org/tlog-tiles), and so of an envelope: a larger one could never
/// be sealed.
pub const MAX_ENTRY: usize = 65_535;

/// An append that was not made, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Something that the decision was made from has changed: reload and decide again.
    #[error("the state has changed since it was read")]
    Conflict,
    /// The attempt was accepted once already: reload, now with this knowledge.
    #[error("this attempt was accepted before")]
    AttemptSeen,
    /// A name or key belongs to another stream.
    #[error("the {} `{value}` is taken", namespace_in_words(*namespace))]
    ClaimTaken {
        /// What kind of thing.
        namespace: Namespace,
        /// The thing.
        value: String,
    },
    /// Too many appends wait already.
    #[error("too many appends are waiting")]
    Overloaded,
    /// The database can't be reached; nothing was appended.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// The connection was lost before the answer came: the append is there, or is not. Only a reload can tell.
    #[error("the connection to the database was lost before it answered: {0}")]
    OutcomeUnknown(String),
    /// The entry would be larger than one of the verifiable log may be.
    #[error("the entry would have {0} bytes, and one may have {MAX_ENTRY}")]
    TooLarge(usize),
    /// The append contradicts itself or the state that it was made from. A fault of ours.
    #[error("the append is not well formed: {0}")]
    Malformed(String),
    /// The database refused the statement for a reason that no reload cures. A fault of ours or of its operator.
    #[error("the database refused the append: {0}")]
    Refused(String),
}

impl From<LedgerError> for AppendError {
    /// For what is read on the way to an append: nothing has been written then.
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unavailable(source) => Self::Unavailable(source.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

fn namespace_in_words(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::TokenName => "token name",
        Namespace::BotName => "bot name",
        Namespace::Key => "key",
    }
}

/// The SQLSTATE of an answer of the database.
pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// The constraint that an answer of the database names.
pub(crate) fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

/// True when the session ended, or the server is about to end it: what was sent last may have been done.
pub(crate) fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => {
            sqlstate(error).is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed => true,
        _ => false,
    }
}

/// True when somebody else holds a row for longer than a statement may wait.
pub(crate) fn is_held(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| code == "55P03")
}

/// True when the database takes nothing at the moment: too many connections, no memory or disk, a timeout, or it is only
/// for reading, as a primary that another server took over from.
pub(crate) fn takes_nothing(error: &sqlx::Error) -> bool {
    let takes_nothing = |code: &str| code.starts_with("53") || matches!(code, "57014" | "55P03" | "25006");
    sqlstate(error).is_some_and(|code| takes_nothing(&code))
}

/// What an answer of the database to an append means. The append was not made.
pub(crate) fn append_refused(error: &sqlx::Error) -> AppendError {
    match sqlstate(error).as_deref() {
        _ if takes_nothing(error) => AppendError::Unavailable(error.to_string()),
        Some("23505") if constraint(error) == Some("entry_attempt") => AppendError::AttemptSeen,
        // Unique violations, serialization failures and deadlocks all say: somebody else was faster.
        Some("23505" | "40001" | "40P01") => AppendError::Conflict,
        _ => AppendError::Refused(error.to_string()),
    }
}
