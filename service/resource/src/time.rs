//! Times on the wire.

use join_domain::{Timestamp, refusal::Refusal};
use prost_types::Timestamp as WireTime;

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
