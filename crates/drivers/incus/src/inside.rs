//! Inside a running guest: commands, over Incus's exec websockets (one each for stdin, stdout, stderr and control),
//! root's password, interfaces.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use hypervisor::{Error, ExecOutput, GuestPower, GuestRef, Inside, Interface, Result, check};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use crate::api::{IncusOperation, InstanceState};
use crate::client::{Client, Reply, failure};
use crate::websocket::{Socket, connect};
use crate::{Incus, lookup, power, traffic};

/// How much of an output is kept; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 1 << 20;
/// Size of stdin messages.
const CHUNK: usize = 32 << 10;
/// `chpasswd` is quick, and the caller holds a worker meanwhile: one that hangs is given up.
const PASSWORD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a command may take to exit after it has closed its outputs, on top of its own timeout.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);
const STREAMS_TIMEOUT: Duration = Duration::from_secs(10);

#[async_trait]
impl Inside for Incus {
    async fn exec(&self, guest: &GuestRef, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<ExecOutput> {
        let client = &self.client;
        check::command(argv)?;
        let instance = lookup::require_running(client, guest).await?;
        let body = json!({
            "command": argv,
            "environment": {
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LANG": "C.UTF-8",
            },
            "wait-for-websocket": true,
            "interactive": false,
            "record-output": false,
            "cwd": "/root",
        });
        let Reply::Operation(operation) =
            client.send(Method::POST, &["instances", &instance.name, "exec"], Some(&body)).await?
        else {
            return Err(Error::Failed("Incus ran a command without returning an operation".to_owned()));
        };
        let slow = |_| Error::OutcomeUnknown(format!("the streams of {} did not open", argv[0]));
        let streams =
            tokio::time::timeout(STREAMS_TIMEOUT, ExecStreams::open(client, &operation)).await.map_err(slow)??;
        // From here on a delay is the guest's.
        let deadline = Instant::now() + timeout;
        let hung = || Error::GuestHung(format!("{} did not end within {} s", argv[0], timeout.as_secs()));
        // Dropping the sockets, including the control socket, makes Incus kill the command.
        let (stdout, stderr) = timeout_at(deadline, streams.run(stdin)).await.map_err(|_| hung())?;
        let left = deadline.saturating_duration_since(Instant::now());
        let ended = client.wait(&operation.id, left.max(LAST_TIMEOUT)).await.map_err(|error| match error {
            // The command's exit can come back as an error of the wait.
            Error::Invalid(text) | Error::Failed(text) => not_run(argv[0], &text),
            other => other,
        })?;
        let status = ended.metadata.as_ref().and_then(|m| m.get("return")).and_then(Value::as_i64);
        match status.and_then(|status| i32::try_from(status).ok()) {
            // It has closed its outputs and keeps running.
            _ if ended.is_running() => Err(hung()),
            _ if !ended.is_success() => Err(not_run(argv[0], &ended.err)),
            Some(status) => Ok(ExecOutput { status, stdout, stderr }),
            None => Err(Error::Failed(format!("no exit status of {}", argv[0]))),
        }
    }

    async fn set_password(&self, guest: &GuestRef, password: &SecretString) -> Result<()> {
        check::password(password)?;
        let line = SecretString::from(format!("root:{}\n", password.expose_secret()));
        let output = self.exec(guest, &["chpasswd"], line.expose_secret().as_bytes(), PASSWORD_TIMEOUT).await?;
        if output.status == 0 {
            Ok(())
        } else {
            power::has_room(&self.client, &lookup::name(guest)).await?;
            // Its output could quote the password, so it is not passed on.
            Err(Error::Failed(format!("chpasswd exited with status {}", output.status)))
        }
    }

    async fn interfaces(&self, guest: &GuestRef) -> Result<Vec<Interface>> {
        let client = &self.client;
        let instance = lookup::require(client, guest).await?;
        let state: InstanceState = client.get(&["instances", &instance.name, "state"], &[]).await?;
        if state.power() != GuestPower::Running {
            return Ok(Vec::new());
        }
        let networks = state.network.unwrap_or_default();
        Ok(traffic::shown(networks)
            .map(|(name, network)| Interface {
                name,
                mac: network.hwaddr,
                addresses: network.addresses.iter().filter_map(|a| a.address.parse::<IpAddr>().ok()).collect(),
            })
            .collect())
    }
}

/// The command could not be started.
fn not_run(program: &str, text: &str) -> Error {
    if text.to_lowercase().contains("command not found") || text.to_lowercase().contains("not executable") {
        Error::NotFound(format!("{program} in the guest"))
    } else {
        failure(text)
    }
}

/// The streams of a command, which starts once they are open.
struct ExecStreams {
    control: Socket,
    input: Socket,
    output: Socket,
    errors: Socket,
}

impl ExecStreams {
    async fn open(client: &Client, operation: &IncusOperation) -> Result<Self> {
        // Control first: Incus starts the command as soon as the other three are open.
        let control = connect(client, operation, "control").await?;
        let input = connect(client, operation, "0").await?;
        let output = connect(client, operation, "1").await?;
        let errors = connect(client, operation, "2").await?;
        Ok(Self { control, input, output, errors })
    }

    async fn run(self, stdin: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let Self { control, input, output, errors } = self;
        let reading = async { tokio::join!(read(output), read(errors)) };
        tokio::pin!(reading);
        let writing = write(input, stdin);
        tokio::pin!(writing);
        // A command that exits without reading its stdin must not block us: the end of its outputs counts. The input
        // socket stays open until then, since Incus could take a closed one for a client that went away.
        let mut input = None;
        let done = loop {
            tokio::select! {
                done = &mut reading => break done,
                socket = &mut writing, if input.is_none() => input = Some(socket),
            }
        };
        drop((control, input));
        done
    }
}

/// Sends all of stdin and its end, and keeps the socket open. It is not an error if the command has closed its stdin.
async fn write(mut socket: Socket, stdin: &[u8]) -> Socket {
    for chunk in stdin.chunks(CHUNK) {
        if socket.send(Message::binary(chunk.to_vec())).await.is_err() {
            return socket;
        }
    }
    // A text message is the end of the stream.
    let _ = socket.send(Message::text("")).await;
    socket
}

/// Reads an output to its end and keeps at most [`OUTPUT_LIMIT`].
async fn read(mut socket: Socket) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Binary(bytes)) => {
                let room = OUTPUT_LIMIT - kept.len();
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            // The command's end may also show as a closed connection; the exit status, which is read next, tells
            // whether it was one.
            Ok(Message::Text(_) | Message::Close(_)) | Err(_) => break,
            Ok(_) => {}
        }
    }
    kept
}
