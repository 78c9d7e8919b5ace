//! Which cases run, and what came of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;

/// Which cases of a kind run.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only those with this in their name.
    pub containing: String,
    /// So many of each kind, spread evenly; none for all.
    pub at_most: Option<usize>,
}

impl Selection {
    /// Picks from all cases of a kind.
    pub fn pick<C: fmt::Display>(&self, mut cases: Vec<C>) -> Vec<C> {
        cases.retain(|case| case.to_string().contains(&self.containing));
        let (all, wanted) = (cases.len(), self.at_most.unwrap_or(usize::MAX));
        if all <= wanted {
            return cases;
        }
        // The i-th of `wanted` equal parts begins where it is passed.
        let mut at = 0;
        cases.retain(|_| {
            let begins = at * wanted / all != (at + 1) * wanted / all;
            at += 1;
            begins
        });
        cases
    }
}

/// What came of one case that went well.
#[derive(Debug, Clone, Default)]
pub struct Survived {
    /// Whether the fault happened at all: a run may have a message less than the one that was measured.
    pub reached: bool,
    /// What is worth counting.
    pub noted: Vec<&'static str>,
}

/// The cases of one kind.
pub struct Tally {
    name: &'static str,
    began: Instant,
    counted: Mutex<Counted>,
}

/// Of so many cases with one kind of trouble half must come to it.
const MANY: usize = 20;
/// Of fewer, one. Fewer still may all be after the last message of a join that had less to say than the one measured.
const SOME: usize = 8;

/// How many cases with one kind of trouble came to it, and how many did not.
pub type Reached = BTreeMap<String, (usize, usize)>;

#[derive(Default)]
struct Counted {
    survived: usize,
    not_reached: usize,
    reached: Reached,
    noted: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, began: Instant::now(), counted: Mutex::default() }
    }

    /// Counts one case.
    pub fn count(&self, case: &impl fmt::Display, outcome: Result<Survived>) {
        let mut counted = self.lock();
        let name = case.to_string();
        let trouble = name.split('/').next().unwrap_or_default().to_owned();
        let (reached, not_reached) = counted.reached.entry(trouble).or_default();
        match outcome {
            Ok(Survived { reached: false, .. }) => {
                *not_reached += 1;
                counted.not_reached += 1;
            }
            Ok(survived) => {
                *reached += 1;
                counted.survived += 1;
                for noted in survived.noted {
                    *counted.noted.entry(noted).or_default() += 1;
                }
            }
            Err(error) => {
                *reached += 1;
                eprintln!("FAILED {name}: {error:#}");
                counted.failures.push(format!("{name}: {error:#}"));
            }
        }
    }

    /// Counts what is no case: a whole cluster that is not as it should be, or does not start.
    pub fn fail(&self, what: &str, outcome: Result<()>) {
        if let Err(error) = outcome {
            eprintln!("FAILED {what}: {error:#}");
            self.lock().failures.push(format!("{what}: {error:#}"));
        }
    }

    /// The end of it.
    pub fn finish(self) -> KindReport {
        let took = self.began.elapsed();
        let counted = self.counted.into_inner().unwrap_or_else(PoisonError::into_inner);
        KindReport {
            name: self.name,
            took,
            cases: counted.survived + counted.failures.len(),
            not_reached: counted.not_reached,
            reached: counted.reached,
            noted: counted.noted,
            failures: counted.failures,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of one kind.
#[derive(Debug)]
pub struct KindReport {
    /// The kind.
    pub name: &'static str,
    /// Cases in which something went wrong.
    pub cases: usize,
    /// Cases in which it did not come to that.
    pub not_reached: usize,
    /// Both for each kind of trouble, the first word of the cases' names.
    pub reached: Reached,
    /// What was worth counting.
    pub noted: BTreeMap<&'static str, usize>,
    /// Cases that are not as they should be.
    pub failures: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl KindReport {
    /// Everything that is wrong: the failures, and troubles that came too seldom to have shown anything.
    pub fn verdict(&self, selection: &Selection) -> Vec<String> {
        let wanted = |cases: usize| match cases {
            MANY.. => cases / 2,
            SOME.. => 1,
            _ => 0,
        };
        let seldom = self.reached.iter().filter(|(_, (reached, not))| *reached < wanted(reached + not));
        let seldom = seldom.map(|(trouble, (reached, not))| {
            format!("{trouble}: only {reached} of {} cases came to what they are about", reached + not)
        });
        let nothing = selection.containing.is_empty() && self.reached.is_empty();
        let nothing = nothing.then(|| format!("{}: there are no cases", self.name));
        self.failures.iter().cloned().chain(seldom).chain(nothing).collect()
    }
}

impl fmt::Display for KindReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:>5} cases {:>5} s", self.name, self.cases, self.took.as_secs())?;
        let noted = self.noted.iter().map(|(what, count)| (*count, *what));
        let not_reached = Some((self.not_reached, "did not come to it")).filter(|(count, _)| *count > 0);
        let failures = Some((self.failures.len(), "FAILED")).filter(|(count, _)| *count > 0);
        for (count, what) in noted.chain(not_reached).chain(failures) {
            write!(f, ", {count} {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_happen_proves_nothing() {
        let everything = Selection::default();
        let verdict = |cases: &[(&str, usize, usize)]| {
            let tally = Tally::new("kind");
            for (trouble, reached, not_reached) in cases {
                let outcomes = [(true, reached), (false, not_reached)];
                for (reached, count) in outcomes {
                    let outcome = || Ok(Survived { reached, noted: Vec::new() });
                    (0..*count).for_each(|number| tally.count(&format!("{trouble}/{number}"), outcome()));
                }
            }
            tally.finish().verdict(&everything)
        };
        assert_eq!(verdict(&[("cut", 90, 10), ("kill", 1, 8), ("end", 0, 3)]), Vec::<String>::new());
        assert_eq!(
            verdict(&[("cut", 90, 10), ("kill", 0, 9)]),
            ["kill: only 0 of 9 cases came to what they are about"]
        );
        assert_eq!(verdict(&[("cut", 49, 51)]), ["cut: only 49 of 100 cases came to what they are about"]);
        assert_eq!(verdict(&[]), ["kind: there are no cases"]);
        let some = Selection { containing: "cut".to_owned(), at_most: None };
        assert!(Tally::new("kind").finish().verdict(&some).is_empty(), "it has no case of that name");
    }

    #[test]
    fn a_sample_is_spread_evenly() {
        let pick = |at_most| Selection { at_most, ..Selection::default() }.pick((0..10).collect::<Vec<_>>());
        assert_eq!(pick(Some(3)), [3, 6, 9]);
        assert_eq!(pick(Some(10)).len(), 10);
        assert_eq!(pick(None).len(), 10);
        let containing = Selection { containing: "1".to_owned(), at_most: None };
        assert_eq!(containing.pick(vec![1, 2, 10]), [1, 10]);
    }
}
