//! One at a time for each name, without keeping anything for names that nobody asks for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use join_domain::id::Name;
use tokio::sync::OwnedMutexGuard;

/// Names in use.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    busy: Mutex<HashMap<Name, Arc<tokio::sync::Mutex<()>>>>,
}

/// It is this holder's turn, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    // In this order: the turn ends before the name is given up.
    _turn: OwnedMutexGuard<()>,
    _place: Place,
}

/// A place in the line, also of one who leaves it early.
#[derive(Debug)]
struct Place {
    turns: Arc<Turns>,
    name: Name,
    line: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl Turns {
    /// Waits for the turn of `name`.
    pub(crate) async fn take(self: &Arc<Self>, name: &Name) -> Turn {
        let line = Arc::clone(self.busy().entry(name.clone()).or_default());
        let place = Place { turns: Arc::clone(self), name: name.clone(), line: Some(Arc::clone(&line)) };
        Turn { _turn: line.lock_owned().await, _place: place }
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<Name, Arc<tokio::sync::Mutex<()>>>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut busy = self.turns.busy();
        self.line = None;
        if busy.get(&self.name).is_some_and(|line| Arc::strong_count(line) == 1) {
            busy.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_forgotten_when_the_last_one_leaves() {
        let turns = Arc::new(Turns::default());
        let name: Name = "example".parse().unwrap();
        let first = turns.take(&name).await;
        let mut second = Box::pin(turns.take(&name));
        assert!(futures::poll!(&mut second).is_pending(), "one at a time");
        let mut third = Box::pin(turns.take(&name));
        assert!(futures::poll!(&mut third).is_pending());
        drop(third);
        drop(first);
        let second = second.await;
        assert_eq!(turns.busy().len(), 1);
        drop(second);
        assert!(turns.busy().is_empty());
    }
}
