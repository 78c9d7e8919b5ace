//! `joinctl rm`: deletes a resource, lifts a lock, revokes an exemption.

use clap::Args;

use super::{Kind, Reference, Resource, locks::locked_by_rule};
use crate::{
    cli::Context,
    output::{self, tree::mapping},
};

/// What to delete.
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// Such as token/example or lock/0b6c….
    #[arg(value_name = "KIND/NAME")]
    resource: Reference,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { resource } = self;
        let client = context.connect().await?;
        let lock = match resource.kind {
            Kind::Lock => client.find(Kind::Lock, &resource.name).await.ok().flatten(),
            _ => None,
        };
        client.delete(resource.kind, &resource.name, "").await?;
        let deed = if resource.kind == Kind::Exemption { "revoked" } else { "deleted" };
        let Reference { kind, name } = &resource;
        let done = mapping([("kind", kind.name().into()), ("name", name.as_str().into()), ("outcome", deed.into())]);
        output::print(context.format, &done, || format!("{resource} {deed}\n"))?;
        if let Some(Resource::Lock(lock)) = &lock
            && let Some((token, cause)) = locked_by_rule(lock)
        {
            output::say(format!(
                "note: a rule locked token/{token} ({cause}), and may lock it again at its next join: check its host, then \
                 `joinctl reinstate {token} --reason …` admits it"
            ));
        }
        Ok(())
    }
}
