//! Alerts: what sweeps raise and end, whose they are, and who is mailed. Sweeps are put in at times of the test's own;
//! `load.rs` has a real guest under a real load.

mod load;
mod mails;
mod rules;
mod sweeps;
mod world;
