//! What is to be written beside what is there: what can be seen to fail is refused before the first write.

use std::collections::HashSet;

use anyhow::{Context as _, bail};
use join_resource::lock_target;

use super::{Kind, Reference, Resource, document::Document};
use crate::{connection::Client, moment};

/// A document, and what the authority has under its name.
pub(super) struct Planned {
    pub(super) document: Document,
    pub(super) current: Option<Resource>,
}

/// Looks at the authority and checks what the documents need there. Nothing is written.
pub(super) async fn plan(client: &Client, documents: Vec<Document>) -> anyhow::Result<Vec<Planned>> {
    refuse_shared_keys(&documents)?;
    check_references(client, &documents).await?;
    let mut planned = Vec::new();
    for document in documents {
        let Reference { kind, name } = document.resource.reference();
        let current = if name.is_empty() { None } else { client.find(kind, &name).await? };
        check_replacement(&document.resource, current.as_ref()).with_context(|| document.origin.clone())?;
        planned.push(Planned { document, current });
    }
    Ok(planned)
}

/// One key, one token.
fn refuse_shared_keys(documents: &[Document]) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for document in documents {
        if let Some(key) = preregistered(&document.resource)
            && !seen.insert(key)
        {
            bail!(
                "{}: spec.bound_keypair.onboarding.initial_public_key: another token of the input has this key; \
                 make a keypair for each",
                document.origin
            );
        }
    }
    Ok(())
}

/// The key as it is, without its comment.
fn preregistered(resource: &Resource) -> Option<String> {
    let Resource::Token(token) = resource else {
        return None;
    };
    let onboarding = token.spec.as_ref()?.bound_keypair.as_ref()?.onboarding.as_ref()?;
    let words: Vec<_> = onboarding.initial_public_key.split_whitespace().take(2).collect();
    Some(words.join(" ")).filter(|key| !key.is_empty())
}

/// What a resource names must be in the input, or be there already.
async fn check_references(client: &Client, documents: &[Document]) -> anyhow::Result<()> {
    let mut known: HashSet<Reference> = documents.iter().map(|document| document.resource.reference()).collect();
    for document in documents {
        let Some((field, needed)) = needed(&document.resource) else {
            continue;
        };
        if !known.contains(&needed) {
            if client.find(needed.kind, &needed.name).await?.is_none() {
                bail!("{}: {field}: {needed} is neither in the input nor there: create it first", document.origin);
            }
            known.insert(needed);
        }
    }
    Ok(())
}

/// The field that names another resource, and that resource.
fn needed(resource: &Resource) -> Option<(&'static str, Reference)> {
    let (field, kind, name) = match resource {
        Resource::Token(token) => ("spec.bot_name", Kind::Bot, &token.spec.as_ref()?.bot_name),
        Resource::Exemption(exemption) => ("spec.token_name", Kind::Token, &exemption.spec.as_ref()?.token_name),
        Resource::Bot(_) | Resource::Lock(_) | Resource::BotInstance(_) => return None,
    };
    Some((field, Reference { kind, name: name.clone() }))
}

/// Refuses locks and exemptions that would end before they begin. Those that are there already and stay as they are may
/// have ended, so only what is to be written belongs here.
pub(super) async fn refuse_ended<'a>(
    client: &Client,
    documents: impl Iterator<Item = &'a Document>,
) -> anyhow::Result<()> {
    let ends = |document: &'a Document| match document.resource.kind() {
        Kind::Lock | Kind::Exemption => Some((document, document.resource.metadata()?.expires?)),
        Kind::Bot | Kind::Token | Kind::BotInstance => None,
    };
    let ends: Vec<_> = documents.filter_map(ends).collect();
    if ends.is_empty() {
        return Ok(());
    }
    let now = client.now().await?;
    match ends.iter().find(|(_, end)| !moment::is_before(&now, end)) {
        None => Ok(()),
        Some((Document { origin, resource }, _)) => {
            bail!("{origin}: metadata.expires: it is past, and the {} would do nothing", resource.kind())
        }
    }
}

/// A replacement must be of the newest revision, when it says of which, and a lock locks what it locks.
fn check_replacement(wanted: &Resource, current: Option<&Resource>) -> anyhow::Result<()> {
    let (revision, newest) = (wanted.revision(), current.map(Resource::revision));
    if !revision.is_empty() && newest != Some(revision) {
        let newest = newest.map_or("nothing of that name is there now".to_owned(), |it| format!("{it} is the newest"));
        bail!(
            "metadata.revision: {revision} is outdated, {newest}: get it again, then edit, or leave the revision out"
        );
    }
    if let (Resource::Lock(wanted), Some(Resource::Lock(current))) = (wanted, current)
        && lock_target(wanted.spec.as_ref())? != lock_target(current.spec.as_ref())?
    {
        bail!("spec.target: what a lock locks can't be changed: create another lock");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::document::parse;

    fn token(name: &str, comment: &str) -> String {
        format!(
            "{{kind: token, version: v2, metadata: {{name: {name}}}, spec: {{roles: [Bot], bot_name: web, join_method: \
             bound_keypair, bound_keypair: {{onboarding: {{initial_public_key: ssh-ed25519 \
             AAAAC3NzaC1lZDI1NTE5AAAAIFi1AGLjk14Nr+eEm4PJbOG5yiYj+eEAsrZDo6l0y8d+ {comment}}}}}}}}}"
        )
    }

    #[test]
    fn a_key_is_preregistered_for_one_token() {
        let documents = parse("x", &format!("{}\n---\n{}", token("a", "host-a"), token("b", "host-b"))).unwrap();
        let error = refuse_shared_keys(&documents).unwrap_err().to_string();
        assert!(error.starts_with("x, document 2: spec.bound_keypair.onboarding.initial_public_key: "), "{error}");
        assert!(refuse_shared_keys(&documents[..1]).is_ok());
    }

    #[test]
    fn a_replacement_is_of_the_newest_revision_or_says_none() {
        let bot = |metadata: &str| {
            let yaml = format!("{{kind: bot, version: v1, metadata: {{name: web, {metadata}}}}}");
            parse("x", &yaml).unwrap().remove(0).resource
        };
        let current = bot("revision: '7'");
        assert!(check_replacement(&bot(""), Some(&current)).is_ok());
        assert!(check_replacement(&current, Some(&current)).is_ok());
        let outdated = check_replacement(&bot("revision: '6'"), Some(&current)).unwrap_err().to_string();
        assert!(outdated.starts_with("metadata.revision: 6 is outdated, 7 is the newest"), "{outdated}");
        assert!(check_replacement(&current, None).unwrap_err().to_string().contains("nothing of that name"));
    }

    #[test]
    fn a_lock_keeps_its_target() {
        let lock = |target: &str| {
            let yaml = format!("{{kind: lock, version: v2, spec: {{target: {{{target}}}}}}}");
            parse("x", &yaml).unwrap().remove(0).resource
        };
        assert!(check_replacement(&lock("user: bot-a"), Some(&lock("user: bot-a"))).is_ok());
        assert!(check_replacement(&lock("user: bot-a"), Some(&lock("user: bot-b"))).is_err());
    }
}
