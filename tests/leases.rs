//! Lost leases: what they interrupt, and what they don't.

use kernel::operations::failpoints::Action;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{Pve, TestApp, ended, wait_for, wait_for_sql};

/// A lease that expired a second ago. Its keeper has tried to renew it three times since, and knows.
const LOST: &str = "select lease_until < now() - interval '1 second' from operations where state = 'running'";

async fn fence(db: &PgPool, kind: &str) -> i64 {
    sqlx::query_scalar("select fence from operations where kind = $1").bind(kind).fetch_one(db).await.unwrap()
}

/// How many operations of a kind this process reports as succeeded.
async fn succeeded(app: &TestApp, kind: &str) -> f64 {
    let figures = app.figures().await;
    let series = format!("innkeeper_operations_total{{kind=\"{kind}\",state=\"succeeded\"}} ");
    figures.lines().find_map(|line| line.strip_prefix(&series)).map_or(0.0, |count| count.parse().unwrap())
}

/// The save holds the operation's row, so the lease can't be renewed until it is through. Then it takes effect, and
/// whatever follows an end follows this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_being_saved_is_not_lost_when_the_lease_expires() {
    let app = TestApp::with(|c| c.lease_seconds = 2).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
    let before = succeeded(&app, "snapshot").await;

    let mut slow = kernel::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("lock table operation_log in exclusive mode").execute(&mut *slow).await.unwrap();
    let path = format!("/api/server/{}/snapshots", created["id"]);
    let taken = app.customer.post(&path, json!({ "snapname": "one" })).await.expect(200).body;
    wait_for_sql(&app.db.pool, "the end of a lease", LOST, true).await;
    let claims = fence(&app.db.pool, "snapshot").await;
    slow.rollback().await.unwrap();

    assert_eq!(ended(&app.customer, &taken["operationId"]).await["state"], "succeeded");
    assert_eq!(fence(&app.db.pool, "snapshot").await, claims, "it was not done again");
    wait_for("the metric of the end", async || match succeeded(&app, "snapshot").await - before {
        1.0 => Ok(()),
        other => Err(other),
    })
    .await;
}

/// A step in progress is another matter: another worker may be running it by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_loses_its_lease_is_done_by_the_next_claimant() {
    let app = TestApp::with(|c| c.lease_seconds = 2).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let points = &app.core.engine.failpoints;
    points.arm("create:create_guest:before", Action::Hold);
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    wait_for("the step", async || points.all_fired().then_some(())).await;
    let claims = fence(&app.db.pool, "create").await;

    let mut frozen = kernel::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("select from operations for update").execute(&mut *frozen).await.unwrap();
    wait_for_sql(&app.db.pool, "the end of a lease", LOST, true).await;
    frozen.rollback().await.unwrap();

    // The first one is never released.
    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
    assert!(fence(&app.db.pool, "create").await > claims, "it was claimed again");
    pve.assert_no_orphan("after a lost lease").await;
}

/// A call to a host is often several requests. Whoever claims the operation next must find a call that was made, or
/// none: the call in progress is made to its end, and no other one after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_s_call_is_brought_to_its_end_after_a_lost_lease_and_nothing_follows_it() {
    let app = TestApp::with(|c| (c.lease_seconds, c.workers) = (2, 1)).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
    let number = created["proxmoxId"].as_i64().unwrap();
    let (config, guest) = (format!("/lxc/{number}/config"), format!("/lxc/{number}"));
    let (stop, before) = (format!("{guest}/status/stop"), pve.count("PUT", &config).await);

    // Stopping a guest first changes its configuration.
    pve.hold("PUT", &config).await;
    let deleted = app.customer.delete(&format!("/api/server/{}", created["id"])).await.expect(200).body;
    wait_for("the call", async || (pve.count("PUT", &config).await > before).then_some(())).await;
    let mut frozen = kernel::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("select from operations where kind = 'delete' for update").execute(&mut *frozen).await.unwrap();
    wait_for_sql(&app.db.pool, "the end of a lease", LOST, true).await;
    // Another process claims it, and does nothing for now.
    let claimed = "update operations set fence = fence + 1, lease_owner = gen_random_uuid(),
                       lease_until = clock_timestamp() + interval '1 hour' where kind = 'delete'";
    sqlx::query(claimed).execute(&mut *frozen).await.unwrap();
    frozen.commit().await.unwrap();
    // It went down by itself, so the call has nothing to wait for, and the same step would delete it at once.
    pve.run(&format!("setattr(guest({number}), 'status', 'stopped')")).await;
    assert_eq!(pve.count("POST", &stop).await, 0, "the call is in its middle");
    pve.let_go().await;

    // The only worker takes this when it is done with the other.
    let next = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &next["operationId"]).await["state"], "succeeded");
    assert_eq!(pve.count("POST", &stop).await, 1, "the rest of the call was made");
    assert_eq!(pve.count("DELETE", &guest).await, 0, "a call was begun without a lease");

    app.db.release_dead_leases().await;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    assert_eq!((pve.count("POST", &stop).await, pve.count("DELETE", &guest).await), (1, 1));
    pve.assert_no_orphan("after a lost lease").await;
}

/// The step's transaction holds the operation's row: nobody else can claim it before the end of the transaction, which
/// saves the step as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_s_transaction_is_brought_to_its_end_after_a_lost_lease() {
    let app = TestApp::with(|c| c.lease_seconds = 2).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let mut slow = kernel::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("lock table mails in exclusive mode").execute(&mut *slow).await.unwrap();
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let mailing = "select count(*) > 0 from pg_stat_activity where datname = current_database()
                   and wait_event_type = 'Lock' and query ilike '%into mails%'";
    wait_for_sql(&app.db.pool, "the hand-over", mailing, true).await;
    let claims = fence(&app.db.pool, "create").await;
    wait_for_sql(&app.db.pool, "the end of a lease", LOST, true).await;
    slow.rollback().await.unwrap();

    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
    assert_eq!(fence(&app.db.pool, "create").await, claims, "it was not done again");
    let mails: i64 = sqlx::query_scalar("select count(*) from mails").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(mails, 1);
}
