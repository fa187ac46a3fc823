//! Lists of a host, read row by row: one that can't be read is left out and hides no other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// How much of an unreadable row is logged, in characters.
pub const SHOWN: usize = 300;

/// Reads rows, and returns those that can't be read.
pub fn split<T: DeserializeOwned>(list: Vec<Value>) -> (Vec<T>, Vec<Value>) {
    let (mut read, mut odd) = (Vec::with_capacity(list.len()), vec![]);
    for row in list {
        // Serde would read a JSON array as a row too, field by field.
        match serde_json::from_value(row.clone()) {
            Ok(parsed) if row.is_object() => read.push(parsed),
            _ => odd.push(row),
        }
    }
    (read, odd)
}

/// The lists of a host that had unreadable rows the last time.
#[derive(Debug, Clone, Default)]
pub struct OddLists(Arc<Mutex<HashSet<String>>>);

impl OddLists {
    /// Logs a list's unreadable rows once, not with each read.
    pub fn note(&self, list: &str, odd: &[Value]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match odd.first() {
            None => drop(known.remove(list)),
            Some(row) if known.insert(list.to_owned()) => {
                let row: String = row.to_string().chars().take(SHOWN).collect();
                tracing::warn!(list, row, "a row can't be read; ignored");
            }
            Some(_) => {}
        }
    }
}
