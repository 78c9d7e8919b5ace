//! What many calls read and write: times, cursors, selectors, lives, sizes of pages.

use chrono::TimeDelta;
use join_domain::{
    refusal::Refusal,
    resource::{Labels, is_label},
};
use join_ledger::{Cursor, NotACursor};
pub use join_resource::{from_wire_time, optional_time, to_wire_time};

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
