//! What two holders of one disk do, and what the authority must make of it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use chrono::TimeDelta;
use join_domain::{
    envelope::Entry,
    event::{ClientCertificate, Event, JoinAccepted},
    id::AttemptHash,
    key::PublicKey,
    state::TokenState,
};

use super::schedule::{Step, Who};
use crate::{
    disk::{MemoryDisk, Mishap},
    fault::{Act, Fault, Side},
    history::History,
    host::{Client, Disk, Failure, Host},
    kinds::storage::join_on_failing,
    report::Survived,
    scenario::Scenario,
    world::World,
};

/// How long certificates live here, and how far the clock is moved for them to expire.
const LIFE: Duration = Duration::from_secs(60 * 60);
const EXPIRY: TimeDelta = TimeDelta::hours(2);
/// More recoveries than any schedule needs.
const AMPLE: u32 = 50;
/// The first and the number of the service's messages with which what it says may begin to be lost.
const LOST: (usize, usize) = (6, 6);

/// The story so far.
pub(super) struct Story<'w> {
    world: &'w World,
    owner: Host,
    thief: Host,
    ample: bool,
    /// The attempt that was pending on the disk when it was copied: it is on both.
    shared: Option<AttemptHash>,
    /// Accepted joins since then, as read so far.
    accepted: usize,
    /// Who had the latest join accepted, if somebody had.
    latest: Option<Who>,
    /// Who had joins accepted since the copies diverged, each run of one holder once.
    runs: Vec<Who>,
    locked: bool,
    steps: usize,
}

impl<'w> Story<'w> {
    /// The owner's disk is copied after `writes` writes of the scenario's join, and the owner's process ends there.
    pub(super) async fn begin(
        world: &'w World,
        name: &str,
        scenario: Scenario,
        writes: usize,
        ample: bool,
    ) -> Result<Self> {
        let limit = if ample { AMPLE } else { scenario.limit() };
        let disk = Arc::new(MemoryDisk::default());
        let mut owner =
            scenario.set_up_with_limit(world, name, Client::Grpc, Disk::Memory(Arc::clone(&disk)), limit).await?;
        world.let_expire().await;
        scenario.make_due(world, &mut owner).await?;
        owner.config.certificate_ttl = LIFE;
        if writes > 0 {
            let outcome = join_on_failing(&owner, writes, Mishap::CrashAfter).await?;
            ensure!(outcome.is_none(), "the owner's process does not end after {writes} writes: {outcome:?}");
        }
        let copy = Disk::Memory(Arc::new(disk.copy()));
        let thief = Host::new(world, name, Client::Grpc, copy, owner.secret.clone(), LIFE).await?;
        let history = History::read(world, name).await?;
        let pending = owner.state()?.pending;
        let accepted = history.accepted().count();
        Ok(Self {
            world,
            shared: pending.map(|attempt| attempt.id.hash(history.token.id, history.token.era)),
            latest: (accepted > 0).then_some(Who::Owner),
            accepted,
            owner,
            thief,
            ample,
            runs: Vec::new(),
            locked: false,
            steps: 0,
        })
    }

    /// One step, and whether the authority does what it must.
    pub(super) async fn go_on(&mut self, step: Step) -> Result<()> {
        self.steps += 1;
        match step {
            Step::Expire => self.world.clock.advance(EXPIRY),
            Step::Rotate => self.world.admin.rotate(&self.owner.name).await?,
            Step::Join(who) | Step::Lose(who) => {
                let story = format!("step {}, {step:?}, after runs of {:?}", self.steps, self.runs);
                self.join(who, matches!(step, Step::Lose(_))).await.context(story)?;
            }
        }
        Ok(())
    }

    async fn join(&mut self, who: Who, loses: bool) -> Result<()> {
        let host = self.host(who);
        let shown = self.shown(who)?;
        let message = LOST.0 + self.steps % LOST.1;
        host.proxy.arm(loses.then_some(Fault { side: Side::Server, message, act: Act::Deafen }));
        let outcome = host.join().await;
        host.proxy.disarm();
        let history = History::read(self.world, &host.name).await?;
        let news: Vec<_> = history.accepted().skip(self.accepted).collect();
        ensure!(news.len() <= 1, "one try, {} accepted joins", news.len());
        ensure!(history.locks <= 1, "{} locks", history.locks);
        match news.first() {
            Some((entry, join)) => self.on_accepted(who, entry, join)?,
            None if history.locks == 1 && !self.locked => self.on_locked(who, &history, shown.as_ref())?,
            None => self.on_refused(who, &history, outcome)?,
        }
        Ok(())
    }

    fn host(&self, who: Who) -> &Host {
        match who {
            Who::Owner => &self.owner,
            Who::Thief => &self.thief,
        }
    }

    /// The live certificate that somebody presents.
    fn shown(&self, who: Who) -> Result<Option<(String, Option<u64>)>> {
        let accepted = self.host(who).state()?.accepted;
        let facts = accepted.and_then(|accepted| accepted.credentials.facts());
        let live = facts.filter(|facts| facts.not_after > self.world.clock.time());
        Ok(live.map(|facts| (facts.serial, facts.generation)))
    }

    fn on_accepted(&mut self, who: Who, entry: &Entry, join: &JoinAccepted) -> Result<()> {
        ensure!(!self.locked, "a join of a locked token was accepted");
        ensure!(self.came_from(who, entry), "the join was recorded from {:?}", entry.origin.address);
        self.accepted += 1;
        self.latest = Some(who);
        let diverges = join.attempt != self.shared;
        if diverges && self.runs.last() != Some(&who) {
            self.runs.push(who);
        }
        ensure!(self.runs.len() <= 2, "a third run of joins was accepted: {:?}", self.runs);
        Ok(())
    }

    fn on_locked(&mut self, who: Who, history: &History, shown: Option<&(String, Option<u64>)>) -> Result<()> {
        let other = if who == Who::Owner { Who::Thief } else { Who::Owner };
        ensure!(self.latest == Some(other), "locked, although the latest join was {:?}'s", self.latest);
        let locking = history.events().find_map(|(entry, event)| match event {
            Event::JoinRefused(refused) if refused.lock.is_some() => Some((entry, refused)),
            _ => None,
        });
        let (entry, refused) = locking.context("no refusal names the lock")?;

        ensure!(self.came_from(who, entry), "the one sighting is from {:?}", entry.origin.address);
        let seen =
            |ClientCertificate { serial, generation, .. }: &ClientCertificate| (serial.clone(), Some(*generation));
        let seen = refused.seen.certificate.as_ref().map(seen);
        ensure!(seen.as_ref() == shown, "the certificate seen is {seen:?}, the one shown {shown:?}");

        let sighting = refused.other_holder.as_ref().context("the other holder is not named")?;
        let (at, latest) = history.accepted().last().context("nobody else has joined")?;
        let address = sighting.address.as_deref().unwrap_or_default();
        ensure!(self.host(other).proxy.is_origin(address), "the other sighting is from {address}");
        ensure!(
            (&sighting.serial, sighting.generation, sighting.at) == (&latest.serial, latest.generation, at.decided_at),
            "the other sighting is {sighting:?}, the latest join {latest:?}"
        );
        self.locked = true;
        Ok(())
    }

    /// Neither accepted nor locked now: the reason must be one that is none of two holders'.
    fn on_refused(&self, who: Who, history: &History, outcome: Result<(), Failure>) -> Result<()> {
        if self.locked {
            ensure!(outcome.is_err(), "a locked token was joined");
            return Ok(());
        }
        let why = match outcome {
            // The recorded answer again, or nothing that arrived.
            Ok(()) | Err(Failure::Again(_)) => return Ok(()),
            Err(Failure::Stuck(why)) => why,
        };
        if !self.is_holder(who, &history.token)? {
            return Ok(());
        }
        if why.contains("RECOVERY_LIMIT_EXHAUSTED") && !self.ample && self.runs.len() < 2 {
            return Ok(());
        }
        // A missing document is refused and never locks: a host that was reset misses it, too. It shows as contested.
        if why.contains("JOIN_STATE_REQUIRED") && !self.has_joined(who)? {
            ensure!(history.token.contested_at.is_some(), "a proven holder was refused, and nothing shows it");
            return Ok(());
        }
        bail!("refused without a lock: {why}")
    }

    /// Whether somebody holds the bound key, or a retired one with a join state: enough to be told from a stranger.
    fn is_holder(&self, who: Who, token: &TokenState) -> Result<bool> {
        let state = self.host(who).state()?;
        let holds = |key: &PublicKey| state.held().any(|held| held.public() == key);
        let bound = token.binding.as_ref().is_none_or(|binding| holds(&binding.key));
        let retired = state.accepted.is_some() && token.retired.iter().any(|retired| holds(&retired.key));
        Ok(bound || retired)
    }

    /// Whether somebody ever stored the result of a join.
    fn has_joined(&self, who: Who) -> Result<bool> {
        Ok(self.host(who).state()?.accepted.is_some())
    }

    fn came_from(&self, who: Who, entry: &Entry) -> bool {
        self.host(who).proxy.is_origin(entry.origin.address.as_deref().unwrap_or_default())
    }

    /// Both have come in turns: the token is locked, unless one of them never held its key or never joined, or had no
    /// recovery left.
    pub(super) async fn end(self) -> Result<Survived> {
        let history = History::read(self.world, &self.owner.name).await?;
        let both = |is: &dyn Fn(Who) -> Result<bool>| Ok::<_, anyhow::Error>(is(Who::Owner)? && is(Who::Thief)?);
        let two = both(&|who| self.is_holder(who, &history.token))?;
        let joined = both(&|who| self.has_joined(who))?;
        ensure!(self.locked || !two || !joined || !self.ample, "both holders come in turns, and nothing is locked");
        self.world.check().await?;
        let noted = match (self.locked, two, joined) {
            (true, ..) => "locked",
            (false, false, _) => "one had no key",
            (false, true, false) => "one never joined",
            (false, true, true) => "one had no recovery left",
        };
        Ok(Survived { reached: true, noted: vec![noted] })
    }
}
