//! The conformance suite on fakepve: containers and VMs, on Proxmox VE 8 and 9.

use std::sync::Arc;

use async_trait::async_trait;
use conformance::fakepve::FakePve;
use conformance::{Fault, Rig};
use hypervisor::{Driver, GuestKind, GuestSpec, TaskId};
use proxmox::Proxmox;

use crate::{config, spec};

struct FakeRig {
    fake: FakePve,
    kind: GuestKind,
}

impl FakeRig {
    /// Tasks take a hundredth of their normal time, so that they can still be observed.
    async fn start(kind: GuestKind, version: &str) -> Arc<dyn Rig> {
        let fake = FakePve::start().await;
        fake.run(&format!("pve.version = '{version}'; pve.release_version = '{}'", &version[..3])).await;
        fake.run("pve.time_scale = 0.01; pve.resize_secs = 2").await;
        fake.run("pve.ct_secs.update(create=6, destroy=2, snapshot=2, delsnapshot=2, rollback=2, resize=2)").await;
        Arc::new(Self { fake, kind })
    }
}

#[async_trait]
impl Rig for FakeRig {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(Proxmox::new(config(&self.fake)).unwrap())
    }

    async fn spec(&self) -> GuestSpec {
        spec(self.kind)
    }

    async fn remove(&self, _: &GuestSpec) {
        // The fake ends with the rig.
    }

    async fn stranger(&self, spec: &GuestSpec) {
        let (add, vmid) = (if self.kind == GuestKind::Lxc { "add_ct" } else { "add_vm" }, spec.guest.vmid);
        let config = "config={'tags': 'stranger', 'description': 'theirs', 'cores': 1}";
        self.fake.run(&format!("pve.{add}({vmid}, 'stranger', status='running', {config}) and None")).await;
    }

    async fn stranger_is_untouched(&self, spec: &GuestSpec) -> bool {
        let text = format!(
            "(lambda g: g.status == 'running' and g.config['tags'] == 'stranger' and g.config['cores'] == 1 \
             and g.config['description'] == 'theirs' and not g.snapshots and not g.pending)(guest({}))",
            spec.guest.vmid
        );
        self.fake.run(&text).await == true
    }

    async fn bandwidth(&self, spec: &GuestSpec) -> Option<f64> {
        let net = self.fake.run(&format!("guest({}).config['net0']", spec.guest.vmid)).await;
        let rate = net.as_str().unwrap().split(',').find_map(|pair| pair.strip_prefix("rate="))?;
        // In megabytes per second.
        Some(rate.parse::<f64>().unwrap() * 8.0)
    }

    async fn half_made(&self, spec: &GuestSpec) {
        let (vmid, marker) = (spec.guest.vmid, spec.guest.marker);
        let text = format!("innkeeper-{vmid}-{marker}\\ninnkeeper-making");
        self.fake
            .run(&format!("pve.add_vm({vmid}, 'half', config=dict(guest(9000).config, description='{text}')) and None"))
            .await;
    }

    async fn protect(&self, spec: &GuestSpec, on: bool) {
        let change = if on { "update(protection=1)" } else { "pop('protection') and None" };
        self.fake.run(&format!("guest({}).config.{change}", spec.guest.vmid)).await;
    }

    async fn fault(&self, fault: Fault) {
        self.fake
            .run(&format!("pve.lose_answers = {}", if fault == Fault::LoseAnswers { "True" } else { "False" }))
            .await;
        self.fake.run(if fault == Fault::Cut { "close()" } else { "reopen() if pve.runner is None else None" }).await;
    }

    async fn pause(&self, spec: &GuestSpec) {
        self.fake.run(&format!("setattr(guest({}), 'qmpstatus', 'paused')", spec.guest.vmid)).await;
    }

    async fn requests(&self) -> Option<u64> {
        self.fake.run("pve.came").await.as_u64()
    }

    fn has_insides(&self) -> bool {
        false
    }

    async fn stubborn(&self, spec: &GuestSpec) -> bool {
        self.fake.run(&format!("guest({}).shutdown_secs = 1e6", spec.guest.vmid)).await;
        true
    }

    async fn boot(&self, spec: &GuestSpec) -> Option<String> {
        Some(self.fake.run(&format!("guest({}).started_at", spec.guest.vmid)).await.to_string())
    }

    fn unknown_task(&self) -> TaskId {
        TaskId("UPID:pve1:00000001:00000001:00000001:vzstart:100:innkeeper@pve!test:".to_owned())
    }
}

// A container whose creation was killed stays locked, and no token may unlock it: an operator has to. Nor can
// containers be paused.
mod containers_9 {
    use super::*;

    async fn rig() -> Arc<dyn Rig> {
        FakeRig::start(GuestKind::Lxc, "9.2.0").await
    }
    conformance::conformance_tests!(rig);
}

mod containers_8 {
    use super::*;

    async fn rig() -> Arc<dyn Rig> {
        FakeRig::start(GuestKind::Lxc, "8.4.1").await
    }
    conformance::conformance_tests!(rig);
}

mod machines_9 {
    use super::*;

    async fn rig() -> Arc<dyn Rig> {
        FakeRig::start(GuestKind::Vm, "9.2.0").await
    }
    conformance::conformance_tests!(rig, half_made_guests, paused_guests);
}

mod machines_8 {
    use super::*;

    async fn rig() -> Arc<dyn Rig> {
        FakeRig::start(GuestKind::Vm, "8.4.1").await
    }
    conformance::conformance_tests!(rig, half_made_guests, paused_guests);
}
