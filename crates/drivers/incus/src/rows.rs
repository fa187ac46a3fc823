//! Lists, read row by row: one that can't be read is left out and hides no other.

use std::sync::PoisonError;

use hypervisor::Result;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::Client;

/// Reads rows, and returns those that can't be read.
pub(crate) fn split<T: DeserializeOwned>(list: Vec<Value>) -> (Vec<T>, Vec<Value>) {
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

/// Logs a list's unreadable rows once, not with each read.
pub(crate) fn log(client: &Client, list: &str, odd: &[Value]) {
    let mut known = client.odd_lists.lock().unwrap_or_else(PoisonError::into_inner);
    match odd.first() {
        None => drop(known.remove(list)),
        Some(row) if known.insert(list.to_owned()) => tracing::warn!(list, %row, "a row can't be read; ignored"),
        Some(_) => {}
    }
}

/// A list's readable rows.
pub(crate) async fn rows<T: DeserializeOwned>(client: &Client, path: &[&str]) -> Result<Vec<T>> {
    let (read, odd) = split(client.get(path, &[("recursion", "1")]).await?);
    log(client, &path.join("/"), &odd);
    Ok(read)
}
