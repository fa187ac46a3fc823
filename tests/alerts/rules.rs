//! Rules: which one applies, who may set one, and what becomes of open alerts; who sees whose alerts.

use serde_json::{Value, json};

use super::world::{World, busy, immediate_rule};

fn cpu(rules: &Value) -> &Value {
    rules.as_array().unwrap().iter().find(|r| r["type"] == "cpu").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_specific_rule_applies_from_the_next_sweep() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    let of_server = format!("/api/server/{id}/alert-rules");
    let of_tariff = format!("/api/tariffs/{}/alert-rules", world.tariff);
    let (customer, provider) = (&world.app.customer, &world.app.provider);
    let mut at = 0;
    let mut swept = async |value: f64| {
        at += 30;
        world.swept(at, vec![busy(marker, value)]).await;
        world.open().await.len()
    };
    let rule = |warning: f64| json!({ "warning": warning, "sustainSeconds": 0, "clearSustainSeconds": 0 });
    let builtin = cpu(&customer.get(&of_server).await.expect(200).body).clone();
    assert_eq!(
        (&builtin["scope"], &builtin["warning"], &builtin["sustainSeconds"]),
        (&json!("builtin"), &json!(0.9), &json!(60))
    );
    assert_eq!(swept(0.6).await, 0);

    let made = provider.put("/api/alert-rules/cpu", rule(0.5)).await.expect(200).body;
    assert_eq!((&made["scope"], &made["warning"], &made["clear"]), (&json!("everything"), &json!(0.5), &json!(0.45)));
    assert_eq!(swept(0.6).await, 1);
    provider.put(&format!("{of_tariff}/cpu"), rule(0.7)).await.expect(200);
    assert_eq!(cpu(&customer.get(&of_server).await.expect(200).body)["scope"], "tariff");
    assert_eq!(swept(0.6).await, 0, "the tariff's rule would not raise it");
    assert_eq!(world.only().await["ended"], "recovered");
    customer.put(&format!("{of_server}/cpu"), rule(0.55)).await.expect(200);
    assert_eq!(cpu(&customer.get(&of_server).await.expect(200).body)["scope"], "server");
    assert_eq!(swept(0.6).await, 1);
    customer.put(&format!("{of_server}/cpu"), json!({ "enabled": false })).await.expect(200);
    assert_eq!(swept(0.99).await, 0, "switched off");
    customer.delete(&format!("{of_server}/cpu")).await.expect(204);
    assert_eq!(swept(0.6).await, 0);
    provider.delete(&format!("{of_tariff}/cpu")).await.expect(204);
    assert_eq!(swept(0.6).await, 1);
    provider.delete("/api/alert-rules/cpu").await.expect(204);
    assert_eq!(swept(0.6).await, 0, "back to the built-in rule");
    provider.delete("/api/alert-rules/cpu").await.expect(404);
    let ended: Vec<String> =
        sqlx::query_scalar("select ended from alerts order by id").fetch_all(world.db()).await.unwrap();
    assert_eq!(ended, ["recovered", "withdrawn", "recovered"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_rules_are_refused_by_field() {
    let world = World::new().await;
    let (id, _) = world.server("customer@example.com", "web-1").await;
    let rules = format!("/api/server/{id}/alert-rules");
    for (kind, rule, field) in [
        ("cpu", json!({ "warning": 0.9, "critical": 0.5 }), "critical"),
        ("cpu", json!({ "clear": 0.95 }), "clear"),
        ("cpu", json!({ "warning": 0 }), "warning"),
        ("cpu", json!({ "warning": -1 }), "warning"),
        ("cpu", json!({ "sustainSeconds": 90_000 }), "sustainSeconds"),
        ("down", json!({ "warning": 0.5 }), "warning"),
        ("cpu", json!({ "quietHours": { "from": "22:00", "to": "22:00", "timeZone": "UTC" } }), "quietHours.to"),
        ("cpu", json!({ "quietHours": { "from": "25:00", "to": "22:00", "timeZone": "UTC" } }), "quietHours.from"),
        (
            "cpu",
            json!({ "quietHours": { "from": "21:00", "to": "22:00", "timeZone": "Mars/Base" } }),
            "quietHours.timeZone",
        ),
    ] {
        let answer = world.app.customer.put(&format!("{rules}/{kind}"), rule.clone()).await.expect(422);
        assert!(answer.body["details"]["fields"].get(field).is_some(), "{rule}: {}", answer.text);
    }
    for kind in ["host_unreachable", "pool_low"] {
        world.app.customer.put(&format!("{rules}/{kind}"), json!({})).await.expect(404);
    }
    world.app.customer.put(&format!("{rules}/nonsense"), json!({})).await.expect(400);
    let hours = json!({ "quietHours": { "from": "22:00", "to": "07:00", "timeZone": "Europe/Berlin" } });
    let made = world.app.customer.put(&format!("{rules}/down"), hours.clone()).await.expect(200).body;
    assert_eq!((&made["quietHours"], &made["warning"]), (&hours["quietHours"], &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_see_only_their_own_alerts() {
    let world = World::new().await;
    let (mine, marker) = world.server("customer@example.com", "web-1").await;
    let (second, second_marker) = world.server("customer@example.com", "web-2").await;
    let (_, foreign_marker) = world.server("other@example.com", "db-1").await;
    world.app.provider.put("/api/alert-rules/cpu", immediate_rule()).await.expect(200);
    world.swept(0, vec![busy(marker, 0.97), busy(second_marker, 0.91), busy(foreign_marker, 0.97)]).await;

    let list = async |client: &crate::support::Client, query: &str| {
        let list = client.get(&format!("/api/alerts?{query}")).await.expect(200).body;
        let names: Vec<String> =
            list["data"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(list["total"], names.len());
        names
    };
    let app = &world.app;
    assert_eq!(list(&app.customer, "order=asc").await, ["web-1", "web-2"]);
    assert_eq!(list(&app.customer, "sort=level").await, ["web-1", "web-2"]);
    assert_eq!(list(&app.customer, "sort=level&order=asc").await, ["web-2", "web-1"]);
    assert_eq!(list(&app.customer, &format!("serverId={second}")).await, ["web-2"]);
    assert_eq!(list(&app.customer, "level=critical&type=cpu&acknowledged=false").await, ["web-1"]);
    assert_eq!(list(&app.customer, "open=false").await, Vec::<String>::new());
    assert_eq!(list(&app.other, "").await, ["db-1"]);
    assert_eq!(list(&app.provider, "level=critical&order=asc").await, ["web-1", "db-1"]);
    assert_eq!(list(&app.provider, &format!("hostId={}", world.host)).await.len(), 3);
    app.customer.get(&format!("/api/alerts?hostId={}", world.host)).await.expect(403);

    let first = app.customer.get("/api/alerts?order=asc").await.expect(200).body["data"][0].clone();
    assert_eq!((&first["hostId"], &first["serverId"]), (&Value::Null, &json!(mine)));
    let path = format!("/api/alerts/{}", first["id"]);
    assert_eq!(app.customer.get(&path).await.expect(200).body, first);
    app.other.get(&path).await.expect(404);
    app.other.post(&format!("{path}/acknowledge"), None).await.expect(404);
    // A token for one server reaches its alerts and no others.
    let scope = json!({ "name": "t", "scopes": [format!("read:server:{mine}")] });
    let token =
        app.customer.post("/api/auth/tokens", scope).await.expect(201).body["token"].as_str().unwrap().to_owned();
    let scoped = app.nobody.with_token(&token);
    assert_eq!(list(&scoped, "").await, ["web-1"]);
    scoped.post(&format!("{path}/acknowledge"), None).await.expect(403);

    let taken = app.provider.post(&format!("{path}/acknowledge"), None).await.expect(200).body;
    assert!(taken["acknowledgedAt"].is_string() && taken["acknowledgedBy"].is_number(), "{taken}");
    let seen = app.customer.get(&path).await.expect(200).body;
    assert!(seen["acknowledgedAt"].is_string() && seen["acknowledgedBy"].is_null(), "{seen}");
    let again = app.customer.post(&format!("{path}/acknowledge"), None).await.expect(200).body;
    assert_eq!(again["acknowledgedAt"], seen["acknowledgedAt"], "the first acknowledgement stays");
    world.swept(30, vec![busy(marker, 0.1), busy(second_marker, 0.1), busy(foreign_marker, 0.1)]).await;
    app.customer.post(&format!("{path}/acknowledge"), None).await.expect(409);
    assert_eq!(list(&app.customer, "open=false&order=asc").await, ["web-1", "web-2"]);
}
