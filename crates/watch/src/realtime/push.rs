//! Pushes updates. A single task reads the state and sends it, so that no client gets older state after newer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use compute::servers;
use kernel::core::Core;
use kernel::error::Result;
use kernel::events::{Event, Subscription};
use kernel::operations::model::OperationView;
use kernel::operations::{self, OPERATION_CHANGED};
use kernel::subjects::Subject;
use serde::Serialize;
use socketioxide::extract::SocketRef;
use socketioxide::{BroadcastError, SocketError, SocketIo};
use tokio::sync::mpsc;

use super::live::{self, ServerUpdate};
use super::model::{ServerAlerts, ServerStats, server_of};
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
    hub: Arc<Hub>,
    io: SocketIo,
    mut events: Subscription,
    mut greetings: mpsc::Receiver<(SocketRef, Subject)>,
) {
    let core = &*hub.core;
    let mut new = Vec::new();
    let mut shown = SentState { charts: hub.monitoring.charts(), alarmed: HashSet::new() };
    loop {
        let done = tokio::select! {
            () = core.shutdown.cancelled() => break,
            _ = greetings.recv_many(&mut new, BATCH) => {
                send_initial_state(core, std::mem::take(&mut new), &mut shown).await
            },
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
    let servers: Vec<ServerId> = rooms.iter().filter_map(server_of).collect();
    shown.charts.keep(&servers);
    if servers.is_empty() {
        shown.alarmed.clear();
    }
    if rooms.is_empty() {
        return Ok(());
    }
    if let Some(host) = SAMPLED.read(&event) {
        let live = live::of(core, Some(host), &servers, &mut shown.charts).await?;
        broadcast_stats(io, &live, &mut shown.alarmed).await;
    }
    if let Some(id) = OPERATION_CHANGED.read(&event) {
        let Some(operation) = operations::service::view(core, id).await? else { return Ok(()) };
        if rooms.contains(&operation.subject) {
            broadcast(io, &operation.subject, "operation", &operation).await;
            if let Some(server) = server_of(&operation.subject).filter(|_| operation.state.is_ended()) {
                let live = live::of(core, None, &[server], &mut shown.charts).await?;
                broadcast_stats(io, &live, &mut shown.alarmed).await;
            }
        }
    }
    if event == Event::Resync {
        shown.charts.clear();
        let live = live::of(core, None, &servers, &mut shown.charts).await?;
        broadcast_stats(io, &live, &mut shown.alarmed).await;
        // The latest of each subject, even if it has ended: its end may be what was missed.
        let latest = store::latest_operations(&core.db, &Vec::from_iter(rooms)).await?;
        for operation in operations::service::views(core, &latest).await? {
            broadcast(io, &operation.subject, "operation", &operation).await;
        }
    }
    Ok(())
}

async fn watched(io: &SocketIo) -> HashSet<Subject> {
    match io.rooms().await {
        Ok(rooms) => rooms.iter().filter_map(|room| room.parse().ok()).collect(),
        Err(never) => match never {},
    }
}

/// Sends the current state to new subscribers, with one read for all of them.
async fn send_initial_state(core: &Core, mut new: Vec<(SocketRef, Subject)>, shown: &mut SentState) -> Result<()> {
    // Skip those that have unsubscribed or left meanwhile.
    new.retain(|(socket, subject)| {
        held(socket).is_some_and(|held| {
            held.initial_state_sent(subject);
            held.watches(subject)
        })
    });
    if new.is_empty() {
        return Ok(());
    }
    let subjects: Vec<Subject> = new.iter().map(|(_, s)| s.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let servers: Vec<ServerId> = subjects.iter().filter_map(server_of).collect();
    let live = live::of(core, None, &servers, &mut shown.charts).await?;
    let stats: HashMap<ServerId, ServerUpdate> = live.into_iter().map(|l| (l.server, l)).collect();
    let active = store::active_operations(&core.db, &subjects).await?;
    let operations = operations::service::views(core, &active).await?.into_iter();
    let operations: HashMap<Subject, OperationView> = operations.map(|o| (o.subject.clone(), o)).collect();
    for (count, (socket, subject)) in new.iter().enumerate() {
        if let Some((server_id, live)) = server_of(subject).and_then(|id| Some((id, stats.get(&id)?))) {
            send(socket, "server-stats", &ServerStats { server_id, stats: &live.stats });
            if !live.alerts.is_empty() {
                shown.alarmed.insert(server_id);
                send(socket, "server-alerts", &ServerAlerts { server_id, alerts: &live.alerts });
            }
        }
        if let Some(operation) = operations.get(subject) {
            send(socket, "operation", operation);
        }
        yield_to_writers(count).await;
    }
    Ok(())
}

async fn broadcast_stats(io: &SocketIo, servers: &[ServerUpdate], alarmed: &mut HashSet<ServerId>) {
    for (count, live) in servers.iter().enumerate() {
        let server_id = live.server;
        let subject = servers::subject::subject(server_id);
        broadcast(io, &subject, "server-stats", &ServerStats { server_id, stats: &live.stats }).await;
        // An empty list is sent once, when all alerts have ended.
        let was_open = alarmed.remove(&server_id);
        if !live.alerts.is_empty() {
            alarmed.insert(server_id);
        }
        if was_open || !live.alerts.is_empty() {
            broadcast(io, &subject, "server-alerts", &ServerAlerts { server_id, alerts: &live.alerts }).await;
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

/// Sends a message to everyone who watches a subject. Clients that don't read it are dropped.
async fn broadcast<T: Serialize>(io: &SocketIo, subject: &Subject, event: &str, data: &T) {
    let room = subject.to_string();
    match io.to(room.clone()).emit(event, data).await {
        Ok(()) => {}
        Err(BroadcastError::Socket(errors)) => {
            // The error does not say which socket is full: send to each. Those that are not get a harmless duplicate.
            if errors.iter().any(|e| matches!(e, SocketError::InternalChannelFull)) {
                for socket in io.to(room).sockets() {
                    send(&socket, event, data);
                }
            }
        }
        Err(error) => tracing::error!(event, %error, "could not send a message"),
    }
}
