//! Lists whose unreadable rows are left out.

use hypervisor::{Result, rows};
use serde::de::DeserializeOwned;

use crate::client::Client;

/// A list's readable rows.
pub(crate) async fn rows<T: DeserializeOwned>(client: &Client, path: &[&str]) -> Result<Vec<T>> {
    let (read, odd) = rows::split(client.get(path, &[("recursion", "1")]).await?);
    client.odd_lists.note(&path.join("/"), &odd);
    Ok(read)
}
