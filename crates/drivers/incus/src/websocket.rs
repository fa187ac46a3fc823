//! The websockets of an Incus operation: one for each stream, and one for control.

use hypervisor::{Error, Result};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;

use crate::api::IncusOperation;
use crate::client::Client;

pub(crate) type Socket = WebSocketStream<UnixStream>;

/// Connects to a stream of an operation: `fd` is `0`, `1`, `2` or `control`.
pub(crate) async fn connect(client: &Client, operation: &IncusOperation, fd: &str) -> Result<Socket> {
    let secret = operation.metadata.as_ref().and_then(|m| m.get("fds")).and_then(|fds| fds.get(fd));
    let secret = secret
        .and_then(Value::as_str)
        .ok_or_else(|| Error::Failed(format!("no websocket {fd} in the operation {}", operation.description)))?;
    let lost = |e: &dyn std::fmt::Display| Error::OutcomeUnknown(format!("the websocket {fd}: {e}"));
    let url = client.url(&["operations", &operation.id, "websocket"], &[("secret", secret)])?;
    let url = url.as_str().replacen("http://", "ws://", 1);
    let connecting = async {
        let stream = UnixStream::connect(&client.config.socket).await.map_err(|e| lost(&e))?;
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.map_err(|e| lost(&e))?;
        Ok(socket)
    };
    tokio::time::timeout(client.timeout(), connecting).await.map_err(|e| lost(&e))?
}
