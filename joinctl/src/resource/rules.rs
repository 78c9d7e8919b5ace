//! What the authority asks of each resource by itself, asked here first, by the code that the authority asks it with: what
//! is refused before anything is sent leaves nothing half done.

use join_domain::{
    decision::administer::{check_grant, check_token},
    id::Name,
    refusal::Refusal,
};
use join_resource::{read_bot, read_exemption, read_lock, read_token};

use super::Resource;

/// Refuses what the authority would refuse. Errors begin with the path of the field.
pub(super) fn check(resource: &Resource) -> Result<(), Refusal> {
    match resource.clone() {
        Resource::Bot(bot) => {
            let (head, _) = read_bot(bot)?;
            head.name().map(drop)
        }
        Resource::Token(token) => {
            let (head, spec, secret) = read_token(token)?;
            head.name()?;
            check_token(&spec, secret.is_some())
        }
        Resource::Lock(lock) => read_lock(lock).map(drop),
        Resource::Exemption(exemption) => {
            let (token, asked) = read_exemption(exemption)?;
            token.parse::<Name>().map_err(|error| Refusal::invalid("spec.token_name", error))?;
            check_grant(&asked).map(drop)
        }
        Resource::BotInstance(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::resource::document::parse;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFi1AGLjk14Nr+eEm4PJbOG5yiYj+eEAsrZDo6l0y8d+ host";

    fn told(kind: &str, version: &str, rest: &str) -> String {
        let yaml = format!("{{kind: {kind}, version: {version}, {rest}}}").replace("KEY", KEY);
        match parse("x", &yaml) {
            Ok(_) => "fits".to_owned(),
            Err(error) => format!("{error:#}").trim_start_matches("x, document 1: ").to_owned(),
        }
    }

    #[rstest]
    #[case("bot", "v1", "metadata: {name: web}, spec: {roles: [a, '']}", "spec.roles[1]: not 1 to 253 printable bytes")]
    #[case("token", "v2", "metadata: {name: web}, spec: {join_method: iam}", "spec.join_method: `iam` is not served")]
    #[case("lock", "v2", "spec: {target: {user: bot-web}}", "fits")]
    #[case("lock", "v2", "spec: {target: {user: web}}", "spec.target.user: `web` is not a bot's user name")]
    #[case("exemption", "v1", "spec: {kind: reinstatement}", "spec.kind: `reinstatement` is not an exemption")]
    fn what_the_authority_could_not_read_is_refused(
        #[case] kind: &str,
        #[case] version: &str,
        #[case] rest: &str,
        #[case] message: &str,
    ) {
        let told = told(kind, version, rest);
        assert!(told.starts_with(message), "{told}");
    }

    #[rstest]
    #[case("roles: [Bot], bot_name: web", "fits")]
    #[case("roles: [Node], bot_name: web", "spec.roles: must be [Bot]")]
    #[case("roles: [Bot], bot_name: Web", "spec.bot_name: `Web` is not a name")]
    #[case("roles: [Bot], bot_name: web, bound_keypair: {onboarding: {initial_public_key: KEY}}", "fits")]
    #[case(
        "roles: [Bot], bot_name: web, bound_keypair: {onboarding: {initial_public_key: KEY, registration_secret: s3cret}}",
        "spec.bound_keypair.onboarding: it has both registration_secret and initial_public_key"
    )]
    fn a_token_is_for_a_bot_that_begins_in_one_way(#[case] spec: &str, #[case] message: &str) {
        let told =
            told("token", "v2", &format!("metadata: {{name: web}}, spec: {{join_method: bound_keypair, {spec}}}"));
        assert!(told.starts_with(message), "{told}");
    }

    #[rstest]
    #[case("token_name: web, kind: recoveries, count: 3, reason: planned", "fits")]
    #[case("token_name: web, kind: join_state, count: 3, reason: planned", "spec.count: it is for the kind recoveries")]
    #[case("token_name: web, kind: recoveries, count: 9, uses: 999, reason: r", "spec.uses: count and uses allow more")]
    #[case("token_name: web, kind: recoveries, reason: ' '", "spec.reason: missing")]
    #[case("kind: recoveries, reason: planned", "spec.token_name: `` is not a name")]
    fn an_exemption_has_a_token_a_rule_and_a_reason(#[case] spec: &str, #[case] message: &str) {
        let told = told("exemption", "v1", &format!("spec: {{{spec}}}"));
        assert!(told.starts_with(message), "{told}");
    }
}
