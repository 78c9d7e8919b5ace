//! How a cluster is run.

use std::ffi::OsString;

use crate::Binaries;

/// How a cluster is run. Start from [`Options::durable`] or [`Options::fast`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether commits survive a crash of the machine. Without it a crash of the machine may ruin the cluster, a crash
    /// of any process does not.
    pub durable: bool,
    /// How many connections PostgreSQL admits.
    pub max_connections: u16,
    /// Further settings of PostgreSQL, which win over ours: `("log_statement", "all")`.
    pub settings: Vec<(String, String)>,
    /// The binaries to use; left out, those that fit the cluster, else the ones that [`Binaries::find`] gives.
    pub binaries: Option<Binaries>,
}

impl Options {
    /// For data that people want to keep.
    pub fn durable() -> Self {
        Self { durable: true, max_connections: 100, settings: Vec::new(), binaries: None }
    }

    /// For data that is thrown away: nothing is forced to the disk, and there is room for many tests at once.
    pub fn fast() -> Self {
        Self { durable: false, max_connections: 300, settings: Vec::new(), binaries: None }
    }

    /// The same with one more setting of PostgreSQL.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `-c name=value` for each setting, later ones win.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let max_connections = self.max_connections.to_string();
        let mut settings = vec![
            ("listen_addresses", ""),
            ("max_connections", &max_connections),
            ("shared_buffers", "128MB"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            // Only what we write ourselves may stand in a log, so no rows that PostgreSQL would quote.
            ("log_error_verbosity", "terse"),
        ];
        if !self.durable {
            settings.extend([("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")]);
        }
        settings.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        settings.iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}").into()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_throw_away_data_goes_without_fsync() {
        assert!(!Options::durable().arguments().contains(&"fsync=off".into()));
        assert!(Options::fast().arguments().contains(&"fsync=off".into()));
    }

    #[test]
    fn the_callers_settings_come_last() {
        let arguments = Options::fast().set("shared_buffers", "64MB").arguments();
        assert_eq!(arguments.last(), Some(&"shared_buffers=64MB".into()));
    }
}
