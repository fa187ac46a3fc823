//! A connection for a single command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect, client};
use tokio::net::TcpStream;

use super::{HostKeyOwner, KnownHosts};
use crate::{Error, ExecOutput};

/// Time limit for connecting to one machine, from the first packet to the end of signing in.
pub(super) const SIGN_IN: Duration = Duration::from_secs(5);
/// How much of each output stream is kept.
const KEPT: usize = 1 << 20;

/// Why there is no output.
#[derive(Debug)]
pub(super) enum SessionFailure {
    /// The command was certainly not run.
    NoWay(String),
    /// It was not run: the machine accepted the connection, or didn't react at all, and then said nothing in time.
    Silent(String),
    /// The command did not end in time.
    Late(String),
    /// The connection broke: the command may have been run.
    Lost(String),
    /// An error on our side.
    Ours(Error),
}

/// Runs a command as root and waits up to `timeout` for it to end after signing in, which may itself take `patience`.
#[allow(clippy::too_many_arguments, reason = "who, where, what and how long")]
pub(super) async fn run(
    key: &Arc<PrivateKey>,
    address: SocketAddr,
    machine: HostKeyOwner,
    known: &Arc<dyn KnownHosts>,
    command: String,
    stdin: &[u8],
    patience: Duration,
    timeout: Duration,
) -> Result<ExecOutput, SessionFailure> {
    let late = |_| SessionFailure::Silent(format!("no sign-in within {:.1} s", patience.as_secs_f64()));
    let session = tokio::time::timeout(patience, sign_in(key, address, machine, known)).await.map_err(late)??;
    let late = |_| SessionFailure::Late(format!("the command did not end within {} s", timeout.as_secs()));
    let output = tokio::time::timeout(timeout, command_in(&session, command, stdin)).await.map_err(late);
    // Disconnecting is a courtesy, and skipped if the machine hangs: the connection ends either way.
    if output.is_ok() {
        let _ = session.disconnect(Disconnect::ByApplication, "", "en").await;
    }
    output?
}

async fn sign_in(
    key: &Arc<PrivateKey>,
    address: SocketAddr,
    machine: HostKeyOwner,
    known: &Arc<dyn KnownHosts>,
) -> Result<client::Handle<HostKeyCheck>, SessionFailure> {
    let no_way = |e: &dyn std::fmt::Display| SessionFailure::NoWay(e.to_string());
    let stream = TcpStream::connect(address).await.map_err(|e| no_way(&e))?;
    let guard = HostKeyCheck { machine, known: Arc::clone(known) };
    let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
    let mut session = client::connect_stream(config, stream, guard).await.map_err(|trouble| match trouble {
        ConnectError::Ssh(error) => no_way(&error),
        ConnectError::Another => SessionFailure::NoWay(
            "it shows another host key than before; if that is expected, remove the stored key".to_owned(),
        ),
        ConnectError::Ours(error) => SessionFailure::Ours(error),
    })?;
    let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
    let answer = session.authenticate_publickey("root", key).await.map_err(|e| no_way(&e))?;
    match answer.success() {
        true => Ok(session),
        false => Err(SessionFailure::NoWay("root can't sign in with the management key".to_owned())),
    }
}

async fn command_in(
    session: &client::Handle<HostKeyCheck>,
    command: String,
    stdin: &[u8],
) -> Result<ExecOutput, SessionFailure> {
    let no_way = |e: russh::Error| SessionFailure::NoWay(e.to_string());
    let channel = session.channel_open_session().await.map_err(no_way)?;
    let lost = |e: russh::Error| SessionFailure::Lost(e.to_string());
    channel.exec(true, command).await.map_err(lost)?;
    let (mut reader, writer) = channel.split();
    let write = async {
        // A command that does not read its input may have closed it: its output is what counts.
        if writer.data(stdin).await.is_ok() {
            let _ = writer.eof().await;
        }
    };
    let read = async {
        let (mut stdout, mut stderr, mut status) = (Vec::new(), Vec::new(), None);
        while let Some(message) = reader.wait().await {
            match message {
                ChannelMsg::Data { data } => keep(&mut stdout, &data),
                ChannelMsg::ExtendedData { data, .. } => keep(&mut stderr, &data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                ChannelMsg::Failure => return Err(SessionFailure::NoWay("the server runs no commands".to_owned())),
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        let ended = status.and_then(|s| i32::try_from(s).ok());
        let status =
            ended.ok_or_else(|| SessionFailure::Lost("the connection broke before the command's end".to_owned()))?;
        Ok(ExecOutput { status, stdout, stderr })
    };
    // The command's end counts, whether or not it has read all of its input.
    tokio::pin!(read);
    tokio::select! {
        output = &mut read => return output,
        () = write => {}
    }
    read.await
}

fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = KEPT - kept.len();
    kept.extend_from_slice(&data[..data.len().min(room)]);
}

/// Accepts only the expected machine.
#[derive(Debug)]
struct HostKeyCheck {
    machine: HostKeyOwner,
    known: Arc<dyn KnownHosts>,
}

/// Why a connection failed.
#[derive(Debug)]
enum ConnectError {
    Ssh(russh::Error),
    /// Its host key has changed.
    Another,
    Ours(Error),
}

impl From<russh::Error> for ConnectError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for HostKeyCheck {
    type Error = ConnectError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, ConnectError> {
        let mut key = shown.public_key();
        key.set_comment("");
        let line = key.to_openssh().map_err(|e| ConnectError::Ssh(russh::Error::Keys(e.into())))?;
        match self.known.is_known(&self.machine, &line).await {
            Ok(true) => Ok(true),
            Ok(false) => Err(ConnectError::Another),
            Err(error) => Err(ConnectError::Ours(error)),
        }
    }
}
