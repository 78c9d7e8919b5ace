//! Rules that can be left out. Each is left out around the real rules, never in them: what the authority is shown, or
//! what an agent does, is changed just so far that the rule cannot take effect.

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
