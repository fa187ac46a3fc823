//! The live view: Socket.IO on the API's port.
//!
//! | client to server | payload | answer (ack) |
//! |---|---|---|
//! | connecting | `auth: {token}` or an `Authorization` header | `connect_error` with `CODE: message` if refused |
//! | `subscribe-server` | a server's id | `{status: "success", serverId}` or `{status: "error", error, code}` |
//! | `unsubscribe-server` | a server's id | the same |
//! | `subscribe`, `unsubscribe` | a subject, such as `server:12` | the same with `subject` instead of `serverId` |
//!
//! | server to client | payload | when |
//! |---|---|---|
//! | `server-stats` | `{serverId, stats}` | on subscribing, after each sweep, and when an operation ends |
//! | `server-alerts` | `{serverId, alerts}` | with the stats while alerts are open; once, empty, when all ended |
//! | `operation` | an operation | on subscribing if one is in progress, and on every change |
//! | `subscribe-error` | `{serverId, subject, error, code}` | a subscription was refused (as the client named it) or has ended (both names) |
//! | `session-ended` | `{error, code}` | just before the server disconnects a socket whose token or login has ended |
//!
//! A socket lives as long as the login or API token that opened it, not just as long as its access token. A client that
//! does not read its messages is disconnected rather than waited for. Subscribing to what is already watched
//! is acknowledged and has no other effect.

mod admit;
mod feature;
mod gate;
mod guard;
mod live;
mod model;
mod push;
mod sockets;
mod store;

pub use feature::Realtime;
