//! The rules of changing what a server is called, how it is kept, and what runs on it.

use secrecy::ExposeSecret;
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{ReinstallServer, Reinstalling, ServerView, Status, Suspension, UpdateServer};
use super::service::{self, Submitted};
use super::workflows::power::{self, Power};
use super::workflows::{create, reinstall};
use super::{ServerAccess, store};
use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::{secrets, ssh_keys};

/// Renames, labels and protects a server. Nothing of it reaches the host.
pub async fn update(app: &App, access: &ServerAccess, update: UpdateServer) -> Result<ServerView> {
    let mut tx = app.db.begin().await?;
    let server = service::lock(&mut tx, access).await?;
    store::update(&mut tx, server.id, update.name.as_deref(), update.labels.as_ref(), update.deletion_protection)
        .await?;
    tx.commit().await?;
    service::view(app, server.id).await
}

/// Has a server made anew, in its old place with its old addresses.
pub async fn reinstall(app: &App, access: &ServerAccess, wish: ReinstallServer) -> Result<Reinstalling> {
    let mut tx = app.db.begin().await?;
    let server = service::lock(&mut tx, access).await?;
    service::unprotected(&server)?;
    if !server.reserved {
        service::present(&server)?;
    }
    let kind = store::image_kind(&mut tx, wish.os_id).await?;
    if kind.as_deref() != Some(&*server.kind) {
        return Err(Error::field("osId", format!("There is no such image on offer for {} servers.", server.kind)));
    }
    if store::source_on(&mut tx, wish.os_id, server.host_id).await?.is_none() {
        return Err(Error::field("osId", "The host that this server lives on does not have this image."));
    }
    let keys = match (&wish.ssh_keys, &wish.ssh_key_ids) {
        (None, None) => server.ssh_keys.clone(),
        (keys, ids) => {
            let (keys, ids) = (keys.as_deref().unwrap_or_default(), ids.as_deref().unwrap_or_default());
            ssh_keys::service::together(&mut tx, server.user_id, keys, ids).await?
        }
    };
    let password = secrets::readable_password();
    let sealed = app.sealer.seal_text(create::PASSWORD, &password)?;
    let data = reinstall::Data::new(sealed, wish.os_id, keys);
    let id = service::enqueue(app, &mut tx, access, reinstall::KIND, Some(Status::Reinstalling), data).await?;
    tx.commit().await?;
    let Submitted { operation_id, task_id } = service::submitted(app, id).await?;
    let root_password = password.expose_secret().to_owned();
    Ok(Reinstalling { status: "success".to_owned(), task_id, root_password, operation_id })
}

/// Keeps a server down from now on. The customer is locked out at once, whatever its host does.
pub async fn suspend(app: &App, access: &ServerAccess, reason: &str) -> Result<Suspension> {
    let mut tx = app.db.begin().await?;
    let server = service::lock(&mut tx, access).await?;
    let running = matches!(server.status, Status::Running | Status::Unknown);
    store::suspend(&mut tx, server.id, reason.trim(), running).await?;
    let operation_id = if running { Some(stop_or_start(app, &mut tx, access, Power::Suspend).await?) } else { None };
    tx.commit().await?;
    Ok(Suspension { status: "success".to_owned(), action: "suspend".to_owned(), operation_id })
}

/// Lets a server up again.
pub async fn unsuspend(app: &App, access: &ServerAccess) -> Result<Suspension> {
    let mut tx = app.db.begin().await?;
    let server = service::lock(&mut tx, access).await?;
    if server.suspend_reason.is_none() {
        return Err(Error::new(Code::Conflict, "This server is not suspended."));
    }
    let start = store::unsuspend(&mut tx, server.id).await?;
    let operation_id = if start { Some(stop_or_start(app, &mut tx, access, Power::Unsuspend).await?) } else { None };
    tx.commit().await?;
    Ok(Suspension { status: "success".to_owned(), action: "unsuspend".to_owned(), operation_id })
}

async fn stop_or_start(app: &App, tx: &mut PgConnection, access: &ServerAccess, power: Power) -> Result<Uuid> {
    service::enqueue(app, tx, access, power.kind(), Some(power.under_way()), power::Data::default()).await
}
