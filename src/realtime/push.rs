//! Pushing: one task reads the state and sends it, so that nobody gets an older state after a newer one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;
use socketioxide::extract::SocketRef;
use socketioxide::{BroadcastError, SocketError, SocketIo};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::model::{ServerAlerts, ServerStats, room, server_of};
use super::sockets::{Desk, held, send};
use super::store;
use crate::app::App;
use crate::error::Result;
use crate::events::{Event, Subscription};
use crate::ids::ServerId;
use crate::monitoring;
use crate::monitoring::Charts;
use crate::monitoring::model::Live;
use crate::operations;
use crate::operations::model::OperationView;

/// New subscribers that are served with one look.
const BATCH: usize = 256;
/// Rooms served before others get a turn.
const BREATH: usize = 32;

/// Pushes until shutdown, then closes every socket.
pub(super) async fn run(
    desk: Arc<Desk>,
    io: SocketIo,
    mut events: Subscription,
    mut greetings: mpsc::Receiver<(SocketRef, ServerId)>,
) {
    let app = &desk.app;
    let mut new = Vec::new();
    let mut charts = Charts::default();
    loop {
        let done = tokio::select! {
            () = app.shutdown.cancelled() => break,
            _ = greetings.recv_many(&mut new, BATCH) => greet(app, std::mem::take(&mut new), &mut charts).await,
            event = events.next() => react(app, &io, event, &mut charts).await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "subscribers could not be told of a change; they get the next one");
        }
    }
    io.close().await;
}

async fn react(app: &App, io: &SocketIo, event: Event, charts: &mut Charts) -> Result<()> {
    // Nobody there is the common case, and costs nothing.
    let rooms = watched(io).await;
    charts.keep(&rooms);
    if rooms.is_empty() {
        return Ok(());
    }
    match event {
        Event::Sampled(host) => {
            tell_stats(io, &monitoring::service::stats_of_host(app, host, &rooms, charts).await?).await;
        }
        Event::OperationChanged(id) => {
            let Some(operation) = operations::service::view(app, id).await? else { return Ok(()) };
            let server = operation.server_id;
            if rooms.contains(&server) {
                tell(io, server, "operation", &operation).await;
                if operation.state.is_ended() {
                    tell_stats(io, &monitoring::service::stats_of(app, &[server], charts).await?).await;
                }
            }
        }
        Event::Resync => {
            charts.clear();
            tell_stats(io, &monitoring::service::stats_of(app, &rooms, charts).await?).await;
            // The latest of each, ended or not: its end may be what was missed.
            for operation in views(app, store::latest_operations(&app.db, &rooms).await?).await? {
                tell(io, operation.server_id, "operation", &operation).await;
            }
        }
        _ => {}
    }
    Ok(())
}

async fn watched(io: &SocketIo) -> Vec<ServerId> {
    match io.rooms().await {
        Ok(rooms) => rooms.iter().filter_map(|r| server_of(r)).collect(),
        Err(never) => match never {},
    }
}

async fn views(app: &App, ids: Vec<Uuid>) -> Result<Vec<OperationView>> {
    let mut views = Vec::with_capacity(ids.len());
    for id in ids {
        views.extend(operations::service::view(app, id).await?);
    }
    Ok(views)
}

/// Sends new subscribers the present state: one look for all of them.
async fn greet(app: &App, mut new: Vec<(SocketRef, ServerId)>, charts: &mut Charts) -> Result<()> {
    // Who has left again gets nothing.
    new.retain(|(socket, server)| {
        held(socket).is_some_and(|held| {
            held.greeted(*server);
            held.watches(*server)
        })
    });
    if new.is_empty() {
        return Ok(());
    }
    let servers: Vec<ServerId> = new.iter().map(|(_, s)| *s).collect::<BTreeSet<_>>().into_iter().collect();
    let stats: HashMap<ServerId, Live> =
        monitoring::service::stats_of(app, &servers, charts).await?.into_iter().map(|l| (l.server, l)).collect();
    let operations: HashMap<ServerId, OperationView> = views(app, store::active_operations(&app.db, &servers).await?)
        .await?
        .into_iter()
        .map(|o| (o.server_id, o))
        .collect();
    for (count, (socket, server)) in new.iter().enumerate() {
        if let Some(live) = stats.get(server) {
            send(socket, "server-stats", &ServerStats { server_id: *server, stats: &live.stats });
            if !live.alerts.is_empty() {
                send(socket, "server-alerts", &ServerAlerts { server_id: *server, alerts: &live.alerts });
            }
        }
        if let Some(operation) = operations.get(server) {
            send(socket, "operation", operation);
        }
        breathe(count).await;
    }
    Ok(())
}

async fn tell_stats(io: &SocketIo, servers: &[Live]) {
    for (count, live) in servers.iter().enumerate() {
        let server_id = live.server;
        tell(io, server_id, "server-stats", &ServerStats { server_id, stats: &live.stats }).await;
        if !live.alerts.is_empty() {
            tell(io, server_id, "server-alerts", &ServerAlerts { server_id, alerts: &live.alerts }).await;
        }
        breathe(count).await;
    }
}

/// Lets the sockets' own tasks write what they were given.
async fn breathe(count: usize) {
    if count % BREATH == BREATH - 1 {
        tokio::task::yield_now().await;
    }
}

/// One message to everybody who watches a server; who does not take it is dropped.
async fn tell<T: Serialize>(io: &SocketIo, server: ServerId, event: &str, data: &T) {
    match io.to(room(server)).emit(event, data).await {
        Ok(()) => {}
        Err(BroadcastError::Socket(errors)) => {
            // It does not say which: asked one by one, those with room get a harmless second copy.
            if errors.iter().any(|e| matches!(e, SocketError::InternalChannelFull)) {
                for socket in io.to(room(server)).sockets() {
                    send(&socket, event, data);
                }
            }
        }
        Err(error) => tracing::error!(event, %error, "a message could not be sent"),
    }
}
