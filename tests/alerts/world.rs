//! Servers that exist only in the database, and sweeps of them at chosen times.
#![allow(unreachable_pub, reason = "for the tests beside it")]

use std::sync::Arc;
use std::time::Duration;

use ::watch::alerts::{AlertSettings, Alerts, notify, watch};
use accounts::service::add_user;
use chrono::{DateTime, TimeDelta, Utc};
use compute::ids::HostId;
use hypervisor::{Coverage, GuestPower, Node};
use innkeeper::run::Service;
use kernel::config::Config;
use monitor::{Sample, SweepReport};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{PASSWORD, TestApp, wait_for};

pub struct World {
    pub app: TestApp,
    /// Another process on the same database, which notifies people when the test says so.
    pub notifier: Arc<Alerts>,
    pub host: HostId,
    pub tariff: i64,
    /// Later than anything the service's own tasks do.
    pub start: DateTime<Utc>,
}

/// A mail about alerts.
#[derive(Debug, sqlx::FromRow)]
pub struct Mail {
    pub recipient: String,
    pub subject: String,
    pub text_body: String,
}

impl World {
    pub async fn new() -> Self {
        // No task evaluates alerts by itself.
        let app = TestApp::new().await;
        let db = &app.db.pool;
        add_user(&app.service.features.accounts, "third@example.com", "", None, SecretString::from(PASSWORD))
            .await
            .unwrap();
        let (host, tariff): (i64, i64) = sqlx::query_as(
            "with h as (insert into hosts (name, kind, config_sealed) values ('rack-1', 'incus', '') returning id),
                  i as (insert into images (name, kind) values ('i', 'lxc')),
                  t as (insert into tariffs (name, kind, cores, memory_mib, disk_gib, price, traffic_gib)
                        values ('t', 'lxc', 1, 1024, 10, 1, 10) returning id)
             select h.id, t.id from h, t",
        )
        .fetch_one(db)
        .await
        .unwrap();
        let notifier = notifier(&app.core.config, |alerts| alerts.alert_settle_seconds = 0);
        Self { app, notifier, host: HostId(host), tariff, start: Utc::now() + TimeDelta::days(1) }
    }

    pub fn db(&self) -> &PgPool {
        &self.app.db.pool
    }

    /// A running server of this user.
    pub async fn server(&self, email: &str, name: &str) -> (i64, Uuid) {
        sqlx::query_as(
            "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                                  status, cores, memory_mib, disk_gib)
             select gen_random_uuid(), (select a.id from accounts a where a.owner_id = u.id), t.id, i.id, h.id, 'n',
                    nextval('guest_numbers'), 'lxc', $2, 'running', 1, 1024, 10
             from users u, tariffs t, images i, hosts h where u.email = $1 and h.id = $3 returning id, uuid",
        )
        .bind(email)
        .bind(name)
        .bind(self.host.0)
        .fetch_one(self.db())
        .await
        .unwrap()
    }

    /// A complete sweep of the host, this many seconds after the start.
    pub async fn swept(&self, seconds: i64, samples: Vec<Sample>) {
        self.report(seconds, samples, true).await;
    }

    pub async fn report(&self, seconds: i64, samples: Vec<Sample>, complete: bool) {
        let coverage = Coverage { nodes: complete.then(|| "n".to_owned()).into_iter().collect(), unread: vec![] };
        self.covered(seconds, samples, coverage).await;
    }

    /// A complete sweep of a host whose nodes have this many of 100 GiB in use.
    pub async fn stored(&self, seconds: i64, used: &[u64]) {
        let node = |used: &u64| Node {
            name: format!("n{used}"),
            online: true,
            cores: 1,
            memory_mib: 1024,
            disk_gib: 100,
            disk_used: Some(used << 30),
            disk_shared: false,
        };
        self.looked(seconds, vec![], Coverage::default(), used.iter().map(node).collect()).await;
    }

    /// A sweep that saw these nodes completely.
    pub async fn covered(&self, seconds: i64, samples: Vec<Sample>, coverage: Coverage) {
        self.looked(seconds, samples, coverage, vec![]).await;
    }

    async fn looked(&self, seconds: i64, samples: Vec<Sample>, coverage: Coverage, nodes: Vec<Node>) {
        let at = self.start + TimeDelta::seconds(seconds);
        let took = Duration::from_secs(1);
        let guests = vec![];
        let report = SweepReport { claimed_at: at, known_at: at, taken_at: at, took, nodes, samples, guests, coverage };
        let traffic = ::watch::history::traffic::meter(self.db(), self.host, &report).await.unwrap();
        let mut tx = kernel::db::begin(self.db()).await.unwrap();
        watch::evaluate_sweep(&mut tx, Duration::from_secs(30), self.host, &report, &traffic).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The host did not answer, this many seconds after the start.
    pub async fn silent(&self, seconds: i64) {
        watch::evaluate_failure_at(
            &self.app.service.features.alerts,
            self.host,
            self.start + TimeDelta::seconds(seconds),
        )
        .await
        .unwrap();
    }

    /// The same value in three sweeps in a row, which is what a rule requires by default.
    pub async fn lasts(&self, from: i64, marker: Uuid, cpu: f64) {
        for n in 0..3 {
            self.swept(from + n * 30, vec![busy(marker, cpu)]).await;
        }
    }

    /// Sends all notifications that are due; returns the number of emails.
    pub async fn notify(&self) -> usize {
        self.tell_at(Utc::now()).await
    }

    pub async fn tell_at(&self, now: DateTime<Utc>) -> usize {
        notify(&self.notifier, now).await
    }

    /// All emails about alerts since the last call.
    pub async fn mails(&self) -> Vec<Mail> {
        sqlx::query_as(
            "with m as (update mails set event = 'seen:' || event where event like 'alerts:%'
                        returning recipient, subject, text_body)
             select * from m order by recipient",
        )
        .fetch_all(self.db())
        .await
        .unwrap()
    }

    /// The open alerts as the provider sees them: type and level.
    pub async fn open(&self) -> Vec<(String, String)> {
        let list = self.app.provider.get("/api/alerts?open=true&order=asc&limit=100").await.expect(200).body;
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        list["data"].as_array().unwrap().iter().map(|a| (text(&a["type"]), text(&a["level"]))).collect()
    }

    /// The only alert, whatever its state, as the provider sees it.
    pub async fn only(&self) -> Value {
        let list = self.app.provider.get("/api/alerts").await.expect(200).body;
        assert_eq!(list["total"], 1, "{list}");
        list["data"][0].clone()
    }

    /// A rule for a server, made by its owner.
    pub async fn rule(&self, server: i64, kind: &str, rule: Value) {
        self.app.customer.put(&format!("/api/server/{server}/alert-rules/{kind}"), rule).await.expect(200);
    }
}

/// What notifies people in another process with these settings, changed.
pub fn notifier(config: &Config, change: impl FnOnce(&mut AlertSettings)) -> Arc<Alerts> {
    let mut config = config.clone();
    change(config.of());
    Arc::clone(&Service::new(config).unwrap().features.alerts)
}

/// What this process sends once no other process is sending.
pub async fn notify(notifier: &Alerts, now: DateTime<Utc>) -> usize {
    wait_for("a turn to notify", async || notify::send_due(notifier, now).await.unwrap()).await
}

/// A rule without delays.
pub fn immediate_rule() -> Value {
    json!({ "sustainSeconds": 0, "clearSustainSeconds": 0 })
}

/// A running guest that uses this share of its cores, and little else.
pub fn busy(marker: Uuid, cpu: f64) -> Sample {
    Sample {
        marker,
        node: "n".into(),
        power: GuestPower::Running,
        reason: None,
        uptime_s: Some(60),
        cpu: Some(cpu),
        memory_used: Some(100),
        memory_max: Some(1000),
        disk_used: Some(100),
        disk_max: Some(1000),
        net_in: Some(0),
        net_out: Some(0),
        net_in_rate: None,
        net_out_rate: None,
    }
}

/// A stopped guest.
pub fn stopped(marker: Uuid) -> Sample {
    Sample { power: GuestPower::Stopped, uptime_s: Some(0), memory_used: Some(0), ..busy(marker, 0.0) }
}
