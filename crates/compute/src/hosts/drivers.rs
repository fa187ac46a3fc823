//! Connections to hosts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use hypervisor::Driver;
use kernel::error::Result;

use super::settings::HostSettings;
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

/// A driver for these settings, checked as the API checks them; nothing is sent yet.
pub fn build_driver(settings: &HostSettings) -> Result<Arc<dyn Driver>> {
    let mut settings = HostSettings::read(settings.kind(), settings.given()?)?;
    settings.complete(None)?;
    Ok(settings.connect(None)?)
}
