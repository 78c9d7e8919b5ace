//! Why a decision fell as it did, in words, from what was recorded and the state that it was made from.

use chrono::SecondsFormat;
use join_domain::{
    envelope::Entry,
    event::{Event, JoinAccepted, JoinCase, JoinRefused, JoinStateSeen, Sighting},
    resource::ExemptionKind,
    state::{State, TokenState},
};

/// One sentence or two about an entry of a token.
pub fn explain(before: Option<&State>, entry: &Entry) -> String {
    let token = match before {
        Some(State::Token(token)) => Some(token.as_ref()),
        _ => None,
    };
    let told = entry.events.iter().rev().find_map(|event| tell(token, event));
    let mut told = told.unwrap_or_else(|| "an administrator's act".to_owned());
    for event in &entry.events {
        let Event::ExemptionConsumed(spent) = event else { continue };
        let grant = token.and_then(|token| token.grants.iter().find(|grant| grant.id == spent.grant));
        let (kind, reason) = grant.map_or(("an exemption", ""), |grant| (grant.kind.as_str(), grant.reason.as_str()));
        told.push_str(&format!("; it passed by the exemption {} ({kind}: {reason})", spent.grant));
    }
    told
}

fn tell(token: Option<&TokenState>, event: &Event) -> Option<String> {
    Some(match event {
        Event::JoinAccepted(join) => accepted(token, join),
        Event::JoinResumed(_) => {
            "resumed: attempt and subject keys are those of the latest accepted join, so its answer was given again \
             and nothing was consumed"
                .to_owned()
        }
        Event::JoinRefused(refused) => self::refused(refused),
        Event::TokenCreated(created) => format!(
            "created for bot {}; {} admits the first join",
            created.spec.bot_name,
            if created.secret.is_some() { "a registration secret" } else { "a preregistered key" }
        ),
        Event::TokenUpdated(updated) if updated.rebind => {
            "bot or roles changed: the old binding ended, and this is a new one".to_owned()
        }
        Event::TokenUpdated(_) => "the specification was replaced; the binding stays".to_owned(),
        Event::TokenDeleted(_) => "deleted: the binding ended, the history stays".to_owned(),
        Event::TokenReinstated(act) => {
            format!("reinstated ({}): {} locks released, the next join is let pass", act.reason, act.released.len())
        }
        Event::TokenReopened(act) => {
            format!("reopened ({}): key and instance are unbound, a new secret registers a new key", act.reason)
        }
        // The bundle goes with the reinstatement, which tells more.
        Event::ExemptionGranted(grant) if grant.exemption == ExemptionKind::Reinstatement => return None,
        Event::ExemptionGranted(grant) => {
            format!("{} granted for {} joins ({})", grant.exemption.as_str(), grant.uses, grant.reason)
        }
        Event::ExemptionRevoked(_) => "an exemption was revoked".to_owned(),
        _ => return None,
    })
}

fn accepted(token: Option<&TokenState>, join: &JoinAccepted) -> String {
    let count = token.map_or(0, |token| token.recovery_count);
    let shown = shown(&join.seen);
    match join.case {
        JoinCase::FirstJoin => format!(
            "first join: the token had no key, and {}; recovery {} of {} ({})",
            shown,
            join.recovery_count,
            join.recovery_limit,
            join.recovery_mode.as_str()
        ),
        JoinCase::Renewal => format!(
            "renewal: the bound key was proven and the live certificate is of the bound instance ({shown}); generation {} follows, recovery count stays {count}",
            join.generation
        ),
        JoinCase::Recovery => format!(
            "recovery: the bound key was proven without a live certificate of the bound instance ({shown}); recovery \
             {} of {} ({}) begins a new instance",
            join.recovery_count,
            join.recovery_limit,
            join.recovery_mode.as_str()
        ),
    }
}

fn refused(refused: &JoinRefused) -> String {
    let mut text = format!("refused with {}: {} ({})", refused.code, refused.why, shown(&refused.seen));
    if let Some(other) = &refused.other_holder {
        text.push_str(&format!(
            "; the other holder joined at {} from {} with serial {}, generation {}",
            other.at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            other.address.as_deref().unwrap_or("an unknown address"),
            other.serial,
            other.generation
        ));
    }
    text
}

fn shown(seen: &Sighting) -> String {
    let certificate = match &seen.certificate {
        None => "no live certificate".to_owned(),
        Some(shown) => format!("certificate {} of generation {}", shown.serial, shown.generation),
    };
    let join_state = match &seen.join_state {
        JoinStateSeen::Missing => "no join state".to_owned(),
        JoinStateSeen::NotAuthentic(error) => format!("a join state that is not authentic: {error}"),
        JoinStateSeen::Authentic { sequence, .. } => format!("join state of recovery {sequence}"),
    };
    format!("shown: {certificate}, {join_state}")
}
