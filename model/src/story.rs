//! A path through the model in words, a line for each step.

use std::fmt::Write as _;

use join_domain::event::JoinCase;
use stateright::{Model as _, Path};

use crate::{
    authority::{Answer, Decided},
    message::{Message, Purpose},
    world::{Setup, Step, World},
};

/// Tells a path, numbered; what is lost is not told.
pub fn tell(setup: &Setup, path: Path<World, Step>) -> String {
    let mut story = String::new();
    let steps = path.into_vec().into_iter().filter_map(|(world, step)| Some((world, step?)));
    let told = steps.filter(|(_, step)| !matches!(step, Step::Lose(_)));
    for (number, (world, step)) in told.enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(story, "{:>3}. {}", number + 1, line(setup, &world, step));
    }
    story
}

fn line(setup: &Setup, world: &World, step: Step) -> String {
    match step {
        Step::Begin(holder, 1) => format!("the {holder} begins attempt {}", world.done.attempts + 1),
        Step::Begin(holder, life) => {
            format!("the {holder} begins attempt {} for {life} ticks", world.done.attempts + 1)
        }
        Step::GiveUp(holder) => format!("the {holder} forgets the attempt"),
        Step::ForgeSubject => "the thief puts other subject keys into the attempt".to_owned(),
        Step::Send(holder, _) => match setup.next_state(world, step) {
            Some(after) => match after.network.iter().find(|message| message.awaited && message.from == holder) {
                Some(message) => format!("the {holder} sends {}", request(message)),
                None => format!("the {holder} sends in vain"),
            },
            None => format!("the {holder} sends in vain"),
        },
        Step::Arrive { message, answered } => {
            let verdict = setup.verdict(world, message);
            let lost = match (verdict, answered) {
                (_, true) => "",
                (Decided::Accepted { .. } | Decided::Resumed(_) | Decided::RotateFirst, false) => {
                    "; the answer is lost"
                }
                (Decided::Refused { .. }, false) => "; nobody takes the answer",
            };
            let message = &world.network[message];
            let again = if message.decided { " again" } else { "" };
            format!("the {}'s {} arrives{again}: {}{lost}", message.from, request(message), outcome(verdict))
        }
        Step::Lose(_) => "a message is lost".to_owned(),
        Step::Tick => "time goes on, and certificates end".to_owned(),
        Step::Copy => "the owner's disk is copied".to_owned(),
        Step::RequestRotation => "an administrator asks for a new key".to_owned(),
        Step::Reinstate => "an administrator reinstates the token".to_owned(),
        Step::RaiseLimit => "an administrator raises the limit".to_owned(),
        Step::BackUp => "the database is backed up".to_owned(),
        Step::Restore => "the database is restored from the backup".to_owned(),
    }
}

fn request(Message { shown, .. }: &Message) -> String {
    let attempt = shown.attempt.map_or_else(|| "no attempt".to_owned(), |attempt| format!("attempt {attempt}"));
    let certificate = shown.certificate.map_or_else(
        || "no certificate".to_owned(),
        |shown| format!("certificate {}.{}", shown.instance, shown.generation),
    );
    let document = shown.join_state.map_or_else(
        || "no join state".to_owned(),
        |shown| format!("join state {}#{}", shown.instance, shown.sequence),
    );
    let purpose = match shown.purpose {
        Purpose::Bound => "",
        Purpose::Registration => "new ",
        Purpose::Retired => "retired ",
    };
    let rotated = shown.rotated.map_or_else(String::new, |key| format!(" and key {key}"));
    format!("{attempt} ({certificate}, {document}, {purpose}key {}{rotated}, challenge {})", shown.key, shown.challenge)
}

fn outcome(decided: Decided) -> String {
    let certificate = |answer: Answer| {
        format!("certificate {}.{}, join state {0}#{}", answer.instance, answer.generation, answer.sequence)
    };
    match decided {
        Decided::Accepted { answer, case, late, .. } => {
            let case = match case {
                JoinCase::FirstJoin => "first join",
                JoinCase::Renewal => "renewal",
                JoinCase::Recovery if late => "recovery of a late match",
                JoinCase::Recovery => "recovery",
            };
            format!("accepted as a {case}: {}", certificate(answer))
        }
        Decided::Resumed(answer) => format!("resumed: {}", certificate(answer)),
        Decided::RotateFirst => "a new key is asked for".to_owned(),
        Decided::Refused { code, locks: true, .. } => format!("{code}, and the token is LOCKED"),
        Decided::Refused { code, .. } => code.to_string(),
    }
}
