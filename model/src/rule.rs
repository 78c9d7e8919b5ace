//! Rules that can be left out. Each is left out around the real rules, never in them: what the authority is shown, or
//! what an agent does, is changed just so far that the rule cannot take effect.

use join_domain::{
    decision::join::Proven,
    event::JoinStateSeen,
    state::{LockState, TokenState},
};

use crate::{
    Tick,
    holder::JoinState,
    translation::{join_state, short, small, time},
};

/// A rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    // What the authority does.
    /// Section 6: an attempt has an id, and the latest accepted one is resumed.
    AttemptsAreResumed,
    /// Section 6: a resume is for the same subject keys only.
    SubjectKeysAreBound,
    /// Section 6: an attempt that was accepted earlier and is no longer the latest locks.
    EarlierAttemptsAreKnown,
    /// Section 6: past its window the latest attempt still never locks.
    LateMatchesAreNotJudged,
    /// Section 6: whether a match falls into the window is judged by the time its challenge was issued.
    WindowsAreJudgedByTheChallenge,
    /// Section 3: evidence older than the latest accepted join gets CONFLICT.
    EvidenceHasAnAge,
    /// Section 3: a challenge that was refused is not decided again.
    ChallengesAreDecidedOnce,
    /// Section 3: at the append the bound key must still be the one challenged.
    TheBoundKeySigned,
    /// Section 3: a retired key is evidence of a second holder.
    RetiredKeysAreEvidence,
    /// Section 3, step 2: locks are looked at before anything that could create one.
    LocksComeFirst,
    /// Section 3, steps 3 to 5: the limit is looked at after join state and certificate.
    LimitsComeLast,
    /// Sections 3 and 5: an outdated join state locks.
    JoinStatesAreJudged,
    /// Section 3, step 4: a generation mismatch locks.
    GenerationsAreJudged,
    /// Section 5: evidence that is ahead of the store never locks.
    WhatIsAheadIsNoTheft,
    /// Section 7: a reinstatement forgets the latest attempt.
    ReinstatementsForgetTheAttempt,
    /// Section 7: what a reinstatement grants is spent whole by the next accepted join.
    BundlesAreSpentWhole,
    /// A reinstatement outdates the challenges that are open.
    ReinstatementsOutdateEvidence,
    // What an agent does.
    /// Section 6: a refusal does not end an attempt.
    AttemptsOutliveRefusals,
    /// Section 6: an answer is taken from the newest ceremony only.
    OnlyTheNewestAnswerIsTaken,
    /// Section 6: a new key is on the disk before its public half is sent.
    NewKeysAreWrittenFirst,
    /// Section 6: a key is deleted only after a result that names another.
    OldKeysAreKept,
    /// Section 6: the attempt is on the disk before anything is sent.
    AttemptsAreWrittenFirst,
}

impl Rule {
    /// Changes what the authority is shown just so far that a rule cannot take effect.
    pub(crate) fn leave_out(
        self,
        token: &TokenState,
        proven: &mut Proven,
        around: &mut Around<'_>,
        late: bool,
        now: Tick,
    ) {
        let latest = token.latest().map(|latest| &latest.join);
        match self {
            Self::AttemptsAreResumed => {
                proven.attempt = None;
                around.accepted_before = false;
            }
            Self::SubjectKeysAreBound => {
                if let Some(latest) = latest {
                    proven.subject_keys.clone_from(&latest.subject_keys);
                }
            }
            Self::EarlierAttemptsAreKnown => around.accepted_before = false,
            Self::LateMatchesAreNotJudged if late => {
                proven.attempt = None;
                around.accepted_before = false;
            }
            Self::WindowsAreJudgedByTheChallenge => proven.solved.issued_at = time(now),
            Self::EvidenceHasAnAge => proven.evidence = token.evidence,
            Self::TheBoundKeySigned => {
                if let Some(binding) = &token.binding {
                    proven.solved.key = binding.key.clone();
                }
            }
            Self::LocksComeFirst => around.locks = &[],
            Self::JoinStatesAreJudged => {
                if let Some(latest) = latest {
                    let sequence = small(latest.recovery_count.into());
                    proven.seen.join_state = join_state(Some(JoinState { instance: short(latest.instance), sequence }));
                }
            }
            Self::GenerationsAreJudged => {
                if let (Some(latest), Some(certificate)) = (latest, &mut proven.seen.certificate)
                    && certificate.instance == latest.instance
                {
                    certificate.generation = latest.generation;
                }
            }
            Self::WhatIsAheadIsNoTheft => {
                if let JoinStateSeen::Authentic { sequence, .. } = &mut proven.seen.join_state
                    && *sequence > token.recovery_count
                {
                    *sequence = 0;
                }
                if let (Some(latest), Some(certificate)) = (latest, &mut proven.seen.certificate)
                    && certificate.generation > latest.generation
                {
                    certificate.generation = 0;
                }
            }
            _ => {}
        }
    }
}

/// What the rules are told beside the token and the proof.
pub(crate) struct Around<'a> {
    /// True when the ledger knows the attempt as accepted.
    pub(crate) accepted_before: bool,
    /// The locks in force.
    pub(crate) locks: &'a [LockState],
}
