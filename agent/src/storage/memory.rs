//! Storage that ends with the process.

use std::{collections::HashMap, io, sync::Mutex};

use super::Storage;

/// Storage in memory: for bots with a static key, which join anew at every start.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Vec<u8>>>);

impl Storage for Memory {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().map_err(poisoned)?.get(name).cloned())
    }

    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.0.lock().map_err(poisoned)?.insert(name.to_owned(), contents.to_vec());
        Ok(())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

fn poisoned<T>(_: T) -> io::Error {
    io::Error::other("another thread failed while it wrote")
}
