//! Notifications from the database for every process: one LISTEN connection, fanned out in memory.
//!
//! An event is a hint to check, never the only source: after a lost connection there is an [`Event::Resync`], and every
//! listener also polls from time to time.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::PgListener;
use tokio::sync::broadcast;

use crate::core::Core;
use crate::db;

/// A channel on which the database says that something changed, with what is said on it.
#[derive(Debug)]
pub struct Topic<T> {
    /// PostgreSQL's channel.
    pub channel: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Topic<T> {
    /// A topic of this channel, whose payloads are read by `parse`.
    pub const fn new(channel: &'static str, parse: fn(&str) -> Option<T>) -> Self {
        Self { channel, parse }
    }

    /// What an event says, where it is on this topic and can be read.
    pub fn read(&self, event: &Event) -> Option<T> {
        let Event::Notified { channel, payload } = event else { return None };
        if *channel != self.channel {
            return None;
        }
        let read = (self.parse)(payload);
        if read.is_none() {
            tracing::warn!(channel, "a notification could not be read");
        }
        read
    }

    /// Whether an event is on this topic.
    pub fn is(&self, event: &Event) -> bool {
        matches!(event, Event::Notified { channel, .. } if *channel == self.channel)
    }
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The database said so, on a topic's channel.
    Notified {
        /// The channel.
        channel: &'static str,
        /// What was said.
        payload: Arc<str>,
    },
    /// Events may have been missed: recheck everything.
    Resync,
}

/// Notified before events are passed on: revoked rights have to be gone before others react.
pub trait Listener: Debug + Send + Sync {
    /// Whether events arrive from now on.
    fn heard(&self, heard: bool);

    /// An event is about to be passed on.
    fn event(&self, event: &Event);
}

/// The channel of our own heartbeats, which show that the connection is alive.
const HEARTBEAT_CHANNEL: &str = "heartbeat";
/// How often.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// If nothing, not even that, has arrived for this long, the connection is dead although it has not been closed (a
/// firewall that lost its state, a machine that lost power).
const SILENCE: Duration = Duration::from_mins(1);

/// The stream of events.
#[derive(Debug)]
pub struct Events {
    sender: broadcast::Sender<Event>,
    listeners: Mutex<Vec<Arc<dyn Listener>>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(4096), listeners: Mutex::default() }
    }
}

impl Events {
    /// Receives events from now on. Call it before reading the state that the events are about.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.sender.subscribe())
    }

    /// Tells this one of every event before any subscriber.
    pub fn add_listener(&self, listener: Arc<dyn Listener>) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Tells this process' listeners and subscribers.
    pub fn publish(&self, event: Event) {
        self.each_listener(|listener| listener.event(&event));
        // No subscriber is no error.
        let _ = self.sender.send(event);
    }

    fn heard(&self, heard: bool) {
        self.each_listener(|listener| listener.heard(heard));
    }

    fn each_listener(&self, tell: impl Fn(&dyn Listener)) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|listener| tell(&**listener));
    }
}

/// One listener's position in the stream.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Event>);

impl Subscription {
    /// The next event. A listener that fell behind gets [`Event::Resync`].
    pub async fn next(&mut self) -> Event {
        match self.0.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => Event::Resync,
            // The sender lives in the core, which outlives its tasks.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// The next event on a topic: what it says, or none where events may have been missed or one can't be read.
    pub async fn next_of<T>(&mut self, topic: &Topic<T>) -> Option<T> {
        loop {
            match self.next().await {
                Event::Resync => return None,
                event if topic.is(&event) => return topic.read(&event),
                Event::Notified { .. } => {}
            }
        }
    }
}

/// Listens until shutdown, reconnecting after the database was unreachable.
pub async fn listen(core: &Core, channels: &[&'static str]) {
    loop {
        let result = tokio::select! {
            () = core.shutdown.cancelled() => Ok(()),
            result = follow(core, channels) => result,
        };
        // A process that receives no notifications must not rely on cached tokens.
        core.events.heard(false);
        let pause = match result {
            // Notifications until the reconnect are lost; the resync that follows makes up for them.
            Ok(()) => Duration::from_millis(50),
            Err(error) => {
                tracing::warn!(%error, "cannot listen for database notifications; retrying");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Listens until the connection breaks.
async fn follow(core: &Core, channels: &[&'static str]) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&db::listening_pool(&core.db)).await?;
    // We reconnect ourselves, after everyone has learned that notifications are missing.
    listener.eager_reconnect(false);
    listener.listen_all(channels.iter().copied().chain([HEARTBEAT_CHANNEL])).await?;
    core.events.heard(true);
    core.events.publish(Event::Resync);
    tokio::select! {
        heard = receive(core, channels, &mut listener) => heard,
        () = ping(core) => Ok(()),
    }
}

/// Sends a notification from time to time, so that [`receive`] knows that its connection is alive.
async fn ping(core: &Core) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let said = tokio::time::timeout(HEARTBEAT, core.lease_db.execute("notify heartbeat")).await;
        if let Ok(Err(error)) = said {
            tracing::debug!(%error, "cannot send a heartbeat");
        }
    }
}

/// Forwards notifications until the connection breaks or has been silent for too long.
async fn receive(core: &Core, channels: &[&'static str], listener: &mut PgListener) -> sqlx::Result<()> {
    let silent = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no notification for a minute"));
    while let Some(n) = tokio::time::timeout(SILENCE, listener.try_recv()).await.map_err(silent)?? {
        // Ours, or one that nobody asked for.
        let Some(channel) = channels.iter().find(|channel| **channel == n.channel()) else { continue };
        core.events.publish(Event::Notified { channel, payload: n.payload().into() });
    }
    Ok(())
}
