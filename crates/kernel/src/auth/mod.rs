//! Who makes a request, and what they may do.

mod access;
mod address;
mod caller;
mod scopes;

pub use access::{AccessRow, Admission};
pub use address::ClientAddress;
pub use caller::{Authenticator, Caller, MemberRole, Owner, StaffRole, account_suspended, role_forbids, scopes_forbid};
pub use scopes::{Access, Scope, Scopes, UNKNOWN_SCOPE};
