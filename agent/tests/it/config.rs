//! The configuration file and the joining URI.

use std::{fs, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use join_agent::{
    config::{Config, JoinUri, Keypair, StorageConfig},
    key::PrivateKey,
};
use secrecy::ExposeSecret as _;

const PIN: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub(crate) const EXAMPLE: &str = "
version: v2
auth_server: authority.example.com:3025
ca_pins: [sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff]
onboarding:
  join_method: bound_keypair
  token: example
  bound_keypair:
    registration_secret: SECRET
storage: {type: directory, path: /var/lib/joinbot}
certificate_ttl: 1h
renewal_interval: 20m
oneshot: false
diag_addr: 127.0.0.1:3030
outputs:
  - type: identity
    destination: {type: directory, path: /opt/app/identity}
";

fn nothing(_: &str) -> Option<String> {
    None
}

pub(crate) fn parse(text: &str) -> Result<Config, String> {
    Config::from_yaml(text, &nothing).map_err(|error| error.to_string())
}

fn secret(config: &Config) -> Option<String> {
    match &config.keypair {
        Keypair::Managed { registration_secret } => {
            registration_secret.as_ref().map(|secret| secret.read().unwrap().expose_secret().to_owned())
        }
        Keypair::Static(_) => None,
    }
}

#[test]
fn the_example_is_read() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.authority.to_string(), "authority.example.com:3025");
    assert_eq!(config.token.as_str(), "example");
    assert_eq!(config.trust.pins[0].to_string(), PIN);
    assert_eq!(config.storage, StorageConfig::Directory("/var/lib/joinbot".into()));
    assert_eq!(config.certificate_ttl, Duration::from_secs(3600));
    assert_eq!(config.renewal_interval, Duration::from_secs(1200));
    assert_eq!(config.diag_addr.unwrap().port(), 3030);
    assert_eq!(config.outputs[0].directory().to_str().unwrap(), "/opt/app/identity");
    assert_eq!(secret(&config).as_deref(), Some("SECRET"));
}

#[test]
fn no_secret_is_in_the_debug_form() {
    let config = parse(EXAMPLE).unwrap();
    assert!(!format!("{config:?}").contains("SECRET"));
    let uri: JoinUri = format!("tbot+auth+bound-keypair://example:SECRET@host:1?ca-pin={PIN}").parse().unwrap();
    assert!(!format!("{uri:?}").contains("SECRET"));
}

#[test]
fn other_names_for_the_same_are_accepted() {
    let text = EXAMPLE
        .replace("auth_server", "proxy_server")
        .replace("certificate_ttl", "credential_ttl")
        .replace("outputs", "services")
        .replace(&format!("ca_pins: [{PIN}]\n"), "")
        .replace("  token: example\n", &format!("  token: example\n  ca_pins: [\"{PIN}\"]\n"));
    let config = parse(&text).unwrap();
    assert_eq!(config.trust.pins.len(), 1);
    assert_eq!(config.outputs.len(), 1);
}

/// Each change of the example, and what the error must name.
#[test]
fn what_is_wrong_is_named() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("oneshot: false", "oneshot: false\nsurprise: 1", &["surprise", "unknown key"]),
        ("  token: example", "  token: example\n  surprise: 1", &["onboarding", "surprise"]),
        ("registration_secret: SECRET", "surprise: 1", &["onboarding.bound_keypair", "surprise"]),
        ("path: /var/lib/joinbot}", "path: /x, surprise: 1}", &["storage", "surprise"]),
        ("path: /opt/app/identity}", "path: /x, surprise: 1}", &["outputs[0].destination", "surprise"]),
        ("oneshot: false", "fips: true", &["fips", "does not serve this key"]),
        ("oneshot: false", "insecure: true", &["insecure", "does not serve this key"]),
        ("path: /var/lib/joinbot}", "path: /x, symlinks: secure}", &["storage.symlinks", "does not serve this key"]),
        (
            "  token: example",
            "  token: example\n  azure: {client_id: x}",
            &["onboarding.azure", "does not serve this key"],
        ),
        ("type: identity", "type: identity\n    roles: [a]", &["outputs[0].roles", "does not serve this key"]),
        ("type: identity", "type: kubernetes", &["outputs[0].type", "`kubernetes` is not served", "identity"]),
        (
            "type: directory, path: /var/lib/joinbot",
            "type: kubernetes_secret",
            &["storage.type", "directory or memory"],
        ),
        ("version: v2", "version: v1", &["version", "`v1` is not served", "v2"]),
        ("version: v2\n", "", &["missing field `version`"]),
        ("bound_keypair\n", "token\n", &["onboarding.join_method", "`token` is not served"]),
        ("token: example", "token: /run/token", &["onboarding.token", "is not a name"]),
        ("[sha256:00", "[sha256:zz", &["ca_pins[0]", "is not a CA pin"]),
        ("certificate_ttl: 1h", "certificate_ttl: soon", &["certificate_ttl", "`soon` is not a duration"]),
        ("certificate_ttl: 1h", "certificate_ttl: 5s", &["certificate_ttl", "at least 10s"]),
        ("certificate_ttl: 1h", "certificate_ttl: 1h\ncredential_ttl: 1h", &["credential_ttl", "keep one of them"]),
        ("renewal_interval: 20m", "renewal_interval: 0s", &["renewal_interval", "zero"]),
        ("auth_server: authority.example.com:3025", "debug: false", &["auth_server"]),
        ("authority.example.com:3025", "a b", &["auth_server", "is not an address"]),
        ("diag_addr: 127.0.0.1:3030", "diag_addr: here", &["diag_addr"]),
        ("{type: directory, path: /var/lib/joinbot}", "{type: directory}", &["storage.path", "is missing"]),
        ("{type: directory, path: /var/lib/joinbot}", "{type: memory, path: /x}", &["storage.path", "memory"]),
        ("{type: directory, path: /opt/app/identity}", "{type: memory}", &["outputs[0].destination", "memory"]),
        ("storage: {type: directory, path: /var/lib/joinbot}\n", "", &["storage", "is missing"]),
        ("ca_pins:", "ca_path: /does/not/exist\nca_pins:", &["ca_path", "/does/not/exist"]),
    ];
    for (from, to, words) in cases {
        let text = EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, EXAMPLE, "{from}");
        let error = parse(&text).expect_err(to);
        for word in *words {
            assert!(error.contains(word), "{to}: {error}");
        }
        assert!(!error.contains("SECRET"), "{error}");
    }
}

#[test]
fn an_output_in_the_storage_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    fs::create_dir(format!("{root}/here")).unwrap();
    std::os::unix::fs::symlink(format!("{root}/here"), format!("{root}/link")).unwrap();
    let with = |storage: &str, output: &str| {
        parse(&EXAMPLE.replace("/var/lib/joinbot", storage).replace("/opt/app/identity", output))
    };
    for (storage, output) in [
        ("/var/lib/joinbot".to_owned(), "/var/lib/joinbot/".to_owned()),
        ("/var/lib/joinbot".to_owned(), "/var/lib/./x/../joinbot".to_owned()),
        ("not/there".to_owned(), "not/here/../there".to_owned()),
        (format!("{root}/here"), format!("{root}/link")),
        (format!("{root}/link/new"), format!("{root}/here/new")),
        (format!("{root}/here"), format!("{root}/link/x/..")),
    ] {
        let error = with(&storage, &output).expect_err(&output);
        assert!(error.contains("is the storage directory") && error.contains("of its own"), "{error}");
    }
    with("/var/lib/joinbot", "/var/lib/joinbot/identity").unwrap();
    with("/var/lib/joinbot", "/var/lib/joinbot-identity").unwrap();
    with("/var/lib/joinbot/storage", "/var/lib/joinbot").unwrap();
}

/// A unit has no working directory that whoever writes the file could mean.
#[test]
fn each_relative_path_is_named_when_only_absolute_ones_will_do() {
    Config::refuse_relative_paths(EXAMPLE).unwrap();
    for (from, to, key) in [
        ("path: /var/lib/joinbot", "path: joinbot", "storage.path: `joinbot`"),
        ("path: /opt/app/identity", "path: ./identity", "outputs[0].destination.path: `./identity`"),
        ("oneshot: false", "ca_path: ca.crt", "ca_path: `ca.crt`"),
        ("  token: example", "  token: example\n  ca_path: ca.crt", "onboarding.ca_path: `ca.crt`"),
        (
            "registration_secret: SECRET",
            "registration_secret_path: secret",
            "onboarding.bound_keypair.registration_secret_path: `secret`",
        ),
        (
            "registration_secret: SECRET",
            "static_private_key_path: key",
            "onboarding.bound_keypair.static_private_key_path: `key`",
        ),
    ] {
        let error = Config::refuse_relative_paths(&EXAMPLE.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(key) && error.contains("absolute path"), "{error}");
    }
}

#[test]
fn the_secret_may_come_from_a_file_or_the_environment() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("secret");
    fs::write(&path, "from a file\n").unwrap();
    let from_file =
        EXAMPLE.replace("registration_secret: SECRET", &format!("registration_secret_path: {}", path.display()));
    assert_eq!(secret(&parse(&from_file).unwrap()).as_deref(), Some("from a file"));

    let both = from_file.replace("bound_keypair:\n", "bound_keypair:\n    registration_secret: SECRET\n");
    let error = parse(&both).unwrap_err();
    assert!(error.contains("registration_secret_path") && error.contains("give one of them"), "{error}");
    fs::remove_file(&path).unwrap();
    assert_eq!(parse(&both).unwrap_err(), error, "whatever is in the file");

    let none = EXAMPLE.replace("    registration_secret: SECRET\n", "").replace("  bound_keypair:\n", "");
    assert_eq!(secret(&parse(&none).unwrap()), None);
    for variable in ["TBOT_REGISTRATION_SECRET", "JOINBOT_REGISTRATION_SECRET"] {
        let environment = |name: &str| (name == variable).then(|| "from outside".to_owned());
        assert_eq!(secret(&Config::from_yaml(&none, &environment).unwrap()).as_deref(), Some("from outside"));
        assert_eq!(
            secret(&Config::from_yaml(EXAMPLE, &environment).unwrap()).as_deref(),
            Some("SECRET"),
            "the file wins"
        );
    }
}

#[test]
fn a_static_key_may_come_from_a_file_or_the_environment() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("key");
    let key = PrivateKey::generate_p256();
    fs::write(&path, key.to_pem().as_bytes()).unwrap();
    let from_file =
        EXAMPLE.replace("registration_secret: SECRET", &format!("static_private_key_path: {}", path.display()));
    let is_the_key = |config: Config| matches!(config.keypair, Keypair::Static(found) if found == key);
    assert!(is_the_key(parse(&from_file).unwrap()));

    let none = EXAMPLE.replace("    registration_secret: SECRET\n", "").replace("  bound_keypair:\n", "");
    for variable in ["JOINBOT_STATIC_KEY", "TBOT_STATIC_KEY", "TBOT_BOUND_KEYPAIR_STATIC_KEY"] {
        let encoded = STANDARD.encode(key.to_pem().as_bytes());
        let (first, second) = encoded.split_at(76);
        for encoded in [encoded.clone(), format!("{first}\n{second}\n")] {
            let environment = |name: &str| (name == variable).then(|| encoded.clone());
            assert!(is_the_key(Config::from_yaml(&none, &environment).unwrap()));
        }
        let wrong = |name: &str| (name == variable).then(|| "????".to_owned());
        let error = Config::from_yaml(&none, &wrong).unwrap_err().to_string();
        assert!(error.contains(variable) && !error.contains("????"), "{error}");
    }
    fs::write(&path, "not a key").unwrap();
    let error = parse(&from_file).unwrap_err();
    assert!(error.contains("static_private_key_path") && error.contains("PKCS#8"), "{error}");
    let both = from_file.replace("bound_keypair:\n", "bound_keypair:\n    registration_secret: SECRET\n");
    assert!(parse(&both).unwrap_err().contains("remove one of the two"));
}

#[test]
fn short_certificates_are_renewed_in_time_when_nothing_else_is_said() {
    let text = EXAMPLE.replace("certificate_ttl: 1h", "certificate_ttl: 15s").replace("renewal_interval: 20m\n", "");
    assert_eq!(parse(&text).unwrap().renewal_interval, Duration::from_secs(5));
}

#[test]
fn certificates_that_are_renewed_are_renewed_before_they_end() {
    let text = EXAMPLE.replace("certificate_ttl: 1h", "certificate_ttl: 10m");
    let mut config = parse(&text).unwrap();
    let refused = config.check_renewal().unwrap_err().to_string();
    assert!(refused.contains("renewal_interval: 20m is not shorter than certificate_ttl (10m)"), "{refused}");
    config.oneshot = true;
    config.check_renewal().unwrap();
    parse(EXAMPLE).unwrap().check_renewal().unwrap();
}

#[test]
fn a_joining_uri_is_read() {
    let uri: JoinUri =
        format!("tbot+auth+bound-keypair://example:a%2Fb@[::1]:3025?ca-pin={PIN}&ca-pin={PIN}").parse().unwrap();
    assert_eq!(uri.token.as_str(), "example");
    assert_eq!(uri.secret.unwrap().expose_secret(), "a/b");
    assert_eq!(uri.authority.to_string(), "[::1]:3025");
    assert_eq!(uri.pins.len(), 2);

    let short: JoinUri = "tbot+proxy+bound-keypair://example@authority.example.com".parse().unwrap();
    assert!(short.secret.is_none() && short.pins.is_empty());
    assert_eq!(short.authority.port, 3025);
    let bracketed: JoinUri = "tbot+auth+bound-keypair://example@[2001:db8::1]".parse().unwrap();
    assert_eq!(bracketed.authority.to_string(), "[2001:db8::1]:3025");
}

#[test]
fn a_wrong_joining_uri_is_explained_without_its_secret() {
    for (text, word) in [
        ("https://example:SECRET@host", "`https` is not served"),
        ("tbot+auth+token://example:SECRET@host", "`tbot+auth+token` is not served"),
        ("tbot+auth+bound-keypair://host", "expected"),
        ("tbot+auth+bound-keypair://:SECRET@host", "is not a name"),
        ("tbot+auth+bound-keypair://Example:SECRET@host", "is not a name"),
        ("tbot+auth+bound-keypair://example:SECRET@host?ca-pin=x", "is not a CA pin"),
        ("tbot+auth+bound-keypair://example:SECRET@host?surprise=SECRET", "unknown parameter `surprise`"),
        ("tbot+auth+bound-keypair://example:SECRET@host:99999", "`host:99999` is not an address"),
        ("tbot+auth+bound-keypair://example:SECRET@host:port", "`host:port` is not an address"),
        ("tbot+auth+bound-keypair://example:SECRET@host:", "`host:` is not an address"),
        ("tbot+auth+bound-keypair://example:x@SEC:RET/SECRET@host", "expected"),
        ("nonsense SECRET", "expected"),
    ] {
        let error = text.parse::<JoinUri>().unwrap_err().to_string();
        assert!(error.contains(word) && !error.replace(":SECRET@HOST", "").contains("SECRET"), "{text}: {error}");
    }
}
