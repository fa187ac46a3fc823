//! Limited resources: addresses, room, the account's own limit.

use serde_json::json;

use crate::support::lab::tariff;
use crate::support::{Lab, Pve, TestApp, ended, wait_for_sql};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_orders_for_the_last_five_addresses_make_exactly_five_servers() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let orders: Vec<_> = (0..20)
        .map(|_| {
            let client = app.customer.clone();
            tokio::spawn(async move { client.post("/api/server/create", catalogue.order()).await })
        })
        .collect();
    let (mut made, mut refused) = (vec![], 0);
    for order in orders {
        let answer = order.await.unwrap();
        match answer.status {
            200 => made.push(answer.body),
            _ => {
                answer.clone().expect(507);
                assert_eq!(answer.code(), "RESOURCE_UNAVAILABLE");
                assert!(answer.body["error"].as_str().unwrap().contains("address"), "{}", answer.text);
                refused += 1;
            }
        }
    }
    assert_eq!((made.len(), refused), (5, 15));
    for server in &made {
        assert_eq!(ended(&app.customer, &server["operationId"]).await["state"], "succeeded");
    }
    let servers = app.customer.get("/api/server").await.body;
    let mut addresses: Vec<&str> =
        servers.as_array().unwrap().iter().map(|s| s["ipAddress"].as_str().unwrap()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 5, "all different: {servers}");
    assert_eq!(lab.guests().await, 5);

    // A released one can be ordered again.
    let deleted = app.customer.delete(&format!("/api/server/{}", made[0]["id"])).await.expect(200).body;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    let again = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &again["operationId"]).await["state"], "succeeded");
    app.customer.post("/api/server/create", catalogue.order()).await.expect(507);
    assert_eq!(lab.guests().await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_does_not_fit_is_refused_with_a_reason_and_changes_nothing() {
    let app = TestApp::with(|c| c.workers = 1).await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let order = |tariff: i64, image: i64| json!({ "osId": image, "tariffId": tariff });
    let refused = async |body: serde_json::Value, status: u16, field: &str| {
        let answer = app.customer.post("/api/server/create", body).await.expect(status);
        if !field.is_empty() {
            assert!(answer.body["details"]["fields"][field].is_string(), "{}", answer.text);
        }
        answer
    };
    refused(order(4711, catalogue.image), 422, "tariffId").await;
    refused(order(catalogue.tariff, 4711), 422, "osId").await;

    // More memory than any node has.
    let huge = tariff(&app.provider, "huge", 16_000_000).await;
    let answer = refused(order(huge, catalogue.image), 507, "").await;
    assert!(answer.body["error"].as_str().unwrap().contains("capacity"), "{}", answer.text);

    // A tariff that is no longer sold.
    let old = tariff(&app.provider, "old", 128).await;
    app.provider.put(&format!("/api/tariffs/{old}"), json!({ "enabled": false })).await.expect(200);
    refused(order(old, catalogue.image), 422, "tariffId").await;

    // The account's own limit.
    sqlx::query("update accounts set server_limit = 0").execute(&app.db.pool).await.unwrap();
    let answer = refused(catalogue.order(), 507, "").await;
    assert!(answer.body["error"].as_str().unwrap().contains("0 of at most 0"), "{}", answer.text);

    let rows: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from servers), (select count(*) from operations),
                (select count(*) from addresses where server_id is not null)",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(rows, (0, 0, 0));
}

/// In the database each would hold a connection while it waits, and none would be left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_wait_for_one_another_leave_the_database_to_others() {
    let app = TestApp::with(|c| c.database_pool = 4).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let mut elsewhere = kernel::db::begin(&app.db.pool).await.unwrap();
    compute::locks::PLACEMENT.hold(&mut elsewhere).await.unwrap();
    let orders: Vec<_> = (0..8)
        .map(|_| {
            let client = app.customer.clone();
            tokio::spawn(async move { client.post("/api/server/create", catalogue.container()).await })
        })
        .collect();
    let waiting = "select count(*) > 1 from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    wait_for_sql(&app.db.pool, "orders that wait", waiting, true).await;
    app.other.get("/api/server").await.expect(200);
    elsewhere.rollback().await.unwrap();
    for order in orders {
        let made = order.await.unwrap().expect(200).body;
        assert_eq!(ended(&app.customer, &made["operationId"]).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_has_its_labels_from_the_first_moment() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let mut order = pve.register(&app.provider).await.container();
    for bad in [json!({ "env": "a b" }), json!({ "": "x" }), json!({ "env": 1 }), json!(["env"])] {
        order["labels"] = bad;
        let refused = app.customer.post("/api/server/create", order.clone()).await.expect(422);
        assert!(refused.text.contains("labels"), "{}", refused.text);
    }
    assert_eq!(app.customer.get("/api/server").await.expect(200).body, json!([]));

    app.db.hold_operations().await;
    order["labels"] = json!({ "env": "production", "empty": "" });
    let made = app.customer.post("/api/server/create", order.clone()).await.expect(200).body;
    let found = app.customer.get("/api/server?labels=env%3Dproduction").await.expect(200).body;
    assert_eq!((&found[0]["id"], &found[0]["status"]), (&made["id"], &json!("creating")));
    assert_eq!(found[0]["labels"], order["labels"]);
    app.db.release_operations().await;
    assert_eq!(ended(&app.customer, &made["operationId"]).await["state"], "succeeded");
}
