//! `innkeeper user …`.

use serde_json::json;

use crate::support::child::command;
use crate::support::{PASSWORD, TestApp, revoked};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_managed_on_the_command_line() {
    let app = TestApp::new().await;
    let run = async |arguments: &[&str], code: i32| {
        let output = command(&app.db, app.data.path()).args(arguments).output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    };
    let said = run(&["user", "add", "--email", "s@example.com", "--staff", "support"], 0).await;
    assert!(said.contains("Password (shown only once)"), "{said}");
    run(&["user", "add", "--email", "t@example.com", "--role", "provider"], 2).await;
    let list = run(&["user", "list"], 0).await;
    assert!(list.lines().any(|l| l.contains("s@example.com") && l.contains(" support ")), "{list}");
    assert!(
        list.lines()
            .next()
            .unwrap()
            .split_whitespace()
            .eq(["ID", "EMAIL", "NAME", "STAFF", "ACCOUNT", "ENABLED", "SINCE"])
    );

    let link = ["user", "link", "customer@example.com", "--reason", "a ticket", "--as"];
    run(&link[..5], 2).await;
    let as_user = |email| link.into_iter().chain([email]).collect::<Vec<_>>();
    let refused = run(&as_user("other@example.com"), 1).await;
    assert!(refused.contains("support"), "{refused}");
    let url = run(&as_user("s@example.com"), 0).await;
    let token = url.trim().rsplit('#').next().unwrap();
    app.nobody.post("/api/auth/login-link", json!({ "token": token })).await.expect(200);
    let entry = app.customer.get("/api/audit?action=user%20link").await.expect(200).body;
    assert_eq!(entry["data"][0]["reason"], "a ticket", "{entry}");

    run(&["user", "end-sessions", "customer@example.com"], 0).await;
    revoked(&app.customer, "/api/auth/me").await;
    run(&["user", "disable", "other@example.com"], 0).await;
    revoked(&app.other, "/api/auth/me").await;
    let login = json!({ "email": "other@example.com", "password": PASSWORD });
    app.nobody.post("/api/auth/login", login.clone()).await.expect(401);
    run(&["user", "enable", "other@example.com"], 0).await;
    app.nobody.post("/api/auth/login", login).await.expect(200);
    run(&["user", "delete", "other@example.com"], 0).await;
    assert!(!run(&["user", "list"], 0).await.contains("other@example.com"));
    run(&["user", "disable", "other@example.com"], 1).await;
}
