//! Who makes a request, and what they may do.

mod access;
mod address;
mod caller;
mod scopes;

pub use access::{AccessRow, Admission};
pub use address::ClientAddress;
pub use caller::{Authenticator, Caller, Role};
pub use scopes::{Access, Scope, Scopes, UNKNOWN_SCOPE};
