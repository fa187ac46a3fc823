//! Taking rights away from open sockets: at once when a token, login or account changes, and by looking every minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use tokio::time::MissedTickBehavior;

use super::model::Refusal;
use super::sockets::{Desk, Held, close, expel, held, send};
use crate::accounts::model::Caller;
use crate::accounts::{self, Level};
use crate::error::Code;
use crate::events::{Event, Subscription};
use crate::servers;

/// Sockets re-checked at one time: one that is busy subscribing delays no other.
const AT_ONCE: usize = 8;

/// Re-checks sockets until shutdown.
pub(super) async fn run(desk: Arc<Desk>, io: SocketIo, mut events: Subscription) {
    let mut tick = tokio::time::interval(Duration::from_mins(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = desk.app.shutdown.cancelled() => return,
            event = events.next() => event,
            _ = tick.tick() => Event::Resync,
        };
        let affected: Box<dyn Fn(&Caller) -> bool + Send> = match event {
            Event::TokenChanged(id) => Box::new(move |c| c.token == id),
            Event::SessionChanged(id) => Box::new(move |c| c.session == Some(id)),
            Event::UserChanged(id) => Box::new(move |c| c.user == id),
            Event::Resync => Box::new(|_| true),
            _ => continue,
        };
        let sockets = io.sockets().into_iter().filter(|s| held(s).is_some_and(|h| affected(&h.caller()))).collect();
        recheck(&desk, sockets).await;
    }
}

/// Ends sockets whose token or login has ended, and subscriptions to what the others may not see any more.
pub(super) async fn recheck(desk: &Desk, sockets: Vec<SocketRef>) {
    let sockets: Vec<_> = sockets.into_iter().filter_map(|s| held(&s).map(|h| (s, h))).collect();
    if sockets.is_empty() {
        return;
    }
    let callers: Vec<Caller> = sockets.iter().map(|(_, h)| h.caller()).collect();
    let live = match accounts::service::live(&desk.app, &callers).await {
        Ok(live) => live.into_iter().map(|c| (c.token, c)).collect::<HashMap<_, _>>(),
        // Not to know is no reason to end anything; back in touch with the database, everybody is checked.
        Err(error) => {
            tracing::warn!(%error, "open sockets could not be checked; trying again");
            return;
        }
    };
    let checks = sockets.iter().zip(callers).map(|((socket, held), before)| {
        let now = live.get(&before.token);
        async move {
            match now {
                None => {
                    let error = "The token or login that opened this connection has ended; sign in again.";
                    send(socket, "session-ended", &Refusal { server_id: None, error, code: Code::Unauthenticated });
                    close(socket);
                }
                Some(now) => narrow(desk, socket, held, now.clone()).await,
            }
        }
    });
    futures_util::stream::iter(checks).for_each_concurrent(AT_ONCE, |check| check).await;
}

async fn narrow(desk: &Desk, socket: &SocketRef, held: &Held, caller: Caller) {
    let _turn = held.turn.lock().await;
    held.set_caller(caller.clone());
    match servers::service::refused(&desk.app, &caller, &held.servers(), Level::Read).await {
        Ok(refused) => refused.into_iter().for_each(|(server, error)| expel(socket, held, server, &error)),
        // Not to know is no reason to end anything; the next look is in a minute.
        Err(error) => tracing::warn!(%error, "what a socket watches could not be checked; trying again"),
    }
}
