//! A guest's text console: its terminal for a container, its serial line for a VM. Incus's screens speak SPICE, which
//! no browser page of ours does.
//!
//! Two things are Incus's own. Once a console is let go, Incus types a terminal's reset (Esc c) at it, which a login
//! prompt takes for the begin of a name. And a container's terminal does not follow the size that is set over the
//! control socket, since nobody signals the process between; so its size is set inside.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hypervisor::{
    Console, ConsoleInput, ConsoleKind, Consoles, Error, GuestKind, GuestRef, Inside, Result, last_lines,
};
use reqwest::Method;
use reqwest::header::RANGE;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, Reply, transport};
use crate::websocket::{Socket, connect};
use crate::{Incus, lookup};

/// Messages that wait for either side: enough that a burst of output does not stop and go.
const WAITING: usize = 32;
/// What Incus says at a console whose holder before has not let go of it yet; how often to ask anew, and after how long.
const REFUSED: &[u8] = b"Error: Failed running forkconsole";
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(300);
/// So much of a console's log is read, in bytes.
const LOG_END: usize = 16 << 10;
/// How often it is looked at.
const LOG_TRIES: u32 = 8;
/// How long `stty` may take.
const SIZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters in a line, and lines.
type Size = (u16, u16);

#[async_trait]
impl Consoles for Incus {
    /// Incus has one console for each guest: whoever holds it loses it to us.
    async fn console(&self, guest: &GuestRef) -> Result<Console> {
        let client = &self.client;
        let instance = lookup::require_running(client, guest).await?;
        let sockets = attach(client, &instance.name).await?;
        let (output, shown) = mpsc::channel(WAITING);
        let (typed, input) = mpsc::channel(WAITING);
        let (size, sizes) = watch::channel((0, 0));
        if guest.kind == GuestKind::Lxc {
            tokio::spawn(follow_size(self.clone(), guest.clone(), sizes));
        }
        tokio::spawn(hold(client.clone(), instance.name, sockets, output, input, size));
        Ok(Console { kind: ConsoleKind::Text, output: shown, input: typed })
    }

    /// The end of the console's log, which Incus keeps of a guest that is down as well. Incus writes it down a moment after
    /// the guest's end, so an empty one is looked at again.
    async fn last_words(&self, guest: &GuestRef) -> Result<String> {
        let client = &self.client;
        let instance = lookup::require(client, guest).await?;
        let mut said = String::new();
        for attempt in 0..LOG_TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            said = last_lines(&String::from_utf8_lossy(&log_end(client, &instance.name).await?));
            if !said.is_empty() {
                break;
            }
        }
        Ok(said)
    }
}

async fn log_end(client: &Client, instance: &str) -> Result<Bytes> {
    let url = client.url(&["instances", instance, "console"], &[])?;
    // A negative range counts from the end.
    let request = client.request(Method::GET, url).header(RANGE, format!("bytes=-{LOG_END}"));
    let response = request.send().await.map_err(|e| transport(&e, false))?;
    // No log yet, or an empty one, which has no such range.
    if !response.status().is_success() {
        return Ok(Bytes::new());
    }
    response.bytes().await.map_err(|e| transport(&e, false))
}

/// The sockets for control and for bytes.
async fn attach(client: &Client, instance: &str) -> Result<(Socket, Socket)> {
    let body = json!({"type": "console", "force": true});
    let Reply::Operation(operation) =
        client.send(Method::POST, &["instances", instance, "console"], Some(&body)).await?
    else {
        return Err(Error::Failed("Incus opened a console without an operation".to_owned()));
    };
    // Control first: Incus attaches to the guest as soon as the other one is there.
    let control = connect(client, &operation, "control").await?;
    let data = connect(client, &operation, "0").await?;
    Ok((control, data))
}

/// Carries bytes until either side has had enough, over another attachment where this one was refused.
async fn hold(
    client: Client,
    instance: String,
    mut sockets: (Socket, Socket),
    output: mpsc::Sender<Bytes>,
    mut input: mpsc::Receiver<ConsoleInput>,
    size: watch::Sender<Size>,
) {
    for tries in 1.. {
        let Some(words) = carry(sockets, &output, &mut input, &size).await else { return };
        if tries == TRIES {
            let _ = output.send(words).await;
            return;
        }
        tokio::time::sleep(PAUSE).await;
        sockets = match attach(&client, &instance).await {
            Ok(sockets) => sockets,
            Err(error) => return tracing::debug!(instance, %error, "a console could not be opened again"),
        };
    }
}

/// Carries bytes until either side has had enough; gives Incus's words where it refused. Dropping the sockets, the one
/// for control among them, makes Incus let go of the guest's terminal.
async fn carry(
    (mut control, data): (Socket, Socket),
    output: &mpsc::Sender<Bytes>,
    input: &mut mpsc::Receiver<ConsoleInput>,
    size: &watch::Sender<Size>,
) -> Option<Bytes> {
    let (mut to_guest, mut from_guest) = data.split();
    let mut begun = false;
    let reading = async {
        while let Some(Ok(message)) = from_guest.next().await {
            let sent = match message {
                Message::Binary(bytes) if !begun && bytes.starts_with(REFUSED) => return Some(bytes),
                Message::Binary(bytes) => {
                    begun = true;
                    output.send(bytes).await
                }
                // A text message is Incus's end of the stream.
                Message::Text(_) | Message::Close(_) => break,
                _ => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
        None
    };
    let writing = async {
        while let Some(input) = input.recv().await {
            let sent = match input {
                ConsoleInput::Data(bytes) => to_guest.send(Message::Binary(bytes)).await,
                ConsoleInput::Resize { columns, rows } => {
                    size.send_replace((columns, rows));
                    let args = json!({"width": columns.to_string(), "height": rows.to_string()});
                    let resize = json!({"command": "window-resize", "args": args});
                    control.send(Message::text(resize.to_string())).await
                }
            };
            if sent.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        refused = reading => refused,
        () = writing => None,
    }
}

/// Sets a container's terminal to the last size asked for, until the console ends. A guest without `stty` keeps its size.
async fn follow_size(incus: Incus, guest: GuestRef, mut sizes: watch::Receiver<Size>) {
    while sizes.changed().await.is_ok() {
        let (columns, rows) = *sizes.borrow_and_update();
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let argv = ["stty", "-F", "/dev/console", "cols", &columns, "rows", &rows];
        if let Err(error) = incus.exec(&guest, &argv, b"", SIZE_TIMEOUT).await {
            tracing::debug!(guest = guest.vmid, %error, "a console's size could not be set");
        }
    }
}
