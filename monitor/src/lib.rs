//! Watching a fleet: sweeps of every host at a fixed rate, what they say about each guest, and alerts.
//!
//! The crate knows drivers and time. Where hosts come from, who else watches them and where samples go is behind the
//! trait [`Fleet`]: nothing here knows of HTTP or SQL.

pub mod alerts;
pub mod sample;
mod sweeper;

pub use alerts::Usage;
pub use sample::{Previous, Sample};
pub use sweeper::{Claim, Fleet, Report, Sweeper};
