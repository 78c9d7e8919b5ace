//! States of the world and the steps between them.

use join_domain::{
    refusal::Code,
    resource::{Recovery, RecoveryMode},
};
use stateright::{Model, Property};

use crate::{
    Rule, Tick,
    authority::{Authority, Decided, Known, Opened, TokenRef},
    holder::{Certificate, Disk, Holder, Key, Keys, Pending},
    message::{Message, Purpose, Shown},
    property::{self, History},
};

/// The most joins in a row that are looked at. The other setups end long before.
const MOST_JOINS: u8 = 32;

/// How far the model goes. Within these numbers everything is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Attempts in all, a first join that the start includes among them.
    pub attempts: u8,
    /// Messages on their way at once.
    pub in_flight: usize,
    /// How far time goes.
    pub ticks: Tick,
    /// How many ticks the longest certificates live; a client asks for any life up to it.
    pub lives: Tick,
    /// How often an administrator asks for a new key.
    pub rotations: u8,
    /// How often an administrator reinstates a locked token.
    pub reinstatements: u8,
    /// How often an administrator raises the limit by one.
    pub raises: u8,
    /// How often the database is restored from a backup.
    pub restores: u8,
}

/// Where the model begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The owner has the registration secret and has not joined.
    Unbound,
    /// The owner has joined once.
    Joined,
}

/// Who may hold a copy of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// Nobody: the owner is alone.
    None,
    /// One copy, taken at any moment and used by the same honest agent.
    Clone,
    /// One copy, taken at any moment by a thief who leaves out what would betray him: the certificate, the names of his
    /// keys, the attempt; and who begins new attempts, or asks for other subject keys, as he likes.
    Cunning,
}

/// What is checked.
pub struct Setup {
    /// Mode and limit of the token.
    pub recovery: Recovery,
    /// Where it begins.
    pub start: Start,
    /// Who may hold a copy.
    pub copies: Copies,
    /// How far it goes.
    pub bounds: Bounds,
    /// The rule that is left out.
    pub without: Option<Rule>,
    /// The real rules.
    pub authority: Authority,
}

/// What an administrator and time have done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Done {
    /// Attempts that were begun.
    pub attempts: u8,
    /// Rotations that were asked for.
    pub rotations: u8,
    /// Reinstatements.
    pub reinstatements: u8,
    /// Raised limits.
    pub raises: u8,
    /// Restores.
    pub restores: u8,
}

/// What the database held when a backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backup {
    token: TokenRef,
    accepted: u16,
}

/// A state of the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The time.
    pub now: Tick,
    /// The token.
    pub token: TokenRef,
    /// Locks that rules created and nobody released.
    pub locks: u8,
    /// Attempts that the ledger knows as accepted in this era, a bit for each.
    pub accepted: u16,
    /// The owner's disk.
    pub owner: Disk,
    /// The copy of it.
    pub thief: Option<Disk>,
    /// Messages on their way.
    pub network: Vec<Message>,
    /// The newest backup.
    pub backup: Option<Backup>,
    /// What was done so far.
    pub done: Done,
    /// What happened so far.
    pub history: History,
}

/// What a sender leaves out of a request, or puts into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Guise {
    /// Comes over a connection without a client certificate.
    pub without_certificate: bool,
    /// Does not name the keys that it holds.
    pub without_key_names: bool,
    /// Does not name its attempt.
    pub without_attempt: bool,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A holder begins an attempt, for certificates of that life, and writes it to its disk.
    Begin(Holder, Tick),
    /// A holder forgets its attempt: a cunning thief does, and an agent that did not write it to its disk.
    GiveUp(Holder),
    /// A cunning thief wants the answer of its attempt for other subject keys.
    ForgeSubject,
    /// A holder opens its attempt, gets a challenge and sends the solution.
    Send(Holder, Guise),
    /// A message arrives and is decided. It may arrive again, until it is lost.
    Arrive {
        /// Which one.
        message: usize,
        /// True when the answer reaches the sender.
        answered: bool,
    },
    /// A message gets lost, with all that repeats it.
    Lose(usize),
    /// Time goes on by a tick.
    Tick,
    /// Somebody copies the owner's disk.
    Copy,
    /// An administrator asks for a new key.
    RequestRotation,
    /// An administrator reinstates the token.
    Reinstate,
    /// An administrator raises the limit by one.
    RaiseLimit,
    /// A backup of the database is taken.
    BackUp,
    /// The database is restored from the backup.
    Restore,
}

/// How a lone try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It joined.
    Joined,
    /// Its try locked the token.
    Locks,
    /// It was refused.
    Refused(Code),
    /// It went round in circles.
    Lost,
}

impl Setup {
    /// A setup of the real rules.
    pub fn new(mode: RecoveryMode, limit: u32, start: Start, copies: Copies, bounds: Bounds) -> Self {
        let recovery = Recovery { mode, limit };
        Self { recovery, start, copies, bounds, without: None, authority: Authority::new(None) }
    }

    /// The same setup without one rule.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self { without: Some(rule), authority: Authority::new(Some(rule)), ..self }
    }

    fn leaves_out(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    fn beginning(&self) -> World {
        let world = World {
            now: 0,
            token: self.authority.create(self.recovery),
            locks: 0,
            accepted: 0,
            owner: Disk { secret: true, ..Disk::default() },
            thief: None,
            network: Vec::new(),
            backup: None,
            done: Done::default(),
            history: History::default(),
        };
        if self.start == Start::Unbound {
            return world;
        }
        let mut world = world;
        let joined = self.try_alone(&mut world, Holder::Owner);
        assert_eq!(joined, Tried::Joined, "the first join of a setup that begins joined");
        world.network.clear();
        self.forget(&mut world);
        world
    }

    /// The holder tries to join, with nobody else about and a network that does nothing wrong.
    pub fn try_alone(&self, world: &mut World, holder: Holder) -> Tried {
        world.network.clear();
        if world.disk(holder).pending.is_none() {
            self.begin(world, holder, 1);
        }
        for _ in 0..6 {
            if !world.network.iter().any(|message| message.awaited)
                && let Err(code) = self.send(world, holder, Guise::default())
            {
                return Tried::Refused(code);
            }
            let Some(message) = world.network.iter().position(|message| message.awaited) else {
                return Tried::Lost;
            };
            match self.arrive(world, message, true) {
                Decided::Accepted { .. } | Decided::Resumed(_) => return Tried::Joined,
                Decided::Refused { locks: true, .. } => return Tried::Locks,
                Decided::RotateFirst => {}
                Decided::Refused { code: Code::Conflict | Code::InstanceMismatch | Code::KeyReused, .. } => {}
                Decided::Refused { code, .. } => return Tried::Refused(code),
            }
        }
        Tried::Lost
    }

    fn begin(&self, world: &mut World, holder: Holder, life: Tick) {
        world.done.attempts += 1;
        let attempt = world.done.attempts;
        world.disk_mut(holder).pending = Some(Pending { attempt, subject: attempt, life, offers: Keys::NONE, made: 0 });
    }

    /// Opens the pending attempt and puts the solved challenge on its way.
    fn send(&self, world: &mut World, holder: Holder, guise: Guise) -> Result<(), Code> {
        let disk = *world.disk(holder);
        let Some(pending) = disk.pending else { return Ok(()) };
        let live = |certificate: &Certificate| world.now < certificate.ends;
        let mut certificate = disk.certificate.filter(live).filter(|_| !guise.without_certificate);
        let open = |certificate| self.authority.open(world.token, &disk, certificate, !guise.without_key_names);
        let mut opened = open(certificate);
        if opened == Opened::Refused(Code::BindingNotAllowed) {
            certificate = None;
            opened = open(None);
        }
        let (key, purpose) = match opened {
            Opened::KeyRequested => (self.offer(world, holder, None), Purpose::Registration),
            Opened::Challenged(key, purpose) if disk.keys.hold(key) => (key, purpose),
            Opened::Challenged(..) => return Err(Code::ChallengeFailed),
            Opened::Refused(code) => return Err(code),
        };
        let shown = Shown {
            attempt: (!guise.without_attempt).then_some(pending.attempt),
            subject: pending.subject,
            life: pending.life,
            certificate,
            join_state: disk.join_state,
            evidence: self.authority.facts(world.token).evidence,
            challenge: world.free_challenge(),
            issued: world.now,
            key,
            purpose,
            rotated: None,
            refused: false,
        };
        world.put(Message { shown, from: holder, awaited: true, decided: false });
        Ok(())
    }

    /// A new key of the pending attempt, one that was not challenged in this ceremony. It is made once, and written
    /// before its public half is sent.
    fn offer(&self, world: &mut World, holder: Holder, challenged: Option<Key>) -> Key {
        let disk = world.disk_mut(holder);
        let Some(pending) = &mut disk.pending else { return 0 };
        if let Some(offer) = pending.offers.all().find(|key| Some(*key) != challenged) {
            return offer;
        }
        let key = 6 * (pending.attempt - 1) + 3 * u8::from(holder == Holder::Thief) + pending.made;
        if !self.leaves_out(Rule::NewKeysAreWrittenFirst) {
            pending.made += 1;
            pending.offers.add(key);
            disk.keys.add(key);
        }
        key
    }

    /// How a message would be decided.
    pub fn verdict(&self, world: &World, index: usize) -> Decided {
        self.decide(world, &world.network[index]).0
    }

    fn decide(&self, world: &World, message: &Message) -> (Decided, TokenRef) {
        let attempt = message.shown.attempt;
        let known = Known {
            locked: world.locks > 0,
            accepted_before: attempt.is_some_and(|attempt| world.accepted & 1 << attempt != 0),
            restores: world.done.restores,
        };
        self.authority.decide(world.token, known, world.now, message.shown)
    }

    /// A message arrives and is decided.
    fn arrive(&self, world: &mut World, index: usize, answered: bool) -> Decided {
        let message = world.network[index].clone();
        let shown = message.shown;
        let before = self.authority.facts(world.token);
        let (decided, after) = self.decide(world, &message);
        world.token = after;
        property::judge(self, world, &message, &before, &decided);
        if let Decided::Accepted { uses_up: true, .. } = decided
            && let Some(attempt) = shown.attempt
        {
            world.accepted |= 1 << attempt;
        }
        if let Decided::Refused { locks: true, .. } = decided {
            world.locks += 1;
        }
        world.network[index].awaited &= !answered;
        let (settled, remembered) = match decided {
            Decided::RotateFirst | Decided::Refused { code: Code::Conflict, .. } => (false, false),
            Decided::Refused { remembered, .. } => (true, remembered),
            Decided::Accepted { .. } | Decided::Resumed(_) => (true, false),
        };
        for same in world.network.iter_mut().filter(|other| other.shown.challenge == shown.challenge) {
            same.decided |= settled;
            same.shown.refused |= remembered;
        }
        if answered {
            self.answered(world, &message, decided);
        }
        world.network.sort_unstable();
        decided
    }

    /// The answer reaches the sender.
    fn answered(&self, world: &mut World, message: &Message, decided: Decided) {
        let (holder, shown) = (message.from, message.shown);
        match decided {
            Decided::Accepted { answer, .. } | Decided::Resumed(answer) => {
                if self.leaves_out(Rule::NewKeysAreWrittenFirst) {
                    world.disk_mut(holder).keys.add(shown.rotated.unwrap_or(shown.key));
                }
                world.disk_mut(holder).store(answer, shown.subject);
            }
            Decided::RotateFirst => {
                let new = self.offer(world, holder, Some(shown.key));
                if self.leaves_out(Rule::OldKeysAreKept) {
                    world.disk_mut(holder).keys.delete(shown.key);
                }
                let shown = Shown { rotated: Some(new), ..shown };
                world.put(Message { shown, awaited: true, ..message.clone() });
            }
            Decided::Refused { code: Code::InstanceMismatch, .. } => {
                let guise = Guise { without_certificate: true, ..Guise::default() };
                // Refused or not: it was this agent's second try.
                let _ = self.send(world, holder, guise);
            }
            Decided::Refused { code: Code::KeyReused, .. } => {
                // Kept, but offered no more.
                if let Some(pending) = &mut world.disk_mut(holder).pending {
                    pending.offers = Keys::NONE;
                }
            }
            Decided::Refused { .. } if self.leaves_out(Rule::AttemptsOutliveRefusals) => {
                world.disk_mut(holder).pending = None;
            }
            Decided::Refused { .. } => {}
        }
    }

    /// Forgets what can't matter any more: who waits for an answer that nobody would take, and attempts that are on no
    /// disk and in no message.
    fn forget(&self, world: &mut World) {
        let awaited: Vec<bool> = world.network.iter().map(|message| self.is_awaited(world, message)).collect();
        for (message, awaited) in world.network.iter_mut().zip(awaited) {
            message.awaited &= awaited;
        }
        world.network.sort_unstable();
        let sent = world.network.iter().filter_map(|message| message.shown.attempt);
        let pending = self.holders().into_iter().filter_map(|holder| world.disk(holder).pending);
        let alive = sent.chain(pending.map(|pending| pending.attempt)).fold(0, |alive, attempt| alive | 1 << attempt);
        world.accepted &= alive;
        world.history.forget(alive);
    }

    /// True when the answer of a message can reach a sender that still waits for it.
    fn is_awaited(&self, world: &World, message: &Message) -> bool {
        let disk = world.disk(message.from);
        let own = |pending: Pending| message.shown.attempt.is_none_or(|attempt| attempt == pending.attempt);
        let newest = message.awaited || self.leaves_out(Rule::OnlyTheNewestAnswerIsTaken);
        newest && disk.pending.is_some_and(own)
    }

    fn holders(&self) -> [Holder; 2] {
        [Holder::Owner, Holder::Thief]
    }

    fn is_cunning(&self, holder: Holder) -> bool {
        holder == Holder::Thief && self.copies == Copies::Cunning
    }

    fn guises(&self, holder: Holder) -> Vec<Guise> {
        let honest = Guise::default();
        if !self.is_cunning(holder) {
            return vec![honest];
        }
        let bare = Guise { without_certificate: true, ..honest };
        let silent = Guise { without_key_names: true, ..bare };
        vec![honest, bare, silent, Guise { without_attempt: true, ..silent }]
    }
}

impl World {
    /// A holder's disk; an empty one when nobody took a copy.
    pub fn disk(&self, holder: Holder) -> &Disk {
        const EMPTY: Disk =
            Disk { keys: Keys::NONE, certificate: None, join_state: None, pending: None, secret: false };
        match holder {
            Holder::Owner => &self.owner,
            Holder::Thief => self.thief.as_ref().unwrap_or(&EMPTY),
        }
    }

    fn disk_mut(&mut self, holder: Holder) -> &mut Disk {
        match holder {
            Holder::Owner => &mut self.owner,
            Holder::Thief => self.thief.get_or_insert_default(),
        }
    }

    fn free_challenge(&self) -> u8 {
        let free = |number: &u8| self.network.iter().all(|message| message.shown.challenge != *number);
        (0..).find(free).unwrap_or_default()
    }

    /// Puts a message on its way. Its sender waits for nothing older; one that says the same is not sent twice, since a
    /// duplicate can arrive twice anyway.
    fn put(&mut self, message: Message) {
        if message.awaited {
            for older in self.network.iter_mut().filter(|older| older.from == message.from) {
                older.awaited = false;
            }
        }
        let same = |other: &&mut Message| {
            let shown = Shown { challenge: other.shown.challenge, ..message.shown };
            **other == Message { shown, awaited: other.awaited, ..message.clone() }
        };
        match self.network.iter_mut().find(same) {
            Some(other) => other.awaited |= message.awaited,
            None => self.network.push(message),
        }
        self.network.sort_unstable();
    }
}

impl Model for Setup {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.beginning()]
    }

    /// In mode insecure, two holders can take turns for ever.
    fn within_boundary(&self, world: &World) -> bool {
        self.authority.facts(world.token).evidence <= MOST_JOINS
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let bounds = &self.bounds;
        for holder in self.holders() {
            if holder == Holder::Thief && world.thief.is_none() {
                continue;
            }
            if world.disk(holder).pending.is_none() {
                if world.done.attempts < bounds.attempts {
                    steps.extend((1..=bounds.lives).map(|life| Step::Begin(holder, life)));
                }
                continue;
            }
            let forgets = holder == Holder::Owner && self.leaves_out(Rule::AttemptsAreWrittenFirst);
            if (self.is_cunning(holder) || forgets) && world.done.attempts < bounds.attempts {
                steps.push(Step::GiveUp(holder));
            }
            if self.is_cunning(holder) && world.disk(holder).pending.is_some_and(|pending| !pending.is_forged()) {
                steps.push(Step::ForgeSubject);
            }
            if world.network.len() < bounds.in_flight {
                steps.extend(self.guises(holder).iter().map(|guise| Step::Send(holder, *guise)));
            }
        }
        for (index, message) in world.network.iter().enumerate() {
            steps.push(Step::Arrive { message: index, answered: false });
            if self.is_awaited(world, message) {
                steps.push(Step::Arrive { message: index, answered: true });
            }
            steps.push(Step::Lose(index));
        }
        if world.now < bounds.ticks {
            steps.push(Step::Tick);
        }
        if self.copies != Copies::None && world.thief.is_none() {
            steps.push(Step::Copy);
        }
        if world.done.rotations < bounds.rotations {
            steps.push(Step::RequestRotation);
        }
        if world.locks > 0 && world.done.reinstatements < bounds.reinstatements {
            steps.push(Step::Reinstate);
        }
        if world.done.raises < bounds.raises {
            steps.push(Step::RaiseLimit);
        }
        if world.done.restores < bounds.restores {
            steps.push(if world.backup.is_none() { Step::BackUp } else { Step::Restore });
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Begin(holder, life) => self.begin(&mut world, holder, life),
            Step::GiveUp(holder) => world.disk_mut(holder).pending = None,
            Step::ForgeSubject => {
                let pending = world.disk_mut(Holder::Thief).pending.as_mut()?;
                pending.subject = Pending::FORGED + pending.attempt;
            }
            Step::Send(holder, guise) => self.send(&mut world, holder, guise).ok()?,
            Step::Arrive { message, answered } => {
                self.arrive(&mut world, message, answered);
            }
            Step::Lose(message) => {
                world.network.remove(message);
            }
            Step::Tick => world.now += 1,
            Step::Copy => world.thief = Some(world.owner),
            Step::RequestRotation => {
                world.token = self.authority.request_rotation(world.token, world.now)?;
                world.done.rotations += 1;
            }
            Step::Reinstate => {
                let era = self.authority.facts(world.token).era;
                world.token = self.authority.reinstate(world.token, world.now);
                if self.authority.facts(world.token).era != era {
                    world.accepted = 0;
                }
                world.locks = 0;
                world.done.reinstatements += 1;
                world.history.reinstated();
            }
            Step::RaiseLimit => {
                world.token = self.authority.raise_limit(world.token, world.now)?;
                world.done.raises += 1;
            }
            Step::BackUp => world.backup = Some(Backup { token: world.token, accepted: world.accepted }),
            Step::Restore => {
                let Backup { token, accepted } = world.backup.take()?;
                (world.token, world.accepted) = (token, accepted);
                world.done.restores += 1;
                // It takes longer than a challenge lives, and what was accepted may be forgotten.
                world.network.clear();
                world.history.reinstated();
            }
        }
        self.forget(&mut world);
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        property::all(self)
    }
}
