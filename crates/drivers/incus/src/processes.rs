//! How many processes a container may have. All containers share the kernel's process ids: one without a limit can
//! use them up, and then nothing can be started on the machine.

use std::path::Path;

use hypervisor::{GuestKind, Result};
use reqwest::Method;
use serde_json::json;

use crate::IncusConfig;
use crate::api::{Instance, MIB, parse_size};
use crate::client::Client;
use crate::lookup::instance_type;

/// The config key; it also applies to running containers.
pub(crate) const KEY: &str = "limits.processes";
/// What each container may have, however small. An idle one with systemd has some 30.
const EACH: u64 = 500;

/// `None`: no limit.
pub(crate) fn limit(config: &IncusConfig, kind: GuestKind, memory_mib: u64) -> Option<String> {
    let per_gib = u64::from(config.processes_per_gib);
    // A VM has its own kernel.
    (kind == GuestKind::Lxc && per_gib > 0).then(|| (EACH + per_gib * memory_mib / 1024).to_string())
}

/// Sets a guest's limit where it has another, or none since it is older than the limit.
pub(crate) async fn apply(client: &Client, instance: &Instance) -> Result<()> {
    let memory = instance.expanded_config.get("limits.memory").and_then(|text| parse_size(text));
    let kind = if instance.kind == instance_type(GuestKind::Lxc) { GuestKind::Lxc } else { GuestKind::Vm };
    let Some(limit) = memory.and_then(|memory| limit(&client.config, kind, memory / MIB)) else { return Ok(()) };
    if instance.config.get(KEY) == Some(&limit) {
        return Ok(());
    }
    let body = json!({"config": {KEY: limit}});
    client.send_and_wait(Method::PATCH, &["instances", &instance.name], Some(&body)).await
}

/// Whether the kernel has fewer process ids than containers with all of the machine's memory may use. The socket is
/// local, so this machine's procfs tells.
pub(crate) fn problem(procfs: &Path, config: &IncusConfig) -> Option<String> {
    const NAME: &str = "kernel.pid_max";
    const ADVICE: u64 = 4_194_304;
    let read = |file: &str| std::fs::read_to_string(procfs.join(file)).ok();
    let now: u64 = read("sys/kernel/pid_max")?.trim().parse().ok()?;
    let memory = read("meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = memory.trim().trim_end_matches("kB").trim().parse().ok()?;
    let may = u64::from(config.processes_per_gib) * kib / MIB;
    (now < may).then(|| {
        format!(
            "{NAME} is {now}, but containers that use all of this machine's memory may have {may} processes: once the \
             ids are used up, nothing can be started. Run sysctl -w {NAME}={ADVICE}, and put the line {NAME}={ADVICE} \
             into /etc/sysctl.d/90-innkeeper.conf to make it permanent."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_limited_by_their_memory_and_machines_by_their_own_kernel() {
        let config = IncusConfig::default();
        assert_eq!(limit(&config, GuestKind::Lxc, 512).as_deref(), Some("1000"));
        assert_eq!(limit(&config, GuestKind::Lxc, 8192).as_deref(), Some("8500"));
        assert_eq!(limit(&config, GuestKind::Vm, 8192), None);
        let unlimited = IncusConfig { processes_per_gib: 0, ..config };
        assert_eq!(limit(&unlimited, GuestKind::Lxc, 512), None);
    }

    #[test]
    fn too_few_numbers_for_processes_are_named_with_the_line_to_set() {
        let procfs = std::env::temp_dir().join(format!("innkeeper-procfs-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(procfs.join("sys/kernel")).unwrap();
        std::fs::write(procfs.join("sys/kernel/pid_max"), "32768\n").unwrap();
        let config = IncusConfig::default();
        let with = |gib: u64| {
            let memory = format!("MemTotal:       {} kB\nMemFree:        1 kB\n", gib << 20);
            std::fs::write(procfs.join("meminfo"), memory).unwrap();
            problem(&procfs, &config)
        };
        let text = with(64).unwrap();
        assert!(text.contains("64000 processes") && text.contains("sysctl -w kernel.pid_max=4194304"), "{text}");
        assert_eq!(with(16), None);
        std::fs::remove_dir_all(&procfs).unwrap();
        assert_eq!(problem(&procfs, &config), None, "no warning if it can't be read");
    }
}
