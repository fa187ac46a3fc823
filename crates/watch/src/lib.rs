//! What servers are doing: sweeps, samples over time, alerts, the live view.

pub mod alerts;
pub mod figures;
pub mod history;
pub mod ids;
pub mod locks;
pub mod monitoring;
pub mod realtime;
pub mod sweep;
