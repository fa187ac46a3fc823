//! The live view: Socket.IO on the port of the API.
//!
//! | to us | with | answer (ack) |
//! |---|---|---|
//! | connecting | `auth: {token}` or an `Authorization` header | `connect_error` with `CODE: message` when refused |
//! | `subscribe-server` | a server's id | `{status: "success", serverId}` or `{status: "error", error, code}` |
//! | `unsubscribe-server` | a server's id | the same |
//!
//! | from us | with | when |
//! |---|---|---|
//! | `server-stats` | `{serverId, stats}` | at once, after each sweep, and when an operation has ended |
//! | `server-alerts` | `{serverId, alerts}` | with them, where alerts are open, and once more, empty, when they are over |
//! | `operation` | an operation | at once where one is under way, and as it moves |
//! | `subscribe-error` | `{serverId, error, code}` | a subscription was refused, or has ended |
//! | `session-ended` | `{error, code}` | just before we disconnect a socket whose token or login has ended |
//!
//! A socket lives as long as the login (or API token) that opened it, not only as long as its access token. A client
//! that does not take its messages is disconnected, not waited for. To subscribe again to what is watched already is
//! acknowledged, and nothing more.

mod gate;
mod guard;
mod model;
mod push;
mod sockets;
mod store;

use std::sync::Arc;
use std::time::Duration;

use socketioxide::handler::ConnectHandler;
use socketioxide::layer::SocketIoLayer;
use socketioxide::{ParserConfig, SocketIo};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::app::App;
pub use gate::Gate;
use sockets::{Desk, Seats};

/// The largest message that we take: a subscription is a few bytes.
const MAX_MESSAGE: usize = 16 * 1024;
/// How many messages may wait for one client: a sweep of everything it may subscribe to, stats and alerts, twice.
const MAX_WAITING: usize = 4 * sockets::MAX_SUBSCRIPTIONS;

/// Whether a request is the live view's: what Socket.IO takes as its own.
pub(crate) fn is_for_sockets(path: &str) -> bool {
    path.strip_prefix("/socket.io").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Socket.IO as a layer around the router, with the tasks that push to its clients until shutdown.
pub fn layer(app: Arc<App>) -> SocketIoLayer {
    let (greet, greetings) = mpsc::channel(1024);
    // Heard from now on, so that no socket is older than what its task hears.
    let (pushed, guarded) = (app.events.subscribe(), app.events.subscribe());
    let desk = Arc::new(Desk { app, greet, seats: Seats::default() });
    let (layer, io) = SocketIo::builder()
        .ping_interval(Duration::from_secs(25))
        .ping_timeout(Duration::from_secs(20))
        .connect_timeout(gate::LIFE)
        .max_payload(MAX_MESSAGE as u64)
        .ws_max_message_size(MAX_MESSAGE)
        .ws_max_frame_size(MAX_MESSAGE)
        .max_buffer_size(MAX_WAITING)
        .with_parser(ParserConfig::common().max_incoming_binaries(0).max_incoming_binary_buf_size(0))
        .with_state(Arc::clone(&desk))
        .build_layer();
    io.ns("/", sockets::connected.with(sockets::authenticate));
    match Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn(push::run(Arc::clone(&desk), io.clone(), pushed, greetings));
            runtime.spawn(guard::run(desk, io, guarded));
        }
        Err(error) => tracing::error!(%error, "sockets get no news: the router was built outside of the runtime"),
    }
    layer
}
