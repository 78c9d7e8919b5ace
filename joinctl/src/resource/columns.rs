//! Resources as rows of a table.

use join_domain::state::token::CONTESTED_HOURS;
use join_proto::v1::{Bot, BotInstance, Exemption, Lock, LockTarget, Metadata, Token};

use super::{Kind, Resource, ends::ExpiredBots, locks::Locks};
use crate::{
    moment::{is_before, seconds},
    output::{Table, cut},
    token::is_bound,
};

/// How much of a key or an id is enough to tell one from another.
const SHORT: usize = 40;
/// How long after a proven holder was refused a token counts as contested, in seconds: as in the health of instances.
const CONTESTED_FOR: i64 = CONTESTED_HOURS * 60 * 60;

/// The table of resources of one kind.
pub(super) fn table(kind: Kind) -> Table {
    Table::new(headings(kind))
}

const fn headings(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Bot => &["NAME", "USER", "ROLES", "TRAITS", "EXPIRES", "LABELS"],
        Kind::Token => &[
            "NAME",
            "BOT",
            "STATE",
            "MODE",
            "RECOVERIES",
            "GENERATION",
            "CERTIFICATE UNTIL",
            "INSTANCE",
            "EXPIRES",
            "LABELS",
        ],
        Kind::BotInstance => &[
            "NAME",
            "BOT",
            "TOKEN",
            "HEALTH",
            "GENERATION",
            "LATEST JOIN",
            "AT",
            "FROM",
            "CERTIFICATE UNTIL",
            "PREVIOUS",
        ],
        Kind::Lock => &["NAME", "TARGET", "STATE", "CAUSE", "CREATED", "BY", "EXPIRES", "MESSAGE"],
        Kind::Exemption => &["NAME", "TOKEN", "KIND", "USES LEFT", "STATE", "GRANTED BY", "EXPIRES", "REASON"],
    }
}

/// A row. The state of tokens depends on locks and bots, that of locks on the moment of which they are.
pub(super) fn cells(resource: &Resource, locks: Option<&Locks>, bots: &ExpiredBots) -> Vec<String> {
    let metadata = resource.metadata().cloned().unwrap_or_default();
    match resource {
        Resource::Bot(bot) => bot_cells(metadata, bot),
        Resource::Token(token) => token_cells(metadata, token, locks, bots),
        Resource::BotInstance(instance) => instance_cells(metadata, instance),
        Resource::Lock(lock) => lock_cells(metadata, lock, locks),
        Resource::Exemption(exemption) => exemption_cells(metadata, exemption),
    }
}

fn bot_cells(metadata: Metadata, bot: &Bot) -> Vec<String> {
    let spec = bot.spec.clone().unwrap_or_default();
    let user = bot.status.as_ref().map(|status| status.user_name.clone()).unwrap_or_default();
    let traits = spec.traits.iter().map(|it| format!("{}={}", it.name, it.values.join(",")));
    let traits = traits.collect::<Vec<_>>().join(" ");
    let (expires, labels) = (seconds(metadata.expires.as_ref()), labels(&metadata));
    vec![metadata.name, user, spec.roles.join(","), traits, expires, labels]
}

fn token_cells(metadata: Metadata, token: &Token, locks: Option<&Locks>, bots: &ExpiredBots) -> Vec<String> {
    let spec = token.spec.clone().unwrap_or_default();
    let recovery = spec.bound_keypair.and_then(|settings| settings.recovery).unwrap_or_default();
    let status = token.status.clone().and_then(|status| status.bound_keypair).unwrap_or_default();
    let state = token_state(token, locks, bots);
    // Only `standard` counts against the limit.
    let mode = recovery.mode.unwrap_or_else(|| "standard".to_owned());
    let limit = if mode == "standard" { recovery.limit.unwrap_or(1).to_string() } else { "unlimited".to_owned() };
    let (expires, labels) = (seconds(metadata.expires.as_ref()), labels(&metadata));
    vec![
        metadata.name,
        spec.bot_name,
        state.to_owned(),
        mode,
        format!("{} of {limit}", status.recovery_count),
        status.generation.to_string(),
        seconds(status.certificate_expires.as_ref()),
        status.bound_bot_instance_id,
        expires,
        labels,
    ]
}

/// The first that holds of: token or bot has expired, a lock stops it, somebody was refused lately, a key is bound, a secret waits.
fn token_state(token: &Token, locks: Option<&Locks>, bots: &ExpiredBots) -> &'static str {
    let ended = locks.and_then(|locks| bots.ended(token, &locks.now()));
    let status = token.status.clone().and_then(|status| status.bound_keypair).unwrap_or_default();
    let is_locked = locks.is_some_and(|locks| locks.on(token).next().is_some());
    let contested_for =
        locks.zip(status.contested_at).map(|(locks, at)| locks.now().seconds.saturating_sub(at.seconds));
    if let Some(ended) = ended {
        if ended.what.kind == Kind::Bot { "bot expired" } else { "expired" }
    } else if is_locked {
        "locked"
    } else if contested_for.is_some_and(|elapsed| elapsed < CONTESTED_FOR) {
        "contested"
    } else if is_bound(token) {
        "bound"
    } else if status.registration_secret_pending {
        "secret waits"
    } else if locks.is_some_and(|locks| is_too_late(token, locks)) {
        "secret expired"
    } else {
        "unbound"
    }
}

/// True when the registration secret was not used in time.
fn is_too_late(token: &Token, locks: &Locks) -> bool {
    let settings = token.spec.as_ref().and_then(|spec| spec.bound_keypair.as_ref());
    let onboarding = settings.and_then(|settings| settings.onboarding.as_ref());
    onboarding.is_some_and(|onboarding| {
        let end = onboarding.must_register_before.as_ref();
        onboarding.initial_public_key.is_empty() && end.is_some_and(|end| !is_before(&locks.now(), end))
    })
}

fn instance_cells(metadata: Metadata, instance: &BotInstance) -> Vec<String> {
    let spec = instance.spec.clone().unwrap_or_default();
    let status = instance.status.clone().unwrap_or_default();
    let latest =
        status.latest_authentications.last().or(status.first_authentication.as_ref()).cloned().unwrap_or_default();
    vec![
        metadata.name,
        spec.bot_name,
        spec.token_name,
        status.health,
        status.generation.to_string(),
        latest.join,
        seconds(latest.at.as_ref()),
        latest.remote_addr,
        seconds(status.certificate_expires.as_ref()),
        spec.previous_instance_id,
    ]
}

fn lock_cells(metadata: Metadata, lock: &Lock, locks: Option<&Locks>) -> Vec<String> {
    let state = if locks.is_none_or(|locks| locks.is_in_force(lock)) { "in force" } else { "expired" };
    let spec = lock.spec.clone().unwrap_or_default();
    let status = lock.status.clone().unwrap_or_default();
    let expires = seconds(metadata.expires.as_ref());
    let target = spec.target.as_ref().map(target).unwrap_or_default();
    vec![
        metadata.name,
        target,
        state.to_owned(),
        status.cause,
        seconds(status.created_at.as_ref()),
        status.created_by,
        expires,
        spec.message,
    ]
}

/// The one target that is set: `join_token=example`.
pub(crate) fn target(target: &LockTarget) -> String {
    let LockTarget { user, bot_instance_id, join_token, public_key } = target;
    [("user", user), ("bot_instance_id", bot_instance_id), ("join_token", join_token), ("public_key", public_key)]
        .iter()
        .find(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", cut(value, SHORT)))
        .unwrap_or_default()
}

fn exemption_cells(metadata: Metadata, exemption: &Exemption) -> Vec<String> {
    let spec = exemption.spec.clone().unwrap_or_default();
    let status = exemption.status.clone().unwrap_or_default();
    vec![
        metadata.name,
        spec.token_name,
        spec.kind,
        format!("{} of {}", status.uses_left, spec.uses),
        status.state,
        status.granted_by,
        seconds(metadata.expires.as_ref()),
        spec.reason,
    ]
}

fn labels(metadata: &Metadata) -> String {
    let mut labels: Vec<_> = metadata.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    labels.join(",")
}

#[cfg(test)]
mod tests {
    use join_proto::v1::{
        Authentication, BotInstanceSpec, BotInstanceStatus, BoundKeypairSpec, BoundKeypairStatus, Onboarding, Recovery,
        TokenSpec, TokenStatus,
    };
    use rstest::rstest;

    use super::*;
    use crate::resource::locks;

    fn render(kind: Kind, resources: &[Resource], locks: Option<&Locks>) -> String {
        table(kind).rows(resources.iter().map(|resource| cells(resource, locks, &ExpiredBots::default())))
    }

    fn named(name: &str) -> Option<Metadata> {
        Some(Metadata { name: name.into(), labels: [("team".into(), "infra".into())].into(), ..Default::default() })
    }

    fn token(recovery: Recovery, status: BoundKeypairStatus) -> Resource {
        let settings = BoundKeypairSpec { recovery: Some(recovery), ..Default::default() };
        Resource::Token(Token {
            metadata: named("example"),
            spec: Some(TokenSpec { bot_name: "example".into(), bound_keypair: Some(settings), ..Default::default() }),
            status: Some(TokenStatus { bound_keypair: Some(status) }),
            ..Default::default()
        })
    }

    #[test]
    fn tokens_show_what_they_wait_for_and_what_is_left() {
        let fresh = BoundKeypairStatus {
            registration_secret_pending: true,
            registration_secret: "s3cret".into(),
            ..Default::default()
        };
        let bound = BoundKeypairStatus {
            bound_public_key: "ssh-ed25519 AAAA".into(),
            recovery_count: 2,
            generation: 7,
            ..Default::default()
        };
        let text = render(
            Kind::Token,
            &[
                token(Recovery::default(), fresh),
                token(Recovery { mode: Some("relaxed".into()), limit: Some(3) }, bound),
            ],
            None,
        );
        let rows: Vec<_> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect::<Vec<_>>())
            .collect();
        assert_eq!(
            rows[1],
            ["example", "example", "secret waits", "standard", "0 of 1", "0", "-", "-", "-", "team=infra"]
        );
        assert_eq!(rows[2][2..6], ["bound", "relaxed", "2 of unlimited", "7"]);
        assert!(!text.contains("s3cret"), "a table is no place for secrets");
    }

    #[rstest]
    #[case("2026-01-31T11:00:00Z", None, "contested")]
    #[case("2026-01-30T12:00:01Z", None, "contested")]
    #[case("2026-01-30T12:00:00Z", None, "bound")]
    #[case("2026-01-31T11:00:00Z", Some("example"), "locked")]
    #[case("2026-01-31T11:00:00Z", Some("other"), "contested")]
    fn a_token_is_locked_before_it_is_contested_and_that_for_a_day(
        #[case] contested_at: &str,
        #[case] locked: Option<&str>,
        #[case] state: &str,
    ) {
        let status = BoundKeypairStatus {
            bound_public_key: "ssh-ed25519 AAAA".into(),
            contested_at: Some(contested_at.parse().unwrap()),
            ..Default::default()
        };
        let Resource::Token(token) = token(Recovery::default(), status) else { panic!() };
        let target = |name: &str| LockTarget { join_token: name.into(), ..Default::default() };
        let locks = locked.map(|name| locks::tests::lock(target(name), None));
        let locks = Locks::of("2026-01-31T12:00:00Z".parse().unwrap(), locks);
        assert_eq!(token_state(&token, Some(&locks), &ExpiredBots::default()), state);
    }

    #[rstest]
    #[case::token(Some("2026-01-31T12:00:00Z"), None, "expired")]
    #[case::not_yet(Some("2026-01-31T12:00:01Z"), None, "unbound")]
    #[case::secret(None, Some("2026-01-31T12:00:00Z"), "secret expired")]
    fn a_token_that_admits_nobody_any_more_says_so(
        #[case] expires: Option<&str>,
        #[case] must_register_before: Option<&str>,
        #[case] state: &str,
    ) {
        let moment = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let mut token = token(Recovery::default(), BoundKeypairStatus::default());
        token.metadata_mut().expires = moment(expires);
        let Resource::Token(mut token) = token else { panic!() };
        let onboarding = Onboarding { must_register_before: moment(must_register_before), ..Default::default() };
        token.spec.as_mut().unwrap().bound_keypair.as_mut().unwrap().onboarding = Some(onboarding);
        let locks = Locks::of("2026-01-31T12:00:00Z".parse().unwrap(), []);
        assert_eq!(token_state(&token, Some(&locks), &ExpiredBots::default()), state);
    }

    #[rstest]
    #[case(None, "in force")]
    #[case(Some("2026-01-31T12:00:01Z"), "in force")]
    #[case(Some("2026-01-31T12:00:00Z"), "expired")]
    fn a_lock_is_in_force_until_it_ends(#[case] expires: Option<&str>, #[case] state: &str) {
        let target = LockTarget { join_token: "example".into(), ..Default::default() };
        let lock = locks::tests::lock(target, expires);
        let locks = Locks::of("2026-01-31T12:00:00Z".parse().unwrap(), []);
        let text = render(Kind::Lock, &[Resource::Lock(lock)], Some(&locks));
        assert!(text.lines().nth(1).unwrap().contains(state), "{text}");
    }

    #[test]
    fn an_instance_shows_its_latest_join() {
        let latest = Authentication { join: "renewal".into(), remote_addr: "192.0.2.7".into(), ..Default::default() };
        let first = Authentication { join: "first_join".into(), ..Default::default() };
        let status = BotInstanceStatus {
            first_authentication: Some(first),
            latest_authentications: vec![latest],
            health: "active".into(),
            ..Default::default()
        };
        let instance = BotInstance {
            metadata: named("0b6c"),
            spec: Some(BotInstanceSpec { bot_name: "example".into(), ..Default::default() }),
            status: Some(status),
            ..Default::default()
        };
        let text = render(Kind::BotInstance, &[Resource::BotInstance(instance)], None);
        assert!(text.contains("active") && text.contains("renewal") && text.contains("192.0.2.7"), "{text}");
    }

    #[test]
    fn long_keys_are_cut() {
        let long = LockTarget { public_key: format!("ssh-ed25519 {}", "A".repeat(68)), ..Default::default() };
        let text = target(&long);
        assert!(text.starts_with("public_key=ssh-ed25519 AAA") && text.ends_with('…') && text.len() < 60, "{text}");
    }
}
