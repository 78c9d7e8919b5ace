//! Moments and durations as people type and read them.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use prost_types::Timestamp;

/// A moment that was asked for: a time, or so long before now. What "now" is, the authority's clock says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse() {
            return Ok(Self::At(time));
        }
        let ago = humantime::parse_duration(text)
            .map_err(|_| "neither a time such as 2026-01-31T12:00:00Z nor a duration such as 90s, 2h or 7d")?;
        Ok(Self::Ago(ago))
    }
}

/// How long something lasts.
pub(crate) fn duration(text: &str) -> Result<humantime::Duration, String> {
    text.parse().map_err(|_| "a duration with its unit is wanted, such as 90s, 30m, 2h or 7d".to_owned())
}

impl Moment {
    /// The moment, when it is `now`.
    pub(crate) fn seen_from(self, now: Timestamp) -> anyhow::Result<Timestamp> {
        match self {
            Self::At(time) => Ok(time),
            Self::Ago(duration) => {
                let then = system_time(now)?.checked_sub(duration);
                Ok(then.context("that long ago there was no time")?.into())
            }
        }
    }
}

/// The moment so long after `now`. An empty duration is refused: it would end before it began.
pub(crate) fn after(now: Timestamp, duration: Duration) -> anyhow::Result<Timestamp> {
    if duration.is_zero() {
        bail!("the duration must be longer than nothing");
    }
    Ok(system_time(now)?.checked_add(duration).context("the duration is too long")?.into())
}

fn system_time(time: Timestamp) -> anyhow::Result<SystemTime> {
    SystemTime::try_from(time).context("the authority's time is out of range")
}

/// True when `time` is earlier than `end`.
pub(crate) fn is_before(time: &Timestamp, end: &Timestamp) -> bool {
    (time.seconds, time.nanos) < (end.seconds, end.nanos)
}

/// A time to the second, in UTC; `-` when there is none.
pub(crate) fn seconds(time: Option<&Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| Timestamp { nanos: 0, ..*time }.to_string())
}

/// A time to the millisecond, in UTC.
pub(crate) fn milliseconds(time: &Timestamp) -> String {
    match SystemTime::try_from(*time) {
        Ok(time) => humantime::format_rfc3339_millis(time).to_string(),
        Err(_) => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Timestamp {
        "2026-01-31T12:00:00.123456Z".parse().unwrap()
    }

    #[test]
    fn a_time_stands_for_itself_and_a_duration_counts_back() {
        let moment: Moment = "2026-01-31T13:00:00+01:00".parse().unwrap();
        assert_eq!(moment.seen_from(noon()).unwrap().to_string(), "2026-01-31T12:00:00Z");
        let moment: Moment = "2h".parse().unwrap();
        assert_eq!(seconds(Some(&moment.seen_from(noon()).unwrap())), "2026-01-31T10:00:00Z");
        assert!("yesterday".parse::<Moment>().unwrap_err().contains("neither a time"));
    }

    #[test]
    fn a_ttl_ends_later() {
        let end = after(noon(), Duration::from_secs(3600)).unwrap();
        assert_eq!(milliseconds(&end), "2026-01-31T13:00:00.123Z");
        assert!(after(noon(), Duration::ZERO).is_err());
        assert!(after(noon(), Duration::MAX).is_err());
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(*duration("2h").unwrap(), Duration::from_secs(7200));
        for wrong in ["5", "soon", "", "5 parsecs"] {
            assert!(duration(wrong).unwrap_err().contains("such as 90s, 30m"), "{wrong}");
        }
    }

    #[test]
    fn an_absent_time_is_a_dash() {
        assert_eq!(seconds(None), "-");
    }
}
