//! The service as a process: killed with SIGKILL at every boundary of every step, asked to stop, started twice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use kernel::operations::failpoints::BOUNDARIES;
use serde_json::{Value, json};

use crate::support::app::{idle, signed_in};
use crate::support::child::Service;
use crate::support::lab::Catalogue;
use crate::support::{Client, Lab, TestDb, ended, wait_for, wait_for_sql};

/// How many services are killed side by side: enough to keep the machine busy, few enough for its addresses.
const AT_ONCE: usize = 2;

/// The steps that wait for a host's task.
const WAITING: [&str; 3] = ["create_guest", "start_guest", "delete_guest"];

fn steps(kind: &str) -> Vec<&'static str> {
    idle().features.operations.workflow(kind).expect("a workflow").steps()
}

/// Every failpoint of a workflow that is passed in this direction.
fn points(kind: &'static str, undo: &'static str, waiting: &'static [&'static str]) -> Vec<String> {
    let boundaries = |step: &'static str| {
        BOUNDARIES
            .into_iter()
            .filter(move |b| *b != "waiting" || waiting.contains(&step))
            .map(move |b| format!("{kind}:{step}:{undo}{b}"))
    };
    // To run a single one.
    let only = std::env::var("INNKEEPER_TEST_POINT").unwrap_or_default();
    steps(kind).into_iter().flat_map(boundaries).filter(|point| point.contains(&only)).collect()
}

#[test]
fn a_process_killed_at_any_point_of_create_loses_nothing() {
    for_each(points("create", "", &WAITING), |point| killed_once(format!("{point}=kill"), "create", "succeeded"));
}

#[test]
fn a_process_killed_at_any_point_of_undoing_a_create_leaves_nothing() {
    // It fails at its last step, and is killed while it is undone.
    let last = *steps("create").last().expect("steps");
    let points = points("create", "undo-", &["create_guest"]);
    for_each(points, move |point| killed_once(format!("create:{last}:before=fail;{point}=kill"), "create", "failed"));
}

#[test]
fn a_process_killed_at_any_point_of_delete_still_deletes_the_server() {
    for_each(points("delete", "", &WAITING), |point| killed_once(format!("{point}=kill"), "delete", "succeeded"));
}

#[test]
fn a_change_completes_though_processes_are_killed_at_every_point() {
    let kinds = ["reinstall", "resize", "rollback", "snapshot", "delete_snapshot"];
    for_each(kinds.map(str::to_owned).to_vec(), |kind| async move {
        // The steps that wait for a host's task; a start has nothing to do unless the guest is new.
        let (kind, waiting): (&'static str, &'static [&'static str]) = match &*kind {
            "reinstall" => ("reinstall", &["remove_guest", "create_guest"]),
            "resize" => ("resize", &[]),
            "rollback" => ("rollback", &["take_snapshot", "roll_back"]),
            "snapshot" => ("snapshot", &["take_snapshot"]),
            _ => ("delete_snapshot", &["delete_snapshot"]),
        };
        killed_during_changes(kind, points(kind, "", waiting)).await;
    });
}

/// Runs a test for each point, each on a thread of its own: its clean-up blocks the thread, and Incus stalls for
/// everyone while a connection that one of them has just opened is silent.
fn for_each<F: Future<Output = ()>>(points: Vec<String>, life: impl Fn(String) -> F + Sync) {
    let next = Mutex::new(points.into_iter());
    let live = || {
        while let Some(point) = { next.lock().unwrap().next() } {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(life(point.clone()))));
            assert!(lived.is_ok(), "failed at {point}; see above");
        }
    };
    std::thread::scope(|threads| (0..AT_ONCE).for_each(|_| drop(threads.spawn(live))));
}

struct Life {
    lab: Lab,
    data: tempfile::TempDir,
    db: Arc<TestDb>,
}

impl Life {
    async fn begin(failpoints: &str) -> (Self, Service, Catalogue, Client) {
        Self::begin_with(&[("INNKEEPER_FAILPOINTS", failpoints)]).await
    }

    async fn begin_with(settings: &[(&str, &str)]) -> (Self, Service, Catalogue, Client) {
        crate::support::log();
        let db = Arc::new(TestDb::new().await);
        let data = tempfile::tempdir().unwrap();
        let lab = Lab::new(&db).await;
        let service = Service::start_with(&db, data.path(), settings).await;
        let nobody = Client::new(&service.base, None);
        let catalogue = lab.register(&signed_in(&db, &nobody, "provider@example.com").await).await;
        let customer = signed_in(&db, &nobody, "customer@example.com").await;
        (Self { lab, data, db }, service, catalogue, customer)
    }

    async fn one<T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin>(
        &self,
        sql: &'static str,
    ) -> T {
        sqlx::query_scalar(sql).fetch_one(&self.db.pool).await.unwrap()
    }

    /// Whether every operation has ended; otherwise how many have not.
    async fn idle(&self) -> Result<(), i64> {
        let under_way = "select count(*) from operations where state in ('queued', 'running', 'undoing', 'stuck')";
        match self.one(under_way).await {
            0 => Ok(()),
            some => Err(some),
        }
    }

    async fn operation(&self, kind: &str) -> Value {
        let id: uuid::Uuid = sqlx::query_scalar("select id from operations where kind = $1")
            .bind(kind)
            .fetch_one(&self.db.pool)
            .await
            .unwrap();
        Value::String(id.to_string())
    }
}

/// One order (and, for a delete, one deletion after it) through a process that is killed midway; a second process must
/// bring it to the same end.
async fn killed_once(failpoints: String, kind: &'static str, end: &'static str) {
    let (life, mut service, catalogue, customer) = Life::begin(&failpoints).await;
    // The answer itself may be lost with the process.
    let order = catalogue.order().to_string().into_bytes();
    let made = customer.try_send(reqwest::Method::POST, "/api/server/create", Some(("application/json", order))).await;
    if kind == "delete" {
        let made = made.expect("nothing is killed before the deletion").expect(200).body;
        assert_eq!(ended(&customer, &made["operationId"]).await["state"], "succeeded");
        let path = format!("/api/server/{}", made["id"]);
        let _ = customer.try_send(reqwest::Method::DELETE, &path, None).await;
    }
    service.killed(&life.db).await;

    let second = Service::start(&life.db, life.data.path(), "").await;
    let customer = Client { base: second.base.clone(), ..customer };
    let operation = ended(&customer, &life.operation(kind).await).await;
    assert_eq!(operation["state"], end, "{operation}");

    let alive = i64::from(kind == "create" && end == "succeeded");
    assert_eq!(i64::try_from(life.lab.guests().await).unwrap(), alive, "guests with our marker");
    let held: i64 = life.one("select count(*) from addresses where server_id is not null").await;
    assert_eq!(held, alive, "addresses");
    let room: i64 = life.one("select count(*) from servers where reserved").await;
    assert_eq!(room, alive, "room");

    // The email that the server is ready: once, in the folder too.
    let mails = i64::from(kind == "delete" || end == "succeeded");
    let unsent = "select count(*) from mails where state <> 'sent'";
    wait_for_sql(&life.db.pool, "the mail", unsent, 0_i64).await;
    assert_eq!(life.one::<i64>("select count(*) from mails").await, mails, "mails");
    let folder = life.data.path().join("mail");
    let files = std::fs::read_dir(folder).map_or(0, |files| files.count());
    assert_eq!(i64::try_from(files).unwrap(), mails, "mails in the folder");
}

/// Changes of a running server through a series of processes, each killed at its own point: each one takes up what the
/// last one left, and is asked for another change if nothing is left. All of them succeed, each done once.
async fn killed_during_changes(kind: &'static str, points: Vec<String>) {
    let armed = |n: usize| points.get(n).map_or(String::new(), |point| format!("{point}=kill"));
    let (life, mut service, catalogue, mut customer) = Life::begin(&armed(0)).await;
    let limits = json!({ "snapshots": 100, "maxMemory": 512 });
    let provider = signed_in(&life.db, &Client::new(&service.base, None), "provider@example.com").await;
    provider.put(&format!("/api/tariffs/{}", catalogue.tariff), limits).await.expect(200);
    let made = customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(&customer, &made["operationId"]).await["state"], "succeeded");
    let path = format!("/api/server/{}", made["id"]);
    let post = async |customer: &Client, method: &str, rest: &str, body: Value| {
        let body = Some(("application/json", body.to_string().into_bytes()));
        customer.try_send(method.parse().unwrap(), &format!("{path}{rest}"), body).await
    };
    if kind == "rollback" {
        let taken =
            post(&customer, "POST", "/snapshots", json!({ "snapname": "base" })).await.unwrap().expect(200).body;
        assert_eq!(ended(&customer, &taken["operationId"]).await["state"], "succeeded");
    }
    let count = async || -> i64 {
        let count = sqlx::query_scalar("select count(*) from operations where kind = $1").bind(kind);
        count.fetch_one(&life.db.pool).await.unwrap()
    };
    for (n, point) in points.iter().enumerate() {
        let mut tries = 0;
        // Work in progress is watched until it or the process has ended.
        while !wait_for("the end of the change or of the process", async || match service.is_killed(&life.db).await {
            true => Ok(true),
            false => life.idle().await.map(|()| false),
        })
        .await
        {
            tries += 1;
            assert!(tries <= 3, "{point} is never reached");
            let asked = count().await + 1;
            let (name, mut rest) = (format!("n{asked}"), "/snapshots");
            let (method, body) = match kind {
                "snapshot" => ("POST", json!({ "snapname": name })),
                "delete_snapshot" => {
                    let body = json!({ "snapname": name });
                    if post(&customer, "POST", rest, body.clone()).await.is_err() {
                        service.killed(&life.db).await;
                        continue;
                    }
                    wait_for("the end of every operation", async || life.idle().await).await;
                    ("DELETE", body)
                }
                "rollback" => {
                    rest = "/snapshots/rollback";
                    ("POST", json!({ "snapname": "base", "safetySnapshot": true }))
                }
                "resize" => {
                    rest = "/resize";
                    ("PUT", json!({ "memory": 256 + asked }))
                }
                _ => {
                    rest = "/reinstall";
                    ("POST", json!({ "osId": catalogue.image }))
                }
            };
            // The answer may be lost with the process.
            if post(&customer, method, rest, body).await.is_err() {
                service.killed(&life.db).await;
            }
        }
        service = Service::start(&life.db, life.data.path(), &armed(n + 1)).await;
        customer.base.clone_from(&service.base);
    }
    wait_for("the end of the last change", async || life.idle().await).await;
    let asked = count().await;
    let failed: i64 = life.one("select count(*) from operations where state <> 'succeeded'").await;
    assert_eq!(failed, 0, "{kind}");
    let view = customer.get(&path).await.expect(200).body;
    let memory = if kind == "resize" { 256 + asked } else { 256 };
    assert_eq!((&view["status"], &view["memory"]), (&json!("running"), &json!(memory)), "{kind}");
    let list = customer.get(&format!("{path}/snapshots")).await.expect(200).body;
    let snapshots = match kind {
        // The one to roll back to, and one for each rollback.
        "rollback" => 1 + asked,
        "snapshot" => asked,
        _ => 0,
    };
    assert_eq!(list["data"].as_array().map(|s| i64::try_from(s.len()).unwrap()), Some(snapshots), "{kind}: {list}");
    assert_eq!(life.lab.guests().await, 1);
    let held: i64 = life.one("select count(*) from addresses where server_id is not null").await;
    assert_eq!(held, 1);
}

/// Everywhere else the tests release the leases of dead processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_a_dead_process_is_taken_over_when_its_lease_expires() {
    let settings = [("INNKEEPER_FAILPOINTS", "create:start_guest:before=kill"), ("INNKEEPER_LEASE_SECONDS", "3")];
    let (life, mut first, catalogue, customer) = Life::begin_with(&settings).await;
    let made = customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    first.died().await;
    let held: bool = life.one("select lease_until is not null from operations").await;
    assert!(held, "a killed process releases nothing");
    let second = Service::start(&life.db, life.data.path(), "").await;
    let customer = Client { base: second.base.clone(), ..customer };
    assert_eq!(ended(&customer, &made["operationId"]).await["state"], "succeeded");
    assert_eq!(life.lab.guests().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_asked_to_stop_hands_over_its_work() {
    let (life, mut first, catalogue, customer) = Life::begin("").await;
    let made = customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let status = first.terminate().await;
    assert!(status.success(), "{status}");
    let second = Service::start(&life.db, life.data.path(), "").await;
    let customer = Client { base: second.base.clone(), ..customer };
    assert_eq!(ended(&customer, &made["operationId"]).await["state"], "succeeded");
    assert_eq!(life.lab.guests().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_the_work_and_do_nothing_twice() {
    let (life, _first, catalogue, customer) = Life::begin("").await;
    let second = Service::start(&life.db, life.data.path(), "").await;
    let elsewhere = Client { base: second.base.clone(), ..customer.clone() };
    let mut made = vec![];
    for n in 0..5 {
        let client = if n % 2 == 0 { &customer } else { &elsewhere };
        made.push(client.post("/api/server/create", catalogue.order()).await.expect(200).body);
    }
    for server in made {
        assert_eq!(ended(&elsewhere, &server["operationId"]).await["state"], "succeeded");
    }
    assert_eq!(life.lab.guests().await, 5);
    // Every step of every operation ran once.
    let twice: i64 = life
        .one(
            "select count(*) from (select 1 from operation_log where message = 'done'
                                   group by operation_id, step having count(*) > 1) d",
        )
        .await;
    assert_eq!(twice, 0);
}
