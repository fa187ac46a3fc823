//! Fleet monitoring: sweeps every host at a fixed rate, turns the results into samples of each guest, and raises
//! alerts.
//!
//! The crate knows drivers and time. Where hosts come from, which other processes watch them and where samples go is
//! behind the trait [`SweepBackend`]: nothing here knows about HTTP or SQL.

pub mod alerts;
pub mod sample;
mod sweeper;

pub use alerts::GuestUsage;
pub use sample::{PreviousSample, Sample};
pub use sweeper::{SweepBackend, SweepClaim, SweepReport, Sweeper};
