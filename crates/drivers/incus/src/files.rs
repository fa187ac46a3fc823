//! Files in guests.

use std::time::Duration;

use hypervisor::Result;
use reqwest::{Method, Response};

use crate::client::{Client, envelope, transport};

/// How long writing one may take.
const FILE_TIME: Duration = Duration::from_secs(15);

/// Writes a file or makes a directory (`kind`), owned by root; an existing file is replaced with its mode.
pub(crate) async fn post(
    client: &Client,
    instance: &str,
    (path, kind, mode): (&str, &str, u32),
    content: impl Into<reqwest::Body>,
) -> Result<()> {
    let url = client.url(&["instances", instance, "files"], &[("path", path)])?;
    let request = client
        .request(Method::POST, url)
        .header("X-Incus-type", kind)
        .header("X-Incus-uid", "0")
        .header("X-Incus-gid", "0")
        .header("X-Incus-mode", format!("{mode:04o}"))
        .header("X-Incus-write", "overwrite")
        .header("Content-Type", "application/octet-stream")
        .timeout(FILE_TIME.min(client.timeout()))
        .body(content);
    checked(request.send().await.map_err(|e| transport(&e, true))?).await
}

/// Deletes a file.
pub(crate) async fn delete(client: &Client, instance: &str, path: &str) -> Result<()> {
    let url = client.url(&["instances", instance, "files"], &[("path", path)])?;
    let request = client.request(Method::DELETE, url).timeout(FILE_TIME.min(client.timeout()));
    checked(request.send().await.map_err(|e| transport(&e, true))?).await
}

async fn checked(response: Response) -> Result<()> {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.map_err(|e| transport(&e, true))?;
    envelope(status, &bytes).map(drop)
}
