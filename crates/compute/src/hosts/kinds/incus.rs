//! The host kind `incus`: an Incus server, reached through its unix socket.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use garde::Validate;
use hypervisor::{Driver, GuestShell};
use incus::{Incus, IncusConfig};
use kernel::http::text;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checks::{is_domain, is_name, yes};
use super::{Ask, HostKind};

/// How to reach an Incus server, and where to place our guests on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IncusSettings {
    /// The daemon's unix socket.
    #[garde(length(max = 107), custom(is_absolute))]
    #[schema(example = "/var/lib/incus/unix.socket")]
    pub socket: String,
    /// The Incus project for our guests; `default` if omitted.
    #[serde(default = "default_name")]
    #[garde(custom(is_name))]
    pub project: String,
    /// The storage pool for the guests' root disks; `default` if omitted.
    #[serde(default = "default_name")]
    #[garde(custom(is_name))]
    pub storage_pool: String,
    /// Whether Incus filters traffic so that no guest can use another's address; true if omitted. Disable it only if
    /// the node's kernel does not support it.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub address_filters: bool,
    /// The search domain of new guests; none if omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_domain)))]
    pub search_domain: Option<String>,
    /// How many processes a container may have per GiB of its memory, in addition to 500 for each; 0: no limit; 1000 if
    /// omitted. It applies to existing containers from their next start, restart or resize.
    #[serde(default = "default_processes")]
    #[garde(range(max = 1_000_000))]
    pub processes_per_gib: u32,
}

/// Flags of `innkeeper host add` for an Incus server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Incus")]
pub struct IncusFlags {
    /// Unix socket of the daemon
    #[arg(long, default_value = "/var/lib/incus/unix.socket")]
    socket: String,
    /// Incus project for our guests
    #[arg(long, default_value = "default")]
    project: String,
    /// storage pool for the guests' root disks (default: "default")
    #[arg(long)]
    pool: Option<String>,
    /// Don't let the host filter the guests' addresses: for kernels and clusters that don't support it
    #[arg(long)]
    no_address_filters: bool,
    /// Search domain of new guests. Without it they use the domain of their host name, and never their node's
    #[arg(long)]
    search_domain: Option<String>,
    /// Number of processes a container may have per GiB of its memory, on top of 500 for each; 0: no limit
    #[arg(long, default_value_t = default_processes())]
    processes_per_gib: u32,
}

impl HostKind for IncusSettings {
    const NAME: &'static str = "incus";
    const ABOUT: &'static str = "An Incus server";
    const NOUN: &'static str = "Incus server";

    type Flags = IncusFlags;

    fn from_flags(flags: IncusFlags, _: &Ask<'_>) -> anyhow::Result<Self> {
        Ok(Self {
            socket: flags.socket,
            project: flags.project,
            storage_pool: flags.pool.unwrap_or_else(default_name),
            address_filters: !flags.no_address_filters,
            search_domain: flags.search_domain,
            processes_per_gib: flags.processes_per_gib,
        })
    }

    fn stored(&self) -> serde_json::Result<Value> {
        let mut stored = serde_json::to_value(self)?;
        // Programs from before this setting existed refuse it, so its default is not written down.
        if self.processes_per_gib == default_processes()
            && let Some(settings) = stored.as_object_mut()
        {
            settings.remove("processesPerGib");
        }
        Ok(stored)
    }

    fn meets(&self, other: &Self) -> bool {
        self.socket == other.socket
    }

    fn moved(&self, before: &Self) -> bool {
        (&before.socket, &before.project) != (&self.socket, &self.project)
    }

    fn hint(&self, error: &hypervisor::Error) -> Option<String> {
        match error {
            hypervisor::Error::Unreachable(_) => {
                Some(format!("Is Incus running there, and may Innkeeper open its socket {}?", self.socket))
            }
            _ => None,
        }
    }

    fn connect(&self, _: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>> {
        let config = IncusConfig {
            socket: PathBuf::from(&self.socket),
            project: self.project.clone(),
            storage_pool: self.storage_pool.clone(),
            address_filters: self.address_filters,
            search_domain: self.search_domain.clone(),
            processes_per_gib: self.processes_per_gib,
            ..IncusConfig::default()
        };
        Ok(Arc::new(Incus::new(config)?))
    }

    #[cfg(test)]
    fn example() -> Value {
        serde_json::json!({ "socket": "/run/incus.socket", "project": "p", "storagePool": "s", "addressFilters": false,
                            "searchDomain": "example.com", "processesPerGib": 7 })
    }
}

fn default_name() -> String {
    "default".to_owned()
}

/// The default number of processes a container may have for each GiB of its memory.
pub fn default_processes() -> u32 {
    1000
}

fn is_absolute(path: &str, ctx: &()) -> garde::Result {
    text::plain(path, ctx)?;
    match path.starts_with('/') && path.len() > 1 {
        true => Ok(()),
        false => Err(garde::Error::new("must be an absolute path such as /var/lib/incus/unix.socket")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incus_settings_have_defaults_and_odd_ones_are_refused() {
        let settings: IncusSettings = serde_json::from_str(r#"{"socket": "/run/incus.socket"}"#).unwrap();
        assert!(settings.validate().is_ok() && settings.address_filters);
        assert_eq!((settings.project.as_str(), settings.storage_pool.as_str()), ("default", "default"));
        for (socket, project) in
            [("run/x", "p"), ("/", "p"), ("/run/\n", "p"), ("/x", ""), ("/x", "../y"), ("/x", "a/b")]
        {
            let bad = IncusSettings { socket: socket.into(), project: project.into(), ..settings.clone() };
            assert!(bad.validate().is_err(), "{socket:?} {project:?}");
        }
    }

    #[test]
    fn the_default_number_of_processes_is_not_stored() {
        let settings: IncusSettings = serde_json::from_str(r#"{"socket": "/run/incus.socket"}"#).unwrap();
        assert!(settings.stored().unwrap().get("processesPerGib").is_none());
        let other = IncusSettings { processes_per_gib: 0, ..settings };
        assert_eq!(other.stored().unwrap()["processesPerGib"], 0);
    }
}
