//! A Proxmox VE host for tests: fakepve in a process of its own, with a catalogue to order from.

use std::sync::Arc;

use conformance::fakepve::{ARCHIVE, FakePve, TEMPLATE};
use serde_json::{Value, json};

use crate::{Client, TestDb};

/// A fake cluster that is a host of the service under test.
pub struct Pve {
    pub fake: FakePve,
    db: Arc<TestDb>,
}

/// What can be ordered there.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue {
    pub host: i64,
    pub pool: i64,
    pub lxc: (i64, i64),
    pub vm: (i64, i64),
}

impl Catalogue {
    /// An order for a container.
    pub fn container(&self) -> Value {
        json!({ "osId": self.lxc.0, "tariffId": self.lxc.1 })
    }

    /// An order for a VM.
    pub fn machine(&self) -> Value {
        json!({ "osId": self.vm.0, "tariffId": self.vm.1 })
    }
}

impl Pve {
    pub async fn new(db: &Arc<TestDb>) -> Self {
        Self { fake: FakePve::start().await, db: Arc::clone(db) }
    }

    /// The host's settings as the API takes them.
    pub fn settings(&self) -> Value {
        let driver = self.fake.driver_settings();
        json!({ "endpoints": driver["endpoints"], "tokenId": driver["token_id"],
                "fingerprint": driver["tls"]["fingerprint"]["sha256"], "tokenSecret": driver["token_secret"],
                "storage": driver["storage"] })
    }

    /// Registers host, images, an address pool and tariffs through the API.
    pub async fn register(&self, provider: &Client) -> Catalogue {
        let host = json!({ "name": "pve", "kind": "proxmox", "cpuOvercommit": 100.0, "memoryOvercommit": 100.0,
                           "diskOvercommit": 100.0, "config": self.settings() });
        let post = async |path: &str, body: Value| {
            provider.post(path, body).await.expect(201).body["id"].as_i64().expect("an id")
        };
        let host = post("/api/hosts", host).await;
        let image = async |name: &str, kind: &str, source: &str| {
            let sources = json!([{ "hostId": host, "source": source }]);
            post("/api/images", json!({ "name": name, "type": "linux", "kind": kind, "sources": sources })).await
        };
        let tariff = async |name: &str, kind: &str| {
            let tariff = json!({ "name": name, "kind": kind, "cores": 1, "memory": 256, "disk": 3, "price": 300 });
            post("/api/tariffs", tariff).await
        };
        let pool = json!({ "hostId": host, "name": "pve", "cidr": "10.0.0.0/16", "gateway": "10.0.0.1",
                           "first": "10.0.1.0", "last": "10.0.9.255", "bridge": "vmbr0" });
        Catalogue {
            host,
            pool: post("/api/address-pools", pool).await,
            lxc: (image("Debian CT", "lxc", ARCHIVE).await, tariff("Small", "lxc").await),
            vm: (image("Debian VM", "vm", TEMPLATE).await, tariff("Small VM", "vm").await),
        }
    }

    /// Runs Python in the fake.
    pub async fn run(&self, python: &str) -> Value {
        self.fake.run(python).await
    }

    /// Makes a request fail with one of the fake's named errors.
    pub async fn fail(&self, method: &str, path: &str, name: &str, times: u32) {
        self.run(&format!("pve.fail('{method}', '{path}', error='{name}', times={times})")).await;
    }

    /// Makes a request return a recorded answer once.
    pub async fn canned(&self, method: &str, path: &str, status: u16, reason: &str, body: &str) {
        let answer = format!("[{status}, {reason:?}, {body:?}]");
        self.run(&format!("pve.canned.setdefault(('{method}', '{path}'), []).append({answer})")).await;
    }

    /// Holds requests before they are carried out, until they are let go.
    pub async fn hold(&self, method: &str, path: &str) {
        self.run(&format!("pve.held[('{method}', '{path}')] = asyncio.Event()")).await;
    }

    /// Lets go what is held, and holds no more.
    pub async fn let_go(&self) {
        self.run("[gate.set() for gate in pve.held.values()] and pve.held.clear()").await;
    }

    /// How many requests have come, held ones too.
    pub async fn count(&self, method: &str, path: &str) -> u64 {
        let count = format!("sum(a[0] == '{method}' and a[1].endswith('{path}') for a in pve.asked)");
        self.run(&count).await.as_u64().expect("a number")
    }

    /// Fails the test unless the guests on the host, foreign ones aside, are exactly the servers that hold room in the
    /// database, and only those hold addresses.
    #[track_caller]
    pub fn assert_no_orphan(&self, what: &str) -> impl Future<Output = ()> + '_ {
        let what = what.to_owned();
        async move {
            let marked = "sorted(g.vmid for g in pve.vms + pve.cts \
                          if 'innkeeper-' in g.config.get('tags', '') + g.config.get('description', ''))";
            let there = self.run(marked).await;
            let there: Vec<i64> = serde_json::from_value(there).expect("numbers");
            let ours: Vec<i64> =
                sqlx::query_scalar("select guest_number from servers where reserved order by guest_number")
                    .fetch_all(&self.db.pool)
                    .await
                    .expect("the database answers");
            assert_eq!(there, ours, "{what}: guests on the host and in the database");
            let held: Vec<i64> = sqlx::query_scalar(
                "select s.guest_number from addresses a join servers s on s.id = a.server_id order by s.guest_number",
            )
            .fetch_all(&self.db.pool)
            .await
            .expect("the database answers");
            assert_eq!(held, ours, "{what}: servers with addresses");
        }
    }
}
