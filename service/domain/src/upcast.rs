//! Old shapes are lifted on read: an event that was written once stays readable for ever.

use std::cmp::Ordering;

use serde_json::Value;

use crate::event::Event;

/// An event that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum UpcastError {
    /// Written by a newer version.
    #[error("event `{kind}` has schema {schema}, newer than this version reads: upgrade first")]
    Newer {
        /// Its kind.
        kind: String,
        /// Its schema version.
        schema: u32,
    },
    /// Not an event of this project.
    #[error("`{0}` is not a kind of event that this version knows")]
    UnknownKind(String),
    /// The data do not fit the kind.
    #[error("the data of event `{kind}` do not fit: {why}")]
    Malformed {
        /// Its kind.
        kind: String,
        /// What does not fit.
        why: String,
    },
}

/// Reads one stored event of any version from the text of its data. What has the shape of today is read at once.
///
/// # Errors
/// [`UpcastError`] when it is newer than this version, unknown or malformed.
pub fn read(kind: &str, schema: u32, data: &str) -> Result<Event, UpcastError> {
    let unknown = || UpcastError::UnknownKind(kind.to_owned());
    let malformed = |error: serde_json::Error| UpcastError::Malformed { kind: kind.to_owned(), why: error.to_string() };
    let newest = Event::KINDS.iter().find(|known| known.name == kind).ok_or_else(unknown)?.schema;
    let event = match schema.cmp(&newest) {
        Ordering::Greater => return Err(UpcastError::Newer { kind: kind.to_owned(), schema }),
        Ordering::Equal => Event::read_data(kind, data),
        Ordering::Less => {
            let old = serde_json::from_str(data).map_err(malformed)?;
            Event::read_data(kind, &lift(kind, schema, old).to_string())
        }
    };
    event.ok_or_else(unknown)?.map_err(malformed)
}

/// Lifts data to the newest shape, one version at a time. Every kind is at its first version today, so there is
/// nothing to lift; the first changed shape adds the first arm, and `tests/it/stored/` keeps its example.
fn lift(_kind: &str, _schema: u32, data: Value) -> Value {
    data
}
