//! One console connection, from its ticket to its close frame.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use accounts::AUTH_CHANGED;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hypervisor::{Console, ConsoleInput, ConsoleKind};
use kernel::events::{Event, Subscription};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::Consoles;
use super::model::{ClientMessage, CloseReason, PageKind, ServerMessage, ServerTitle, WindowSize};
use super::rfb;
use super::service::{self, ConsoleSession};
use crate::servers::SERVER_CHANGED;

/// The maximum size of a message, in bytes: the page splits large pastes.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;
/// A message's cost in addition to its bytes: many small ones are as much work.
const MESSAGE_COST: usize = 64;
/// How long the first message, and a graphical console's handshake, may take.
const GREETING: Duration = Duration::from_secs(10);
/// How often the client is pinged.
const PING: Duration = Duration::from_secs(25);
/// Without any message for this long, not even a pong, the client counts as gone.
const SILENCE: Duration = Duration::from_secs(75);
/// How often a console records that it is alive, and checks whether it may stay open.
const BEAT: Duration = Duration::from_secs(30);
/// How long a client may take to receive the reason for the close.
const PARTING: Duration = Duration::from_secs(5);

type Sink = SplitSink<WebSocket, Message>;
type Stream = SplitStream<WebSocket>;

/// Serves one socket to its end, and sends the reason for it.
pub(super) async fn serve(consoles: Arc<Consoles>, address: IpAddr, socket: WebSocket) {
    // Subscribed before the first check, so that no loss of access is missed.
    let events = consoles.core.events.subscribe();
    let (mut sink, mut stream) = socket.split();
    let end = match enter(&consoles, address, &mut stream).await {
        Ok((visit, size)) => {
            metrics::gauge!("innkeeper_consoles").increment(1);
            let (user, server) = (visit.caller.user.0, visit.server.id.0);
            tracing::info!(user, server, %address, console = %visit.held.id, "a console was opened");
            let end = run_session(&consoles, &visit, size, events, &mut sink, &mut stream).await;
            service::disconnect(&consoles, visit.held, &end).await;
            tracing::info!(user, server, console = %visit.held.id, code = end.code, "a console was closed");
            metrics::gauge!("innkeeper_consoles").decrement(1);
            end
        }
        Err(end) => end,
    };
    let frame = CloseFrame { code: end.code, reason: end.words.as_ref().into() };
    let parting = async {
        let _ = sink.send(Message::Close(Some(frame))).await;
        // Waits for the client's close frame, so that a reset loses nothing that was sent.
        while let Some(Ok(_)) = stream.next().await {}
    };
    let _ = timeout(PARTING, parting).await;
}

/// Reads the first message and uses up its ticket.
async fn enter(
    consoles: &Consoles,
    address: IpAddr,
    stream: &mut Stream,
) -> Result<(ConsoleSession, Option<WindowSize>), CloseReason> {
    let first = timeout(GREETING, stream.next()).await.map_err(|_| CloseReason::NONSENSE)?;
    let Some(Ok(Message::Text(text))) = first else { return Err(CloseReason::NONSENSE) };
    let Ok(ClientMessage::Open { ticket, size }) = serde_json::from_str(&text) else {
        return Err(CloseReason::NONSENSE);
    };
    Ok((service::redeem(consoles, &ticket, address).await?, size))
}

async fn run_session(
    consoles: &Consoles,
    visit: &ConsoleSession,
    size: Option<WindowSize>,
    events: Subscription,
    sink: &mut Sink,
    stream: &mut Stream,
) -> CloseReason {
    let used = Mutex::new(Instant::now());
    let watching = watch(consoles, visit, events, &used);
    let carrying = async {
        match begin(consoles, visit, size, sink, stream).await {
            Ok((console, early)) => carry(consoles, visit, console, early, sink, stream, &used).await,
            Err(end) => end,
        }
    };
    tokio::select! {
        end = carrying => end,
        end = watching => end,
    }
}

/// Opens the console on the host and sends the page its kind. Input that the page has already sent is passed on.
async fn begin(
    consoles: &Consoles,
    visit: &ConsoleSession,
    size: Option<WindowSize>,
    sink: &mut Sink,
    stream: &mut Stream,
) -> Result<(Console, Bytes), CloseReason> {
    // Before the host is asked: it may fail now and work again in a moment.
    send_message(sink, &ServerMessage::Ticket { ticket: visit.ticket.expose_secret() }).await?;
    let mut console = service::open(consoles, &visit.server).await?;
    let password = match &console.kind {
        ConsoleKind::Text => None,
        ConsoleKind::Screen { password } => Some(password.clone()),
    };
    let kind = if password.is_some() { PageKind::Screen } else { PageKind::Text };
    if let Some(Some(password)) = &password {
        sign_in(&mut console, password).await?;
    }
    let server = ServerTitle { id: visit.server.id, vmid: visit.server.guest_number, name: &visit.server.name };
    send_message(sink, &ServerMessage::Ready { kind, server }).await?;
    let early = match password {
        Some(Some(_)) => welcome(sink, stream).await?,
        _ => Bytes::new(),
    };
    if let (PageKind::Text, Some(WindowSize { columns, rows })) = (kind, size) {
        console.input.send(ConsoleInput::Resize { columns, rows }).await.map_err(|_| CloseReason::OVER)?;
    }
    Ok((console, early))
}

async fn sign_in(console: &mut Console, password: &SecretString) -> Result<(), CloseReason> {
    timeout(GREETING, rfb::sign_in(console, password))
        .await
        .unwrap_or_else(|_| Err(CloseReason::HOST.with_text("The host's graphical console does not respond.")))
}

async fn welcome(sink: &mut Sink, stream: &mut Stream) -> Result<Bytes, CloseReason> {
    let mut browser = rfb::BrowserSource { sink, stream };
    let welcomed = timeout(GREETING, rfb::welcome(&mut browser)).await.map_err(|_| CloseReason::NONSENSE)?;
    welcomed.ok_or(CloseReason::LEFT)
}

async fn send_message(sink: &mut Sink, said: &ServerMessage<'_>) -> Result<(), CloseReason> {
    let text = serde_json::to_string(said).map_err(|_| CloseReason::FAILED)?;
    sink.send(Message::text(text)).await.map_err(|_| CloseReason::LEFT)
}

/// Carries bytes both ways until one side has ended.
async fn carry(
    consoles: &Consoles,
    visit: &ConsoleSession,
    console: Console,
    early: Bytes,
    sink: &mut Sink,
    stream: &mut Stream,
    used: &Mutex<Instant>,
) -> CloseReason {
    let Console { kind, output, input } = console;
    let typed = InputForwarder { consoles, input, used, is_text: matches!(kind, ConsoleKind::Text) };
    tokio::select! {
        end = forward_output(output, sink) => match end {
            Some(end) => end,
            None => service::close_reason(consoles, visit).await,
        },
        end = typed.carry(early, stream) => match end {
            Some(end) => end,
            None => service::close_reason(consoles, visit).await,
        },
    }
}

/// Sends the guest's output to the client. A slow client slows down the guest. `None`: the host has closed the console.
async fn forward_output(mut output: mpsc::Receiver<Bytes>, sink: &mut Sink) -> Option<CloseReason> {
    let mut ping = tokio::time::interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            bytes = output.recv() => Message::Binary(bytes?),
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return Some(CloseReason::LEFT);
        }
    }
}

/// The client's input, on its way to the guest.
struct InputForwarder<'a> {
    consoles: &'a Consoles,
    input: mpsc::Sender<ConsoleInput>,
    used: &'a Mutex<Instant>,
    is_text: bool,
}

impl InputForwarder<'_> {
    /// `None`: the host has closed the console.
    async fn carry(&self, early: Bytes, stream: &mut Stream) -> Option<CloseReason> {
        let pace = pace(self.consoles.settings.console_input_kib);
        if !early.is_empty() {
            self.input.send(ConsoleInput::Data(early)).await.ok()?;
        }
        loop {
            let Ok(next) = timeout(SILENCE, stream.next()).await else { return Some(CloseReason::LEFT) };
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) if is_too_large(&error) => return Some(CloseReason::TOO_LARGE),
                Some(Err(_)) | None => return Some(CloseReason::LEFT),
            };
            wait_for_room(&pace, message_len(&message)).await;
            let input = match message {
                Message::Binary(bytes) => {
                    if self.is_text {
                        self.is_active();
                    }
                    ConsoleInput::Data(bytes)
                }
                Message::Text(text) => match serde_json::from_str(&text) {
                    Ok(ClientMessage::Resize(WindowSize { columns: columns @ 1.., rows: rows @ 1.. })) => {
                        ConsoleInput::Resize { columns, rows }
                    }
                    Ok(ClientMessage::Active) => {
                        self.is_active();
                        continue;
                    }
                    _ => return Some(CloseReason::NONSENSE),
                },
                Message::Close(_) => return Some(CloseReason::LEFT),
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            self.input.send(input).await.ok()?;
        }
    }

    fn is_active(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Limits a client's input per second, with a burst of one second's worth. Anything beyond is not refused: it waits in
/// the network.
fn pace(kib: u32) -> DefaultDirectRateLimiter {
    let bytes = kib.saturating_mul(1024).max(u32::try_from(MAX_MESSAGE + MESSAGE_COST).unwrap_or(u32::MAX));
    RateLimiter::direct(Quota::per_second(NonZeroU32::new(bytes).unwrap_or(NonZeroU32::MIN)))
}

async fn wait_for_room(pace: &DefaultDirectRateLimiter, length: usize) {
    let cost = u32::try_from(length + MESSAGE_COST).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    // It could only fail for messages larger than the burst, and no message is that large.
    let _ = pace.until_n_ready(cost).await;
}

fn message_len(message: &Message) -> usize {
    match message {
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Text(text) => text.len(),
        Message::Close(_) => 0,
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    // axum hides tungstenite's error; its message is all that we get.
    std::error::Error::source(error).is_some_and(|e| e.to_string().contains("too long"))
}

/// Ends the console when its maximum duration is reached, when it is idle, or when its user loses access.
async fn watch(
    consoles: &Consoles,
    visit: &ConsoleSession,
    mut events: Subscription,
    used: &Mutex<Instant>,
) -> CloseReason {
    let began = Instant::now();
    let total = Duration::from_secs(consoles.settings.console_total_seconds.into()).saturating_sub(visit.age);
    let idle = Duration::from_secs(consoles.settings.console_idle_seconds.into());
    let last_used = || *used.lock().unwrap_or_else(PoisonError::into_inner);
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let concerns_us = tokio::select! {
            () = consoles.core.shutdown.cancelled() => return CloseReason::RESTARTING,
            () = tokio::time::sleep_until(began + total) => return CloseReason::TIME_OVER,
            () = tokio::time::sleep_until(last_used() + idle) => match last_used() + idle <= Instant::now() {
                true => return CloseReason::IDLE,
                // There was input meanwhile.
                false => false,
            },
            _ = beat.tick() => {
                match service::beat(consoles, visit.held).await {
                    Ok(true) => {}
                    Ok(false) => return CloseReason::TAKEN,
                    Err(error) => tracing::warn!(%error, "could not record a console's heartbeat; retrying"),
                }
                true
            }
            event = events.next() => {
                event == Event::Resync
                    || AUTH_CHANGED.read(&event).is_some_and(|changed| changed.affects(&visit.caller))
                    || SERVER_CHANGED.read(&event) == Some(visit.server.id)
            }
        };
        if concerns_us {
            match service::check_access(consoles, &visit.caller, visit.server.id).await {
                Ok(_) => {}
                // A failed check is no reason to end the console: it is repeated soon.
                Err(end) if end.code == CloseReason::FAILED.code => {}
                Err(end) => return end,
            }
        }
    }
}
