//! Lists, read row by row: one that can't be read is left out and hides no other.

use std::sync::PoisonError;

use hypervisor::Result;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::{Client, Params};

/// How much of an unreadable row is logged.
pub(crate) const SHOWN: usize = 300;

#[derive(Debug)]
pub(crate) struct Rows<T> {
    pub(crate) read: Vec<T>,
    /// Whether others can't be read: what is not among `read` may be there all the same.
    pub(crate) incomplete: bool,
}

/// Reads rows, and returns the text of those that can't be read.
fn split<T: DeserializeOwned>(list: Vec<Value>) -> (Vec<T>, Vec<String>) {
    let (mut read, mut odd) = (Vec::with_capacity(list.len()), vec![]);
    for row in list {
        let text = || row.to_string().chars().take(SHOWN).collect();
        // Serde would read a JSON array as a row too, field by field.
        match serde_json::from_value(row.clone()) {
            Ok(parsed) if row.is_object() => read.push(parsed),
            _ => odd.push(text()),
        }
    }
    (read, odd)
}

pub(crate) async fn rows<T: DeserializeOwned>(client: &Client, path: &[&str], query: &Params<'_>) -> Result<Rows<T>> {
    let (read, odd) = split(client.get(path, query).await?);
    let list = path.join("/");
    let mut known = client.odd_lists.lock().unwrap_or_else(PoisonError::into_inner);
    match odd.first() {
        None => drop(known.remove(&list)),
        // Once, not with each read.
        Some(row) if known.insert(list.clone()) => tracing::warn!(list, row, "a row can't be read; ignored"),
        Some(_) => {}
    }
    Ok(Rows { read, incomplete: !odd.is_empty() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::TaskRow;

    #[test]
    fn an_unreadable_row_hides_no_other() {
        let good = json!({"upid": "UPID:a", "type": "vzdump", "id": "100"});
        for odd in [json!(null), json!([]), json!("x"), json!({"upid": "UPID:b", "status": []})] {
            let (read, unread) = split::<TaskRow>(vec![odd.clone(), good.clone()]);
            assert_eq!((read.len(), unread), (1, vec![odd.to_string()]));
            assert_eq!((read[0].kind.as_str(), read[0].id.as_str()), ("vzdump", "100"));
        }
        // Fields of another type than usual are read as far as possible.
        let (read, unread) = split::<TaskRow>(vec![json!({"upid": 7, "type": null, "id": 100, "endtime": "x"})]);
        assert_eq!((read[0].id.as_str(), read[0].is_running(), unread.len()), ("100", true, 0));
    }
}
