//! Which resources are read, and what is said of the others: the field's path, and what may stand there.

use join_domain::{refusal::Refusal, resource::Recovery};
use join_proto::v1::{Bot, Exemption, Lock, Token};
use join_resource::{MAX_SPEC, read_bot, read_exemption, read_lock, read_token};
use prost_reflect::{DynamicMessage, ReflectMessage};
use rstest::rstest;
use serde_yaml_ng::Deserializer;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFi1AGLjk14Nr+eEm4PJbOG5yiYj+eEAsrZDo6l0y8d+ host";

fn written<M: ReflectMessage + Default>(yaml: &str) -> M {
    let yaml = yaml.replace("KEY", KEY);
    let message = DynamicMessage::deserialize(M::default().descriptor(), Deserializer::from_str(&yaml)).unwrap();
    message.transcode_to().unwrap()
}

fn told<T>(read: Result<T, Refusal>) -> String {
    read.map_or_else(|refusal| refusal.message, |_| "fits".to_owned())
}

fn bot(yaml: &str) -> String {
    told(read_bot(written::<Bot>(yaml)).and_then(|(head, _)| head.name()))
}

fn token(spec: &str) -> Token {
    written(&format!("{{metadata: {{name: web}}, spec: {{roles: [Bot], bot_name: web, {spec}}}}}"))
}

#[rstest]
#[case("{metadata: {name: web}}", "fits")]
#[case("{kind: bot, version: v1, metadata: {name: web}}", "fits")]
#[case("{kind: token, metadata: {name: web}}", "kind: `token` must be `bot` here")]
#[case("{version: v2, metadata: {name: web}}", "version: `v2` must be `v1` here")]
#[case("{}", "metadata.name: missing; a bot needs a name")]
#[case("{metadata: {name: Web}}", "metadata.name: `Web` is not a name: use 1 to 63 of")]
#[case("{metadata: {labels: {'a=b': c}}}", "metadata.labels.a=b: a label has a key of 1 to 253 printable bytes")]
#[case("{metadata: {labels: {'': c}}}", "metadata.labels.: a label has a key")]
#[case("{metadata: {expires: '0001-01-01T00:00:00Z'}}", "metadata.expires: not a time of the years 1970 to 9999")]
fn what_stands_around_a_specification_is_of_its_kind(#[case] yaml: &str, #[case] message: &str) {
    let told = bot(yaml);
    assert!(told.starts_with(message), "{told}");
}

#[rstest]
#[case("roles: [a, '']", "spec.roles[1]: not 1 to 253 printable bytes")]
#[case("traits: [{name: ''}]", "spec.traits[0].name: a trait has a name of 1 to 253 printable bytes")]
#[case("traits: [{name: a, values: [b, \"c\\n\"]}]", "spec.traits[0].values[1]: not 1 to 253 printable bytes")]
#[case("traits: [{name: a}, {name: a}]", "spec.traits[1].name: `a` is there twice")]
fn roles_and_traits_have_limits(#[case] spec: &str, #[case] message: &str) {
    assert_eq!(bot(&format!("{{metadata: {{name: web}}, spec: {{{spec}}}}}")), message);
}

#[test]
fn a_specification_fits_into_an_entry_many_times() {
    let with_roles = |number: usize| {
        let mut bot: Bot = written("{metadata: {name: web}}");
        bot.spec.get_or_insert_default().roles = vec!["r".repeat(253); number];
        told(read_bot(bot))
    };
    assert_eq!(with_roles(60), "fits");
    assert_eq!(with_roles(70), format!("spec: larger than {MAX_SPEC} bytes with its labels"));
    assert_eq!(with_roles(101), "spec.roles: more than 100 values");
}

#[rstest]
#[case("join_method: iam", "spec.join_method: `iam` is not served: use bound_keypair")]
#[case("join_method: bound_keypair", "fits")]
fn a_token_says_how_its_bot_joins(#[case] spec: &str, #[case] message: &str) {
    assert_eq!(told(read_token(token(spec))), message);
}

#[rstest]
#[case("", "fits")]
#[case("onboarding: {initial_public_key: KEY}", "fits")]
#[case(
    "onboarding: {initial_public_key: ssh-ed25519 AAAA}",
    "spec.bound_keypair.onboarding.initial_public_key: not a public key in authorized_keys form"
)]
#[case(
    "onboarding: {initial_public_key: ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAB}",
    "spec.bound_keypair.onboarding.initial_public_key: `ssh-rsa` keys are not accepted: use Ed25519"
)]
#[case(
    "onboarding: {registration_secret: \"a\\nb\"}",
    "spec.bound_keypair.onboarding.registration_secret: not 1 to 256 printable bytes"
)]
#[case("recovery: {mode: lax}", "spec.bound_keypair.recovery.mode: `lax` is not a recovery mode: use standard")]
fn a_bound_keypair_has_a_key_that_is_served_and_a_known_mode(#[case] settings: &str, #[case] message: &str) {
    let told = told(read_token(token(&format!("join_method: bound_keypair, bound_keypair: {{{settings}}}"))));
    assert!(told.starts_with(message), "{told}");
}

#[rstest]
#[case("{}")]
#[case("{recovery: {mode: ''}}")]
#[case("{onboarding: {registration_secret: ''}}")]
fn what_is_left_out_is_as_by_default(#[case] settings: &str) {
    let token = token(&format!("join_method: bound_keypair, bound_keypair: {settings}"));
    let (_, spec, secret) = read_token(token).unwrap();
    assert_eq!((spec.recovery, secret), (Recovery::default(), None));
}

#[rstest]
#[case("target: {user: bot-web}", "fits")]
#[case("target: {public_key: KEY}", "fits")]
#[case("target: {}", "spec.target: give exactly one of")]
#[case("target: {user: bot-web, join_token: web}", "spec.target: give exactly one of")]
#[case("target: {user: web}", "spec.target.user: `web` is not a bot's user name")]
#[case("target: {join_token: Web}", "spec.target.join_token: `Web` is not a name")]
#[case("target: {bot_instance_id: web}", "spec.target.bot_instance_id: `web` is not a UUID")]
#[case("target: {public_key: 'SHA256:short'}", "spec.target.public_key: not the fingerprint")]
#[case("target: {user: bot-web}, message: \"a\\x1bb\"", "spec.message: not up to 2000 printable bytes")]
fn a_lock_has_one_target_and_a_message(#[case] spec: &str, #[case] message: &str) {
    let told = told(read_lock(written::<Lock>(&format!("{{spec: {{{spec}}}}}"))));
    assert!(told.starts_with(message), "{told}");
}

#[test]
fn a_lock_is_named_by_a_uuid_or_by_the_authority() {
    let named = |name: &str| {
        told(read_lock(written::<Lock>(&format!(
            "{{metadata: {{name: {name}}}, spec: {{target: {{user: bot-web}}}}}}"
        ))))
    };
    assert_eq!(named("0b6c0000-0000-4000-8000-000000000000"), "fits");
    assert_eq!(named("web"), "metadata.name: the name of a lock is a UUID, or left out");
}

/// Dropped in silence, it would look as if it counted.
#[rstest]
#[case::labels("labels: {rack: '12'}", "metadata.labels: not for the kind lock: leave it out")]
#[case::revision("revision: '3'", "fits")]
fn a_lock_has_no_labels(#[case] metadata: &str, #[case] message: &str) {
    let lock = format!("{{metadata: {{{metadata}}}, spec: {{target: {{user: bot-web}}}}}}");
    assert_eq!(told(read_lock(written::<Lock>(&lock))), message);
}

#[rstest]
#[case::name("name: web", "metadata.name: not for the kind exemption: leave it out")]
#[case::labels("labels: {rack: '12'}", "metadata.labels: not for the kind exemption: leave it out")]
#[case::revision("revision: '1'", "metadata.revision: not for the kind exemption: leave it out")]
#[case::end("expires: '2027-01-31T12:00:00Z'", "fits")]
fn an_exemption_is_named_by_the_authority_and_never_edited(#[case] metadata: &str, #[case] message: &str) {
    let exemption = format!("{{metadata: {{{metadata}}}, spec: {{kind: recoveries}}}}");
    assert_eq!(told(read_exemption(written::<Exemption>(&exemption))), message);
}

#[test]
fn an_exemption_is_of_a_rule() {
    let read = |kind: &str| read_exemption(written::<Exemption>(&format!("{{spec: {{kind: {kind}, count: 3}}}}")));
    assert_eq!(read("recoveries").unwrap().1.count, 3);
    let told = told(read("reinstatement"));
    assert!(told.starts_with("spec.kind: `reinstatement` is not an exemption: use recoveries"), "{told}");
}
