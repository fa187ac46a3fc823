//! The server as a host: what it can do, and whether we may do our work there.

use std::path::Path;

use async_trait::async_trait;
use hypervisor::{Capabilities, GuestKind, Host, HostInfo, Node, Result};
use serde_json::Value;

use crate::api::PoolResources;
use crate::server::{Environment, MachineResources, ServerInfo, as_node};
use crate::{Incus, images, preflight, processes, traffic};

/// API extensions that we rely on; Incus 6.0 has all of them.
const NEEDED: &[&str] =
    &["instances", "instance_state_started_at", "instances_state_total", "image_types", "projects", "resources_v2"];

#[async_trait]
impl Host for Incus {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            password_at_create: false,
            set_password: true,
            exec: true,
            live_resize: true,
            vm_live_resize: false,
            snapshots: true,
            console: true,
            lxc: true,
            vm: true,
        }
    }

    async fn info(&self) -> Result<HostInfo> {
        let client = &self.client;
        let server: ServerInfo = client.get(&[], &[]).await?;
        let mut problems = Vec::new();
        if server.auth != "trusted" {
            problems.push(
                "The Incus server does not trust us: run Innkeeper as a member of the group incus-admin.".to_owned(),
            );
            return Ok(as_info(&server, Vec::new(), problems));
        }
        let config = &client.config;
        let resources: MachineResources = client.get(&["resources"], &[]).await?;
        let pool: Option<PoolResources> =
            client.get_opt(&["storage-pools", &config.storage_pool, "resources"], &[]).await?;
        let project: Option<Value> = client.get_opt(&["projects", &config.project], &[]).await?;
        problems.extend(preflight::storage_problem(client).await?);
        problems.extend(preflight::inotify_problem(Path::new("/proc/sys")));
        problems.extend(traffic::problem(client).await);
        problems.extend(processes::problem(Path::new("/proc"), config));
        if project.is_none() {
            problems.push(format!("The project {0} is missing: create it (incus project create {0}).", config.project));
        }
        let missing: Vec<_> =
            NEEDED.iter().filter(|needed| !server.api_extensions.iter().any(|has| has == *needed)).collect();
        if !missing.is_empty() {
            problems.push(format!("The server is too old and lacks {missing:?}: upgrade to Incus 6.0 or later."));
        }
        if server.environment.server_clustered {
            problems.push("The server is part of a cluster; only single servers are supported so far.".to_owned());
        }
        if !config.address_filters {
            problems.push(
                "Address filters are switched off: guests on one bridge can take each other's addresses. Switch \
                 address_filters on where the kernel has nftables' bridge family."
                    .to_owned(),
            );
        } else if server.environment.firewall != "nftables" {
            problems.push(format!(
                "The server filters addresses with {:?} rather than nftables; check that guests start.",
                server.environment.firewall
            ));
        }
        Ok(as_info(&server, vec![as_node(&server, &resources, pool.as_ref())], problems))
    }

    async fn has_image(&self, kind: GuestKind, source: &str) -> Result<bool> {
        Ok(images::fingerprint(&self.client, kind, source).await?.is_some())
    }
}

fn as_info(server: &ServerInfo, nodes: Vec<Node>, problems: Vec<String>) -> HostInfo {
    let Environment { server_version, certificate_fingerprint, .. } = &server.environment;
    let certificate = Some(certificate_fingerprint.clone()).filter(|text| !text.is_empty());
    HostInfo {
        version: version(server),
        major: server_version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0),
        nodes,
        problems,
        identity: certificate.into_iter().collect(),
        template_storages: Vec::new(),
    }
}

fn version(server: &ServerInfo) -> String {
    format!("Incus {} ({})", server.environment.server_version, server.environment.driver)
}
