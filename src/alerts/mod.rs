//! Alerts: rules, what sweeps make of them, incidents, and who is told. The state machine is the `monitor` crate's.

mod feature;
pub mod mail;
pub mod model;
mod routes;
pub mod rules;
pub mod service;
mod store;
mod subject;
pub mod tell;
pub mod watch;

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::core::Core;

pub use feature::Alerts;

/// How often to look whether there is something to tell.
const LOOK: Duration = Duration::from_secs(2);

/// Watches what no sweep sees, and tells people, until shutdown. Any number of processes may do so.
pub async fn run(core: &Core) {
    let every = Duration::from_secs(core.config.sweep_seconds.clamp(1, 30).into());
    let (mut patrol, mut look) = (tokio::time::interval(every), tokio::time::interval(LOOK));
    patrol.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            _ = patrol.tick() => {
                if let Err(error) = watch::patrol(core).await {
                    tracing::warn!(%error, "pools and operations could not be looked at; trying again");
                }
            }
            _ = look.tick() => {
                if let Err(error) = tell::tell(core, chrono::Utc::now()).await {
                    tracing::warn!(%error, "nobody could be told of alerts; trying again");
                }
            }
        }
    }
}
