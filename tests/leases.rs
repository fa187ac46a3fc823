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
