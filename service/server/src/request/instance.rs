//! Bot instances on the wire, with a health word.

use std::collections::HashMap;

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    envelope::StreamId,
    event::JoinCase,
    id::{InstanceId, TokenId},
    refusal::Refusal,
    resource::LockTarget,
    state::{TokenState, token::CONTESTED_HOURS},
};
use join_ledger::{Authentication, Instance, InstanceFilter, Ledger};
use join_proto::v1;

use super::{problem::invalid, resource::to_wire_time};
use crate::ceremony::Answer as _;

/// The health words, worst last.
const WORDS: [&str; 5] = ["active", "expiring", "expired", "locked", "contested"];
/// A certificate with less of its life left than one part in this many is expiring.
const EXPIRING_PART: i32 = 4;
/// Instances that one page looks at, at most, when few of them fit.
const SCAN: usize = 20_000;

/// One instance with its health.
///
/// # Errors
/// When the database can't be read.
pub async fn show(ledger: &Ledger, instance: &Instance) -> Result<v1::BotInstance, Refusal> {
    let mut shown = Showing::of(ledger, std::slice::from_ref(instance)).await?;
    Ok(shown.pop().unwrap_or_default())
}

/// One page of instances.
///
/// # Errors
/// INVALID_REQUEST with the field.
pub async fn list(ledger: &Ledger, list: &v1::ListBotInstancesRequest) -> Result<v1::BotInstanceList, Refusal> {
    if !list.health.is_empty() && !WORDS.contains(&list.health.as_str()) {
        return Err(invalid("health", format!("`{}` is none of {}", list.health, WORDS.join(", "))));
    }
    let bot = match list.bot_name.as_str() {
        "" => None,
        name => Some(name.parse().map_err(|error| invalid("bot_name", error))?),
    };
    let limit = if list.page_size == 0 { 500 } else { list.page_size.min(1000) };
    let mut filter = InstanceFilter { bot, token: None, after: read_cursor(&list.cursor)?, limit };
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut found, mut looked_at) = (Vec::new(), 0);
    loop {
        let page = ledger.instances(&filter).await.answer()?;
        let is_last = page.len() < wanted;
        looked_at += page.len();
        if let Some(last) = page.last() {
            filter.after = Some((last.bot_name.clone(), last.id));
        }
        let shown = Showing::of(ledger, &page).await?;
        let fits = |shown: &v1::BotInstance| {
            list.health.is_empty() || shown.status.as_ref().is_some_and(|status| status.health == list.health)
        };
        found.extend(shown.into_iter().filter(fits));
        let next = filter.after.as_ref().map(|(bot, id)| format!("{bot}/{id}")).unwrap_or_default();
        if is_last {
            return Ok(v1::BotInstanceList { bot_instances: found, next_cursor: String::new() });
        }
        if found.len() >= wanted || looked_at >= SCAN {
            return Ok(v1::BotInstanceList { bot_instances: found, next_cursor: next });
        }
    }
}

fn read_cursor(cursor: &str) -> Result<Option<(String, InstanceId)>, Refusal> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let (bot, id) = cursor.split_once('/')?;
        Some((bot.to_owned(), id.parse().ok()?))
    };
    parse().map(Some).ok_or_else(|| invalid("cursor", "not one that a page ended with"))
}

/// What health is judged from.
struct Showing {
    now: Timestamp,
    tokens: HashMap<TokenId, TokenState>,
    locked: Vec<LockTarget>,
}

impl Showing {
    async fn of(ledger: &Ledger, instances: &[Instance]) -> Result<Vec<v1::BotInstance>, Refusal> {
        let now = ledger.now();
        let locked = ledger.locks_in_force(now).await.answer()?.into_iter().map(|lock| lock.target).collect();
        let mut tokens = HashMap::new();
        for instance in instances {
            if !tokens.contains_key(&instance.token)
                && let Some(stored) = ledger.load(StreamId::from(instance.token)).await.answer()?
                && let Some(token) = stored.token()
            {
                tokens.insert(instance.token, token.clone());
            }
        }
        let showing = Self { now, tokens, locked };
        Ok(instances.iter().map(|instance| showing.write(instance)).collect())
    }

    fn write(&self, instance: &Instance) -> v1::BotInstance {
        let mut latest: Vec<_> = instance.latest.iter().map(authentication).collect();
        latest.reverse();
        v1::BotInstance {
            kind: "bot_instance".to_owned(),
            version: "v1".to_owned(),
            metadata: Some(v1::Metadata { name: instance.id.to_string(), ..v1::Metadata::default() }),
            spec: Some(v1::BotInstanceSpec {
                bot_name: instance.bot_name.clone(),
                instance_id: instance.id.to_string(),
                previous_instance_id: instance.previous.map(|id| id.to_string()).unwrap_or_default(),
                token_name: instance.token_name.clone(),
            }),
            status: Some(v1::BotInstanceStatus {
                generation: instance.generation,
                first_authentication: Some(v1::Authentication {
                    at: Some(to_wire_time(instance.first_at)),
                    join: if instance.previous.is_some() { JoinCase::Recovery } else { JoinCase::FirstJoin }
                        .as_str()
                        .to_owned(),
                    generation: 1,
                    ..v1::Authentication::default()
                }),
                latest_authentications: latest,
                certificate_expires: Some(to_wire_time(instance.certificate_not_after)),
                health: self.health(instance).to_owned(),
            }),
        }
    }

    fn health(&self, instance: &Instance) -> &'static str {
        let token = self.tokens.get(&instance.token);
        let bound = token.is_some_and(|token| token.instance() == Some(instance.id));
        let concerns = |target: &LockTarget| match target {
            LockTarget::BotInstanceId(id) => *id == instance.id,
            LockTarget::JoinToken(name) => name.as_str() == instance.token_name,
            LockTarget::User(name) => name.as_str() == instance.bot_name,
            LockTarget::PublicKey(fingerprint) => {
                bound
                    && token
                        .and_then(|token| token.binding.as_ref())
                        .is_some_and(|binding| binding.key.fingerprint() == *fingerprint)
            }
        };
        if self.locked.iter().any(concerns) {
            return "locked";
        }
        let contested = token.filter(|_| bound).and_then(|token| token.contested_at);
        if contested.is_some_and(|at| self.now < at + TimeDelta::hours(CONTESTED_HOURS)) {
            return "contested";
        }
        let left = instance.certificate_not_after - self.now;
        let life = instance.certificate_not_after - instance.latest_at;
        if left <= TimeDelta::zero() {
            "expired"
        } else if left < life / EXPIRING_PART {
            "expiring"
        } else {
            "active"
        }
    }
}

fn authentication(seen: &Authentication) -> v1::Authentication {
    v1::Authentication {
        at: Some(to_wire_time(seen.at)),
        join: seen.case.map_or("resume", JoinCase::as_str).to_owned(),
        generation: seen.generation,
        remote_addr: seen.address.clone().unwrap_or_default(),
        serial: seen.serial.clone(),
    }
}
