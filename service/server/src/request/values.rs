//! What many calls read and write: times, cursors, selectors, lives, sizes of pages.

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    refusal::Refusal,
    resource::{Labels, is_label},
};
use join_ledger::{Cursor, NotACursor};
use prost_types::Timestamp as WireTime;

/// Resources of a page, when nobody says how many.
pub const PAGE: u32 = 500;
/// The most of one page.
const MAX_PAGE: u32 = 1000;

/// How many are on a page, when a call asks for so many or, with 0, for as many as usual.
pub fn page_size(asked: u32, usual: u32) -> u32 {
    if asked == 0 { usual } else { asked.min(MAX_PAGE) }
}

/// Where a page begins; none at the beginning.
///
/// # Errors
/// INVALID_REQUEST when no page ended with it.
pub fn read_cursor(text: &str) -> Result<Option<Cursor>, Refusal> {
    let cursor = (!text.is_empty()).then(|| text.parse()).transpose();
    cursor.map_err(|error: NotACursor| Refusal::invalid("cursor", error))
}

/// A time on the wire.
pub fn to_wire_time(time: Timestamp) -> WireTime {
    WireTime { seconds: time.timestamp(), nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default() }
}

/// A time from the wire, in whole microseconds.
///
/// # Errors
/// INVALID_REQUEST when it is no time.
pub fn from_wire_time(field: &str, time: &WireTime) -> Result<Timestamp, Refusal> {
    // More would be a leap second, which the database does not know.
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).map(|nanos| nanos - nanos % 1000);
    nanos
        .and_then(|nanos| Timestamp::from_timestamp(time.seconds, nanos))
        .filter(|time| (0..253_402_300_800).contains(&time.timestamp()))
        .ok_or_else(|| Refusal::invalid(field, "not a time of the years 1970 to 9999"))
}

/// A time that need not be there.
///
/// # Errors
/// As [`from_wire_time`].
pub fn optional_time(field: &str, time: Option<&WireTime>) -> Result<Option<Timestamp>, Refusal> {
    time.map(|time| from_wire_time(field, time)).transpose()
}

/// Reads a wished life of certificates, such as `1h`; empty for none.
///
/// # Errors
/// INVALID_REQUEST.
pub fn read_life(text: &str) -> Result<Option<TimeDelta>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let life =
        humantime::parse_duration(text).map_err(|_| Refusal::invalid("ttl", "not a duration such as 90s or 1h"))?;
    Ok(Some(TimeDelta::from_std(life).unwrap_or(TimeDelta::MAX)))
}

/// Reads a label selector: `key=value`, several with commas.
///
/// # Errors
/// INVALID_REQUEST.
pub fn read_selector(text: &str) -> Result<Labels, Refusal> {
    let mut labels = Labels::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let label = part.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        let (key, value) = label.filter(|(key, value)| is_label(key, value)).ok_or_else(|| {
            Refusal::invalid("selector", format!("`{}` is not of the form key=value", part.escape_debug()))
        })?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Refusal::invalid("selector", format!("`{key}` is there twice: nothing has two values of it")));
        }
    }
    Ok(labels)
}
