//! Detects that the database is now an older state of itself: a dump was restored, it was recovered to a point in time,
//! or a standby took over that was behind.
//!
//! An operation that such a database shows as in progress may have finished long ago, and running it again would
//! destroy later work. So every process keeps incrementing a counter in the database and remembers its value: in
//! memory, and in a note in `INNKEEPER_DATA` that outlives the process. If the counter is behind the remembered value,
//! the database was restored: operations in progress become stuck until the provider decides, and queued emails are not
//! sent automatically. No operation is claimed from a database that is behind (`operations::store::claim` checks that
//! in its own statement).
//!
//! A process without a note has nothing to compare. It trusts the database, unless work is in progress there and no
//! process has been alive for ten minutes: this is what a restore on a new machine looks like.
//!
//! If the note was restored along with the database (a whole machine was rolled back), the hosts' timestamps reveal it:
//! after such a silence an earlier operation is not claimed until its host has been swept, and a guest of ours that was
//! created during the silence was created by a process that the database knows nothing of.

mod feature;
mod note;
pub mod service;
mod store;

pub use feature::RestoreDetection;
pub use service::HeartbeatState;
