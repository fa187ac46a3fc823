//! Thousands of Socket.IO clients: just enough of Engine.IO 4 over WebSocket to watch a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures_util::stream::{self, SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Concurrent connection attempts.
const AT_ONCE: usize = 32;
/// Prefix of a message with stats.
const STATS: &str = "42[\"server-stats\",";

type Socket = WebSocketStream<TcpStream>;

/// A client and the server that it watches.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    pub token: String,
    pub server: i64,
}

/// A stats message as received by a client.
#[derive(Debug)]
pub(crate) struct Seen {
    pub server: i64,
    /// The uptime in it, which identifies a benchmark's cycle.
    pub uptime: u64,
    pub at: Instant,
    /// The message itself, if it is the client's first.
    pub text: Option<String>,
}

/// Connected clients that watch until they are dropped.
#[derive(Debug)]
pub(crate) struct Crowd {
    seen: mpsc::UnboundedReceiver<anyhow::Result<Seen>>,
    _clients: JoinSet<()>,
}

impl Crowd {
    /// Connects all clients and subscribes each to its server.
    pub(crate) async fn gather(address: SocketAddr, watchers: &[Watcher]) -> anyhow::Result<Self> {
        let (tell, seen) = mpsc::unbounded_channel();
        let entered = stream::iter(watchers)
            .map(|watcher| async move { anyhow::Ok((enter(address, watcher).await?, watcher.server)) });
        let sockets: Vec<_> = entered.buffer_unordered(AT_ONCE).try_collect().await?;
        let mut clients = JoinSet::new();
        let tell = Arc::new(tell);
        for (socket, server) in sockets {
            let tell = Arc::clone(&tell);
            clients.spawn(async move {
                let (out, messages) = socket.split();
                let ended = watch(out, messages, server, &tell).await;
                // If nobody receives this, the benchmark has ended.
                let _ = tell.send(Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("a socket ended"))));
            });
        }
        Ok(Self { seen, _clients: clients })
    }

    /// The next message of any client.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Seen> {
        self.seen.recv().await.context("no client is left")?
    }
}

async fn enter(address: SocketAddr, watcher: &Watcher) -> anyhow::Result<Socket> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // There are thousands in one process: the default buffers would waste memory.
    let config = WebSocketConfig::default().read_buffer_size(16 << 10).write_buffer_size(0);
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let (mut socket, _) = client_async_with_config(url, stream, Some(config)).await?;
    expect(&mut socket, "0{").await?;
    socket.send(Message::text(format!("40{}", json!({ "token": watcher.token })))).await?;
    expect(&mut socket, "40{").await?;
    socket.send(Message::text(format!("420{}", json!(["subscribe-server", watcher.server])))).await?;
    let ack = expect(&mut socket, "430").await?;
    let ack: Value = serde_json::from_str(ack.trim_start_matches("430"))?;
    anyhow::ensure!(ack[0]["status"] == "success", "a subscription was refused: {ack}");
    Ok(socket)
}

/// The next message, which must have this prefix; pings are answered.
async fn expect(socket: &mut Socket, head: &str) -> anyhow::Result<String> {
    loop {
        let message = socket.next().await.context("the socket was closed")??;
        match message.to_text()? {
            "2" => socket.send(Message::text("3")).await?,
            text if text.starts_with(head) => return Ok(text.to_owned()),
            text => anyhow::bail!("expected {head}, got {text}"),
        }
    }
}

async fn watch(
    mut out: SplitSink<Socket, Message>,
    mut messages: SplitStream<Socket>,
    server: i64,
    tell: &mpsc::UnboundedSender<anyhow::Result<Seen>>,
) -> anyhow::Result<()> {
    let mut is_first = true;
    while let Some(message) = messages.next().await {
        let message = message?;
        let at = Instant::now();
        let text = message.to_text()?;
        if text == "2" {
            out.send(Message::text("3")).await?;
        } else if text.starts_with(STATS) {
            let uptime = uptime(text).context("stats without an uptime")?;
            let first = std::mem::take(&mut is_first).then(|| text.to_owned());
            tell.send(Ok(Seen { server, uptime, at, text: first })).ok().context("the receiver is gone")?;
        } else {
            anyhow::bail!("an unexpected message: {text}");
        }
    }
    Ok(())
}

fn uptime(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("\"uptime\":")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The stats in a message, without Socket.IO's framing.
pub(crate) fn figures(text: &str) -> anyhow::Result<Value> {
    let body = text.strip_prefix(STATS).and_then(|text| text.strip_suffix(']')).context("not a stats message")?;
    Ok(serde_json::from_str(body)?)
}
