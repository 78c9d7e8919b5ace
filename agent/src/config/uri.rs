//! A joining URI: everything a new bot needs, in one line.

use std::str::FromStr;

use http::Uri;
use join_domain::id::Name;
use join_proto::Address;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::ConfigError;
use crate::trust::Pin;

/// `tbot+auth+bound-keypair://TOKEN:SECRET@HOST:PORT?ca-pin=sha256:HEX`. Secret and pins may be left out.
#[derive(Debug, Clone)]
pub struct JoinUri {
    /// The token's name.
    pub token: Name,
    /// The registration secret.
    pub secret: Option<SecretString>,
    /// Where the authority is.
    pub authority: Address,
    /// Pins of its CA.
    pub pins: Vec<Pin>,
}

impl FromStr for JoinUri {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        // The text may hold a secret, so that no message repeats it.
        let shape = || {
            ConfigError::at(
                "join URI",
                "expected `tbot+auth+bound-keypair://TOKEN:SECRET@HOST:PORT?ca-pin=sha256:HEX`, as `joinctl bots add` prints it",
            )
        };
        let uri: Uri = text.trim().parse().map_err(|_| shape())?;
        match uri.scheme_str() {
            Some("tbot+auth+bound-keypair" | "tbot+proxy+bound-keypair") => {}
            Some(other) => {
                return Err(ConfigError::at("join URI", format_args!("`{other}` is not served, only bound-keypair")));
            }
            None => return Err(shape()),
        }
        // A secret that holds a `/` as it is would seem to end the address.
        if !matches!(uri.path(), "" | "/") {
            return Err(shape());
        }
        let (user, place) =
            uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')).ok_or_else(shape)?;
        let (token, secret) = user.split_once(':').unwrap_or((user, ""));
        let decode = |part: &str| percent_decode_str(part).decode_utf8().map(String::from).map_err(|_| shape());
        let (token, secret) = (decode(token)?, decode(secret)?);
        let mut pins = Vec::new();
        for pair in uri.query().into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("ca-pin", pin)) => {
                    pins.push(decode(pin)?.parse().map_err(|error| ConfigError::at("join URI", error))?);
                }
                _ => {
                    let key = pair.split('=').next().unwrap_or_default();
                    return Err(ConfigError::at("join URI", format_args!("unknown parameter `{key}`")));
                }
            }
        }
        Ok(Self {
            token: token.parse().map_err(|error| ConfigError::at("join URI", error))?,
            secret: (!secret.is_empty()).then(|| secret.into()),
            authority: place.parse().map_err(|error| ConfigError::at("join URI", error))?,
            pins,
        })
    }
}
