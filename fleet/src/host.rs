//! A simulated host: its guests, its behaviour, and its cached lists.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::guest::Guest;
use crate::{Kind, Options, incus, proxmox};

/// How a host answers requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Behaviour {
    /// Correctly and at once.
    #[default]
    Well,
    /// Correctly, after this many milliseconds.
    Slow(u64),
    /// With this HTTP error status.
    Failing(u16),
    /// Accepts connections and never answers. Pending requests are answered once the behaviour changes.
    Hung,
    /// Refuses connections and has closed the existing ones.
    Dead,
}

/// Address of a host.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Https { url: String, fingerprint: String },
    Unix(PathBuf),
}

/// A simulated host. Clones share its state.
#[derive(Debug, Clone)]
pub struct Host(pub(crate) Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) kind: Kind,
    /// Number of nodes in its cluster.
    pub(crate) nodes: usize,
    place: Place,
    seed: u64,
    fresh_for: Duration,
    behaviour: watch::Sender<Behaviour>,
    asked: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    guests: Vec<Guest>,
    /// Number of times that the metrics have advanced, and when they last did.
    look: u64,
    at: Instant,
    /// Cached lists by what they contain, with the time they were rendered.
    lists: HashMap<&'static str, (Instant, Bytes)>,
}

impl Host {
    pub(crate) fn new(options: &Options, index: usize, place: Place) -> Self {
        let now = Utc::now();
        let first = i64::try_from(index * options.guests).map_or(i64::MAX, |n| options.first_number + n);
        let guests = (first..).zip(0..options.guests);
        let guests = guests.map(|(number, n)| Guest::new(options.seed, number, n % options.nodes, now)).collect();
        Self(Arc::new(Shared {
            kind: options.kind,
            nodes: options.nodes,
            place,
            seed: options.seed,
            fresh_for: options.fresh_for,
            behaviour: watch::Sender::default(),
            asked: AtomicU64::new(0),
            state: Mutex::new(State { guests, look: 0, at: Instant::now(), lists: HashMap::new() }),
        }))
    }

    /// URL of its API: `https://127.0.0.1:<port>`, or the path of its unix socket.
    pub fn url(&self) -> String {
        match &self.0.place {
            Place::Https { url, .. } => url.clone(),
            Place::Unix(path) => path.display().to_string(),
        }
    }

    /// SHA-256 fingerprint of its certificate in Proxmox VE's notation; `None` for a unix socket.
    pub fn fingerprint(&self) -> Option<&str> {
        match &self.0.place {
            Place::Https { fingerprint, .. } => Some(fingerprint),
            Place::Unix(_) => None,
        }
    }

    /// Settings to register it with (`config` in `POST /api/hosts`), its token's secret included.
    pub fn settings(&self) -> Value {
        match &self.0.place {
            Place::Https { url, fingerprint } => json!({
                "endpoints": [url], "tokenId": proxmox::TOKEN_ID, "tokenSecret": proxmox::TOKEN_SECRET,
                "fingerprint": fingerprint, "storage": proxmox::STORAGE,
            }),
            Place::Unix(path) => json!({ "socket": path, "project": "default", "storagePool": "default" }),
        }
    }

    /// The same for the driver alone (`ProxmoxConfig`, `IncusConfig`).
    pub fn driver_settings(&self) -> Value {
        match &self.0.place {
            Place::Https { url, fingerprint } => json!({
                "endpoints": [url], "token_id": proxmox::TOKEN_ID, "token_secret": proxmox::TOKEN_SECRET,
                "tls": {"fingerprint": {"sha256": fingerprint}}, "storage": proxmox::STORAGE,
            }),
            Place::Unix(path) => json!({ "socket": path, "project": "default", "storage_pool": "default" }),
        }
    }

    /// Its guests in their configured state.
    pub fn guests(&self) -> Vec<Guest> {
        self.state().guests.clone()
    }

    /// The markers of its guests, in order.
    pub fn markers(&self) -> Vec<Uuid> {
        self.state().guests.iter().map(|guest| guest.marker).collect()
    }

    /// Sets its behaviour.
    pub fn set(&self, behaviour: Behaviour) {
        self.0.behaviour.send_replace(behaviour);
    }

    /// Its current behaviour.
    pub fn behaviour(&self) -> Behaviour {
        *self.0.behaviour.borrow()
    }

    /// Changes guests, given by index; indices that don't exist are skipped.
    pub fn alter(&self, which: impl IntoIterator<Item = usize>, change: impl Fn(&mut Guest)) {
        let mut state = self.state();
        for place in which {
            if let Some(guest) = state.guests.get_mut(place) {
                change(guest);
            }
        }
        state.lists.clear();
    }

    /// Number of requests received, answered or not.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Counts a request; resolves when it is to be answered, with the error status if it is to fail.
    pub(crate) async fn asked_again(&self) -> Option<u16> {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        match self.awake().await {
            Behaviour::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Behaviour::Failing(status) => return Some(status),
            _ => {}
        }
        None
    }

    /// Waits until the host no longer hangs.
    pub(crate) async fn awake(&self) -> Behaviour {
        let mut behaviour = self.0.behaviour.subscribe();
        // We own the sender, so this can't fail.
        behaviour.wait_for(|b| *b != Behaviour::Hung).await.map_or(Behaviour::Well, |b| *b)
    }

    /// Waits until it is dead (`true`) or alive (`false`).
    pub(crate) async fn turned(&self, dead: bool) {
        let mut behaviour = self.0.behaviour.subscribe();
        let _ = behaviour.wait_for(|b| (*b == Behaviour::Dead) == dead).await;
    }

    /// A cached list if it is still fresh; otherwise advances the metrics and renders the visible guests.
    pub(crate) fn list(
        &self,
        of: &'static str,
        render: impl FnOnce(&mut dyn Iterator<Item = &Guest>) -> Vec<u8>,
    ) -> Bytes {
        let mut state = self.state();
        if let Some((_, list)) = state.lists.get(of).filter(|(at, _)| at.elapsed() < self.0.fresh_for) {
            return list.clone();
        }
        self.advance(&mut state);
        let list = Bytes::from(render(&mut state.guests.iter().filter(|guest| guest.present)));
        state.lists.insert(of, (Instant::now(), list.clone()));
        list
    }

    /// A visible guest with its current metrics.
    pub(crate) fn guest(&self, number: i64) -> Option<Guest> {
        let mut state = self.state();
        self.advance(&mut state);
        state.guests.iter().find(|guest| guest.number == number && guest.present).cloned()
    }

    fn advance(&self, state: &mut State) {
        let (now, since): (DateTime<Utc>, _) = (Utc::now(), state.at.elapsed());
        state.at += since;
        state.look += 1;
        for guest in &mut state.guests {
            guest.advance(self.0.seed, state.look, now, since);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a GET of a path and query: status and body.
    pub(crate) fn answer(&self, path: &str, query: &str) -> (u16, Bytes) {
        match self.0.kind {
            Kind::Proxmox => proxmox::answer(self, path, query),
            Kind::Incus => incus::answer(self, path, query),
        }
    }
}
