//! Where the authority listens.

use std::{fmt, str::FromStr};

use rustls_pki_types::ServerName;

/// The port when none is given.
pub const DEFAULT_PORT: u16 = 3025;

/// A host name or IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// An address that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: write `authority.example.com:3025`, `192.0.2.1:3025` or `[2001:db8::1]:3025`")]
pub struct AddressError(String);

impl Address {
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.host.clone()).expect("the host was checked when the address was read")
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let rest = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or_else(error)?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(error)?) })
            }
            None => match rest.rsplit_once(':') {
                // More than one colon and no brackets: an IPv6 address alone.
                Some((host, _)) if host.contains(':') => (rest, None),
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| error()))?;
        ServerName::try_from(host).map_err(|_| error())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, host, port) in [
            ("authority.example.com:443", "authority.example.com", 443),
            ("authority.example.com", "authority.example.com", 3025),
            ("https://authority.example.com:443/", "authority.example.com", 443),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:3025", "::1", 3025),
            ("::1", "::1", 3025),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
        for text in ["", "a b:1", "host:port", "host:99999", "[::1", "[::1]x", "http://host:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
