//! What users choose for themselves.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Pve, TestApp, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_choose_their_name_language_time_zone_and_mails() {
    let app = TestApp::new().await;
    let change = async |change: Value| app.customer.send(Method::PATCH, "/api/auth/me", Some(change)).await;
    let before = app.customer.get("/api/auth/me").await.expect(200).body;
    let chosen = ["language", "timeZone", "alertMails", "serverMails"].map(|name| before[name].clone());
    assert_eq!(chosen, [json!("en"), json!("UTC"), json!("all"), json!(true)]);

    let all = json!({ "name": "Анна", "language": "ru", "timeZone": "Asia/Yekaterinburg", "alertMails": "critical",
                      "serverMails": false });
    let changed = change(all.clone()).await.expect(200).body;
    let after = app.customer.get("/api/auth/me").await.expect(200).body;
    for (name, value) in all.as_object().unwrap() {
        assert_eq!((&changed[name], &after[name]), (value, value), "{name}");
    }
    // What is not sent stays.
    change(json!({ "name": "" })).await.expect(200);
    let after = app.customer.get("/api/auth/me").await.expect(200).body;
    assert_eq!((&after["name"], &after["timeZone"]), (&json!(""), &json!("Asia/Yekaterinburg")));
    for (field, bad) in [
        ("name", json!(" Anna")),
        ("language", json!("de")),
        ("timeZone", json!("Mars/Olympus")),
        ("timeZone", json!("")),
        ("alertMails", json!("few")),
        ("serverMails", json!("yes")),
    ] {
        let refused = change(json!({ field: bad })).await.expect(422);
        assert!(refused.text.contains(field), "{field}: {}", refused.text);
    }
    assert_eq!(app.customer.get("/api/auth/me").await.expect(200).body, after);
    let listed = app.provider.get("/api/users?q=customer@").await.expect(200).body["data"][0].clone();
    assert_eq!((&listed["language"], &listed["serverMails"]), (&json!("ru"), &json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_ready_is_mailed_only_to_who_wants_it() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    app.customer.send(Method::PATCH, "/api/auth/me", Some(json!({ "serverMails": false }))).await.expect(200);
    for client in [&app.customer, &app.other] {
        let made = client.post("/api/server/create", catalogue.container()).await.expect(200).body;
        assert_eq!(ended(client, &made["operationId"]).await["state"], "succeeded");
    }
    let mailed: Vec<String> = sqlx::query_scalar("select recipient from mails where event like 'server-ready:%'")
        .fetch_all(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(mailed, ["other@example.com"]);
}
