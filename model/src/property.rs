//! What must hold in every state.

use join_domain::{event::JoinCase, refusal::Code, resource::RecoveryMode};
use stateright::Property;

use crate::{
    Tick,
    authority::{Decided, Facts},
    holder::{Holder, Pending},
    message::Message,
    world::{Copies, Setup, Tried, World},
};

/// Nobody is locked out unless there are two holders.
pub const NO_LOCK_WITHOUT_TWO_HOLDERS: &str = "never locked without two holders";
/// Any number of bad attempts leads to one lock.
pub const ONE_LOCK: &str = "at most one lock";
/// Whoever is alone gets in, while the limit allows.
pub const NEVER_STUCK: &str = "never stuck without an administrator's act while the limit allows";
/// A recovery is counted once.
pub const COUNTED_ONCE: &str = "a recovery is never counted twice";
/// There is one live lineage.
pub const ONE_LINEAGE: &str = "every accepted join goes on from the newest lineage";
/// Two copies are found out.
pub const TWO_TURNS: &str = "from divergence two joins by different holders are accepted at most";
/// Two copies are locked.
pub const THIRD_TRY_LOCKS: &str = "the third try locks";
/// A certificate has one subject.
pub const ONE_SUBJECT: &str = "one certificate is issued for one pair of subject keys";
/// A result needs the bound key.
pub const BOUND_KEY: &str = "nobody gets a result without the key that is bound";
/// A challenge admits once.
pub const DECIDED_ONCE: &str = "a challenge is decided once, and then a resume or CONFLICT";
/// The ledger's uniqueness of attempts holds.
pub const ATTEMPT_USED_ONCE: &str = "an attempt is accepted once, but for a late match";
/// The first answer after a reinstatement spends what it granted.
pub const BUNDLE_FIRST: &str = "after a reinstatement the first answer spends the bundle";

/// The most attempts that a setup may have; those of [`Setup::try_alone`] come on top.
const ATTEMPTS: usize = 12;

/// A promise that a step can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// [`COUNTED_ONCE`].
    CountedTwice,
    /// [`ONE_LINEAGE`].
    OldLineage,
    /// [`BOUND_KEY`].
    OtherKey,
    /// [`DECIDED_ONCE`].
    DecidedTwice,
    /// [`ATTEMPT_USED_ONCE`].
    AcceptedTwice,
    /// [`BUNDLE_FIRST`].
    BundleLeft,
}

/// What happened so far, as far as properties ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct History {
    /// True when something that the thief sent was decided.
    pub thief_moved: bool,
    /// True when a join was accepted whose attempt was not on both disks.
    pub diverged: bool,
    /// Runs of accepted joins by one holder since then, or since the reinstatement.
    pub turns: u8,
    /// Whose turn it was.
    pub turn_of: Option<Holder>,
    /// For each attempt that was accepted in this era: the tick in which it can no longer be resumed.
    pub accepted: [Tick; ATTEMPTS],
    /// The promises that a step broke, a bit for each.
    pub broken: u8,
}

impl History {
    /// An administrator looked at the host: turns are counted anew, and an attempt that is pending on both disks is one
    /// that they share again.
    pub(crate) fn reinstated(&mut self) {
        self.diverged = false;
        self.turns = 0;
        self.turn_of = None;
        self.accepted = [0; ATTEMPTS];
    }

    /// Attempts that are not alive, a bit for each, can't come back.
    pub(crate) fn forget(&mut self, alive: u16) {
        for (attempt, window) in self.accepted.iter_mut().enumerate() {
            *window *= u8::from(alive & 1 << attempt != 0);
        }
    }
}

/// Notes what a decision means for the promises; before anything of it is stored by its sender.
pub(crate) fn judge(setup: &Setup, world: &mut World, message: &Message, before: &Facts, decided: &Decided) {
    let shown = &message.shown;
    let mut broken = 0;
    let mut breaks = |violation: Violation, really: bool| broken |= u8::from(really) << violation as u8;
    world.history.thief_moved |= message.from == Holder::Thief;
    let conflict = matches!(decided, Decided::Refused { code: Code::Conflict, .. });
    let settled = matches!(decided, Decided::Resumed(_) | Decided::Refused { code: Code::Locked, .. });
    breaks(Violation::DecidedTwice, message.decided && !conflict && !settled);
    if let Decided::Accepted { answer, .. } | Decided::Resumed(answer) = decided {
        breaks(Violation::OtherKey, answer.key != shown.rotated.unwrap_or(shown.key));
    }
    breaks(Violation::BundleLeft, before.reinstated && matches!(decided, Decided::Resumed(_)));
    if let Decided::Accepted { answer, case, uses_up, exempted, late } = *decided {
        let insecure = setup.recovery.mode == RecoveryMode::Insecure;
        if let (Some((certificate, join_state)), false, false, false) = (before.newest, insecure, exempted, late) {
            let renewed = shown.certificate.map(|shown| (shown.instance, shown.generation));
            let newest = (certificate.instance, certificate.generation);
            let certified = match case {
                JoinCase::Renewal => renewed == Some(newest),
                JoinCase::Recovery | JoinCase::FirstJoin => renewed.is_none(),
            };
            breaks(Violation::OldLineage, shown.join_state != Some(join_state) || !certified);
        }
        if let Some(attempt) = shown.attempt.filter(|_| shown.subject < Pending::FORGED) {
            let window = &mut world.history.accepted[usize::from(attempt)];
            let again = *window > 0 && !insecure;
            breaks(Violation::CountedTwice, again && case.costs_recovery() && shown.issued < *window);
            breaks(Violation::AcceptedTwice, again && !late && !exempted);
            *window = answer.ends;
        }
        let known = shown.attempt.is_some_and(|attempt| world.accepted & 1 << attempt != 0);
        breaks(Violation::AcceptedTwice, uses_up && known);
        turn(world, message);
    }
    world.history.broken |= broken;
}

/// Counts whose turn it is since the disks diverged.
fn turn(world: &mut World, message: &Message) {
    let attempt = message.shown.attempt;
    let others = world.disk(message.from.other()).pending.map(|pending| pending.attempt);
    let on_both = attempt.is_some() && attempt == others;
    if world.thief.is_some() && !on_both {
        world.history.diverged = true;
    }
    if world.history.diverged && world.history.turn_of != Some(message.from) {
        world.history.turns += 1;
        world.history.turn_of = Some(message.from);
    }
}

fn unbroken(world: &World, violation: Violation) -> bool {
    world.history.broken & 1 << violation as u8 == 0
}

/// The properties of a setup.
pub(crate) fn all(setup: &Setup) -> Vec<Property<Setup>> {
    let secure = setup.recovery.mode != RecoveryMode::Insecure;
    let mut properties = vec![
        Property::always(ONE_LOCK, |_, world: &World| world.locks <= 1),
        Property::always(COUNTED_ONCE, |_, world| unbroken(world, Violation::CountedTwice)),
        Property::always(ONE_LINEAGE, |_, world| unbroken(world, Violation::OldLineage)),
        Property::always(BOUND_KEY, |_, world| unbroken(world, Violation::OtherKey)),
        Property::always(DECIDED_ONCE, |_, world| unbroken(world, Violation::DecidedTwice)),
        Property::always(ATTEMPT_USED_ONCE, |_, world| unbroken(world, Violation::AcceptedTwice)),
        Property::always(BUNDLE_FIRST, |_, world| unbroken(world, Violation::BundleLeft)),
        Property::always(ONE_SUBJECT, |_, world| one_subject(world)),
        Property::always(NO_LOCK_WITHOUT_TWO_HOLDERS, |_, world: &World| world.locks == 0 || world.history.thief_moved),
        Property::always(NEVER_STUCK, never_stuck),
    ];
    if setup.copies != Copies::None && secure {
        properties.push(Property::always(TWO_TURNS, |_, world: &World| world.history.turns <= 2));
        properties.push(Property::always(THIRD_TRY_LOCKS, third_try_locks));
    }
    properties
}

fn one_subject(world: &World) -> bool {
    let (Some(one), Some(two)) = (world.owner.certificate, world.disk(Holder::Thief).certificate) else { return true };
    (one.instance, one.generation) != (two.instance, two.generation) || one.subject == two.subject
}

/// The owner is alone: with a network that does nothing wrong it joins, or no recovery is left.
fn never_stuck(setup: &Setup, world: &World) -> bool {
    if world.thief.is_some() || world.locks > 0 || world.done.restores > 0 {
        return true;
    }
    let mut alone = world.clone();
    match setup.try_alone(&mut alone, Holder::Owner) {
        Tried::Joined => true,
        Tried::Refused(Code::RecoveryLimitExhausted) => setup.authority.facts(world.token).limit_used_up,
        Tried::Locks | Tried::Refused(_) | Tried::Lost => false,
    }
}

/// Both holders had their turn since the disks diverged: whoever of them did not have the last one locks the token when
/// it comes again, used-up limits or not.
fn third_try_locks(setup: &Setup, world: &World) -> bool {
    let history = &world.history;
    let (2, Some(last), 0) = (history.turns, history.turn_of, world.locks) else { return true };
    if setup.authority.facts(world.token).grants {
        return true;
    }
    let mut alone = world.clone();
    setup.try_alone(&mut alone, last.other()) == Tried::Locks
}
