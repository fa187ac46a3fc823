//! Limited things: addresses, room, the account's own limit.

use serde_json::json;

use crate::support::lab::tariff;
use crate::support::{Lab, TestApp, ended};

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
    assert_eq!(addresses.len(), 5, "each its own: {servers}");
    assert_eq!(lab.guests().await, 5);

    // One given back is one to be had again.
    let deleted = app.customer.delete(&format!("/api/server/{}", made[0]["id"])).await.expect(200).body;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    let again = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &again["operationId"]).await["state"], "succeeded");
    app.customer.post("/api/server/create", catalogue.order()).await.expect(507);
    assert_eq!(lab.guests().await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_in_words_and_changes_nothing() {
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

    // More memory than any node has in all.
    let huge = tariff(&app.provider, "huge", 16_000_000).await;
    let answer = refused(order(huge, catalogue.image), 507, "").await;
    assert!(answer.body["error"].as_str().unwrap().contains("room"), "{}", answer.text);

    // A tariff that is no longer sold.
    let old = tariff(&app.provider, "old", 128).await;
    app.provider.put(&format!("/api/tariffs/{old}"), json!({ "enabled": false })).await.expect(200);
    refused(order(old, catalogue.image), 422, "tariffId").await;

    // The account's own limit.
    sqlx::query("update users set server_limit = 0 where email = 'customer@example.com'")
        .execute(&app.db.pool)
        .await
        .unwrap();
    let answer = refused(catalogue.order(), 507, "").await;
    assert!(answer.body["error"].as_str().unwrap().contains("0 of 0"), "{}", answer.text);

    let rows: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from servers), (select count(*) from operations),
                (select count(*) from addresses where server_id is not null)",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(rows, (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_sent_again_with_its_key_makes_one_server() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let orders: Vec<_> = (0..8)
        .map(|_| {
            let client = app.customer.clone();
            tokio::spawn(async move {
                client.post_once("/api/server/create", "order 1", &catalogue.order()).await.expect(200).body
            })
        })
        .collect();
    let mut answers = vec![];
    for order in orders {
        answers.push(order.await.unwrap());
    }
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    assert_eq!(ended(&app.customer, &answers[0]["operationId"]).await["state"], "succeeded");
    assert_eq!(lab.guests().await, 1);

    // The key is for that request and that account.
    let mut other = catalogue.order();
    other["name"] = json!("another");
    let refused = app.customer.post_once("/api/server/create", "order 1", &other).await.expect(422);
    assert!(refused.body["details"]["fields"]["Idempotency-Key"].is_string(), "{}", refused.text);
    let theirs = app.other.post_once("/api/server/create", "order 1", &catalogue.order()).await.expect(200).body;
    assert_ne!(theirs["id"], answers[0]["id"]);
    assert_eq!(ended(&app.other, &theirs["operationId"]).await["state"], "succeeded");
    app.customer.post_once("/api/server/create", &"k".repeat(256), &catalogue.order()).await.expect(422);

    let stored: Vec<u8> =
        sqlx::query_scalar("select answer_sealed from idempotency_keys limit 1").fetch_one(&app.db.pool).await.unwrap();
    let password = answers[0]["rootPassword"].as_str().unwrap().as_bytes();
    assert!(!stored.windows(password.len()).any(|w| w == password), "sealed at rest");
}
