//! Changes a fleet while it runs, over a local port.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{Behaviour, Fleet, Guest, Host, Load, Power};

/// A change; fields that are left out stay as they are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// Hosts to change, by index; all if left out.
    pub hosts: Option<Vec<usize>>,
    /// New behaviour: `"well"`, `{"slow": <ms>}`, `{"failing": <status>}`, `"hung"` or `"dead"`.
    pub behaviour: Option<Behaviour>,
    /// Guests of these hosts to change, by index; all if left out.
    pub guests: Option<Vec<usize>>,
    /// New power state of these guests.
    pub power: Option<Power>,
    /// Whether their hosts list them.
    pub present: Option<bool>,
    /// New load of these guests.
    pub load: Option<Load>,
}

impl Fleet {
    /// Applies a change. Returns false and changes nothing if a host does not exist.
    pub fn apply(&self, change: &Change) -> bool {
        let all = || (0..self.hosts().len()).collect();
        let chosen = change.hosts.clone().unwrap_or_else(all);
        let Some(hosts) = chosen.iter().map(|n| self.hosts().get(*n)).collect::<Option<Vec<_>>>() else { return false };
        for host in hosts {
            if let Some(behaviour) = change.behaviour {
                host.set(behaviour);
            }
            let which = change.guests.clone().unwrap_or_else(|| (0..host.guests().len()).collect());
            host.alter(which, |guest| {
                guest.power = change.power.unwrap_or(guest.power);
                guest.present = change.present.unwrap_or(guest.present);
                guest.load = change.load.unwrap_or(guest.load);
            });
        }
        true
    }

    /// Describes every host as JSON: address, settings for the service, behaviour, and number of requests.
    pub fn describe(&self) -> Vec<Value> {
        let line = |(n, host): (usize, &Host)| {
            json!({
                "host": n, "url": host.url(), "fingerprint": host.fingerprint(), "settings": host.settings(),
                "behaviour": host.behaviour(), "asked": host.asked(), "guests": host.guests().len(),
            })
        };
        self.hosts().iter().enumerate().map(line).collect()
    }
}

/// Serves the control port until it fails: `GET /` describes the hosts, `GET /<host>` lists its guests, and `POST /`
/// applies a [`Change`].
pub async fn control(fleet: Arc<Fleet>, listener: TcpListener) -> std::io::Result<()> {
    let router = Router::new().route("/", get(describe).post(change)).route("/{host}", get(guests)).with_state(fleet);
    axum::serve(listener, router).await
}

async fn describe(State(fleet): State<Arc<Fleet>>) -> Json<Vec<Value>> {
    Json(fleet.describe())
}

async fn guests(State(fleet): State<Arc<Fleet>>, Path(host): Path<usize>) -> Result<Json<Vec<Guest>>, StatusCode> {
    fleet.hosts().get(host).map(|host| Json(host.guests())).ok_or(StatusCode::NOT_FOUND)
}

async fn change(State(fleet): State<Arc<Fleet>>, Json(change): Json<Change>) -> StatusCode {
    if fleet.apply(&change) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
