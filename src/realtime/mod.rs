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
