//! In which order the two holders do what.

use std::fmt;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Owner,
    Thief,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Somebody joins.
    Join(Who),
    /// Somebody joins, and everything that the service says is lost, from somewhere on.
    Lose(Who),
    /// Certificates expire.
    Expire,
    /// A new key becomes due.
    Rotate,
}

/// Some steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule(Vec<Step>);

/// The longest random schedule.
const LONGEST: u64 = 8;

impl Schedule {
    /// Every order of three joins, with live certificates and with expired ones.
    pub(super) fn short() -> Vec<Self> {
        let who = |bit: u32| Step::Join(if bit == 0 { Who::Owner } else { Who::Thief });
        let joins = |number: u32| (0..3).map(move |bit| who(number >> bit & 1));
        let live = (0..8).map(|number| Self(joins(number).collect()));
        let expired = (0..8).map(|number| Self([Step::Expire].into_iter().chain(joins(number)).collect()));
        live.chain(expired).collect()
    }

    /// The one of this seed.
    pub(super) fn random(seed: u64) -> Self {
        let mut state = seed;
        // SplitMix64, by Sebastiano Vigna.
        let mut random = |below: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % below
        };
        let length = 2 + random(LONGEST - 1);
        let step = |number| match number {
            0..=2 => Step::Join(Who::Owner),
            3..=5 => Step::Join(Who::Thief),
            6 => Step::Lose(Who::Owner),
            7 => Step::Lose(Who::Thief),
            8 => Step::Expire,
            _ => Step::Rotate,
        };
        Self((0..length).map(|_| step(random(10))).collect())
    }

    /// Both come in turns, and none of them gives up.
    pub(super) fn both_alive() -> [Step; 4] {
        let (owner, thief) = (Step::Join(Who::Owner), Step::Join(Who::Thief));
        [owner, thief, owner, thief]
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = Step> {
        self.0.iter().copied()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| {
            f.write_str(match step {
                Step::Join(Who::Owner) => "O",
                Step::Join(Who::Thief) => "T",
                Step::Lose(Who::Owner) => "o",
                Step::Lose(Who::Thief) => "t",
                Step::Expire => "x",
                Step::Rotate => "r",
            })
        })
    }
}
