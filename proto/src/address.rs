//! Where the authority listens.

use std::{fmt, net::IpAddr, str::FromStr};

use rustls_pki_types::ServerName;

/// The port of an address that names none.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "`{text}` is not an address: write `authority.example.com:3025`, `192.0.2.1:3025` or `[2001:db8::1]:3025`"
        )
    }
}

impl std::error::Error for AddressError {}

impl Address {
    /// What the server's certificate must be for.
    pub fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.host.clone()).expect("the host was checked when the address was read")
    }

    /// True for an address that leads nowhere but to this machine.
    pub fn is_loopback(&self) -> bool {
        let Self { host, .. } = self;
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Takes what people write and paste: without a port, as a URL, an IPv6 address with and without brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let bare = text.trim();
        let bare = bare.strip_prefix("https://").unwrap_or(bare);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = match bare.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or_else(error)?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(error)?) })
            }
            None => match bare.rsplit_once(':') {
                // More than one colon and no brackets: an IPv6 address alone.
                Some((host, _)) if host.contains(':') => (bare, None),
                Some((host, port)) => (host, Some(port)),
                None => (bare, None),
            },
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if port.starts_with('+') => return Err(error()),
            Some(port) => port.parse().map_err(|_| error())?,
        };
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

/// Whose a certificate is that was `presented` in place of the `expected` host's, and what helps: the end of a sentence that
/// begins with the certificate. Names are as rustls tells them, `DnsName("localhost")`, `IpAddress(::1)` and others.
pub fn for_another_host(expected: &ServerName<'_>, presented: &[String]) -> String {
    let host = |name: &String| {
        let (kind, name) = name.strip_suffix(')')?.split_once('(')?;
        matches!(kind, "DnsName" | "IpAddress").then(|| name.trim_matches('"').to_owned())
    };
    let (hosts, expected) = (presented.iter().filter_map(host).collect::<Vec<_>>().join(", "), expected.to_str());
    format!(
        "is for {hosts}, not for {expected}: use one of these, or let {expected} be added to `public_addresses` of the \
         authority's configuration"
    )
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
            (" authority.example.com\n", "authority.example.com", 3025),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:9", "::1", 9),
            ("[::1]", "::1", 3025),
            ("::1", "::1", 3025),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":3025",
            "a b:1",
            "user@host:1",
            "host:",
            "host:port",
            "host:99999",
            "[::1",
            "[::1]x",
            "[::1]:",
            "http://host:1",
            "https://https://host:1",
            "host/path",
            "host//",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let told = "host:port".parse::<Address>().unwrap_err().to_string();
        assert!(told.starts_with("`host:port` is not an address: write `authority.example.com:3025`"), "{told}");
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        let is_loopback = |text: &str| text.parse::<Address>().unwrap().is_loopback();
        assert!(["localhost", "LOCALHOST:1", "127.0.0.1:3025", "127.9.9.9", "[::1]:3025"].into_iter().all(is_loopback));
        assert!(!["authority.example.com", "192.0.2.1:3025", "[2001:db8::1]:3025"].into_iter().any(is_loopback));
    }
}
