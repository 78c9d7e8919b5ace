//! The challenges that stand in the entry of a join (protocol, section 4).

use chrono::TimeDelta;
use join_domain::{
    envelope::Entry,
    event::{ChallengeIssued, Event},
    proof,
    state::{TokenState, token::Accepted},
};

use crate::rules::{Checked, ensure};

/// How long after its issue a challenge may be decided on: as long as its solution counts as one that may come again.
const ANSWERED: TimeDelta = TimeDelta::seconds(proof::REPLAYABLE);
/// How long the client may take for the new key that it is asked for after a first challenge.
const KEY_SENT: TimeDelta = TimeDelta::seconds(proof::CHALLENGE_LIFE + proof::LEEWAY);
/// How far the clocks of two nodes may be apart.
const LEEWAY: TimeDelta = TimeDelta::seconds(proof::LEEWAY);

/// In the order in which they were issued.
pub(crate) fn challenges(entry: &Entry) -> impl DoubleEndedIterator<Item = &ChallengeIssued> {
    entry.events.iter().filter_map(|event| match event {
        Event::ChallengeIssued(issued) => Some(issued),
        _ => None,
    })
}

/// The challenge that was solved first. All that stand there must be solved, and this one for the first time.
pub(crate) fn first_challenge<'e>(token: &TokenState, entry: &'e Entry) -> Result<&'e ChallengeIssued, String> {
    let solved = |challenge: &ChallengeIssued| {
        let is_it = |event: &Event| matches!(event, Event::ChallengeSolved(it) if it.challenge == challenge.challenge);
        entry.events.iter().any(is_it)
    };
    ensure(challenges(entry).all(solved), "a challenge is not solved")?;
    let first = challenges(entry).next().ok_or("no key was proven")?;
    // A forger may write times that nothing can be added to.
    let replayable_until = first.at.checked_add_signed(ANSWERED).unwrap_or(first.at);
    let refused = token.has_refused(first.challenge, replayable_until);
    ensure(!refused, "its challenge was refused before")?;
    Ok(first)
}

/// Each was issued before it was answered, and answered in time.
pub(crate) fn are_in_time(entry: &Entry) -> Checked {
    let (mut answered, mut within) = (entry.decided_at, ANSWERED);
    for challenge in challenges(entry).rev() {
        ensure(challenge.at - answered <= LEEWAY, "a challenge was issued after it was answered")?;
        ensure(answered - challenge.at <= within, "a challenge was answered after its time")?;
        (answered, within) = (challenge.at, ANSWERED + KEY_SENT);
    }
    Ok(())
}

/// What was asked before the latest accepted join decides nothing: evidence has an age (section 3).
pub(crate) fn are_newer_than_latest(token: &TokenState, entry: &Entry) -> Checked {
    let newer = |latest: &Accepted| challenges(entry).all(|it| latest.at - it.at <= LEEWAY);
    ensure(token.latest().is_none_or(newer), "a challenge is older than the join before it")
}
