//! Alerts: rules, incidents, how sweeps open and close them, and who is notified. The state machine itself is in the
//! `monitor` crate.

mod feature;
pub mod mail;
pub mod model;
pub mod notify;
mod routes;
pub mod rules;
pub mod service;
mod settings;
mod store;
mod subject;
pub mod watch;

use std::time::Duration;

use tokio::time::MissedTickBehavior;

pub use feature::Alerts;
pub use settings::AlertSettings;

/// How often to check for pending notifications.
const LOOK: Duration = Duration::from_secs(2);

/// Watches what no sweep covers, and sends notifications, until shutdown. Any number of processes may run this.
pub async fn run(alerts: &Alerts) {
    let every = Duration::from_secs(alerts.monitoring.settings.sweep_seconds.clamp(1, 30).into());
    let (mut patrol, mut look) = (tokio::time::interval(every), tokio::time::interval(LOOK));
    patrol.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = alerts.core.shutdown.cancelled() => return,
            _ = patrol.tick() => {
                if let Err(error) = watch::evaluate_periodic(alerts).await {
                    tracing::warn!(%error, "pools and operations could not be checked; retrying");
                }
            }
            _ = look.tick() => {
                if let Err(error) = notify::send_due(alerts, chrono::Utc::now()).await {
                    tracing::warn!(%error, "alert notifications failed; retrying");
                }
            }
        }
    }
}
