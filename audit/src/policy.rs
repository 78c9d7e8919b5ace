//! Whose signatures an auditor demands: a trust policy (c2sp.org/tlog-policy).

use std::str::FromStr;

use crate::checkpoint::Checkpoint;
use crate::finding::{Fault, Finding, Place};
use crate::note::{Key, KeyKind, Note, Signed};

/// A policy file that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the policy: {why}")]
pub struct PolicyError {
    line: usize,
    why: String,
}

/// Known logs, known witnesses, and which of the witnesses have to have cosigned.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    logs: Vec<Key>,
    /// In the order of definition, so that members stand before their groups.
    cosigners: Vec<Cosigner>,
    /// Index of the cosigner that the quorum is; none asks for no cosignature.
    quorum: Option<usize>,
}

/// A name that a quorum may be made of.
#[derive(Debug, Clone)]
struct Cosigner {
    name: String,
    rule: Rule,
    /// Whether a group holds it already.
    taken: bool,
}

#[derive(Debug, Clone)]
enum Rule {
    Witness(Key),
    AtLeast(usize, Vec<usize>),
}

impl Policy {
    /// Trusts these logs, and asks for no witnesses.
    pub fn of_logs(logs: impl IntoIterator<Item = Key>) -> Self {
        Self { logs: logs.into_iter().collect(), ..Self::default() }
    }

    /// The checkpoint of a note that a known log signed, when no known key's signature is wrong.
    pub(crate) fn signed(&self, note: &str) -> Result<Checkpoint, Finding> {
        let refused =
            |why: String| Finding::new(Fault::ForgedCheckpoint, Place::UNKNOWN, format!("the checkpoint {why}"));
        let note = Note::parse(note).map_err(|why| refused(format!("is not a signed note: {why}")))?;
        let checkpoint = Checkpoint::parse(note.text).map_err(|why| refused(format!("cannot be read: {why}")))?;
        let witnesses = self.cosigners.iter().filter_map(|cosigner| match &cosigner.rule {
            Rule::Witness(key) => Some(key),
            Rule::AtLeast(..) => None,
        });
        if let Some(key) = self.logs.iter().chain(witnesses).find(|key| note.by(key) == Signed::Wrongly) {
            return Err(refused(format!("has a wrong signature under the name of {}", key.name())));
        }
        // The key's name is the log's origin: one log cannot speak for another.
        if !self.logs.iter().any(|key| key.name() == checkpoint.origin && note.by(key) == Signed::Well) {
            return Err(refused(format!("of {} is not signed by a known key of that log", checkpoint.origin)));
        }
        Ok(checkpoint)
    }

    /// Whether enough witnesses cosigned.
    pub(crate) fn witnessed(&self, note: &str) -> Result<(), Finding> {
        let Some(quorum) = self.quorum else { return Ok(()) };
        let Ok(note) = Note::parse(note) else { return Ok(()) }; // `signed` said so already
        let mut cosigned: Vec<bool> = Vec::with_capacity(self.cosigners.len());
        for cosigner in &self.cosigners {
            cosigned.push(match &cosigner.rule {
                Rule::Witness(key) => note.by(key) == Signed::Well,
                Rule::AtLeast(count, members) => members.iter().filter(|member| cosigned[**member]).count() >= *count,
            });
        }
        if cosigned[quorum] {
            return Ok(());
        }
        let what =
            format!("too few witnesses cosigned the checkpoint: quorum {} is not met", self.cosigners[quorum].name);
        Err(Finding::new(Fault::TooFewWitnesses, Place::UNKNOWN, what))
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        let found = self.cosigners.iter().position(|cosigner| cosigner.name == name);
        found.ok_or_else(|| format!("`{name}` is not defined above"))
    }

    fn add_log(&mut self, key: &str) -> Result<(), String> {
        let key = key_of(key, KeyKind::Log)?;
        if self.logs.iter().any(|log| log.public == key.public) {
            return Err("this log's key stands there already".to_owned());
        }
        self.logs.push(key);
        Ok(())
    }

    fn add_witness(&mut self, name: &str, key: &str) -> Result<(), String> {
        let key = key_of(key, KeyKind::Witness)?;
        let same = |known: &Cosigner| matches!(&known.rule, Rule::Witness(known) if known.public == key.public);
        if self.cosigners.iter().any(same) {
            return Err("this witness's key stands there already".to_owned());
        }
        self.add_cosigner(name, Rule::Witness(key))
    }

    fn add_group(&mut self, name: &str, count: &str, members: &[&str]) -> Result<(), String> {
        let count = match count {
            "any" => 1,
            "all" => members.len(),
            count => count.parse().map_err(|_| format!("`{count}` should be a number, any or all"))?,
        };
        if !(1..=members.len()).contains(&count) {
            return Err(format!("{count} of {} members cannot be asked for", members.len()));
        }
        let mut indices = Vec::with_capacity(members.len());
        for member in members {
            let index = self.find(member)?;
            if std::mem::replace(&mut self.cosigners[index].taken, true) {
                return Err(format!("`{member}` may be a member only once"));
            }
            indices.push(index);
        }
        self.add_cosigner(name, Rule::AtLeast(count, indices))
    }

    fn add_cosigner(&mut self, name: &str, rule: Rule) -> Result<(), String> {
        if name == "none" || self.find(name).is_ok() {
            return Err(format!("the name `{name}` is taken"));
        }
        self.cosigners.push(Cosigner { name: name.to_owned(), rule, taken: false });
        Ok(())
    }
}

fn key_of(text: &str, kind: KeyKind) -> Result<Key, String> {
    let key: Key = text.parse().map_err(|error| format!("{error}"))?;
    match key.kind {
        KeyKind::Unsupported => Ok(key),
        found if found == kind => Ok(key),
        KeyKind::Log => Err(format!("{} is the key of a log, not of a witness", key.name())),
        KeyKind::Witness => Err(format!("{} is the key of a witness, not of a log", key.name())),
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        let mut quorum = None;
        let mut count = 0;
        for (line, words) in (1..).zip(text.split('\n')) {
            count = line;
            let error = |why: String| PolicyError { line, why };
            if words.contains(|c: char| c.is_control() && c != '\t') {
                return Err(error("it holds a control character (are the lines ended as on Windows?)".to_owned()));
            }
            let words: Vec<&str> = words.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            match words[..] {
                [] => Ok(()),
                [word, ..] if word.starts_with('#') => Ok(()),
                ["log", key] | ["log", key, _] => policy.add_log(key),
                ["witness", name, key] | ["witness", name, key, _] => policy.add_witness(name, key),
                ["group", name, count, ref members @ ..] => policy.add_group(name, count, members),
                ["quorum", _] if quorum.is_some() => Err("there is a quorum already".to_owned()),
                ["quorum", "none"] => {
                    quorum = Some(None);
                    Ok(())
                }
                ["quorum", name] => policy.find(name).map(|index| quorum = Some(Some(index))),
                [word, ..] => {
                    Err(format!("`{word}` is none of log, witness, group and quorum, or has too few or too many words"))
                }
            }
            .map_err(error)?;
        }
        let missing =
            || PolicyError { line: count, why: "there is no quorum; `quorum none` asks for no witnesses".to_owned() };
        policy.quorum = quorum.ok_or_else(missing)?;
        Ok(policy)
    }
}
