//! Two processes and a fleet of 50 hosts, and everything goes wrong: one of the processes is killed, hosts hang, the
//! database is away for a while. Healthy hosts are swept again at once, and those who must know are notified once.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::{Behaviour, Fleet, Kind, Options};
use serde_json::{Value, json};

use crate::support::app::signed_in;
use crate::support::child::Service;
use crate::support::relay::DatabaseRelay;
use crate::support::{Client, TestDb, wait_for_sql};

const HOSTS: usize = 50;
const GUESTS: usize = 4;
/// Seconds between sweeps of a host.
const INTERVAL: u64 = 5;
const HUNG: [usize; 3] = [7, 21, 49];

struct World {
    db: Arc<TestDb>,
    data: tempfile::TempDir,
    /// The database's URL through a relay.
    url: String,
}

impl World {
    async fn process(&self) -> Service {
        let interval = INTERVAL.to_string();
        let settings = [
            ("DATABASE_URL", self.url.as_str()),
            ("INNKEEPER_SWEEP_SECONDS", &interval),
            ("INNKEEPER_ALERT_SETTLE_SECONDS", "3"),
            ("INNKEEPER_DATABASE_WAIT_SECONDS", "3"),
        ];
        Service::start_with(&self.db, self.data.path(), &settings).await
    }

    async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&self.db.pool).await.unwrap()
    }

    /// Waits until a count has this value.
    async fn until(&self, what: &str, sql: &str, wanted: i64) {
        wait_for_sql(&self.db.pool, what, sql, wanted).await;
    }

    /// Servers on healthy hosts whose last sample is older than two intervals.
    fn stale(healthy: bool) -> String {
        let hung: Vec<String> = HUNG.iter().map(|n| format!("'rack-{n}'")).collect();
        let these = if healthy { format!("h.name not in ({})", hung.join(", ")) } else { "true".to_owned() };
        format!(
            "select count(*) from servers s join hosts h on h.id = s.host_id where {these} and not exists (select from
                 samples where server_id = s.id and taken_at > now() - interval '{} seconds')",
            INTERVAL * 2
        )
    }
}

pub(crate) async fn register(provider: &Client, db: &TestDb, fleet: &Fleet) {
    for (n, host) in fleet.hosts().iter().enumerate() {
        let new = json!({ "name": format!("rack-{n}"), "kind": "proxmox", "config": host.settings(), "force": true });
        let host_id = provider.post("/api/hosts", new).await.expect(201).body["id"].as_i64().unwrap();
        sqlx::query(
            "with i as (insert into images (name, kind) values ('i' || $1, 'lxc') returning id),
                  t as (insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
                        values ('t' || $1, 'lxc', 1, 128, 1, 1) returning id)
             insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                                  status, cores, memory_mib, disk_gib)
             select m, (select a.id from accounts a where a.owner_id = u.id), t.id, i.id, $1, 'n',
                    nextval('guest_numbers'), 'lxc', 'web', 'running', 1, 128, 1
             from unnest($2::uuid[]) with ordinality g (m, n), t, i, users u
             where u.email = case when g.n % 2 = 0 then 'customer@example.com' else 'other@example.com' end",
        )
        .bind(host_id)
        .bind(host.markers())
        .execute(&db.pool)
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_survives_a_killed_process_hung_hosts_and_a_database_outage() {
    crate::support::log();
    let options = Options { seed: 5, ..Options::new(Kind::Proxmox, HOSTS, GUESTS) };
    let fleet = Fleet::start(options).await.unwrap();
    for host in fleet.hosts() {
        host.alter(0..GUESTS, |guest| guest.load = fleet::Load { cpu: 0.2, memory: 0.3, disk: 0.3 });
    }
    let db = Arc::new(TestDb::new().await);
    let data = tempfile::tempdir().unwrap();
    let mut db_relay = DatabaseRelay::new(&db).await;
    let world = World { url: db_relay.url.clone(), db, data };

    let (mut first, second) = (world.process().await, world.process().await);
    let provider = signed_in(&world.db, &Client::new(&second.base, None), "provider@example.com").await;
    let rule = json!({ "sustainSeconds": 2 * INTERVAL, "clearSustainSeconds": 0 });
    provider.put("/api/alert-rules/host_unreachable", rule).await.expect(200);
    register(&provider, &world.db, &fleet).await;
    world.until("every guest is seen", &World::stale(false), 0).await;

    for n in HUNG {
        fleet.host(n).set(Behaviour::Hung);
    }
    first.kill().await;
    let raised =
        "select count(*) from alerts where kind = 'host_unreachable' and server_id is null and told_at is not null";
    world.until("hung hosts are reported", raised, HUNG.len() as i64).await;
    world.until("the other process sweeps the rest", &World::stale(true), 0).await;

    db_relay.cut();
    let healthy = (HOSTS - HUNG.len()) * GUESTS;
    world.until("two sweeps that could not be stored", &World::stale(true), healthy as i64).await;
    db_relay.mend().await;
    let third = world.process().await;
    world.until("healthy hosts after the outage", &World::stale(true), 0).await;
    assert_eq!(world.number("select count(*) from hosts where last_error is not null").await, HUNG.len() as i64);
    let claimed = "select count(*) from hosts where sweep_failures = 0";
    assert_eq!(world.number(claimed).await, (HOSTS - HUNG.len()) as i64);

    for n in HUNG {
        fleet.host(n).set(Behaviour::Well);
    }
    world.until("all hosts are healthy", &World::stale(false), 0).await;
    let open = "select count(*) from alerts where resolved_at is null or (told_at is not null and end_told_at is null)";
    world.until("all alerts are over and reported", open, 0).await;
    world.until("all emails are sent", "select count(*) from mails where state <> 'sent'", 0).await;

    // Each beginning and each end is in exactly one email to each person who must know, and nothing else is in any.
    let mut told: BTreeMap<(String, String, bool), usize> = BTreeMap::new();
    let mails: Vec<(String, String)> =
        sqlx::query_as("select recipient, text_body from mails where event like 'alerts:%'")
            .fetch_all(&world.db.pool)
            .await
            .unwrap();
    for (recipient, text) in &mails {
        for line in text.lines().filter_map(|line| line.strip_prefix("- ")) {
            let about = line.split(':').next().unwrap().to_owned();
            *told.entry((recipient.clone(), about, line.contains(", ended "))).or_default() += 1;
        }
    }
    let mut wanted: BTreeMap<(String, String, bool), usize> = BTreeMap::new();
    let hung: Vec<String> = HUNG.iter().map(|n| format!("rack-{n}")).collect();
    let affected: Vec<(i64, String)> = sqlx::query_as(
        "select s.id, u.email from servers s join accounts a on a.id = s.account_id
             join users u on u.id = a.owner_id join hosts h on h.id = s.host_id
         where h.name = any($1)",
    )
    .bind(&hung)
    .fetch_all(&world.db.pool)
    .await
    .unwrap();
    assert_eq!(affected.len(), HUNG.len() * GUESTS);
    for ended in [false, true] {
        wanted.extend(hung.iter().map(|host| (("provider@example.com".to_owned(), host.clone(), ended), 1)));
        wanted.extend(affected.iter().map(|(id, email)| ((email.clone(), format!("web (server {id})"), ended), 1)));
    }
    assert_eq!(told, wanted);
    let files = std::fs::read_dir(world.data.path().join("mail")).unwrap().count();
    assert_eq!(files, mails.len(), "each email was written once");
    let status: Value = provider.get("/api/hosts").await.expect(200).body;
    assert_eq!(status.as_array().unwrap().len(), HOSTS);
    drop((second, third));
}
