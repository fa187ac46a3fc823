//! Lists whose unreadable rows are left out, and that say so.

use hypervisor::{Result, rows};
use serde::de::DeserializeOwned;

use crate::client::{Client, Params};

#[derive(Debug)]
pub(crate) struct Rows<T> {
    pub(crate) read: Vec<T>,
    /// Whether others can't be read: what is not among `read` may be there all the same.
    pub(crate) incomplete: bool,
}

pub(crate) async fn rows<T: DeserializeOwned>(client: &Client, path: &[&str], query: &Params<'_>) -> Result<Rows<T>> {
    let (read, odd) = rows::split(client.get(path, query).await?);
    client.odd_lists.note(&path.join("/"), &odd);
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
            let (read, unread) = rows::split::<TaskRow>(vec![odd.clone(), good.clone()]);
            assert_eq!((read.len(), unread), (1, vec![odd]));
            assert_eq!((read[0].kind.as_str(), read[0].id.as_str()), ("vzdump", "100"));
        }
        // Fields of another type than usual are read as far as possible.
        let (read, unread) = rows::split::<TaskRow>(vec![json!({"upid": 7, "type": null, "id": 100, "endtime": "x"})]);
        assert_eq!((read[0].id.as_str(), read[0].is_running(), unread.len()), ("100", true, 0));
    }
}
