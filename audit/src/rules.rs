//! The rules of a join, written a second time: whether what an entry records was allowed after what stands before it
//! (protocol, sections 3, 4, 6 and 7). What events mean is the states' to say; they follow forbidden ones as well.
//!
//! Times are what entries say, and the order of the log is sealed: where both tell something, the order counts. A lock on a
//! token, or on what it has, stands behind every join that was decided without it. Other streams have no order among each
//! other but that of cause and effect: what was recorded within [`AT_ONCE`] of each other passes in both orders.

use std::collections::HashMap;

use chrono::TimeDelta;
use join_domain::{
    Timestamp,
    envelope::Entry,
    event::{Event, JoinAccepted, JoinCase, JoinResumed, JoinStateSeen, KeypairRotated},
    id::{BotId, LockId, user_name},
    resource::{ExemptionKind, LockTarget, RecoveryMode},
    state::{
        BotState, LockState, State, TokenState,
        token::{Accepted, Grant},
    },
};

use crate::{
    challenges::{are_in_time, are_newer_than_latest, challenges, first_challenge},
    times::AT_ONCE,
};

/// How long before its join a certificate begins.
const BACKDATED: TimeDelta = TimeDelta::seconds(120);

/// What a join depends on beside its token.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    bots: HashMap<BotId, Bot>,
    /// Those that are there, each with the time of its last change.
    locks: HashMap<LockId, (LockState, Timestamp)>,
}

#[derive(Debug)]
struct Bot {
    now: BotState,
    /// What it was a moment ago, with the times of the changes.
    before: Vec<(BotState, Timestamp)>,
}

pub(crate) type Checked = Result<(), String>;

pub(crate) fn ensure(holds: bool, otherwise: &str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

impl Rules {
    /// Why the entry, which was decided `at` this time by its place in the log, was not allowed.
    pub(crate) fn check(&self, before: Option<&State>, entry: &Entry, at: Timestamp) -> Checked {
        let token = match before {
            Some(State::Token(token)) => token,
            Some(_) => return Ok(()),
            None => {
                let joins = |event: &Event| answers(event) || belongs_to_a_join(event);
                return ensure(!entry.events.iter().any(joins), "a join is part of the first entry of its stream");
            }
        };
        let mut answers = entry.events.iter().filter(|event| answers(event));
        match (answers.next(), answers.next()) {
            (_, Some(_)) => Err("one append gives two answers".to_owned()),
            (Some(Event::JoinAccepted(join)), None) => Join::new(self, token, join, entry, at).check(),
            (answer, None) => {
                if let Some(stray) = entry.events.iter().find(|event| belongs_to_a_join(event)) {
                    return Err(format!("`{}` is part of an accepted join, and none is there", stray.kind().0));
                }
                match answer {
                    Some(Event::JoinResumed(resumed)) => self.check_resume(token, resumed, entry, at),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Follows bots and locks, which changed `at` this time by the place in the log.
    pub(crate) fn take(&mut self, state: &State, at: Timestamp) {
        match state {
            State::Bot(bot) => {
                let known = self.bots.entry(bot.id).or_insert_with(|| Bot { now: bot.clone(), before: Vec::new() });
                known.before.retain(|(_, until)| at < *until + AT_ONCE);
                let replaced = std::mem::replace(&mut known.now, bot.clone());
                known.before.push((replaced, at));
            }
            State::Lock(lock) if lock.live => {
                self.locks.insert(lock.id, (lock.clone(), at));
            }
            State::Lock(lock) => {
                self.locks.remove(&lock.id);
            }
            State::Token(_) | State::Administrator(_) | State::Cluster => {}
        }
    }

    fn check_resume(&self, token: &TokenState, resumed: &JoinResumed, entry: &Entry, at: Timestamp) -> Checked {
        let latest = token.binding.as_ref().zip(token.latest()).filter(|(binding, latest)| {
            let attempt = latest.join.attempt.as_ref();
            binding.resumable && attempt == Some(&resumed.attempt) && latest.join.serial == resumed.serial
        });
        let (binding, latest) = latest.ok_or("what was given again is not the answer of the latest join")?;
        let asked = first_challenge(token, entry)?;
        ensure(asked.key == binding.key.fingerprint(), "the key that was proven is not the bound one")?;
        ensure(asked.at <= latest.join.not_after, "what was given again had ended when it was asked for")?;
        are_in_time(entry)?;
        self.check_locks(token, entry, None, at)
    }

    /// No lock stood. The append of one on what the token has waits for joins that are under way, and later ones find it:
    /// the order of the log is exact. What a client only showed, or binds with this join, is not the token's yet, and a
    /// lock on it may have been committed at that moment.
    fn check_locks(&self, token: &TokenState, entry: &Entry, join: Option<&JoinAccepted>, at: Timestamp) -> Checked {
        let shown = join.and_then(|join| join.seen.certificate.as_ref()).map(|certificate| certificate.instance);
        let bound = token.binding.as_ref().map(|binding| &binding.key).or(token.spec.initial_public_key.as_ref());
        let has = |target: &LockTarget| match target {
            LockTarget::JoinToken(name) => *name == token.name,
            LockTarget::User(name) => *name == token.spec.bot_name,
            LockTarget::BotInstanceId(id) => token.instance() == Some(*id),
            LockTarget::PublicKey(key) => bound.is_some_and(|bound| bound.fingerprint() == *key),
        };
        let shows = |target: &LockTarget| match target {
            LockTarget::JoinToken(_) | LockTarget::User(_) => false,
            LockTarget::BotInstanceId(id) => shown == Some(*id),
            LockTarget::PublicKey(key) => challenges(entry).any(|challenge| challenge.key == *key),
        };
        let stood = |(lock, changed): &&(LockState, Timestamp)| {
            let concerns = has(&lock.target) || *changed + AT_ONCE < at && shows(&lock.target);
            concerns && lock.in_force(entry.decided_at)
        };
        match self.locks.values().find(stood) {
            None => Ok(()),
            Some((lock, _)) => Err(format!("lock {} on {} was in force", lock.id, lock.target)),
        }
    }
}

/// Whether an event says that a join was answered, by new credentials or the latest ones again.
fn answers(event: &Event) -> bool {
    matches!(event, Event::JoinAccepted(_) | Event::JoinResumed(_))
}

/// Whether an event stands beside an accepted join only.
fn belongs_to_a_join(event: &Event) -> bool {
    matches!(
        event,
        Event::RegistrationSecretSpent(_)
            | Event::KeypairBound(_)
            | Event::KeypairRotated(_)
            | Event::RecoveryConsumed(_)
            | Event::GenerationBumped(_)
            | Event::ExemptionConsumed(_)
    )
}

/// An accepted join, and the token before it.
struct Join<'a> {
    rules: &'a Rules,
    token: &'a TokenState,
    join: &'a JoinAccepted,
    entry: &'a Entry,
    /// When it was decided, by its place in the log.
    at: Timestamp,
    /// The second in which it was decided, as its certificates say.
    now: Timestamp,
    rotated: Option<&'a KeypairRotated>,
    /// The exemptions that it spent.
    spent: Vec<&'a Grant>,
}

impl<'a> Join<'a> {
    fn new(rules: &'a Rules, token: &'a TokenState, join: &'a JoinAccepted, entry: &'a Entry, at: Timestamp) -> Self {
        let rotated = entry.events.iter().find_map(|event| match event {
            Event::KeypairRotated(rotated) => Some(rotated),
            _ => None,
        });
        let spent = entry.events.iter().filter_map(|event| match event {
            Event::ExemptionConsumed(consumed) => token.grants.iter().find(|grant| grant.id == consumed.grant),
            _ => None,
        });
        let now = join.not_before.checked_add_signed(BACKDATED).unwrap_or(join.not_before);
        Self { rules, token, join, entry, at, now, rotated, spent: spent.collect() }
    }

    fn check(&self) -> Checked {
        let apart = (self.entry.decided_at - self.now).abs();
        ensure(apart <= AT_ONCE, "its certificates don't begin when it was decided")?;
        self.check_bot()?;
        self.rules.check_locks(self.token, self.entry, Some(self.join), self.at)?;
        self.check_key()?;
        are_in_time(self.entry)?;
        // Times that can't be those of its place are found as that, and say nothing beside the time of the join before.
        if self.at - self.entry.decided_at <= AT_ONCE {
            are_newer_than_latest(self.token, self.entry)?;
        }
        self.check_rotation()?;
        self.check_case()?;
        self.check_count()?;
        self.check_join_state()?;
        self.check_spent()
    }

    /// Exemptions are spent while they are open, and a reinstatement by the next join, needed or not.
    fn check_spent(&self) -> Checked {
        let open = self.token.open_grant(ExemptionKind::Reinstatement, self.entry.decided_at);
        ensure(open.is_none() || self.spends_reinstatement(), "it does not spend the reinstatement that was open")?;
        ensure(self.spent.iter().all(|grant| grant.is_open(self.now)), "it spends an exemption that was not open")
    }

    /// The token admits somebody, and the certificates say what the bot may do.
    fn check_bot(&self) -> Checked {
        let Self { token, join, entry, .. } = self;
        ensure(token.admits(self.now), "the token was deleted, or had expired")?;
        let fits = |bot: &BotState| {
            bot.live
                && bot.name == token.spec.bot_name
                && bot.spec.roles == join.roles
                && bot.spec.logins() == join.principals
        };
        let bot = self.rules.bots.get(&token.bot).ok_or("the token's bot is not there")?;
        let before = bot.before.iter().filter(|(_, until)| self.at < *until + AT_ONCE);
        let known = before.map(|(before, _)| before).chain([&bot.now]).any(fits);
        ensure(known, "its roles or principals are not those of the bot, or the bot was deleted")?;
        ensure(entry.origin.actor == user_name(&token.spec.bot_name), "it is not recorded as the bot's")?;
        let Self { join: JoinAccepted { recovery_limit, recovery_mode, .. }, .. } = self;
        let recovery = token.spec.recovery;
        ensure(
            (*recovery_limit, *recovery_mode) == (recovery.limit, recovery.mode),
            "its limit or mode are not the token's",
        )
    }

    /// The bound key was proven, or the one that is bound with this join.
    fn check_key(&self) -> Checked {
        let Self { token, join, entry, .. } = self;
        let first = first_challenge(token, entry)?;
        let bound = entry.events.iter().find_map(|event| match event {
            Event::KeypairBound(bound) => Some(&bound.key),
            _ => None,
        });
        let key = match (&token.binding, bound) {
            (Some(binding), None) => &binding.key,
            (None, Some(bound)) => bound,
            _ => return Err("a key is bound with a first join, and with no other".to_owned()),
        };
        ensure(first.key == key.fingerprint(), "the key that was proven is not the bound one")?;
        if token.binding.is_none() {
            let spends = entry.events.iter().any(|event| matches!(event, Event::RegistrationSecretSpent(_)));
            let may_bind = match &token.spec.initial_public_key {
                Some(preregistered) => preregistered == key && !spends,
                None => {
                    let in_time = token.spec.must_register_before.is_none_or(|end| self.now < end);
                    token.secret.is_some() && spends && in_time
                }
            };
            ensure(may_bind, "the key is neither preregistered nor bound in time by the token's secret")?;
            ensure(token.retired.iter().all(|retired| retired.key != *key), "the token had this key before")?;
        }
        let after = self.rotated.map_or(key, |rotated| &rotated.new);
        ensure(join.key == after.fingerprint(), "it names another key than the one that is bound then")?;
        ensure(self.rotated.is_none_or(|rotated| rotated.old == *key), "it replaces a key that was not bound")
    }

    /// A key that is due is replaced, by one that is new and was proven, and no other.
    fn check_rotation(&self) -> Checked {
        let Self { token, entry, .. } = self;
        let Some(rotated) = self.rotated else {
            let just_made = token.binding.is_none() && token.spec.initial_public_key.is_none();
            ensure(challenges(entry).count() == 1, "more than one key was proven")?;
            return ensure(!token.rotation_due(self.now) || just_made, "a new key was due");
        };
        ensure(challenges(entry).count() <= 2, "more than two keys were proven")?;
        let second = challenges(entry).nth(1).ok_or("the new key was not proven")?;
        ensure(second.key == rotated.new.fingerprint(), "the key that was proven is not the new one")?;
        let had = rotated.new == rotated.old || token.retired.iter().any(|retired| retired.key == rotated.new);
        ensure(!had, "the token had the new key before")?;
        ensure(token.rotation_due(entry.decided_at), "no new key was due")
    }

    /// Lineage and generation follow from those before.
    fn check_case(&self) -> Checked {
        let Self { token, join, .. } = self;
        match (join.case, token.latest()) {
            (JoinCase::FirstJoin, None) => {
                ensure(join.generation == 1 && join.previous_instance.is_none(), "it does not begin a first lineage")?;
                ensure(join.seen.certificate.is_none(), "a first join shows a certificate")
            }
            (JoinCase::Recovery, Some(latest)) => {
                let follows = join.previous_instance == Some(latest.join.instance);
                let new = join.instance != latest.join.instance && join.generation == 1;
                ensure(follows && new, "it does not begin a lineage that follows the latest")?;
                self.check_passed_over(latest)
            }
            (JoinCase::Renewal, Some(latest)) => {
                let shown = join.seen.certificate.as_ref().ok_or("it renews without a certificate")?;
                let own = shown.token == token.id && shown.instance == latest.join.instance;
                let same =
                    join.instance == latest.join.instance && join.previous_instance == latest.join.previous_instance;
                ensure(own && same, "it renews another lineage than the latest")?;
                let newest = latest.join.generation;
                let current = shown.generation == newest || self.spends(ExemptionKind::Generation);
                ensure(current, "its certificate was not of the latest generation")?;
                let next = newest.max(shown.generation).saturating_add(1);
                let bumped = self.entry.events.iter().any(|event| {
                    matches!(event, Event::GenerationBumped(it) if (it.instance, it.generation) == (join.instance, next))
                });
                ensure(join.generation == next && bumped, "its generation is not the next")
            }
            _ => Err("it is called a first join, a renewal or a recovery, and is none".to_owned()),
        }
    }

    /// A live certificate makes a join a renewal. It counts as none only where it is of another lineage and the client was
    /// let pass without a fitting join state, in insecure mode if it is the token's own, and where the owner comes back
    /// late.
    fn check_passed_over(&self, latest: &Accepted) -> Checked {
        let Self { token, join, .. } = self;
        let Some(shown) = &join.seen.certificate else { return Ok(()) };
        if token.is_latest_attempt(join.attempt, &join.subject_keys) {
            return Ok(());
        }
        let own = shown.token == token.id;
        let bound = own && shown.instance == latest.join.instance;
        let waived = match token.spec.recovery.mode {
            RecoveryMode::Insecure => own,
            RecoveryMode::Standard | RecoveryMode::Relaxed => {
                !self.shows_join_state(latest) && self.spends(ExemptionKind::JoinState)
            }
        };
        ensure(
            !bound && (waived || self.spends_reinstatement()),
            "it recovers though it shows a live certificate, which nothing lets it pass over",
        )
    }

    /// A recovery costs one, and there must be one.
    fn check_count(&self) -> Checked {
        let Self { token, join, entry, .. } = self;
        let costs = join.case.costs_recovery();
        let count = token.recovery_count.saturating_add(u32::from(costs));
        let consumed: Vec<u32> = entry
            .events
            .iter()
            .filter_map(|event| match event {
                Event::RecoveryConsumed(consumed) => Some(consumed.count),
                _ => None,
            })
            .collect();
        let counted = if costs { consumed == [count] } else { consumed.is_empty() };
        ensure(join.recovery_count == count && counted, "its recovery is not counted as the next")?;
        ensure(
            !costs || !token.limit_used_up() || self.spends(ExemptionKind::Recoveries),
            "no recovery was left, and no exemption was spent",
        )
    }

    /// The document of the latest join is shown, where it counts.
    fn check_join_state(&self) -> Checked {
        let Self { token, join, .. } = self;
        let Some(latest) = token.latest() else { return Ok(()) };
        // The owner who comes back for an answer after its time pays with a recovery, and its documents are of before.
        if token.is_latest_attempt(join.attempt, &join.subject_keys) {
            let asked = challenges(self.entry).next().map(|challenge| challenge.at);
            let late = asked.is_some_and(|asked| latest.join.not_after < asked);
            return ensure(late && join.case == JoinCase::Recovery, "its attempt is that of the join before");
        }
        if token.spec.recovery.mode == RecoveryMode::Insecure || token.recovery_count == 0 {
            return Ok(());
        }
        let known = match &join.seen.join_state {
            JoinStateSeen::Missing => true,
            JoinStateSeen::NotAuthentic(_) => false,
            JoinStateSeen::Authentic { bot, token: id, .. } => {
                *bot == token.spec.bot_name.as_str() && *id == Some(token.id)
            }
        };
        ensure(known, "it showed a join state that is not of this cluster, bot and token")?;
        ensure(
            self.shows_join_state(latest) || self.spends(ExemptionKind::JoinState),
            "it did not show the join state of the latest join",
        )
    }

    /// Whether it showed the document of the latest join.
    fn shows_join_state(&self, latest: &Accepted) -> bool {
        let Self { token, join, .. } = self;
        matches!(&join.seen.join_state, JoinStateSeen::Authentic { bot, token: id, instance, sequence }
            if *bot == token.spec.bot_name.as_str() && *id == Some(token.id) && *instance == latest.join.instance
                && *sequence == token.recovery_count)
    }

    fn spends(&self, kind: ExemptionKind) -> bool {
        self.spends_reinstatement() || self.spent.iter().any(|grant| grant.kind == kind)
    }

    /// Which stands for every other kind.
    fn spends_reinstatement(&self) -> bool {
        self.spent.iter().any(|grant| grant.kind == ExemptionKind::Reinstatement)
    }
}
