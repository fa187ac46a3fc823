//! The Incus that guests are created on, as in the tests, and guests created by the driver alone.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hypervisor::{
    Driver, GuestAddress, GuestKind, GuestNetwork, GuestRef, GuestSize, GuestSpec, Presence, StopMode, Task, TaskState,
};
use incus::{Incus, IncusConfig};
use secrecy::SecretString;
use uuid::Uuid;

/// Polling interval for tasks: short compared with a task, long compared with a request.
const POLL: Duration = Duration::from_millis(5);

/// Addresses of the bridge reserved for benchmarks: the first half for Innkeeper, the second for the driver alone.
pub(crate) const OURS: (u8, u8) = (150, 174);
/// See [`OURS`].
pub(crate) const PEERS: (u8, u8) = (175, 199);

/// Location of the test Incus.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    pub socket: String,
    pub project: String,
    pub pool: String,
    pub bridge: String,
    pub gateway: Ipv4Addr,
    pub subnet: ipnet::Ipv4Net,
    pub image: String,
}

impl Lab {
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set; `make bench` sets it"));
        let subnet: ipnet::Ipv4Net = var("INNKEEPER_TEST_INCUS_SUBNET")?.parse().context("the bridge's address")?;
        Ok(Self {
            socket: var("INNKEEPER_TEST_INCUS_SOCKET")?,
            project: var("INNKEEPER_TEST_INCUS_PROJECT")?,
            pool: var("INNKEEPER_TEST_INCUS_POOL")?,
            bridge: var("INNKEEPER_TEST_INCUS_BRIDGE")?,
            gateway: subnet.addr(),
            subnet: subnet.trunc(),
            image: var("INNKEEPER_TEST_IMAGE")?,
        })
    }

    /// A new driver, as the service creates one.
    pub(crate) fn driver(&self) -> anyhow::Result<Arc<dyn Driver>> {
        let config = IncusConfig {
            socket: self.socket.clone().into(),
            project: self.project.clone(),
            storage_pool: self.pool.clone(),
            ..IncusConfig::default()
        };
        Ok(Arc::new(Incus::new(config)?))
    }

    /// The bridge's address with this last byte.
    pub(crate) fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.subnet.network().octets();
        Ipv4Addr::new(a, b, c, last)
    }

    /// The same guest that an order in [`crate::create`] gives.
    pub(crate) fn spec(&self, number: i64, address: u8) -> GuestSpec {
        GuestSpec {
            guest: GuestRef { marker: Uuid::new_v4(), vmid: number, kind: GuestKind::Lxc, node: String::new() },
            hostname: format!("server-{number}"),
            image: self.image.clone(),
            limits: GuestSize { cores: Some(1), memory_mib: Some(256), disk_gib: Some(1), ..GuestSize::default() },
            network: GuestNetwork {
                bridge: self.bridge.clone(),
                vlan: None,
                addresses: vec![GuestAddress {
                    address: IpAddr::V4(self.address(address)),
                    prefix: self.subnet.prefix_len(),
                    gateway: Some(IpAddr::V4(self.gateway)),
                }],
                dns: Vec::new(),
            },
            ssh_keys: Vec::new(),
            password: SecretString::from("bench-password-12"),
        }
    }
}

/// Waits for a task to end.
pub(crate) async fn finish(driver: &dyn Driver, task: hypervisor::Result<Task>) -> anyhow::Result<()> {
    let Task::Running(id) = task? else { return Ok(()) };
    loop {
        match driver.task(&id).await? {
            TaskState::Running(_) => tokio::time::sleep(POLL).await,
            TaskState::Failed(error) => return Err(error.into()),
            TaskState::Succeeded(_) | TaskState::Unknown => return Ok(()),
        }
    }
}

/// Stops and deletes one of our guests, whatever its state.
pub(crate) async fn remove(driver: &dyn Driver, guest: &GuestRef) -> anyhow::Result<()> {
    let mut last = Ok(());
    for _ in 0..200 {
        match driver.find(guest).await? {
            Presence::Absent => return Ok(()),
            Presence::Present { busy: true, .. } => {}
            Presence::Present { .. } => {
                // Either may fail because of another operation in progress; the next check decides.
                last = finish(driver, driver.stop(guest, StopMode::Force).await).await;
                if last.is_ok() {
                    last = finish(driver, driver.delete(guest).await).await;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    last.with_context(|| format!("guest {} can't be removed", guest.vmid))
}
