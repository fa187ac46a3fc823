//! How accounts are suspended with all that they have, and how the command line manages them.

use serde_json::json;

use super::{crowded, members, one, patch, path};
use crate::support::app::{account_of, signed_in};
use crate::support::child::command;
use crate::support::{PASSWORD, TestApp};
use crate::users::server_of;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_suspended_from_above_with_all_that_it_has() {
    let (app, crowd) = crowded().await;
    let account = crowd.accounts[1];
    let servers = [server_of(&app, account.0).await, server_of(&app, crowd.accounts[2].0).await];
    let suspend = format!("{}/suspend", path(account));
    let unsuspend = format!("{}/unsuspend", path(account));
    let reason = json!({ "reason": "unpaid" });
    for role in ["owner", "admin", "member", "viewer"] {
        one(&app, 1, role).await.post(&suspend, reason.clone()).await.expect(403);
    }
    one(&app, 0, "member").await.post(&suspend, reason.clone()).await.expect(403);
    one(&app, 3, "owner").await.post(&suspend, reason.clone()).await.expect(404);
    let (reseller, owner) = (one(&app, 0, "admin").await, one(&app, 1, "owner").await);
    let now = reseller.post(&suspend, reason.clone()).await.expect(200).body;
    assert!(now["suspendedAt"].is_string() && now["suspendReason"] == "unpaid", "{now}");
    reseller.post(&suspend, reason.clone()).await.expect(409);
    let stopped = async |server: i64| -> bool {
        sqlx::query_scalar("select suspended_with_account from servers where id = $1")
            .bind(server)
            .fetch_one(&app.db.pool)
            .await
            .unwrap()
    };
    assert_eq!((stopped(servers[0]).await, stopped(servers[1]).await), (true, false));
    // Its members look on and change nothing; those above it may.
    owner.get(&path(account)).await.expect(200);
    for refused in [
        patch(&owner, &path(account), json!({ "name": "x" })).await,
        owner.post(&members(account), json!({ "email": "other@example.com", "role": "viewer" })).await,
    ] {
        let refused = refused.expect(409);
        assert!(refused.text.contains("unpaid"), "{}", refused.text);
    }
    owner.post(&unsuspend, None).await.expect(403);
    patch(&reseller, &path(account), json!({ "name": "Still named" })).await.expect(200);
    patch(&app.provider, &path(account), json!({ "name": "Named again" })).await.expect(200);

    // With its reseller everything stops, and what was suspended before stays so.
    let above = path(crowd.accounts[0]);
    app.provider.post(&format!("{above}/suspend"), json!({ "reason": "gone" })).await.expect(200);
    assert_eq!((stopped(servers[0]).await, stopped(servers[1]).await), (true, true));
    let told = async |server: i64| {
        app.provider.get(&format!("/api/server/{server}")).await.expect(200).body["suspendReason"].clone()
    };
    assert_eq!(
        (told(servers[0]).await, told(servers[1]).await),
        (json!("unpaid"), json!("its reseller is suspended")),
        "each its own reason"
    );
    reseller.post(&unsuspend, None).await.expect(409);
    patch(&reseller, &path(account), json!({ "name": "x" })).await.expect(409);
    app.provider.post(&unsuspend, None).await.expect(200);
    assert!(stopped(servers[0]).await, "its reseller is still suspended");
    assert_eq!(told(servers[0]).await, "its reseller is suspended");
    app.provider.post(&unsuspend, None).await.expect(409);
    app.provider.post(&suspend, json!({ "reason": "unpaid again" })).await.expect(200);
    app.provider.post(&format!("{above}/unsuspend"), None).await.expect(200);
    assert_eq!((stopped(servers[0]).await, stopped(servers[1]).await), (true, false));
    reseller.post(&unsuspend, None).await.expect(200);
    assert!(!stopped(servers[0]).await);
    patch(&owner, &path(account), json!({ "name": "Mine" })).await.expect(200);

    // What moves into a suspended reseller stops with it.
    app.provider.post(&format!("{above}/suspend"), json!({ "reason": "gone" })).await.expect(200);
    patch(&app.provider, &path(account), json!({ "parentId": null })).await.expect(200);
    assert_eq!((stopped(servers[0]).await, stopped(servers[1]).await), (false, true));
    patch(&app.provider, &path(account), json!({ "parentId": crowd.accounts[0] })).await.expect(200);
    assert!(stopped(servers[0]).await);

    // Nobody suspends themselves; staff can be suspended by others.
    let own = account_of(&app.db, "provider@example.com").await;
    app.provider.post(&format!("{}/suspend", path(own)), reason.clone()).await.expect(409);
    app.provider
        .post("/api/users", json!({ "email": "p@example.com", "name": "", "staffRole": "admin" }))
        .await
        .expect(201);
    let second = signed_in(&app.db, &app.nobody, "p@example.com").await;
    second.post(&format!("{}/suspend", path(own)), reason).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_managed_on_the_command_line() {
    let app = TestApp::new().await;
    let run = async |line: &str, code: i32| {
        let output = command(&app.db, app.data.path()).args(line.split_whitespace()).output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        said
    };
    let said = run("account add --name Reseller --reseller --new-owner r@example.com", 0).await;
    assert!(said.contains("Password (shown only once)"), "{said}");
    let reseller = account_of(&app.db, "r@example.com").await;
    run("account add --name x", 2).await;
    run("account add --name x --owner nobody@example.com", 1).await;
    run(&format!("account add --name Second --owner customer@example.com --parent {reseller} --limit 7"), 0).await;
    let list = run("account list", 0).await;
    let line = list.lines().find(|line| line.contains("Second")).unwrap();
    assert!(line.contains(&format!(" {reseller} ")) && line.contains(" 7 "), "{line}");
    let second = line.split_whitespace().next().unwrap();
    run(&format!("account limit {second} none"), 0).await;
    run(&format!("account limit {second} many"), 2).await;
    run("account limit 4711 3", 1).await;
    run(&format!("account add-member {second} other@example.com --role viewer"), 0).await;
    run(&format!("account add-member {second} other@example.com --role owner"), 2).await;
    let told = run(&format!("account members {second}"), 0).await;
    assert!(told.lines().any(|l| l.contains("other@example.com") && l.contains(" viewer ")), "{told}");
    let said = run(&format!("token create --user other@example.com --account {second} --name t --scope read"), 0).await;
    let token = app.nobody.with_token(said.trim().rsplit(' ').next().unwrap());
    assert_eq!(token.get("/api/auth/me").await.expect(200).body["account"]["name"], "Second");
    run(&format!("token create --user other@example.com --account {reseller} --name t --scope read"), 1).await;
    run(&format!("account remove-member {second} other@example.com"), 0).await;
    crate::support::wait_for("the token's end", async || (token.get("/api/auth/me").await.status == 401).then_some(()))
        .await;
    assert!(run(&format!("account reverse {second} --allow example.org"), 0).await.contains("example.org"));
    assert!(!run(&format!("account reverse {second} --forbid example.org"), 0).await.contains("example.org"));
    run(&format!("account suspend {second} --reason unpaid"), 0).await;
    assert!(run("account list", 0).await.contains("unpaid"));
    run(&format!("account unsuspend {second}"), 0).await;
    run(&format!("account delete {reseller}"), 1).await;
    run(&format!("account delete {second}"), 0).await;
    let login = json!({ "email": "customer@example.com", "password": PASSWORD });
    app.nobody.post("/api/auth/login", login.clone()).await.expect(200);
    run(&format!("account delete {}", app.customer_account), 0).await;
    app.nobody.post("/api/auth/login", login).await.expect(401);
}
