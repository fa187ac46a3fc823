//! Innkeeper turns Proxmox-style hosts into a provider's cloud. See ARCHITECTURE.md for how the rooms fit.

pub mod accounts;
pub mod addresses;
pub mod alerts;
pub mod app;
pub mod audit;
pub mod config;
pub mod console;
pub mod db;
pub mod error;
pub mod events;
mod hashing;
pub mod history;
pub mod hosts;
pub mod http;
pub mod idempotency;
pub mod ids;
pub mod images;
mod janitor;
pub mod keyring;
pub mod limits;
mod locks;
pub mod mail;
pub mod monitoring;
pub mod operations;
pub mod realtime;
pub mod resize;
pub mod restores;
mod schema;
pub mod secrets;
pub mod servers;
pub mod snapshots;
pub mod ssh_keys;
mod stored;
pub mod tariffs;
pub mod unknown_guests;

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
        .merge(unknown_guests::routes())
        .merge(servers::routes())
        .merge(resize::routes())
        .merge(history::routes())
        .merge(snapshots::routes())
        .merge(ssh_keys::routes())
        .merge(operations::routes())
        .merge(audit::routes())
        .merge(console::routes())
        .merge(alerts::routes())
        .merge(mail::routes())
}

/// What browsers open that is not below `/api`.
pub(crate) fn pages() -> OpenApiRouter<Arc<App>> {
    console::pages().merge(accounts::pages())
}

/// Seals with the master key what old keys sealed, of everything that is sealed; or, without `change`, only looks.
pub(crate) async fn reseal(app: &App, change: bool) -> error::Result<Vec<(&'static str, keyring::Resealed)>> {
    Ok(vec![
        ("settings of hosts", hosts::service::reseal(app, change).await?),
        ("passwords in operations", operations::service::reseal(app, change).await?),
        ("answers kept for a day", idempotency::reseal(app, change).await?),
    ])
}

/// Every workflow that the operations engine knows.
pub fn workflows() -> Vec<Box<dyn operations::AnyWorkflow>> {
    let mut all = servers::workflows::all();
    all.push(Box::new(resize::workflow::workflow()));
    all.extend(snapshots::workflows::all());
    all
}
