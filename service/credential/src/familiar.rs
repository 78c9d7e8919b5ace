//! Certificates and join states whose signature this node need not verify again: it signed or verified them itself.
//!
//! A join shows what was signed a while ago, mostly by the same node, and verifying a certificate is a twelfth of what a
//! renewal costs. What is remembered says nothing about time, locks or revocation: those are asked each time.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::digest;

/// How many are remembered for sure; up to twice as many are. A set of so many takes 2 MB.
const GENERATION: usize = 57_344;

/// SHA-256 of a document, signature and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(document: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, document).as_ref());
        Self(bytes)
    }
}

/// The newest ones, in bounded memory. It belongs to one set of trusted keys, and goes with it.
#[derive(Debug, Default)]
pub(crate) struct Familiar(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    newer: HashSet<Digest>,
    older: HashSet<Digest>,
}

impl Familiar {
    /// True for one that is remembered.
    pub(crate) fn knows(&self, digest: &Digest) -> bool {
        let generations = self.generations();
        generations.newer.contains(digest) || generations.older.contains(digest)
    }

    /// Remembers one; the oldest are forgotten.
    pub(crate) fn remember(&self, digest: &Digest) {
        let mut generations = self.generations();
        let Generations { newer, older } = &mut *generations;
        if newer.len() >= GENERATION {
            // The room stays, so that no request has to move a generation into a larger one.
            mem::swap(newer, older);
            newer.clear();
        }
        newer.insert(*digest);
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_memory_is_bounded() {
        let familiar = Familiar::default();
        let digest = |n: usize| Digest::of(&n.to_be_bytes());
        (0..3 * GENERATION).for_each(|n| familiar.remember(&digest(n)));
        assert!((2 * GENERATION..3 * GENERATION).all(|n| familiar.knows(&digest(n))));
        assert!((0..GENERATION).all(|n| !familiar.knows(&digest(n))));
        let generations = familiar.generations();
        assert!(generations.newer.len() <= GENERATION && generations.older.len() <= GENERATION);
    }
}
