//! Pushes updates. A single task reads the state and sends it, so that no client gets older state after newer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kernel::core::Core;
use kernel::error::Result;
use kernel::events::{Event, Subscription};
use kernel::operations::model::OperationView;
use kernel::operations::{self, OPERATION_CHANGED};
use serde::Serialize;
use socketioxide::extract::SocketRef;
use socketioxide::{BroadcastError, SocketError, SocketIo};
use tokio::sync::mpsc;

use super::live::{self, ServerUpdate};
use super::model::{ServerAlerts, ServerStats, room, server_of};
use super::sockets::{Hub, held, send};
use super::store;
use crate::ids::ServerId;
use crate::monitoring::{Charts, SAMPLED};

/// New subscribers to serve with one read.
const BATCH: usize = 256;
/// Rooms to serve before yielding to other tasks.
const BREATH: usize = 32;

/// What has been sent to watchers.
struct SentState {
    charts: Charts,
    /// Servers with alerts that were pushed, so that their end is pushed too.
    alarmed: HashSet<ServerId>,
}

/// Pushes updates until shutdown, then closes every socket.
pub(super) async fn run(
    desk: Arc<Hub>,
    io: SocketIo,
    mut events: Subscription,
    mut greetings: mpsc::Receiver<(SocketRef, ServerId)>,
) {
    let core = &*desk.core;
    let mut new = Vec::new();
    let mut shown = SentState { charts: desk.monitoring.charts(), alarmed: HashSet::new() };
    loop {
        let done = tokio::select! {
            () = core.shutdown.cancelled() => break,
            _ = greetings.recv_many(&mut new, BATCH) => send_initial_state(core, std::mem::take(&mut new), &mut shown).await,
            event = events.next() => react(core, &io, event, &mut shown).await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "could not push a change to subscribers; they get the next one");
        }
    }
    io.close().await;
}

async fn react(core: &Core, io: &SocketIo, event: Event, shown: &mut SentState) -> Result<()> {
    // Usually nobody is watching, which must cost nothing.
    let rooms = watched(io).await;
    shown.charts.keep(&rooms);
    if rooms.is_empty() {
        shown.alarmed.clear();
        return Ok(());
    }
    if let Some(host) = SAMPLED.read(&event) {
        let live = live::of(core, Some(host), &rooms, &mut shown.charts).await?;
        broadcast_stats(io, &live, &mut shown.alarmed).await;
    }
    if let Some(id) = OPERATION_CHANGED.read(&event) {
        let Some(operation) = operations::service::view(core, id).await? else { return Ok(()) };
        let server = operation.server_id;
        if rooms.contains(&server) {
            broadcast(io, server, "operation", &operation).await;
            if operation.state.is_ended() {
                let live = live::of(core, None, &[server], &mut shown.charts).await?;
                broadcast_stats(io, &live, &mut shown.alarmed).await;
            }
        }
    }
    if event == Event::Resync {
        shown.charts.clear();
        let live = live::of(core, None, &rooms, &mut shown.charts).await?;
        broadcast_stats(io, &live, &mut shown.alarmed).await;
        // The latest of each server, even if it has ended: its end may be what was missed.
        let latest = store::latest_operations(&core.db, &rooms).await?;
        for operation in operations::service::views(core, &latest).await? {
            broadcast(io, operation.server_id, "operation", &operation).await;
        }
    }
    Ok(())
}

async fn watched(io: &SocketIo) -> Vec<ServerId> {
    match io.rooms().await {
        Ok(rooms) => rooms.iter().filter_map(|r| server_of(r)).collect(),
        Err(never) => match never {},
    }
}

/// Sends the current state to new subscribers, with one read for all of them.
async fn send_initial_state(core: &Core, mut new: Vec<(SocketRef, ServerId)>, shown: &mut SentState) -> Result<()> {
    // Skip those that have unsubscribed or left meanwhile.
    new.retain(|(socket, server)| {
        held(socket).is_some_and(|held| {
            held.initial_state_sent(*server);
            held.watches(*server)
        })
    });
    if new.is_empty() {
        return Ok(());
    }
    let servers: Vec<ServerId> = new.iter().map(|(_, s)| *s).collect::<BTreeSet<_>>().into_iter().collect();
    let live = live::of(core, None, &servers, &mut shown.charts).await?;
    let stats: HashMap<ServerId, ServerUpdate> = live.into_iter().map(|l| (l.server, l)).collect();
    let active = store::active_operations(&core.db, &servers).await?;
    let operations = operations::service::views(core, &active).await?.into_iter();
    let operations: HashMap<ServerId, OperationView> = operations.map(|o| (o.server_id, o)).collect();
    for (count, (socket, server)) in new.iter().enumerate() {
        if let Some(live) = stats.get(server) {
            send(socket, "server-stats", &ServerStats { server_id: *server, stats: &live.stats });
            if !live.alerts.is_empty() {
                shown.alarmed.insert(*server);
                send(socket, "server-alerts", &ServerAlerts { server_id: *server, alerts: &live.alerts });
            }
        }
        if let Some(operation) = operations.get(server) {
            send(socket, "operation", operation);
        }
        yield_to_writers(count).await;
    }
    Ok(())
}

async fn broadcast_stats(io: &SocketIo, servers: &[ServerUpdate], alarmed: &mut HashSet<ServerId>) {
    for (count, live) in servers.iter().enumerate() {
        let server_id = live.server;
        broadcast(io, server_id, "server-stats", &ServerStats { server_id, stats: &live.stats }).await;
        // An empty list is sent once, when all alerts have ended.
        let was_open = alarmed.remove(&server_id);
        if !live.alerts.is_empty() {
            alarmed.insert(server_id);
        }
        if was_open || !live.alerts.is_empty() {
            broadcast(io, server_id, "server-alerts", &ServerAlerts { server_id, alerts: &live.alerts }).await;
        }
        yield_to_writers(count).await;
    }
}

/// Lets the sockets' own tasks write their queued messages.
async fn yield_to_writers(count: usize) {
    if count % BREATH == BREATH - 1 {
        tokio::task::yield_now().await;
    }
}

/// Sends a message to everyone who watches a server. Clients that don't read it are dropped.
async fn broadcast<T: Serialize>(io: &SocketIo, server: ServerId, event: &str, data: &T) {
    match io.to(room(server)).emit(event, data).await {
        Ok(()) => {}
        Err(BroadcastError::Socket(errors)) => {
            // The error does not say which socket is full: send to each. Those that are not get a harmless duplicate.
            if errors.iter().any(|e| matches!(e, SocketError::InternalChannelFull)) {
                for socket in io.to(room(server)).sockets() {
                    send(&socket, event, data);
                }
            }
        }
        Err(error) => tracing::error!(event, %error, "could not send a message"),
    }
}
