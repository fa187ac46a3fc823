//! The conformance suite on real Incus containers. `make test` sets the variables that say where they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use conformance::relay::Relay;
use conformance::wait::wait_long_for;
use conformance::{Fault, Rig};
use hypervisor::{
    Driver, Error, GuestAddress, GuestKind, GuestNetwork, GuestRef, GuestSize, GuestSpec, Provision, TaskId,
};
use incus::{Incus, IncusConfig};
use serde_json::{Value, json};
use uuid::Uuid;

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: these tests need a real Incus server; `make test` prepares one"))
}

/// Address and prefix length of a network such as `10.0.0.1/24`.
fn subnet(text: &str) -> (IpAddr, u8) {
    let (address, prefix) = text.split_once('/').expect("an address and a prefix");
    (address.parse().unwrap(), prefix.parse().unwrap())
}

struct IncusRig {
    relay: Relay,
    config: IncusConfig,
    /// Directly to the daemon, bypassing the faults.
    raw: reqwest::Client,
    project: String,
    /// Locked for the test's lifetime.
    addresses: Mutex<Vec<File>>,
}

async fn rig() -> Arc<dyn Rig> {
    let socket = PathBuf::from(variable("INNKEEPER_TEST_INCUS_SOCKET"));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let relay = Relay::start(&socket);
    let project = variable("INNKEEPER_TEST_INCUS_PROJECT");
    let config = IncusConfig {
        socket: relay.path().to_owned(),
        project: project.clone(),
        storage_pool: variable("INNKEEPER_TEST_INCUS_POOL"),
        ..IncusConfig::default()
    };
    // Without a pool, for the same reason as the driver: a silent connection blocks the daemon.
    let raw = reqwest::Client::builder().unix_socket(socket.as_path()).pool_max_idle_per_host(0).no_proxy();
    let raw = raw.build().unwrap();
    Arc::new(IncusRig { relay, config, raw, project, addresses: Mutex::default() })
}

impl IncusRig {
    async fn raw(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let url = format!("http://incus/1.0/{path}?project={}", self.project);
        let answer: Value = self.raw.request(method, url).json(&body).send().await.unwrap().json().await.unwrap();
        let Some(operation) = answer["metadata"]["id"].as_str().filter(|_| answer["type"] == "async") else {
            return answer;
        };
        let url = format!("http://incus/1.0/operations/{operation}/wait?timeout=60&project={}", self.project);
        self.raw.get(url).send().await.unwrap().json().await.unwrap()
    }

    fn name(spec: &GuestSpec) -> String {
        format!("ink-{}", spec.guest.vmid)
    }

    /// Removes what a killed test has left at an address: as long as we hold it, nobody else uses it.
    async fn clear(&self, number: u32) {
        let there = self.raw(reqwest::Method::GET, "instances", Value::Null).await;
        let mut names = Vec::new();
        for path in there["metadata"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let last = path.rsplit('/').next().unwrap_or_default();
            names.push(last.split('?').next().unwrap_or_default().to_owned());
        }
        for name in &names {
            let found = self.raw(reqwest::Method::GET, &format!("instances/{name}"), Value::Null).await;
            let devices = found["metadata"]["devices"].as_object().cloned().unwrap_or_default();
            let here = |device: &Value| {
                let address = device["ipv4.address"].as_str().and_then(|text| text.parse::<Ipv4Addr>().ok());
                address.is_some_and(|address| u32::from(address.octets()[3]) == number)
            };
            if devices.values().any(here) {
                let stop = json!({"action": "stop", "force": true});
                self.raw(reqwest::Method::PUT, &format!("instances/{name}/state"), stop).await;
                self.raw(reqwest::Method::DELETE, &format!("instances/{name}"), Value::Null).await;
                self.raw(reqwest::Method::DELETE, &format!("profiles/{name}-keep"), Value::Null).await;
            }
        }
    }

    /// Takes a number from .100 to .199, the range of these tests, that no other test on this machine holds: a file
    /// lock that ends with the test.
    async fn take_address(&self) -> u32 {
        let folder = std::env::temp_dir().join("innkeeper-test-addresses");
        std::fs::create_dir_all(&folder).unwrap();
        let start = rand::random_range(0..100);
        let free = move || {
            std::future::ready((0..100).map(|n| 100 + (start + n) % 100).find_map(|number| {
                let file = File::create(folder.join(number.to_string())).unwrap();
                file.try_lock().is_ok().then_some((number, file))
            }))
        };
        // Other tests hold their numbers until they end.
        let (number, file) = wait_long_for(Duration::from_mins(10), "an address that no other test holds", free).await;
        self.addresses.lock().unwrap().push(file);
        self.clear(number).await;
        number
    }
}

#[async_trait]
impl Rig for IncusRig {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(Incus::new(self.config.clone()).unwrap())
    }

    async fn spec(&self) -> GuestSpec {
        let host = self.take_address().await;
        let (gateway, prefix) = subnet(&variable("INNKEEPER_TEST_INCUS_SUBNET"));
        let IpAddr::V4(base) = gateway else { panic!("the test subnet is IPv4") };
        let address = Ipv4Addr::from_bits((base.to_bits() & 0xffff_ff00) | host);
        let mut addresses = vec![GuestAddress { address: address.into(), prefix, gateway: Some(gateway) }];
        if let Ok(text) = std::env::var("INNKEEPER_TEST_INCUS_SUBNET6") {
            let (gateway, prefix) = subnet(&text);
            let IpAddr::V6(base) = gateway else { panic!("the second test subnet is IPv6") };
            let address = std::net::Ipv6Addr::from_bits((base.to_bits() & !0xffff) | u128::from(0x1000 + host));
            addresses.push(GuestAddress { address: address.into(), prefix, gateway: Some(gateway) });
        }
        let vmid = rand::random_range(500_000..900_000);
        GuestSpec {
            guest: GuestRef { marker: Uuid::new_v4(), vmid, kind: GuestKind::Lxc, node: String::new() },
            hostname: format!("test-{vmid}"),
            image: variable("INNKEEPER_TEST_IMAGE"),
            limits: GuestSize { cores: Some(1), memory_mib: Some(256), disk_gib: Some(2), ..GuestSize::default() },
            network: GuestNetwork {
                bridge: variable("INNKEEPER_TEST_INCUS_BRIDGE"),
                vlan: None,
                addresses,
                dns: vec![gateway],
            },
            ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEtest one's \"key\"".to_owned()],
            password: "not set by this driver".to_owned().into(),
        }
    }

    async fn remove(&self, spec: &GuestSpec) {
        let name = Self::name(spec);
        let marker = spec.guest.marker.to_string();
        // A busy daemon may refuse once or twice.
        for _ in 0..5 {
            let found = self.raw(reqwest::Method::GET, &format!("instances/{name}"), Value::Null).await;
            let config = &found["metadata"]["config"];
            // Check the marker here too: the number is random and may belong to another guest.
            if config["user.innkeeper.server"] != *marker && config["user.stranger"] != *marker {
                return;
            }
            self.protect(spec, false).await;
            let stop = json!({"action": "stop", "force": true});
            self.raw(reqwest::Method::PUT, &format!("instances/{name}/state"), stop).await;
            self.raw(reqwest::Method::DELETE, &format!("instances/{name}"), Value::Null).await;
            self.raw(reqwest::Method::DELETE, &format!("profiles/{name}-keep"), Value::Null).await;
        }
    }

    fn without_filters(&self) -> Arc<dyn Driver> {
        let config = IncusConfig { address_filters: false, ..self.config.clone() };
        Arc::new(Incus::new(config).unwrap())
    }

    async fn remembers(&self, task: &TaskId) -> bool {
        let operation = task.0.split('?').next().unwrap();
        let found = self.raw(reqwest::Method::GET, &format!("operations/{operation}"), Value::Null).await;
        assert!(found["type"] == "sync" || found["error_code"] == 404, "{found}");
        found["type"] == "sync"
    }

    async fn stranger(&self, spec: &GuestSpec) {
        let body = json!({
            "name": Self::name(spec), "type": "container", "profiles": [],
            "source": {"type": "image", "alias": spec.image},
            "config": {"user.stranger": spec.guest.marker},
            "devices": {"root": {"type": "disk", "path": "/", "pool": self.config.storage_pool}},
        });
        self.raw(reqwest::Method::POST, "instances", body).await;
        let start = json!({"action": "start"});
        self.raw(reqwest::Method::PUT, &format!("instances/{}/state", Self::name(spec)), start).await;
        assert!(self.stranger_is_untouched(spec).await);
    }

    async fn stranger_is_untouched(&self, spec: &GuestSpec) -> bool {
        let found = self.raw(reqwest::Method::GET, &format!("instances/{}", Self::name(spec)), Value::Null).await;
        let stranger = &found["metadata"];
        let ours = |key: &String| key.starts_with("limits.") || key.starts_with("user.innkeeper");
        stranger["status"] == "Running"
            && stranger["config"]["user.stranger"] == *spec.guest.marker.to_string()
            && !stranger["config"].as_object().unwrap().keys().any(ours)
    }

    async fn bandwidth(&self, spec: &GuestSpec) -> Option<f64> {
        let found = self.raw(reqwest::Method::GET, &format!("instances/{}", Self::name(spec)), Value::Null).await;
        let rate = found["metadata"]["devices"]["eth0"]["limits.max"].as_str()?;
        rate.strip_suffix("Mbit").unwrap().parse().ok()
    }

    async fn half_made(&self, spec: &GuestSpec) {
        let body = json!({
            "name": Self::name(spec), "type": "container", "profiles": [],
            "source": {"type": "none"},
            "config": {"user.innkeeper.server": spec.guest.marker},
            "devices": {"root": {"type": "disk", "path": "/", "pool": self.config.storage_pool}},
        });
        self.raw(reqwest::Method::POST, "instances", body).await;
    }

    async fn protect(&self, spec: &GuestSpec, on: bool) {
        let change = json!({"config": {"security.protection.delete": on.to_string()}});
        self.raw(reqwest::Method::PATCH, &format!("instances/{}", Self::name(spec)), change).await;
    }

    async fn fault(&self, fault: Fault) {
        self.relay.set(fault);
    }

    async fn recount(&self) {
        // Since Linux 6.1 a btrfs pool may lose its count whenever a guest is deleted, and this happens often here. If
        // we lack the privileges for a rescan, or the pool is not btrfs, there is nothing to do.
        let pool = format!("/var/lib/incus/storage-pools/{}", self.config.storage_pool);
        let _ = tokio::process::Command::new("btrfs").args(["quota", "rescan", "-w", &pool]).output().await;
    }

    async fn pause(&self, spec: &GuestSpec) {
        let freeze = json!({"action": "freeze"});
        let path = format!("instances/{}/state", Self::name(spec));
        let frozen = self.raw(reqwest::Method::PUT, &path, freeze).await;
        assert_eq!(frozen["metadata"]["status"], "Success", "{frozen}");
    }

    async fn requests(&self) -> Option<u64> {
        Some(self.relay.connections())
    }
}

conformance::conformance_tests!(rig, insides, half_made_guests, paused_guests);

/// A missing storage pool is reported before a guest is destroyed for one that could not be created.
#[tokio::test]
async fn a_missing_storage_pool_is_told_before_anything_is_lost() {
    let lab = rig().await;
    let spec = lab.spec().await;
    let config = IncusConfig {
        socket: PathBuf::from(variable("INNKEEPER_TEST_INCUS_SOCKET")),
        project: variable("INNKEEPER_TEST_INCUS_PROJECT"),
        storage_pool: "innkeeper-no-such-pool".to_owned(),
        ..IncusConfig::default()
    };
    let told = Incus::new(config).unwrap().check_create(&spec).await;
    assert!(matches!(&told, Err(Error::NotFound(text)) if text.contains("no-such-pool")), "{told:?}");
}
