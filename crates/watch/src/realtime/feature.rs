//! The live view as a feature of the service.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use accounts::Accounts;
use axum::Router;
use axum::middleware::from_fn_with_state;
use kernel::core::Core;
use kernel::events::Subscription;
use kernel::feature::{BackgroundTask, Feature};
use kernel::subjects::Subject;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler;
use socketioxide::layer::SocketIoLayer;
use socketioxide::{ParserConfig, SocketIo};
use tokio::sync::mpsc;

use super::gate::{self, PendingSessions};
use super::sockets::{self, Hub, SocketQuota};
use super::{admit, guard, push};
use crate::monitoring::Monitoring;

/// Largest message accepted from a client: a subscription is a few bytes.
const MAX_MESSAGE: usize = 16 * 1024;
/// Most messages queued for one client: two sweeps of everything it may subscribe to, stats and alerts.
const MAX_WAITING: usize = 4 * sockets::MAX_SUBSCRIPTIONS;

/// The live view: Socket.IO on the API's port.
pub struct Realtime {
    hub: Arc<Hub>,
    layer: SocketIoLayer,
    io: SocketIo,
    /// Subscriptions for the tasks, made before the first socket so that none misses an event.
    heard: Mutex<Option<TaskInputs>>,
}

struct TaskInputs {
    pushed: Subscription,
    guarded: Subscription,
    greetings: mpsc::Receiver<(SocketRef, Subject)>,
}

impl std::fmt::Debug for Realtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Realtime").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Realtime {
    /// Creates the feature.
    pub fn new(core: &Arc<Core>, accounts: &Arc<Accounts>, monitoring: &Arc<Monitoring>) -> Arc<Self> {
        let (greet, greetings) = mpsc::channel(1024);
        let (pushed, guarded) = (core.events.subscribe(), core.events.subscribe());
        let hub = Arc::new(Hub {
            core: Arc::clone(core),
            accounts: Arc::clone(accounts),
            monitoring: Arc::clone(monitoring),
            gate: PendingSessions::default(),
            greet,
            seats: SocketQuota::default(),
        });
        let (layer, io) = SocketIo::builder()
            .ping_interval(Duration::from_secs(25))
            .ping_timeout(Duration::from_secs(20))
            .connect_timeout(gate::LIFE)
            .max_payload(MAX_MESSAGE as u64)
            .ws_max_message_size(MAX_MESSAGE)
            .ws_max_frame_size(MAX_MESSAGE)
            .max_buffer_size(MAX_WAITING)
            .with_parser(ParserConfig::common().max_incoming_binaries(0).max_incoming_binary_buf_size(0))
            .with_state(Arc::clone(&hub))
            .build_layer();
        io.ns("/", sockets::connected.with(sockets::authenticate));
        Arc::new(Self { hub, layer, io, heard: Mutex::new(Some(TaskInputs { pushed, guarded, greetings })) })
    }
}

impl Feature for Realtime {
    fn name(&self) -> &'static str {
        "realtime"
    }

    fn wrap(self: Arc<Self>, router: Router) -> Router {
        router.layer(self.layer.clone()).layer(from_fn_with_state(Arc::clone(&self.hub), admit::admit))
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        let Some(heard) = self.heard.lock().unwrap_or_else(PoisonError::into_inner).take() else { return vec![] };
        let (hub, io) = (Arc::clone(&self.hub), self.io.clone());
        vec![
            BackgroundTask::new("push", push::run(Arc::clone(&hub), io.clone(), heard.pushed, heard.greetings)),
            BackgroundTask::new("guard", guard::run(hub, io, heard.guarded)),
        ]
    }

    fn describe(&self) {
        use metrics::{describe_counter, describe_gauge};
        describe_gauge!("innkeeper_sockets", "Open sockets of the live view.");
        describe_counter!("innkeeper_sockets_dropped_total", "Sockets closed because their client stopped reading.");
    }
}
