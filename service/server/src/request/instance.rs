//! Bot instances on the wire, with a health word.

use std::collections::{BTreeSet, HashMap};

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    decision::administer::ONLY_REVISION,
    envelope::{StreamId, StreamKind},
    event::JoinCase,
    id::{InstanceId, Name, TokenId},
    refusal::{Code, Refusal},
    resource::{Labels, LockTarget},
    state::{TokenState, token::CONTESTED_HOURS},
};
use join_ledger::{Authentication, Cursor, Instance, InstanceFilter, Ledger, NotACursor, Stored};
use join_proto::v1;

use super::values::{self, to_wire_time};
use crate::ceremony::{OrRefuse as _, not_found};

/// The health words, worst last.
const WORDS: [&str; 5] = ["active", "expiring", "expired", "locked", "contested"];
/// A certificate with less of its life left than one part in this many is expiring.
const EXPIRING_PART: i32 = 4;
/// Instances, or tokens of the past, that one page looks at, at most, when few of them fit.
const SCAN: usize = 20_000;
/// Tokens whose histories are looked through at once, for a page of the past, and instances that these yield at most.
const TOKENS: u32 = 100;
const INSTANCES: usize = 1000;

/// One instance with its health, as it is or as it was.
///
/// # Errors
/// NOT_FOUND, or when the database can't be read.
pub async fn get(ledger: &Ledger, id: InstanceId, at: Option<Timestamp>) -> Result<v1::BotInstance, Refusal> {
    let newest = ledger.instance(id).await.or_refuse()?;
    let newest = newest.ok_or_else(|| not_found("bot instance", id))?;
    let found = match at {
        None => Some(newest),
        Some(at) => ledger.instances_at(newest.token, at).await.or_refuse()?.into_iter().find(|found| found.id == id),
    };
    let Some(found) = found else {
        return Err(Refusal::new(Code::NotFound, format!("bot instance `{id}` had not joined by then")));
    };
    Ok(Showing::read(ledger, std::slice::from_ref(&found), at).await?.write(&found))
}

/// One page of instances.
///
/// # Errors
/// INVALID_REQUEST with the field.
pub async fn list(ledger: &Ledger, list: &v1::ListBotInstancesRequest) -> Result<v1::BotInstanceList, Refusal> {
    if !list.health.is_empty() && !WORDS.contains(&list.health.as_str()) {
        return Err(Refusal::invalid("health", format!("`{}` is none of {}", list.health, WORDS.join(", "))));
    }
    let bot: Option<Name> = match list.bot_name.as_str() {
        "" => None,
        name => Some(name.parse().map_err(|error| Refusal::invalid("bot_name", error))?),
    };
    let labels = values::read_selector(&list.selector)?;
    let at = values::optional_time("at", list.at.as_ref())?;
    let limit = values::page_size(list.page_size, values::PAGE);
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut cursor, mut found, mut looked_at) = (list.cursor.clone(), Vec::new(), 0);
    loop {
        let (page, next) = match at {
            None => page(ledger, bot.as_ref(), &cursor, limit).await?,
            Some(at) => page_at(ledger, bot.as_ref(), &cursor, at).await?,
        };
        looked_at += page.len().max(usize::try_from(TOKENS).unwrap_or(usize::MAX));
        let showing = Showing::read(ledger, &page, at).await?;
        let fits = |instance: &&Instance| {
            let token = showing.tokens.get(&instance.token);
            labels.iter().all(|(key, value)| token.is_some_and(|token| token.spec.labels.get(key) == Some(value)))
                && (list.health.is_empty() || showing.has_health(instance, &list.health))
        };
        let mut fitting = page.iter().filter(fits);
        let shown: Vec<&Instance> = fitting.by_ref().take(wanted - found.len()).collect();
        found.extend(shown.iter().map(|instance| showing.write(instance)));
        cursor = match (fitting.next(), shown.last()) {
            (Some(_), Some(last)) => after(last, at),
            _ => next.unwrap_or_default(),
        };
        if cursor.is_empty() || found.len() >= wanted || looked_at >= SCAN {
            return Ok(v1::BotInstanceList { bot_instances: found, next_cursor: cursor });
        }
    }
}

/// Instances as they are, in the order of bots.
async fn page(
    ledger: &Ledger,
    bot: Option<&Name>,
    cursor: &str,
    limit: u32,
) -> Result<(Vec<Instance>, Option<String>), Refusal> {
    let begin = values::read_cursor(cursor)?.map(|after| (after.name, InstanceId(after.id)));
    let page = ledger.instances(&InstanceFilter { bot: bot.cloned(), after: begin, limit }).await.or_refuse()?;
    let is_full = u32::try_from(page.len()).is_ok_and(|count| count == limit);
    let next = page.last().filter(|_| is_full).map(|last| after(last, None));
    Ok((page, next))
}

/// Instances as they were, in the order of tokens: each token's history is folded up to there, so not for a few of them.
async fn page_at(
    ledger: &Ledger,
    bot: Option<&Name>,
    cursor: &str,
    at: Timestamp,
) -> Result<(Vec<Instance>, Option<String>), Refusal> {
    let (begun, seen) = read_past_cursor(cursor)?;
    let tokens = ledger.tokens_ever(begun.as_ref(), TOKENS).await.or_refuse()?;
    let is_full = u32::try_from(tokens.len()).is_ok_and(|count| count == TOKENS);
    let next = tokens.last().filter(|_| is_full).map(Cursor::to_string);
    let mut found: Vec<Instance> = Vec::new();
    // The page before may have ended in the middle of a token.
    let rest = begun.as_ref().zip(seen).map(|(token, seen)| (token, Some(seen)));
    for (token, seen) in rest.into_iter().chain(tokens.iter().map(|token| (token, None))) {
        for instance in ledger.instances_at(TokenId(token.id), at).await.or_refuse()? {
            if Some(instance.id) <= seen || bot.is_some_and(|bot| instance.bot_name != bot.as_str()) {
                continue;
            }
            if let Some(last) = found.last().filter(|_| found.len() >= INSTANCES) {
                let next = after(last, Some(at));
                return Ok((found, Some(next)));
            }
            found.push(instance);
        }
    }
    Ok((found, next))
}

/// The cursor of a page that begins after an instance: in a list of the past, `TOKEN/ID OF THE TOKEN/ID`.
fn after(last: &Instance, at: Option<Timestamp>) -> String {
    match at {
        None => Cursor { name: last.bot_name.clone(), id: last.id.0 }.to_string(),
        Some(_) => format!("{}/{}", Cursor { name: last.token_name.clone(), id: last.token.0 }, last.id),
    }
}

/// Where a page of the past begins: after a token, or in it, after one of its instances.
fn read_past_cursor(text: &str) -> Result<(Option<Cursor>, Option<InstanceId>), Refusal> {
    match text.rsplit_once('/') {
        Some((token, instance)) if token.contains('/') => {
            let instance = instance.parse().map_err(|_| Refusal::invalid("cursor", NotACursor))?;
            Ok((values::read_cursor(token)?, Some(instance)))
        }
        _ => Ok((values::read_cursor(text)?, None)),
    }
}

/// What health is judged from.
struct Showing {
    now: Timestamp,
    tokens: HashMap<TokenId, TokenState>,
    locked: Vec<LockTarget>,
}

impl Showing {
    async fn read(ledger: &Ledger, instances: &[Instance], at: Option<Timestamp>) -> Result<Self, Refusal> {
        let now = at.unwrap_or_else(|| ledger.now());
        let locked = match at {
            None => {
                let locks = ledger.locks_in_force(now).await.or_refuse()?;
                locks.iter().filter_map(Stored::lock).map(|lock| lock.target.clone()).collect()
            }
            Some(at) => locked_at(ledger, at).await?,
        };
        let streams: BTreeSet<StreamId> = instances.iter().map(|instance| StreamId::from(instance.token)).collect();
        let streams: Vec<StreamId> = streams.into_iter().collect();
        let stored = match at {
            None => ledger.load_all(&streams).await.or_refuse()?,
            Some(at) => {
                let mut stored = Vec::new();
                for stream in streams {
                    stored.extend(ledger.state_at(stream, at).await.or_refuse()?);
                }
                stored
            }
        };
        let tokens = stored.iter().filter_map(Stored::token).map(|token| (token.id, token.clone())).collect();
        Ok(Self { now, tokens, locked })
    }

    /// True when somebody who looks for this word means the instance: one that is contested and has expired is both.
    fn has_health(&self, instance: &Instance, word: &str) -> bool {
        let health = self.health(instance);
        health == word || health == "contested" && word == "expired" && instance.certificate_not_after <= self.now
    }

    fn write(&self, instance: &Instance) -> v1::BotInstance {
        let mut latest: Vec<_> = instance.latest.iter().map(authentication).collect();
        latest.reverse();
        v1::BotInstance {
            kind: "bot_instance".to_owned(),
            version: "v1".to_owned(),
            metadata: Some(v1::Metadata {
                name: instance.id.to_string(),
                revision: ONLY_REVISION.to_string(),
                ..v1::Metadata::default()
            }),
            spec: Some(v1::BotInstanceSpec {
                bot_name: instance.bot_name.clone(),
                instance_id: instance.id.to_string(),
                previous_instance_id: instance.previous.map(|id| id.to_string()).unwrap_or_default(),
                token_name: instance.token_name.clone(),
            }),
            status: Some(v1::BotInstanceStatus {
                generation: instance.generation,
                first_authentication: Some(first_authentication(instance)),
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

/// What was locked at a moment.
async fn locked_at(ledger: &Ledger, at: Timestamp) -> Result<Vec<LockTarget>, Refusal> {
    let locked = |stored: &Stored| Some(stored.lock().filter(|lock| lock.in_force(at))?.target.clone());
    ledger.list_all(StreamKind::Lock, Labels::new(), Some(at), locked).await.or_refuse()
}

/// The first one, with address and serial for as long as it is among the latest.
fn first_authentication(instance: &Instance) -> v1::Authentication {
    let oldest = instance.latest.back().filter(|oldest| oldest.at == instance.first_at);
    oldest.map_or_else(
        || v1::Authentication {
            at: Some(to_wire_time(instance.first_at)),
            join: if instance.previous.is_some() { JoinCase::Recovery } else { JoinCase::FirstJoin }
                .as_str()
                .to_owned(),
            generation: 1,
            ..v1::Authentication::default()
        },
        authentication,
    )
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
