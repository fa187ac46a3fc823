//! Who makes a request, and what they may do.

mod caller;
mod scopes;

pub use caller::{Authenticator, Caller, Role};
pub use scopes::{Access, Scope, Scopes, UNKNOWN_SCOPE};
