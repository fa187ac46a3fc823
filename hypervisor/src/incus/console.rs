//! A guest's text console: its terminal for a container, its serial line for a VM. Incus's screens speak SPICE, which
//! no browser page of ours does.
//!
//! Two things are Incus's own. Once a console is let go, Incus types a terminal's reset (Esc c) at it, which a login
//! prompt takes for the begin of a name. And a container's terminal does not follow the size that is set over the
//! control socket, since nobody signals the process between; so its size is set inside.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Reply};
use super::websocket::{Socket, connect};
use super::{exec, guests};
use crate::{Console, ConsoleInput, ConsoleKind, Error, GuestKind, GuestRef, Result};

/// Messages that wait for either side: enough that a burst of output does not stop and go.
const WAITING: usize = 32;
/// How long `stty` may take.
const SIZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters in a line, and lines.
type Size = (u16, u16);

/// Opens the console. Incus has one for each guest: whoever holds it loses it to us.
pub(super) async fn open(client: &Client, guest: &GuestRef) -> Result<Console> {
    let instance = guests::require_running(client, guest).await?;
    let body = json!({"type": "console", "force": true});
    let Reply::Operation(operation) =
        client.send(Method::POST, &["instances", &instance.name, "console"], Some(&body)).await?
    else {
        return Err(Error::Failed("Incus opened a console without an operation".to_owned()));
    };
    // Control first: Incus attaches to the guest as soon as the other one is there.
    let control = connect(client, &operation, "control").await?;
    let data = connect(client, &operation, "0").await?;
    let (output, shown) = mpsc::channel(WAITING);
    let (typed, input) = mpsc::channel(WAITING);
    let (size, sizes) = watch::channel((0, 0));
    if guest.kind == GuestKind::Lxc {
        tokio::spawn(follow(client.clone(), guest.clone(), sizes));
    }
    tokio::spawn(carry(data, control, output, input, size));
    Ok(Console { kind: ConsoleKind::Text, output: shown, input: typed })
}

/// Carries bytes until either side has had enough. Dropping the sockets, the one for control among them, makes Incus let
/// go of the guest's terminal.
async fn carry(
    data: Socket,
    mut control: Socket,
    output: mpsc::Sender<bytes::Bytes>,
    mut input: mpsc::Receiver<ConsoleInput>,
    size: watch::Sender<Size>,
) {
    let (mut to_guest, mut from_guest) = data.split();
    let reading = async {
        while let Some(Ok(message)) = from_guest.next().await {
            let sent = match message {
                Message::Binary(bytes) => output.send(bytes).await,
                // A text message is Incus's end of the stream.
                Message::Text(_) | Message::Close(_) => break,
                _ => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
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
        () = reading => {}
        () = writing => {}
    }
}

/// Sets a container's terminal to the last size asked for, until the console ends. A guest without `stty` keeps its size.
async fn follow(client: Client, guest: GuestRef, mut sizes: watch::Receiver<Size>) {
    while sizes.changed().await.is_ok() {
        let (columns, rows) = *sizes.borrow_and_update();
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let argv = ["stty", "-F", "/dev/console", "cols", &columns, "rows", &rows];
        if let Err(error) = exec::exec(&client, &guest, &argv, b"", SIZE_TIMEOUT).await {
            tracing::debug!(guest = guest.vmid, %error, "a console's size could not be set");
        }
    }
}
