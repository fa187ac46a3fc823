//! Innkeeper turns Proxmox-style hosts into a provider's cloud. See ARCHITECTURE.md for how the rooms fit.

pub mod accounts;
pub mod addresses;
pub mod app;
pub mod audit;
pub mod config;
pub mod db;
pub mod error;
pub mod events;
pub mod hosts;
pub mod http;
pub mod idempotency;
pub mod ids;
pub mod images;
pub mod limits;
pub mod mail;
pub mod monitoring;
pub mod operations;
pub mod realtime;
pub mod secrets;
pub mod servers;
pub mod tariffs;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use app::App;

/// Every feature's routes, below `/api`.
pub(crate) fn features() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(accounts::routes())
        .merge(tariffs::routes())
        .merge(images::routes())
        .merge(hosts::routes())
        .merge(addresses::routes())
        .merge(servers::routes())
        .merge(operations::routes())
        .merge(audit::routes())
}

/// Every workflow that the operations engine knows.
pub(crate) fn workflows() -> Vec<Box<dyn operations::AnyWorkflow>> {
    servers::workflows::all()
}
