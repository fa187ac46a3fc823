//! A single socket: its owner and its subscriptions.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use accounts::{self, Accounts};
use kernel::auth::{Access, Caller, ClientAddress};
use kernel::core::Core;
use kernel::error::{Code, Error, Result};
use kernel::http::auth::{bearer, bearer_of, named_account};
use kernel::ids::AccountId;
use kernel::subjects::Subject;
use serde_json::Value;
use socketioxide::extract::{AckSender, SocketRef, State, TryData};
use socketioxide::{SendError, SocketError};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::gate::PendingSessions;
use super::guard;
use super::model::{Ack, ErrorEvent, Naming, server_of};
use crate::monitoring::Monitoring;

/// Most subjects that one socket may watch.
pub(super) const MAX_SUBSCRIPTIONS: usize = 1_000;
/// Most sockets per login or API token.
const MAX_SOCKETS: usize = 50;
/// Most sockets per account, over all its logins and tokens.
const MAX_SOCKETS_OF_ACCOUNT: usize = 4 * MAX_SOCKETS;
/// Most pending requests per socket. A client that subscribes to everything at once, or unsubscribes, stays well below.
const MAX_PENDING: usize = MAX_SUBSCRIPTIONS + 100;

/// State shared by all handlers.
#[derive(Debug)]
pub(super) struct Hub {
    pub core: Arc<Core>,
    pub accounts: Arc<Accounts>,
    pub monitoring: Arc<Monitoring>,
    pub gate: PendingSessions,
    /// New subscribers, for the pushing task: it sends them the current state in order with everything else.
    pub greet: mpsc::Sender<(SocketRef, Subject)>,
    pub seats: SocketQuota,
}

/// Number of open sockets by account, and by login or API token.
#[derive(Debug, Clone, Default)]
pub(super) struct SocketQuota(Arc<Mutex<HashMap<QuotaOwner, usize>>>);

/// Whose sockets are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum QuotaOwner {
    /// A login or an API token.
    Token(Uuid),
    Account(AccountId),
}

impl QuotaOwner {
    fn most(self) -> usize {
        match self {
            Self::Token(_) => MAX_SOCKETS,
            Self::Account(_) => MAX_SOCKETS_OF_ACCOUNT,
        }
    }
}

impl SocketQuota {
    fn take(&self, login: Uuid, account: AccountId) -> Option<SocketSlot> {
        let owners = [QuotaOwner::Token(login), QuotaOwner::Account(account)];
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.iter().any(|owner| taken.get(owner).is_some_and(|count| *count >= owner.most())) {
            return None;
        }
        for owner in owners {
            *taken.entry(owner).or_default() += 1;
        }
        Some(SocketSlot { seats: self.clone(), owners })
    }
}

/// A socket's place in its owners' quotas, released on drop.
#[derive(Debug)]
struct SocketSlot {
    seats: SocketQuota,
    owners: [QuotaOwner; 2],
}

impl Drop for SocketSlot {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        for owner in self.owners {
            if let Some(count) = taken.get_mut(&owner) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(&owner);
                }
            }
        }
    }
}

/// State of a socket.
#[derive(Debug)]
pub(super) struct SocketSession {
    caller: Mutex<Caller>,
    subjects: Mutex<HashSet<Subject>>,
    /// Those whose current state is still to be sent.
    greetings: Mutex<HashSet<Subject>>,
    /// Held until the socket is disconnected.
    seat: Mutex<Option<SocketSlot>>,
    /// Taken for subscribing and for re-checking, so that a subscription in progress can't undo a revocation.
    pub turn: tokio::sync::Mutex<()>,
    pending: AtomicUsize,
    leaving: AtomicUsize,
    closing: AtomicBool,
}

impl SocketSession {
    /// The caller's rights as of the last check.
    pub(super) fn caller(&self) -> Caller {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Updates the caller's rights.
    pub(super) fn set_caller(&self, caller: Caller) {
        *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = caller;
    }

    /// What this socket watches.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        self.watched(|s| s.iter().cloned().collect())
    }

    pub(super) fn watches(&self, subject: &Subject) -> bool {
        self.watched(|s| s.contains(subject))
    }

    /// Marks a subject's current state as still to be sent; false if it was already.
    fn request_initial_state(&self, subject: &Subject) -> bool {
        self.greetings.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.clone())
    }

    /// Unmarks it: the current state is about to be read.
    pub(super) fn initial_state_sent(&self, subject: &Subject) {
        self.greetings.lock().unwrap_or_else(PoisonError::into_inner).remove(subject);
    }

    fn free_slot(&self) {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn watched<T>(&self, look: impl FnOnce(&mut HashSet<Subject>) -> T) -> T {
        look(&mut self.subjects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// This socket's state; `None` if it did not pass [`authenticate`].
pub(super) fn held(socket: &SocketRef) -> Option<Arc<SocketSession>> {
    socket.extensions.get()
}

/// Why a connection is refused. Socket.IO's `connect_error` carries a single text.
#[derive(Debug)]
pub(super) struct ConnectRefused(Error);

impl std::fmt::Display for ConnectRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.message)
    }
}

/// Connect middleware: requires a valid token.
pub(super) async fn authenticate(
    socket: SocketRef,
    TryData(auth): TryData<Value>,
    State(hub): State<Arc<Hub>>,
) -> Result<(), ConnectRefused> {
    let token = token(&socket, auth.as_ref().ok()).ok_or_else(|| {
        ConnectRefused(Error::new(
            Code::Unauthenticated,
            "Sign in first: connect with auth: {token: \"<access token>\"}.",
        ))
    })?;
    let parts = socket.req_parts();
    let address = ClientAddress::of(&parts.extensions, &parts.headers, &hub.core);
    let account = account(&socket, auth.as_ref().ok()).map_err(ConnectRefused)?;
    let caller =
        accounts::service::authenticate(&hub.accounts, &token, account, address).await.map_err(ConnectRefused)?;
    // Count by login: access tokens change during its life.
    let seat = hub.seats.take(caller.session.unwrap_or(caller.token), caller.account).ok_or_else(|| {
        let text = format!(
            "At most {MAX_SOCKETS} connections per login or token and \
             {MAX_SOCKETS_OF_ACCOUNT} per account are allowed; close others first."
        );
        ConnectRefused(Error::new(Code::RateLimited, text))
    })?;
    hub.gate.signed_in(&address.network());
    socket.extensions.insert(Arc::new(SocketSession {
        caller: Mutex::new(caller),
        subjects: Mutex::default(),
        greetings: Mutex::default(),
        seat: Mutex::new(Some(seat)),
        turn: tokio::sync::Mutex::default(),
        pending: AtomicUsize::new(0),
        leaving: AtomicUsize::new(0),
        closing: AtomicBool::new(false),
    }));
    // Registered here and not after connecting: the first message of a fast client would come too early.
    for (naming, join, leave) in
        [(Naming::ServerId, "subscribe-server", "unsubscribe-server"), (Naming::Subject, "subscribe", "unsubscribe")]
    {
        socket.on(join, async move |socket, id, ack, hub| subscribe(naming, socket, id, ack, hub).await);
        socket.on(leave, async move |socket, id, ack| unsubscribe(naming, socket, id, ack).await);
    }
    Ok(())
}

fn token(socket: &SocketRef, auth: Option<&Value>) -> Option<String> {
    let given = auth.and_then(|a| a.get("token")).and_then(Value::as_str);
    let token = match given {
        Some(text) => Some(bearer_of(text).unwrap_or_else(|| text.trim())),
        None => bearer(&socket.req_parts().headers),
    };
    token.filter(|token| !token.is_empty()).map(str::to_owned)
}

/// The account that a client acts for, if it names one: in `auth`, where browsers can't set headers, or as on requests.
fn account(socket: &SocketRef, auth: Option<&Value>) -> Result<Option<AccountId>, Error> {
    match auth.and_then(|auth| auth.get("account")) {
        None | Some(Value::Null) => named_account(&socket.req_parts().headers),
        Some(value) => match value.as_i64().filter(|id| *id > 0) {
            Some(id) => Ok(Some(AccountId(id))),
            None => Err(Error::new(Code::Malformed, "auth.account must be the id of an account.")),
        },
    }
}

/// Runs when a socket has connected.
pub(super) async fn connected(socket: SocketRef, State(hub): State<Arc<Hub>>) {
    metrics::gauge!("innkeeper_sockets").increment(1);
    socket.on_disconnect(async |socket: SocketRef| {
        metrics::gauge!("innkeeper_sockets").decrement(1);
        if let Some(held) = held(&socket) {
            held.free_slot();
        }
    });
    // Its token may have ended after it was checked, before this socket would have been notified.
    guard::recheck(&hub, vec![socket]).await;
}

async fn subscribe(
    naming: Naming,
    socket: SocketRef,
    TryData(id): TryData<Value>,
    ack: AckSender,
    State(hub): State<Arc<Hub>>,
) {
    let (Some(held), id) = (held(&socket), id.unwrap_or(Value::Null)) else { return };
    if held.pending.fetch_add(1, Ordering::Relaxed) >= MAX_PENDING {
        close(&socket);
        return;
    }
    let result = join(&hub, naming, &socket, &held, &id).await;
    held.pending.fetch_sub(1, Ordering::Relaxed);
    let (result, new) = match result {
        Ok((subject, new)) => (Ok(subject), new),
        Err(error) => (Err(error), false),
    };
    answer(&socket, ack, naming, &result);
    match result {
        // Already pending (subscribed twice, or left and re-joined): once is enough.
        Ok(subject) if new && held.request_initial_state(&subject) => {
            // Fails only when the process ends.
            let _ = hub.greet.send((socket, subject)).await;
        }
        Ok(_) => {}
        Err(error) => refuse(&socket, naming, &id, &error),
    }
}

/// Adds a subscription and returns whether it is new.
async fn join(
    hub: &Hub,
    naming: Naming,
    socket: &SocketRef,
    held: &SocketSession,
    id: &Value,
) -> Result<(Subject, bool)> {
    let subject = naming.read(id)?;
    let _turn = held.turn.lock().await;
    hub.core.subjects().authorize(&held.caller(), &subject, Access::Read).await?;
    if held.closing.load(Ordering::Relaxed) {
        return Err(Error::new(Code::Unauthenticated, "This connection is being closed."));
    }
    if held.watches(&subject) {
        return Ok((subject, false));
    }
    if !held.watched(|s| s.len() < MAX_SUBSCRIPTIONS && s.insert(subject.clone())) {
        return Err(Error::new(
            Code::RateLimited,
            format!("A connection may watch at most {MAX_SUBSCRIPTIONS} things; unsubscribe from others first."),
        ));
    }
    socket.join(subject.to_string());
    // It disconnected in the meantime, and nothing else would remove it from the room.
    if !socket.connected() {
        socket.leave_all();
    }
    Ok((subject, true))
}

async fn unsubscribe(naming: Naming, socket: SocketRef, TryData(id): TryData<Value>, ack: AckSender) {
    let Some(held) = held(&socket) else { return };
    let id = id.unwrap_or(Value::Null);
    if held.leaving.fetch_add(1, Ordering::Relaxed) >= MAX_PENDING {
        close(&socket);
        return;
    }
    let result = naming.read(&id);
    if let Ok(subject) = &result {
        // Taking turns makes earlier subscription requests finish first.
        let _turn = held.turn.lock().await;
        leave(&socket, &held, subject);
    }
    held.leaving.fetch_sub(1, Ordering::Relaxed);
    answer(&socket, ack, naming, &result);
}

fn leave(socket: &SocketRef, held: &SocketSession, subject: &Subject) {
    held.watched(|s| s.remove(subject));
    socket.leave(subject.to_string());
}

/// Ends a subscription that the owner no longer has the right to.
pub(super) fn drop_subscription(socket: &SocketRef, held: &SocketSession, subject: &Subject, error: &Error) {
    leave(socket, held, subject);
    let (server, text) = (server_of(subject).map(|id| Value::from(id.0)), Value::from(subject.to_string()));
    send_refusal(socket, server.as_ref(), Some(&text), error);
}

fn answer(socket: &SocketRef, ack: AckSender, naming: Naming, result: &Result<Subject>) {
    if let Err(SendError::Socket(SocketError::InternalChannelFull)) = ack.send(&Ack::of(naming, result)) {
        close(socket);
    }
}

/// Sent in addition to the ack, since not every client asks for one.
fn refuse(socket: &SocketRef, naming: Naming, id: &Value, error: &Error) {
    match naming {
        Naming::ServerId => send_refusal(socket, Some(id), None, error),
        Naming::Subject => send_refusal(socket, None, Some(id), error),
    }
}

fn send_refusal(socket: &SocketRef, server_id: Option<&Value>, subject: Option<&Value>, error: &Error) {
    if error.code.status() >= 500 {
        tracing::error!(%error, "a subscription failed");
    }
    send(socket, "subscribe-error", &ErrorEvent { server_id, subject, error: &error.message, code: error.code });
}

/// Sends to one socket, or drops it if its queue is full.
pub(super) fn send<T: serde::Serialize>(socket: &SocketRef, event: &str, data: &T) {
    match socket.emit(event, data) {
        Err(SendError::Socket(SocketError::InternalChannelFull)) => close(socket),
        Err(SendError::Serialize(error)) => tracing::error!(event, %error, "could not serialize a message"),
        Ok(()) | Err(SendError::Socket(SocketError::Closed)) => {}
    }
}

/// Closes a socket. Nothing more is sent to it. If its queue is full, not even the disconnect can be sent at once.
pub(super) fn close(socket: &SocketRef) {
    let Some(held) = held(socket) else { return };
    if held.closing.swap(true, Ordering::Relaxed) {
        return;
    }
    held.watched(HashSet::clear);
    socket.leave_all();
    if socket.clone().disconnect().is_ok() {
        return;
    }
    tracing::info!(socket = %socket.id, "client does not read its messages; dropped");
    metrics::counter!("innkeeper_sockets_dropped_total").increment(1);
    let socket = socket.clone();
    tokio::spawn(async move {
        // At the latest its next ping will end it.
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if !socket.connected() || socket.clone().disconnect().is_ok() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_owner_has_so_many_seats_and_gets_them_back() {
        let seats = SocketQuota::default();
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let mut taken: Vec<_> = (0..MAX_SOCKETS).map(|_| seats.take(one, AccountId(1)).unwrap()).collect();
        assert!(seats.take(one, AccountId(1)).is_none());
        assert!(seats.take(other, AccountId(1)).is_some());
        taken.pop();
        taken.push(seats.take(one, AccountId(1)).unwrap());
        assert!(seats.take(one, AccountId(1)).is_none());
        drop(taken);
        assert!(seats.0.lock().unwrap().is_empty());
    }

    #[test]
    fn many_tokens_are_no_way_round_what_an_account_may_hold() {
        let seats = SocketQuota::default();
        let held: Vec<_> = (0..).map_while(|_| seats.take(Uuid::now_v7(), AccountId(1))).collect();
        assert_eq!(held.len(), MAX_SOCKETS_OF_ACCOUNT);
        assert!(seats.take(Uuid::now_v7(), AccountId(2)).is_some());
    }
}
