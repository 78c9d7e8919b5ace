//! URLs as they may be shown and logged.

/// Parameters that are shown, those of a database URL. All others are masked, for `password` may be written as `pass%77ord`, and
/// a private key may stand there instead of its file's name.
const SHOWN: [&str; 15] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// A URL as it may be shown: `postgres://user:***@host/db?password=***`.
pub fn mask_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        let may_hold_one = url.contains(['@', '?', '#']);
        return if may_hold_one { "***" } else { url }.to_owned();
    };
    // A password that should have been written with %2F may hold a slash: the login goes to the last @, wherever it is.
    let (authority, rest) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        // Elsewhere a login without a password may be a token.
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None if scheme.starts_with("postgres") => format!("{login}@{host}"),
            None => format!("***@{host}"),
        },
        None => authority.to_owned(),
    };
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, _)| (rest, "#***"));
    let query = rest.split_once('?').map(|(path, query)| {
        let shown = query.split('&').map(|parameter| match parameter.split_once('=') {
            Some((key, _)) if !SHOWN.contains(&key) => format!("{key}=***"),
            _ => parameter.to_owned(),
        });
        format!("{path}?{}", shown.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{authority}{}{fragment}", query.as_deref().unwrap_or(rest))
}
