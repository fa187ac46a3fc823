//! A guest's text console: its terminal for a container, its serial line for a VM. Incus's screens speak SPICE, which
//! no browser page of ours does.

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Reply};
use super::guests;
use super::websocket::{Socket, connect};
use crate::{Console, ConsoleInput, ConsoleKind, Error, GuestRef, Result};

/// Messages that wait for either side: enough that a burst of output does not stop and go.
const WAITING: usize = 32;

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
    tokio::spawn(carry(data, control, output, input));
    Ok(Console { kind: ConsoleKind::Text, output: shown, input: typed })
}

/// Carries bytes until either side has had enough. Dropping the sockets, the one for control among them, makes Incus let
/// go of the guest's terminal.
async fn carry(
    data: Socket,
    mut control: Socket,
    output: mpsc::Sender<bytes::Bytes>,
    mut input: mpsc::Receiver<ConsoleInput>,
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
                    let size = json!({"width": columns.to_string(), "height": rows.to_string()});
                    let resize = json!({"command": "window-resize", "args": size});
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
