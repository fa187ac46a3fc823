//! Connections to hosts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use hypervisor::ssh::Ways;
use hypervisor::{Driver, GuestShell};
use incus::{Incus, IncusConfig};
use kernel::error::{Error, Result};
use proxmox::{Login, Proxmox, ProxmoxConfig, Tls};

use super::settings::{HostKind, HostSettings, IncusSettings, ProxmoxSettings, SshSettings};
use crate::ids::HostId;

/// Connections to hosts, made at first use and again after a host's settings changed.
#[derive(Debug, Default)]
pub struct Drivers {
    cache: Mutex<HashMap<HostId, Cached>>,
}

#[derive(Debug)]
struct Cached {
    driver: Arc<dyn Driver>,
    /// The settings it was made from, by the time of their last change; none: pinned.
    settings: Option<DateTime<Utc>>,
}

impl Drivers {
    /// Takes `driver` for a host from now on, whatever its settings say: for tests with a host of their own.
    pub fn pin(&self, host: HostId, driver: Arc<dyn Driver>) {
        self.lock().insert(host, Cached { driver, settings: None });
    }

    /// The driver made from the settings of that time, or a pinned one.
    pub(super) fn get(&self, host: HostId, settings: DateTime<Utc>) -> Option<Arc<dyn Driver>> {
        let cache = self.lock();
        let cached = cache.get(&host)?;
        cached.settings.is_none_or(|made_from| made_from == settings).then(|| Arc::clone(&cached.driver))
    }

    pub(super) fn put(&self, host: HostId, settings: DateTime<Utc>, driver: Arc<dyn Driver>) {
        self.lock().insert(host, Cached { driver, settings: Some(settings) });
    }

    pub(super) fn forget(&self, host: HostId) {
        self.lock().remove(&host);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A driver for a host of this kind with these settings, as the API takes them; nothing is sent yet.
pub fn build_driver(kind: &str, config: serde_json::Value) -> Result<Arc<dyn Driver>> {
    let kind: HostKind =
        serde_json::from_value(kind.into()).map_err(|_| Error::field("kind", "There is no driver of this kind."))?;
    let given = serde_json::from_value(config).map_err(Error::internal)?;
    let mut settings = HostSettings::read(kind, given)?;
    settings.complete(None)?;
    Ok(connect(&settings, None)?)
}

/// A driver for these settings, with a way into guests where the host itself has none; nothing is sent yet.
pub(super) fn connect(
    settings: &HostSettings,
    shell: Option<Arc<dyn GuestShell>>,
) -> hypervisor::Result<Arc<dyn Driver>> {
    match settings {
        HostSettings::Incus(settings) => Ok(Arc::new(Incus::new(incus(settings))?)),
        HostSettings::Proxmox(settings) => {
            let driver = Proxmox::new(proxmox(settings))?;
            Ok(Arc::new(match shell {
                Some(shell) => driver.with_shell(shell),
                None => driver,
            }))
        }
    }
}

/// The ways over SSH that the settings allow.
pub(super) fn ways(ssh: &SshSettings) -> Ways {
    Ways { guests: ssh.guests.then_some(22), nodes: ssh.nodes.then_some(ssh.node_port) }
}

fn incus(settings: &IncusSettings) -> IncusConfig {
    IncusConfig {
        socket: PathBuf::from(&settings.socket),
        project: settings.project.clone(),
        storage_pool: settings.storage_pool.clone(),
        address_filters: settings.address_filters,
        search_domain: settings.search_domain.clone(),
        processes_per_gib: settings.processes_per_gib,
        ..IncusConfig::default()
    }
}

fn proxmox(settings: &ProxmoxSettings) -> ProxmoxConfig {
    ProxmoxConfig {
        endpoints: settings.endpoints.clone(),
        token_id: settings.token_id.clone(),
        token_secret: settings.token_secret.clone().unwrap_or_default(),
        login: settings
            .login
            .as_ref()
            .map(|login| Login { user: login.user.clone(), password: login.password.clone().unwrap_or_default() }),
        tls: match (&settings.ca, &settings.fingerprint) {
            (Some(pem), _) => Tls::Ca { pem: pem.clone() },
            (None, Some(sha256)) => Tls::Fingerprint { sha256: sha256.clone() },
            (None, None) => Tls::SystemRoots,
        },
        storage: settings.storage.clone(),
        pool: settings.pool.clone(),
        address_filters: settings.address_filters,
        nesting: settings.nesting,
        search_domain: settings.search_domain.clone(),
        connect_timeout_s: 5,
        // Nodes give each other 30 seconds.
        request_timeout_s: 35,
    }
}
