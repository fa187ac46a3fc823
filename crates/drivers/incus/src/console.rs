//! A guest's text console: the terminal of a container, the serial line of a VM. Incus's graphical consoles speak
//! SPICE, which our console page does not.
//!
//! Two peculiarities of Incus: when a console is released, Incus sends it a terminal reset (Esc c), which a login
//! prompt takes for the start of a user name. And a container's terminal does not follow the size set over the
//! control socket, since the process in between gets no signal; so the size is set inside the guest.

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

/// Messages buffered in each direction, so that a burst of output does not stutter.
const WAITING: usize = 32;
/// What Incus prints where the previous holder has not released the console yet; how often to try again, and how long
/// to wait before.
const REFUSED: &[u8] = b"Error: Failed running forkconsole";
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(300);
/// How many bytes of a console's log are read.
const LOG_END: usize = 16 << 10;
/// How often an empty log is read again.
const LOG_TRIES: u32 = 8;
const SIZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Columns and rows.
type TtySize = (u16, u16);

#[async_trait]
impl Consoles for Incus {
    /// Incus has one console per guest: we take it from whoever holds it.
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

    /// The end of the console's log, which Incus keeps for stopped guests too. It writes the log a moment after the
    /// guest has stopped, so an empty one is read again.
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
    // There is no log yet, or it is empty and has no such range.
    if !response.status().is_success() {
        return Ok(Bytes::new());
    }
    response.bytes().await.map_err(|e| transport(&e, false))
}

/// The control socket and the data socket.
async fn attach(client: &Client, instance: &str) -> Result<(Socket, Socket)> {
    let body = json!({"type": "console", "force": true});
    let Reply::Operation(operation) =
        client.send(Method::POST, &["instances", instance, "console"], Some(&body)).await?
    else {
        return Err(Error::Failed("Incus opened a console without returning an operation".to_owned()));
    };
    // Control first: Incus attaches to the guest as soon as the data socket is open.
    let control = connect(client, &operation, "control").await?;
    let data = connect(client, &operation, "0").await?;
    Ok((control, data))
}

/// Relays until either side closes, over a new attachment where Incus refused this one.
async fn hold(
    client: Client,
    instance: String,
    mut sockets: (Socket, Socket),
    output: mpsc::Sender<Bytes>,
    mut input: mpsc::Receiver<ConsoleInput>,
    size: watch::Sender<TtySize>,
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
            Err(error) => return tracing::debug!(instance, %error, "could not reattach to a console"),
        };
    }
}

/// Relays until either side closes; returns Incus's message where it refused. Dropping the sockets, the control socket
/// among them, makes Incus release the guest's terminal.
async fn carry(
    (mut control, data): (Socket, Socket),
    output: &mpsc::Sender<Bytes>,
    input: &mut mpsc::Receiver<ConsoleInput>,
    size: &watch::Sender<TtySize>,
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
                // Incus ends the stream with a text message.
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

/// Sets a container's terminal to the size last asked for, until the console ends. A guest without `stty` keeps its
/// size.
async fn follow_size(incus: Incus, guest: GuestRef, mut sizes: watch::Receiver<TtySize>) {
    while sizes.changed().await.is_ok() {
        let (columns, rows) = *sizes.borrow_and_update();
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let argv = ["stty", "-F", "/dev/console", "cols", &columns, "rows", &rows];
        if let Err(error) = incus.exec(&guest, &argv, b"", SIZE_TIMEOUT).await {
            tracing::debug!(guest = guest.vmid, %error, "could not set a console's size");
        }
    }
}
