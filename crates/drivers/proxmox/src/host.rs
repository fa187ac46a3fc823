//! The cluster as a host: what it can do, whether we may do our work there, what it can make guests from.

use async_trait::async_trait;
use hypervisor::{Capabilities, GuestKind, Host, HostInfo, Result, check};
use serde::Deserialize;

use crate::permissions::Permissions;
use crate::{Proxmox, clones, images, preflight, resources};

#[derive(Debug, Deserialize)]
struct Version {
    version: String,
}

#[async_trait]
impl Host for Proxmox {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            password_at_create: true,
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
        let version: Version = client.get(&["version"], &[]).await?;
        let major = version.version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut problems = Vec::new();
        if !(8..=9).contains(&major) {
            problems
                .push(format!("The nodes run Proxmox VE {}: only versions 8 and 9 are supported.", version.version));
        }
        let config = &client.config;
        let permissions: Permissions = client.get(&["access", "permissions"], &[]).await?;
        for (path, privileges) in Self::privileges(major, &config.storage, config.pool.as_deref()) {
            let missing = permissions.missing(&path, &privileges);
            if !missing.is_empty() {
                problems.push(format!(
                    "The token {} lacks {} on {path}: give them to its role (a token with privilege separation needs \
                     the role as well as its user).",
                    config.token_id,
                    missing.join(", ")
                ));
            }
        }
        let list = resources::read(client).await?;
        let nodes = list.as_nodes(&config.storage);
        if nodes.is_empty() {
            problems.push(format!("The token {} can't see any node: give it Sys.Audit on /nodes.", config.token_id));
        }
        for node in list.nodes() {
            match node.status.as_str() {
                "online" if node.in_maintenance() => {
                    problems.push(format!("The node {} is in maintenance: no new guests are placed there.", node.node));
                }
                "online" => {}
                _ => problems.push(format!("The node {} is not online.", node.node)),
            }
        }
        let online: Vec<&str> = nodes.iter().filter(|node| node.online).map(|node| node.name.as_str()).collect();
        preflight::storages(client, &list, &online, &mut problems).await?;
        problems.extend(clones::problems(client, &list.rows).await?);
        problems.extend(preflight::snapshots(&list.rows, &config.storage));
        preflight::bridges(client, &online, &mut problems).await?;
        preflight::firewall(client, &online, &mut problems).await?;
        preflight::tags(client, &mut problems).await?;
        let identity = preflight::identity(client, &online).await;
        let template_storages = preflight::template_storages(&list.rows);
        let version = format!("Proxmox VE {}", version.version);
        Ok(HostInfo { version, nodes, problems, major, identity, template_storages })
    }

    async fn has_image(&self, kind: GuestKind, source: &str) -> Result<bool> {
        let client = &self.client;
        check::line("image", source)?;
        let list = resources::read(client).await?;
        if kind == GuestKind::Vm {
            return Ok(!images::templates(&list, source).is_empty());
        }
        let mut failure = None;
        for node in list.nodes().filter(|row| row.status == "online") {
            match images::has_archive(client, &node.node, source).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // A storage need not be on every node.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(false), Err)
    }

    async fn image_nodes(&self, kind: GuestKind, source: &str) -> Result<Option<Vec<String>>> {
        let client = &self.client;
        check::line("image", source)?;
        let list = resources::read(client).await?;
        let up: Vec<&str> = list.nodes().filter(|row| row.status == "online").map(|row| row.node.as_str()).collect();
        let found = match kind {
            GuestKind::Lxc => images::of_archive(client, &list, &up, source).await?,
            GuestKind::Vm => images::of_template(client, &list, source).await?,
        };
        Ok(Some(up.into_iter().filter(|node| found.contains(*node)).map(str::to_owned).collect()))
    }
}
