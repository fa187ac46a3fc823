//! The Proxmox VE driver on fakepve, and on recorded responses where the fake differs from the real API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod console;
mod faults;
mod filters;
mod guests;
mod locks;
mod made;
mod preflight;
mod recorded;
mod schema;
mod suite;
mod transport;

use std::net::Ipv4Addr;

use conformance::fakepve::{ARCHIVE, FakePve, TEMPLATE};
use conformance::wait::wait_for;
use hypervisor::{
    Error, GuestAddress, GuestKind, GuestNetwork, GuestPower, GuestRef, GuestSize, GuestSpec, Inventory, Power,
    Presence, Provision, Result, Task, TaskState, Tasks,
};
use proxmox::{Proxmox, ProxmoxConfig};
use uuid::Uuid;

/// Spec of a small guest on node `pve1`.
fn spec(kind: GuestKind) -> GuestSpec {
    let vmid = rand::random_range(500_000..900_000);
    let gateway = Ipv4Addr::new(10, 0, 0, 1);
    let address = Ipv4Addr::from_bits(gateway.to_bits() + vmid);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKTb7S1XnIyE2n0lPpzYkPSAFpSVn0Gg2HJpkq1kqxKM a+b@c";
    GuestSpec {
        guest: GuestRef { marker: Uuid::new_v4(), vmid: vmid.into(), kind, node: "pve1".to_owned() },
        hostname: format!("test-{vmid}"),
        image: if kind == GuestKind::Lxc { ARCHIVE } else { TEMPLATE }.to_owned(),
        limits: GuestSize { cores: Some(1), memory_mib: Some(256), disk_gib: Some(3), ..GuestSize::default() },
        network: GuestNetwork {
            bridge: "vmbr0".to_owned(),
            vlan: None,
            addresses: vec![GuestAddress { address: address.into(), prefix: 8, gateway: Some(gateway.into()) }],
            dns: vec![gateway.into()],
        },
        ssh_keys: vec![key.to_owned()],
        password: "secret of root".to_owned().into(),
    }
}

/// The settings with which a driver reaches a fake.
fn config(fake: &FakePve) -> ProxmoxConfig {
    serde_json::from_value(fake.driver_settings()).unwrap()
}

/// A fake with a driver and a spec.
struct Bench {
    fake: FakePve,
    driver: Proxmox,
    spec: GuestSpec,
}

impl Bench {
    async fn new(kind: GuestKind) -> Self {
        let fake = FakePve::start().await;
        let driver = Proxmox::new(config(&fake)).unwrap();
        Self { fake, driver, spec: spec(kind) }
    }

    /// With a stopped guest.
    async fn stopped(kind: GuestKind) -> Self {
        let bench = Self::new(kind).await;
        bench.done(bench.driver.create(&bench.spec).await).await;
        bench.driver.prepare(&bench.spec).await.unwrap();
        bench
    }

    /// With a running guest.
    async fn running(kind: GuestKind) -> Self {
        let bench = Self::stopped(kind).await;
        bench.done(bench.driver.start(&bench.spec.guest).await).await;
        bench
    }

    fn config(&self) -> ProxmoxConfig {
        config(&self.fake)
    }

    fn vmid(&self) -> i64 {
        self.spec.guest.vmid
    }

    /// `path` with the guest's API path in front.
    fn path(&self, path: &str) -> String {
        let kind = if self.spec.guest.kind == GuestKind::Lxc { "lxc" } else { "qemu" };
        format!("/nodes/pve1/{kind}/{}{path}", self.vmid())
    }

    /// Makes a request fail once with one of fakepve's named errors.
    async fn fail(&self, method: &str, path: &str, name: &str) {
        self.fake.run(&format!("pve.fail('{method}', '{path}', error='{name}', times=1)")).await;
    }

    /// Makes a request return a recorded response once.
    async fn canned(&self, method: &str, path: &str, status: u16, reason: &str, body: &str) {
        let answer = format!("[{status}, {reason:?}, {body:?}]");
        self.fake.run(&format!("pve.canned.setdefault(('{method}', '{path}'), []).append({answer})")).await;
    }

    /// Waits for a task to end.
    async fn end(&self, task: Task) -> TaskState {
        let Task::Running(id) = task else { return TaskState::Succeeded(None) };
        wait_for(&format!("the end of {id:?}"), async || match self.driver.task(&id).await.unwrap() {
            running @ TaskState::Running(_) => Err(running),
            state => Ok(state),
        })
        .await
    }

    async fn done(&self, task: Result<Task>) {
        let state = self.end(task.unwrap()).await;
        assert!(matches!(state, TaskState::Succeeded(_)), "{state:?}");
    }

    async fn failed(&self, task: Result<Task>) -> Error {
        match self.end(task.unwrap()).await {
            TaskState::Failed(error) => error,
            other => panic!("should have failed, is {other:?}"),
        }
    }

    async fn power(&self) -> Option<GuestPower> {
        match self.driver.find(&self.spec.guest).await.unwrap() {
            Presence::Present { power, .. } => Some(power),
            Presence::Absent => None,
        }
    }
}
