//! Noticing that the database has become an older state of itself: a dump was restored, it was recovered to a point in
//! time, or a standby took over that had not heard everything.
//!
//! What such a database says is under way may have been done long ago, and done again it destroys what came after. So
//! every process moves a count in the database on, all the time, and remembers how far it was: in memory, and in a note in
//! `INNKEEPER_DATA` that outlives it. Where the count is behind what is remembered, the database has gone back: whatever is
//! under way is stuck until a person says go, and mails that were to go out are not sent again by themselves. No
//! operation is claimed from a database that is behind (`operations::store::claim` asks in its own statement).
//!
//! A process without a note knows nothing. It takes the database as it is, unless things are under way in it and nobody
//! has been alive for ten minutes: that is what a restore on a new machine looks like.
//!
//! Where the note has gone back with the database (a whole machine was put back), the hosts' own times tell: after such a
//! silence an operation of before is not claimed until its host was swept, and a guest of ours that was made in the
//! silence was made by nobody that the database knows of.

mod feature;
mod note;
pub mod service;
mod store;

pub use feature::Restores;
pub use service::Heart;
