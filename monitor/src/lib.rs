//! Fleet monitoring: sweeps every host at a fixed rate, turns the results into samples of each guest, and raises
//! alerts.
//!
//! The crate knows drivers and time. Where hosts come from, which other processes watch them and where samples go is
//! behind the trait [`Fleet`]: nothing here knows about HTTP or SQL.

pub mod alerts;
pub mod sample;
mod sweeper;

pub use alerts::Usage;
pub use sample::{Previous, Sample};
pub use sweeper::{Claim, Fleet, Report, Sweeper};
