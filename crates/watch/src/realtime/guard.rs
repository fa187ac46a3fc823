//! Revokes access of open sockets: at once when a token, login or account changes, and by a check every minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use accounts::{self, AUTH_CHANGED};
use futures_util::StreamExt;
use kernel::auth::{Access, Caller};
use kernel::error::Code;
use kernel::events::{Event, Subscription};
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use tokio::time::MissedTickBehavior;

use super::model::ErrorEvent;
use super::sockets::{Hub, close, drop_subscription, held, send};

/// Sockets re-checked concurrently, so that one that is busy subscribing delays no other.
const AT_ONCE: usize = 8;

/// Re-checks sockets until shutdown.
pub(super) async fn run(hub: Arc<Hub>, io: SocketIo, mut events: Subscription) {
    let mut tick = tokio::time::interval(Duration::from_mins(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = hub.core.shutdown.cancelled() => return,
            event = events.next() => event,
            _ = tick.tick() => Event::Resync,
        };
        let changed = AUTH_CHANGED.read(&event);
        if changed.is_none() && event != Event::Resync {
            continue;
        }
        let affected = |caller: &Caller| changed.is_none_or(|changed| changed.affects(caller));
        let sockets = io.sockets().into_iter().filter(|s| held(s).is_some_and(|h| affected(&h.caller()))).collect();
        recheck(&hub, sockets).await;
    }
}

/// Closes sockets whose token or login has ended, and ends subscriptions that the others may no longer see: two
/// queries, however many sockets there are.
pub(super) async fn recheck(hub: &Hub, sockets: Vec<SocketRef>) {
    let sockets: Vec<_> = sockets.into_iter().filter_map(|s| held(&s).map(|h| (s, h))).collect();
    if sockets.is_empty() {
        return;
    }
    let callers: Vec<Caller> = sockets.iter().map(|(_, h)| h.caller()).collect();
    let live = match accounts::service::live(&hub.accounts, &callers).await {
        Ok(live) => live.into_iter().map(|c| ((c.token, c.account), c)).collect::<HashMap<_, _>>(),
        // Not knowing is no reason to close anything. Once the database is reachable again, every socket is checked.
        Err(error) => {
            tracing::warn!(%error, "could not check open sockets; retrying");
            return;
        }
    };
    let mut staying = Vec::new();
    for ((socket, held), before) in sockets.into_iter().zip(callers) {
        match live.get(&(before.token, before.account)) {
            None => {
                let error = "The token or login that opened this connection has ended; sign in again.";
                send(
                    &socket,
                    "session-ended",
                    &ErrorEvent { server_id: None, subject: None, error, code: Code::Unauthenticated },
                );
                close(&socket);
            }
            Some(now) => staying.push((socket, held, now.clone())),
        }
    }
    let watching: Vec<_> = futures_util::stream::iter(staying)
        .map(|(socket, held, caller)| async move {
            held.set_caller(caller.clone());
            // A subscription in progress still uses the old rights; any later one uses the new ones.
            drop(held.turn.lock().await);
            let subjects = held.subjects();
            ((socket, held), (caller, subjects))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let (sockets, asked): (Vec<_>, Vec<_>) = watching.into_iter().unzip();
    match hub.core.subjects().refused(&asked, Access::Read).await {
        Ok(refused) => {
            for ((socket, held), refused) in sockets.into_iter().zip(refused) {
                for (subject, error) in refused {
                    let _turn = held.turn.lock().await;
                    drop_subscription(&socket, &held, &subject, &error);
                }
            }
        }
        // Not knowing is no reason to end anything. The next check is in a minute.
        Err(error) => tracing::warn!(%error, "could not check subscriptions; retrying"),
    }
}
