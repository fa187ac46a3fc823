//! What our proxy adds to a console: the time from a key to its echo over the page's WebSocket, next to the driver's
//! own console of the same container.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hypervisor::{Console, ConsoleInput, GuestKind, GuestRef};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use crate::create::Shop;
use crate::house::House;
use crate::lab::Lab;
use crate::report::{Report, Row, say};
use crate::stats::quantile;

/// Keys per side and round: few enough for one line.
const KEYS: usize = 100;
/// Rounds per side.
const ROUNDS: usize = 5;
/// Keys that are pressed first and not counted.
const WARM_UP: usize = 20;
/// How long the guest may take to show its login prompt.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::from_env()?;
    let house = House::open(Some(&lab)).await?;
    let measured = rounds(&house, &lab, report).await;
    house.close().await.and(measured)
}

async fn rounds(house: &House, lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let shop = Shop::open(house, lab).await?;
    let (server, _) = shop.buy(house).await?;
    let (marker, vmid): (Uuid, i64) = sqlx::query_as("select uuid, guest_number from servers where id = $1")
        .bind(server["id"].as_i64())
        .fetch_one(&house.app.core.db)
        .await?;
    let guest = GuestRef { marker, vmid, kind: GuestKind::Lxc, node: String::new() };
    let driver = lab.driver()?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        // One after another: a guest has only one console.
        let mine = echoes(&mut Page::open(house, &shop.customer, vmid).await?).await?;
        let peer = echoes(&mut driver.console(&guest).await?).await?;
        let middle = |times: &[f64]| quantile(times, 0.5);
        say(&format!("echo {round}/{ROUNDS}: ours {:.3} ms, the host's own {:.3} ms", middle(&mine), middle(&peer)));
        ours.extend(mine);
        peers.extend(peer);
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("console: a key until its echo: {name}");
        let (ours, peer) = (quantile(&ours, share), quantile(&peers, share));
        report.add(Row {
            remark: format!("{:.3} ms added", ours - peer),
            ..Row::cost(&name, "ms", ours, peer, "the host's console, same container")
        });
    }
    shop.give_back(house, &server).await
}

/// Either side's console.
trait Terminal {
    async fn press(&mut self, keys: &'static [u8]) -> anyhow::Result<()>;
    async fn shown(&mut self) -> anyhow::Result<Bytes>;
}

impl Terminal for Console {
    async fn press(&mut self, keys: &'static [u8]) -> anyhow::Result<()> {
        Ok(self.input.send(ConsoleInput::Data(Bytes::from_static(keys))).await?)
    }

    async fn shown(&mut self) -> anyhow::Result<Bytes> {
        self.output.recv().await.context("the console ended")
    }
}

/// What our page does, without the display.
struct Page(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Page {
    async fn open(house: &House, token: &str, vmid: i64) -> anyhow::Result<Self> {
        let answer = house.post("/api/server/console", Some(token), &json!({ "vmid": vmid })).await?;
        let (page, ticket) = answer["url"].as_str().and_then(|url| url.split_once('#')).context("no ticket")?;
        let mut request = format!("ws://{}/console/socket", house.address).into_client_request()?;
        let origin = page.strip_suffix("/console/").context("the URL is not the console page's")?;
        request.headers_mut().insert("origin", origin.parse()?);
        let (mut socket, _) = connect_async(request).await?;
        socket.send(Message::text(json!({ "type": "open", "ticket": ticket }).to_string())).await?;
        let mut page = Self(socket);
        loop {
            let Message::Text(text) = page.next().await? else { continue };
            if serde_json::from_str::<Value>(&text)?["type"] == "ready" {
                break;
            }
        }
        Ok(page)
    }

    async fn next(&mut self) -> anyhow::Result<Message> {
        Ok(timeout(PATIENCE, self.0.next()).await?.context("the socket ended")??)
    }
}

impl Terminal for Page {
    async fn press(&mut self, keys: &'static [u8]) -> anyhow::Result<()> {
        Ok(self.0.send(Message::Binary(Bytes::from_static(keys))).await?)
    }

    async fn shown(&mut self) -> anyhow::Result<Bytes> {
        loop {
            match self.next().await? {
                Message::Binary(bytes) => return Ok(bytes),
                Message::Close(frame) => anyhow::bail!("the console was closed: {frame:?}"),
                _ => {}
            }
        }
    }
}

/// Milliseconds from a key to its echo at the login prompt.
async fn echoes(terminal: &mut impl Terminal) -> anyhow::Result<Vec<f64>> {
    timeout(PATIENCE, prompt(terminal)).await.context("the guest never showed a login prompt")??;
    let mut times = Vec::with_capacity(KEYS);
    for key in 0..WARM_UP + KEYS {
        let start = Instant::now();
        terminal.press(b"x").await?;
        while !timeout(PATIENCE, terminal.shown()).await??.contains(&b'x') {}
        if key >= WARM_UP {
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    // Leave an empty line for the next user.
    terminal.press(b"\x15").await?;
    Ok(times)
}

async fn prompt(terminal: &mut impl Terminal) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    loop {
        terminal.press(b"\r").await?;
        while let Ok(bytes) = timeout(Duration::from_secs(1), terminal.shown()).await {
            seen.extend_from_slice(&bytes?);
        }
        if String::from_utf8_lossy(&seen).trim_end().ends_with("login:") {
            return Ok(());
        }
    }
}
