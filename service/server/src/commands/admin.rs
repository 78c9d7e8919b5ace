//! `joind admin`: identities for joinctl, made and revoked on the server's host.

use std::path::Path;

use anyhow::{bail, ensure};
use join_credential::{Role, Serial};
use join_domain::id::Name;

use super::{
    Place, Whose,
    terminal::{line, print, say_error, table, time},
};
use crate::administrators;

pub(super) async fn issue(place: &Place, role: Role, name: &Name, out: &Path) -> anyhow::Result<u8> {
    let (ledger, master) = place.ledger().await?;
    administrators::issue(&ledger, &master, name, role, out).await?;
    ledger.close().await;
    line(format_args!("the identity of {role} {name} is in {}", out.display()))?;
    Ok(0)
}

pub(super) async fn ls(place: &Place, all: bool) -> anyhow::Result<u8> {
    let ledger = place.ledger().await?.0;
    let listed = if all { administrators::list_ever(&ledger).await } else { administrators::list(&ledger).await };
    let (mut identities, now) = (listed?, ledger.now());
    ledger.close().await;
    identities.sort_by(|a, b| (&a.name, a.not_after).cmp(&(&b.name, b.not_after)));
    let rows = identities.into_iter().map(|identity| {
        let ended = match identity.live {
            false => "revoked",
            true if identity.not_after <= now => "expired",
            true => "live",
        };
        [identity.serial, identity.name, identity.role, ended.to_owned(), time(identity.not_after)]
    });
    print(&table(["SERIAL", "NAME", "ROLE", "STATE", "UNTIL"], rows))?;
    Ok(0)
}

pub(super) async fn revoke(place: &Place, whose: &Whose, reason: &str) -> anyhow::Result<u8> {
    let ledger = place.ledger().await?.0;
    let serials: Vec<Serial> = match (&whose.serial, &whose.name) {
        (Some(serial), _) => vec![*serial],
        (None, Some(name)) => {
            let identities = administrators::list(&ledger).await?;
            let of_name = identities.iter().filter(|identity| identity.name == name.as_str());
            let serials: Vec<_> = of_name.map(|identity| identity.serial.parse()).collect::<Result<_, _>>()?;
            if serials.is_empty() {
                let ever = administrators::list_ever(&ledger).await?;
                let had_one = ever.iter().any(|identity| identity.name == name.as_str());
                ensure!(!had_one, "each identity of {name} was revoked before; see `joind admin ls --all`");
                bail!("no identity of that name is on record; `joind admin ls --all` lists them");
            }
            serials
        }
        (None, None) => bail!("give --name or --serial"),
    };
    // One that can't be revoked now must not keep the others alive, nor must a word that can't be said.
    let (mut revoked, mut failed) = (Vec::new(), 0);
    for serial in serials {
        match administrators::revoke(&ledger, &serial, reason).await {
            Ok(()) => revoked.push(serial),
            Err(error) => {
                failed += 1;
                say_error(&error);
            }
        }
    }
    ledger.close().await;
    revoked.iter().try_for_each(|serial| line(format_args!("identity {serial} is revoked")))?;
    Ok(u8::from(failed > 0))
}
