//! What happens in the database, told to every process: one LISTEN connection, fanned out in memory.
//!
//! An event is a hint to look, never the only way to learn: after a lost connection [`Event::Resync`] says so, and
//! every listener also looks by itself from time to time.

use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::ids::{HostId, ServerId, UserId};

/// Something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An operation waits to be worked on.
    OperationDue,
    /// An operation's visible state changed.
    OperationChanged(Uuid),
    /// A host was swept and its samples are stored.
    Sampled(HostId),
    /// A mail waits to be sent.
    MailDue,
    /// A token was revoked or changed.
    TokenChanged(Uuid),
    /// A login ended.
    SessionChanged(Uuid),
    /// An account was disabled or its role changed.
    UserChanged(UserId),
    /// A server's status or owner changed, or it was suspended or deleted.
    ServerChanged(ServerId),
    /// Events may have been missed: look at everything again.
    Resync,
}

/// PostgreSQL's channels that we listen to.
const CHANNELS: [&str; 7] =
    ["operation_due", "operation_changed", "sampled", "mail_due", "auth_changed", "server_changed", "heartbeat"];

/// How often we say something ourselves.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Nothing heard for this long, not even that: the connection is dead, though nobody said so (a firewall that forgot
/// it, a machine that lost its power).
const SILENCE: Duration = Duration::from_mins(1);

impl Event {
    fn parse(channel: &str, payload: &str) -> Option<Self> {
        match channel {
            "operation_due" => Some(Self::OperationDue),
            "operation_changed" => payload.parse().ok().map(Self::OperationChanged),
            "sampled" => payload.parse().ok().map(Self::Sampled),
            "server_changed" => payload.parse().ok().map(Self::ServerChanged),
            "mail_due" => Some(Self::MailDue),
            "auth_changed" => match payload.split_once(':')? {
                ("token", id) => id.parse().ok().map(Self::TokenChanged),
                ("session", id) => id.parse().ok().map(Self::SessionChanged),
                ("user", id) => id.parse().ok().map(Self::UserChanged),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Where to hear of events.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(4096))
    }
}

impl Events {
    /// Hears events from now on. Call it before reading the state that the events are about.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }

    /// Tells this process' listeners.
    pub fn publish(&self, event: Event) {
        // No listener is no error.
        let _ = self.0.send(event);
    }
}

/// One listener's place in the stream.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Event>);

impl Subscription {
    /// The next event. A listener that fell behind gets [`Event::Resync`].
    pub async fn next(&mut self) -> Event {
        match self.0.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => Event::Resync,
            // The sender lives in the App, which outlives its tasks.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Listens until shutdown, coming back by itself when the database was away.
pub async fn listen(app: &App) {
    loop {
        let result = tokio::select! {
            () = app.shutdown.cancelled() => Ok(()),
            result = follow(app) => result,
        };
        // Whoever is deaf must not go by what was true before.
        app.tokens.hear(false);
        let pause = match result {
            // What is said until it is back is lost, which the resync to come tells.
            Ok(()) => Duration::from_millis(50),
            Err(error) => {
                tracing::warn!(%error, "the database's events can't be heard; trying again");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Listens until the connection breaks.
async fn follow(app: &App) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&db::listening_pool(&app.db)).await?;
    // We connect again ourselves, after everybody has been told that nothing is heard.
    listener.eager_reconnect(false);
    listener.listen_all(CHANNELS).await?;
    app.tokens.hear(true);
    app.events.publish(Event::Resync);
    tokio::select! {
        heard = hear(app, &mut listener) => heard,
        () = beat(app) => Ok(()),
    }
}

/// Says something from time to time, for [`hear`] to hear that its connection lives.
async fn beat(app: &App) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let said = tokio::time::timeout(HEARTBEAT, app.lease_db.execute("notify heartbeat")).await;
        if let Ok(Err(error)) = said {
            tracing::debug!(%error, "no heartbeat could be sent");
        }
    }
}

/// Passes on what is said, until the connection breaks or has been silent for too long.
async fn hear(app: &App, listener: &mut PgListener) -> sqlx::Result<()> {
    let silent =
        |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "nothing was heard for a minute"));
    while let Some(n) = tokio::time::timeout(SILENCE, listener.try_recv()).await.map_err(silent)?? {
        if n.channel() == "heartbeat" {
            continue;
        }
        let Some(event) = Event::parse(n.channel(), n.payload()) else {
            tracing::warn!(channel = n.channel(), "an event could not be read");
            // It may have been a revocation.
            app.tokens.empty();
            continue;
        };
        if matches!(event, Event::TokenChanged(_) | Event::SessionChanged(_) | Event::UserChanged(_)) {
            app.tokens.empty();
        }
        app.events.publish(event);
    }
    Ok(())
}
