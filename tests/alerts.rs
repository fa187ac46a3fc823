//! Alerts: what sweeps raise and end, whose they are, and who is mailed. Most tests insert sweeps at times of their
//! own; `load.rs` puts a real guest under real load.

mod load;
mod mails;
mod rules;
mod sweeps;
mod world;
