//! Kinds of events, as they are asked for: by name, or with a `*` at the end.

use std::str::FromStr;

use join_domain::event::Event;
use similar::get_close_matches;

/// How much alike two names must be, from 0 to 1, for one to be the other with a slip of the pen.
const ALIKE: f32 = 0.6;

/// A kind, or a beginning of kinds, that some event can have.
#[derive(Clone, Debug)]
pub(super) struct KindPattern(String);

impl From<KindPattern> for String {
    fn from(pattern: KindPattern) -> Self {
        pattern.0
    }
}

impl FromStr for KindPattern {
    type Err = String;

    /// Refuses what no event can match, and names the kinds that may have been meant.
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |kind: &&str| match text.strip_suffix('*') {
            Some(beginning) => kind.starts_with(beginning),
            None => *kind == text,
        };
        if kinds().iter().any(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("no event is of this kind; there are {}, and patterns such as join.*", alike(text).join(", ")))
    }
}

fn kinds() -> Vec<&'static str> {
    Event::KINDS.iter().map(|kind| kind.name).collect()
}

/// The kinds that contain the text, share its noun or its verb, or are spelled nearly so; all when none does.
fn alike(text: &str) -> Vec<&'static str> {
    let word = text.trim_end_matches('*').trim_matches('.');
    let (noun, verb) = word.split_once('.').unwrap_or((word, word));
    let spelled = get_close_matches(word, &kinds(), 3, ALIKE);
    let has = |kind: &str, part: &str| !part.is_empty() && kind.split('.').any(|it| it == part);
    let near = |kind: &&str| {
        has(kind, noun) || has(kind, verb) || spelled.contains(kind) || (!word.is_empty() && kind.contains(word))
    };
    let found: Vec<_> = kinds().into_iter().filter(near).collect();
    if found.is_empty() { kinds() } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_beginnings_of_kinds_are_taken() {
        for text in ["join.refused", "join.*", "join*", "*"] {
            assert_eq!(String::from(text.parse::<KindPattern>().unwrap()), text);
        }
    }

    #[test]
    fn what_no_event_can_be_is_refused_with_what_may_be_meant() {
        let told = |text: &str| text.parse::<KindPattern>().unwrap_err();
        assert_eq!(
            told("join.refuse"),
            "no event is of this kind; there are join.accepted, join.resumed, join.refused, and patterns such as join.*"
        );
        assert!(told("tokn.created").contains("token.created"), "{}", told("tokn.created"));
        assert!(told("lock").contains("lock.created, lock.updated, lock.deleted"), "{}", told("lock"));
        assert!(told("frobnicate.*").contains("bot.created") && told("").contains("bot.created"));
    }
}
