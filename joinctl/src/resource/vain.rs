//! Wishes that the authority takes and nobody will have anything of.

use join_proto::v1::{Recovery, Token};
use prost_types::Timestamp;

use super::{Resource, ends};
use crate::{
    connection::Client,
    interrupt::{Interrupted, interruptible},
    moment::{is_before, seconds},
    output::say,
    token::is_bound,
};

/// Warns of what was just written and can't be fulfilled. What is written stands, whether or not this succeeds.
///
/// # Errors
/// Ctrl-C.
pub(crate) async fn warn(client: &Client, written: &Resource) -> anyhow::Result<()> {
    if let Resource::Token(token) = written
        && admits_no_first_join(token)
    {
        say(format!(
            "warning: {}: a recovery limit of 0 admits not even the first join: raise spec.bound_keypair.recovery.limit \
             with `joinctl edit {}`",
            written.reference(),
            written.reference()
        ));
    }
    let ends = [written.metadata().and_then(|metadata| metadata.expires), must_register_before(written)];
    if ends == [None, None] {
        return Ok(());
    }
    let now = match interruptible(client.now()).await {
        Ok(now) => now,
        Err(error) if error.is::<Interrupted>() => return Err(error),
        Err(_) => return Ok(()),
    };
    told(written, &now).iter().for_each(say);
    Ok(())
}

/// What has ended by now.
fn told(written: &Resource, now: &Timestamp) -> Vec<String> {
    let reference = written.reference();
    let mut told = Vec::new();
    if let (Resource::Bot(_) | Resource::Token(_), Some(at)) = (written, ends::expired(written.metadata(), now)) {
        told.push(format!(
            "warning: {reference}: metadata.expires is {}, which is past: nobody joins with it",
            seconds(Some(&at))
        ));
    }
    if let Some(end) = must_register_before(written).filter(|end| !is_before(now, end)) {
        told.push(format!(
            "warning: {reference}: must_register_before is {}, which is past: its secret registers nobody; `joinctl \
             reopen {}` gives it another",
            seconds(Some(&end)),
            reference.name
        ));
    }
    told
}

fn admits_no_first_join(token: &Token) -> bool {
    let settings = token.spec.as_ref().and_then(|spec| spec.bound_keypair.as_ref());
    let recovery = settings.and_then(|settings| settings.recovery.as_ref());
    recovery.is_some_and(|Recovery { mode, limit }| {
        *limit == Some(0) && mode.as_deref().is_none_or(|mode| mode == "standard") && !is_bound(token)
    })
}

/// Until when the secret of a token may be used that has no key yet.
fn must_register_before(resource: &Resource) -> Option<Timestamp> {
    let Resource::Token(token) = resource else { return None };
    let onboarding = token.spec.as_ref()?.bound_keypair.as_ref()?.onboarding.as_ref()?;
    let by_secret = onboarding.initial_public_key.is_empty() && !is_bound(token);
    onboarding.must_register_before.filter(|_| by_secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::document;

    fn token(spec: &str, expires: &str) -> Resource {
        let yaml = format!(
            "{{kind: token, version: v2, metadata: {{name: web, expires: '{expires}'}}, spec: {{roles: [Bot], bot_name: \
             web, join_method: bound_keypair, bound_keypair: {{{spec}}}}}}}"
        );
        document::parse("x", &yaml).unwrap().remove(0).resource
    }

    #[test]
    fn what_is_past_when_it_is_written_is_told() {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        let late = "onboarding: {must_register_before: '2026-01-31T11:00:00Z'}";
        let both = told(&token(late, "2026-01-31T12:00:00Z"), &now);
        assert!(both[0].starts_with("warning: token/web: metadata.expires is 2026-01-31T12:00:00Z"), "{both:?}");
        assert!(both[1].starts_with("warning: token/web: must_register_before is 2026-01-31T11:00:00Z"), "{both:?}");
        let in_time = "onboarding: {must_register_before: '2026-01-31T12:00:01Z'}";
        assert_eq!(told(&token(in_time, "2026-01-31T12:00:01Z"), &now), [""; 0]);
    }

    #[test]
    fn a_limit_of_zero_counts_in_standard_mode_alone() {
        let admits = |recovery: &str| match token(&format!("recovery: {{{recovery}}}"), "2026-01-31T12:00:00Z") {
            Resource::Token(token) => !admits_no_first_join(&token),
            _ => panic!(),
        };
        assert!(!admits("limit: 0") && !admits("mode: standard, limit: 0"));
        assert!(admits("limit: 1") && admits("mode: relaxed, limit: 0") && admits(""));
    }
}
