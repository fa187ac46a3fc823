//! Real guests: the Incus that `make test` starts, with addresses and guest numbers reserved for each test.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hypervisor::{Driver, GuestKind, GuestRef, Presence, StopMode, Task, TaskState};
use incus::IncusConfig;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::wait::wait_long_for;
use crate::{Client, TestDb, wait_for};

/// Where the test Incus is.
#[derive(Debug, Clone)]
pub struct Incus {
    pub socket: String,
    pub project: String,
    pub pool: String,
    pub bridge: String,
    pub subnet: ipnet::Ipv4Net,
    pub gateway: Ipv4Addr,
    pub image: String,
}

impl Incus {
    pub fn from_env() -> Self {
        let var = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} says where the test Incus is; `make test` sets it"))
        };
        let subnet = var("INNKEEPER_TEST_INCUS_SUBNET");
        let net: ipnet::Ipv4Net = subnet.parse().expect("the bridge's address with its prefix length");
        Self {
            socket: var("INNKEEPER_TEST_INCUS_SOCKET"),
            project: var("INNKEEPER_TEST_INCUS_PROJECT"),
            pool: var("INNKEEPER_TEST_INCUS_POOL"),
            bridge: var("INNKEEPER_TEST_INCUS_BRIDGE"),
            gateway: net.addr(),
            subnet: net.trunc(),
            image: var("INNKEEPER_TEST_IMAGE"),
        }
    }

    pub fn driver(&self) -> Arc<dyn Driver> {
        let config = IncusConfig {
            socket: self.socket.clone().into(),
            project: self.project.clone(),
            storage_pool: self.pool.clone(),
            ..IncusConfig::default()
        };
        Arc::new(incus::Incus::new(config).expect("the test Incus' settings are valid"))
    }
}

/// Addresses per slot.
const SLOT: u8 = 5;

/// A share of the test Incus: five addresses and a range of guest numbers that no other test uses. At the end the
/// guests in the test's database are removed from the host.
pub struct Lab {
    pub incus: Incus,
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    // Kept until its guests are gone.
    db: Arc<TestDb>,
    // Held while the lab lives; the system releases it when the process dies.
    _slot: File,
}

impl Lab {
    /// Takes a free share. `db` says at the end which guests to remove.
    pub async fn new(db: &Arc<TestDb>) -> Self {
        let incus = Incus::from_env();
        let (slot, number) = take_slot().await;
        let start = 2 + number * SLOT;
        let base = u32::from(incus.subnet.network());
        let (first, last) =
            (Ipv4Addr::from(base + u32::from(start)), Ipv4Addr::from(base + u32::from(start + SLOT - 1)));
        clear(&incus, first, last).await;
        let numbers = rand::random_range(1_000_000i64..900_000_000);
        sqlx::query(sqlx::AssertSqlSafe(format!("alter sequence guest_numbers restart with {numbers}")))
            .execute(&db.pool)
            .await
            .expect("guest numbers of our own");
        Self { first, last, incus, db: Arc::clone(db), _slot: slot }
    }

    /// Registers host, image, pool and a tariff through the API, and returns their ids.
    pub async fn register(&self, provider: &Client) -> Catalogue {
        self.register_at(provider, &self.incus.socket).await
    }

    /// The same through another socket.
    pub async fn register_at(&self, provider: &Client, socket: &str) -> Catalogue {
        let host = provider
            .post(
                "/api/hosts",
                json!({ "name": "lab", "kind": "incus", "memoryOvercommit": 10.0, "diskOvercommit": 10.0,
                        "config": { "socket": socket, "project": self.incus.project,
                                    "storagePool": self.incus.pool } }),
            )
            .await
            .expect(201)
            .body;
        let image = provider
            .post(
                "/api/images",
                json!({ "name": "Debian", "type": "linux", "kind": "lxc",
                        "sources": [{ "hostId": host["id"], "source": self.incus.image }] }),
            )
            .await
            .expect(201)
            .body;
        let pool = provider
            .post(
                "/api/address-pools",
                json!({ "hostId": host["id"], "name": "lab", "cidr": self.incus.subnet.to_string(),
                        "gateway": self.incus.gateway.to_string(), "first": self.first.to_string(),
                        "last": self.last.to_string(), "bridge": self.incus.bridge }),
            )
            .await
            .expect(201)
            .body;
        let tariff = tariff(provider, "Базовый", 256).await;
        let id = |v: &Value| v["id"].as_i64().expect("an id");
        Catalogue { host: id(&host), image: id(&image), pool: id(&pool), tariff }
    }

    /// How many of the database's servers, deleted ones included, have a guest on the host.
    pub async fn guests(&self) -> usize {
        let driver = self.incus.driver();
        let mut there = 0;
        for guest in guests(&self.db.pool).await.expect("the database answers") {
            match driver.find(&guest).await.expect("the host answers") {
                Presence::Present { .. } => there += 1,
                Presence::Absent => {}
            }
        }
        there
    }
}

/// A small tariff of this name.
pub async fn tariff(provider: &Client, name: &str, memory: u32) -> i64 {
    let tariff = json!({ "name": name, "kind": "lxc", "cores": 1, "memory": memory, "disk": 1, "price": 300 });
    provider.post("/api/tariffs", tariff).await.expect(201).body["id"].as_i64().expect("an id")
}

/// What can be ordered in a lab.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue {
    pub host: i64,
    pub image: i64,
    pub pool: i64,
    pub tariff: i64,
}

impl Catalogue {
    /// An order for one server.
    pub fn order(&self) -> Value {
        json!({ "osId": self.image, "tariffId": self.tariff })
    }
}

async fn guests(db: &PgPool) -> anyhow::Result<Vec<GuestRef>> {
    let rows: Vec<(Uuid, i64, String)> =
        sqlx::query_as("select uuid, guest_number, node from servers").fetch_all(db).await?;
    let guest = |(marker, vmid, node)| GuestRef { marker, vmid, kind: GuestKind::Lxc, node };
    Ok(rows.into_iter().map(guest).collect())
}

impl Drop for Lab {
    fn drop(&mut self) {
        let (driver, options) = (self.incus.driver(), self.db.pool.connect_options());
        crate::block_on(async move || {
            let db = PgPool::connect_with((*options).clone()).await?;
            for guest in guests(&db).await? {
                remove(&*driver, &guest).await?;
            }
            Ok(())
        });
    }
}

/// Stops and deletes a guest of ours, whatever its state.
pub async fn remove(driver: &dyn Driver, guest: &GuestRef) -> anyhow::Result<()> {
    wait_for("a guest's removal", async || match driver.find(guest).await {
        Ok(Presence::Absent) => Ok(Ok(())),
        Ok(Presence::Present { busy: true, .. }) => Err("it is busy"),
        Ok(Presence::Present { .. }) => {
            let _ = finish(driver, driver.stop(guest, StopMode::Force).await).await;
            let _ = finish(driver, driver.delete(guest).await).await;
            Err("it is there")
        }
        Err(error) => Ok(Err(error.into())),
    })
    .await
}

/// Waits for a task's end.
pub async fn finish(driver: &dyn Driver, task: hypervisor::Result<Task>) -> anyhow::Result<()> {
    let Task::Running(id) = task? else { return Ok(()) };
    wait_for("the end of a host's task", async || match driver.task(&id).await {
        Ok(running @ TaskState::Running(_)) => Err(running),
        Ok(TaskState::Failed(error)) | Err(error) => Ok(Err(error.into())),
        Ok(TaskState::Succeeded(_) | TaskState::Unknown) => Ok(Ok(())),
    })
    .await
}

/// Removes what a killed test left at these addresses: while we hold their slot, nobody else uses them.
async fn clear(incus: &Incus, first: Ipv4Addr, last: Ipv4Addr) {
    // An error means that the service in this process has installed one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // No connection pool: a silent connection stalls the daemon.
    let client = reqwest::Client::builder().unix_socket(incus.socket.as_str()).pool_max_idle_per_host(0).no_proxy();
    let client = client.build().expect("a client of the test Incus");
    let ask = async |method: reqwest::Method, path: String, body: Value| -> Value {
        let sign = if path.contains('?') { '&' } else { '?' };
        let url = format!("http://incus/1.0/{path}{sign}project={}", incus.project);
        let answer = client.request(method, url).json(&body).send().await.expect("the test Incus answers");
        answer.json().await.expect("JSON")
    };
    let there = ask(reqwest::Method::GET, "instances?recursion=1".into(), Value::Null).await;
    for instance in there["metadata"].as_array().into_iter().flatten() {
        let mut addresses = instance["devices"].as_object().into_iter().flat_map(|devices| {
            devices.values().filter_map(|device| device["ipv4.address"].as_str()?.parse::<Ipv4Addr>().ok())
        });
        if !addresses.any(|address| (first..=last).contains(&address)) {
            continue;
        }
        let name = instance["name"].as_str().expect("a name");
        eprintln!("{name} was left here by a test that was killed");
        let stop = json!({ "action": "stop", "force": true });
        for (method, path, body) in [
            (reqwest::Method::PUT, format!("instances/{name}/state"), stop),
            (reqwest::Method::DELETE, format!("instances/{name}"), Value::Null),
            (reqwest::Method::DELETE, format!("profiles/{name}-keep"), Value::Null),
        ] {
            let answer = ask(method, path, body).await;
            if let Some(operation) = answer["metadata"]["id"].as_str() {
                ask(reqwest::Method::GET, format!("operations/{operation}/wait?timeout=60"), Value::Null).await;
            }
        }
    }
}

/// A number below 19 that no other test on this machine holds.
async fn take_slot() -> (File, u8) {
    let folder: PathBuf = std::env::temp_dir().join("innkeeper-test-slots");
    std::fs::create_dir_all(&folder).expect("a folder for slots");
    // Other tests hold theirs for as long as they run.
    wait_long_for(std::time::Duration::from_mins(10), "a free share of the test Incus", async || {
        (0..19).find_map(|number| {
            let file = File::create(folder.join(number.to_string())).expect("a slot's file");
            flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some((file, number))
        })
    })
    .await
}

/// The output of a command in a guest that must succeed and print something. A busy Incus sometimes loses all of a
/// command's output, and is then asked again.
pub async fn output_of(driver: &dyn Driver, guest: &GuestRef, argv: &[&str]) -> String {
    wait_for("a guest's output", async || {
        let out = driver.exec(guest, argv, b"", Duration::from_secs(20)).await.expect("the guest runs commands");
        assert_eq!(out.status, 0, "{argv:?}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        if text.is_empty() { Err(format!("{argv:?} printed nothing")) } else { Ok(text) }
    })
    .await
}
