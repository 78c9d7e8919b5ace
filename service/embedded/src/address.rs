//! Where a cluster can be reached.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// The port every cluster uses. It only names the socket file: each cluster has a socket directory of its own.
pub(crate) const PORT: u16 = 5432;
/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a server can be reached: a Unix socket that trusts whoever can open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    socket_dir: PathBuf,
}

impl Address {
    pub(crate) fn new(socket_dir: PathBuf) -> Self {
        Self { socket_dir }
    }

    /// The directory of the socket, what libpq calls `host`.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The number in the socket's name; nothing listens on TCP.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// A connection URL as libpq, sqlx and tokio-postgres read it; no password is needed. The superuser is `postgres`.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!(
            "postgres://{}@{}:{PORT}/{}",
            percent_encode(user.as_bytes(), RESERVED),
            percent_encode(self.socket_dir.as_os_str().as_bytes(), RESERVED),
            percent_encode(database.as_bytes(), RESERVED)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_escapes_what_would_split_it() {
        let address = Address::new("/tmp/a b,é/run".into());
        assert_eq!(
            address.url("join@service", "a/b"),
            "postgres://join%40service@%2Ftmp%2Fa%20b%2C%C3%A9%2Frun:5432/a%2Fb"
        );
    }
}
