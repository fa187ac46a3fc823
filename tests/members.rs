//! Accounts and their members: who sees one, who changes it, what becomes of it.

mod lifecycle;
mod suspension;

use kernel::ids::AccountId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{account_of, id_of, signed_in};
use crate::support::client::Response;
use crate::support::crowd::{Crowd, MEMBER_ROLES};
use crate::support::{Client, TestApp};

fn path(account: AccountId) -> String {
    format!("/api/accounts/{account}")
}

fn members(account: AccountId) -> String {
    format!("/api/accounts/{account}/members")
}

async fn patch(client: &Client, path: impl AsRef<str>, change: Value) -> Response {
    client.send(Method::PATCH, path.as_ref(), Some(change)).await
}

/// The service with a crowd: account 0 is a reseller, whose customers are 1 and 2.
async fn crowded() -> (TestApp, Crowd) {
    let app = TestApp::new().await;
    let crowd = Crowd::new(&app).await;
    (app, crowd)
}

/// The user in this role in an account of the crowd, acting for their own.
async fn one(app: &TestApp, account: usize, role: &str) -> Client {
    signed_in(&app.db, &app.nobody, &format!("{role}-{account}@example.com")).await
}

async fn staff(app: &TestApp, role: &str) -> Client {
    let email = format!("staff-{role}@example.com");
    let new = json!({ "email": email, "name": "", "staffRole": role });
    app.provider.post("/api/users", new).await.expect(201);
    signed_in(&app.db, &app.nobody, &email).await
}

fn ids(list: &Value) -> Vec<i64> {
    list["data"].as_array().unwrap().iter().map(|account| account["id"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_lists_the_accounts_that_they_can_act_for() {
    let (app, crowd) = crowded().await;
    let at = |n: usize| crowd.accounts[n].0;
    for role in MEMBER_ROLES {
        let own =
            if role == "owner" { None } else { Some(account_of(&app.db, &format!("{role}-0@example.com")).await.0) };
        let list = one(&app, 0, role).await.get("/api/accounts").await.expect(200).body;
        let expected: Vec<i64> = [at(0), at(1), at(2)].into_iter().chain(own).collect();
        assert_eq!(ids(&list), expected, "{role}");
        assert_eq!((&list["data"][0]["role"], &list["data"][2]["role"]), (&json!(role), &json!(role)));
    }
    let list = one(&app, 1, "viewer").await.get("/api/accounts?q=ACCOUNT").await.expect(200).body;
    let seen = &list["data"][0];
    assert_eq!((ids(&list), &seen["parentId"], &seen["role"]), (vec![at(1)], &json!(at(0)), &json!("viewer")));
    assert_eq!((&seen["kind"], &seen["ownerEmail"]), (&json!("customer"), &json!("owner-1@example.com")));

    for (role, acts_as) in [("support", "viewer"), ("billing", "billing")] {
        let client = staff(&app, role).await;
        let list = client.get("/api/accounts?limit=100").await.expect(200).body;
        assert!(list["total"].as_i64().unwrap() > 100, "{list}");
        assert_eq!(list["data"][5]["role"], acts_as);
    }
    let get = async |query: &str| ids(&app.provider.get(&format!("/api/accounts?{query}")).await.expect(200).body);
    assert_eq!(get("kind=reseller").await, [at(0)]);
    assert_eq!(get(&format!("parentId={}", at(0))).await, [at(1), at(2)]);
    assert_eq!(get("q=Account%2019").await, [at(19)]);
    assert_eq!(get("q=OWNER-19@").await, [at(19)]);
    assert_eq!(get("q=account%25").await, Vec::<i64>::new());
    app.provider.get("/api/accounts?kind=unknown").await.expect(422);

    // A token starts from its account, and goes no further than its customers.
    let token = json!({ "name": "t", "scopes": ["read"] });
    let owner = one(&app, 1, "owner").await;
    sqlx::query("insert into account_members (account_id, user_id, role) values ($1, $2, 'admin')")
        .bind(at(5))
        .bind(id_of(&app.db, "owner-1@example.com").await.0)
        .execute(&app.db.pool)
        .await
        .unwrap();
    let made = owner.post("/api/auth/tokens", token).await.expect(201).body;
    let token = app.nobody.with_token(made["token"].as_str().unwrap());
    assert_eq!(ids(&owner.get("/api/accounts").await.expect(200).body), [at(1), at(5)]);
    assert_eq!(ids(&token.get("/api/accounts").await.expect(200).body), [at(1)]);
    owner.get(&path(crowd.accounts[5])).await.expect(200);
    token.get(&path(crowd.accounts[5])).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_strangers_is_not_there() {
    let (app, crowd) = crowded().await;
    let stranger = one(&app, 3, "owner").await;
    let not_there = stranger.get("/api/accounts/4711").await.expect(404);
    let theirs = crowd.accounts[1];
    for answer in [
        stranger.get(&path(theirs)).await,
        stranger.get(&members(theirs)).await,
        stranger.acting_for(theirs).get("/api/server").await,
        stranger.acting_for(AccountId(4711)).get("/api/server").await,
        patch(&stranger, &path(theirs), json!({ "name": "mine" })).await,
        stranger.delete(&path(theirs)).await,
        stranger.post(&format!("{}/suspend", path(theirs)), json!({ "reason": "x" })).await,
        stranger.post(&members(theirs), json!({ "email": "owner-3@example.com", "role": "admin" })).await,
        // Customers see nothing of their reseller.
        one(&app, 1, "owner").await.get(&path(crowd.accounts[0])).await,
        one(&app, 1, "owner").await.get(&path(crowd.accounts[2])).await,
    ] {
        let answer = answer.expect(404);
        assert_eq!(answer.body["error"], not_there.body["error"]);
    }
    let request = app.customer.http.get(format!("{}/api/server", app.base));
    let request = request.bearer_auth(app.customer.token.as_deref().unwrap()).header("x-account", "mine");
    assert_eq!(request.send().await.unwrap().status(), 400);
    // Reached from above, it is there.
    for (client, role) in [(one(&app, 0, "member").await, "member"), (app.provider.clone(), "admin")] {
        let me = client.acting_for(theirs).get("/api/auth/me").await.expect(200).body;
        assert_eq!((&me["account"]["id"], &me["account"]["role"]), (&json!(theirs), &json!(role)), "{me}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_seen_by_all_and_managed_by_owner_admins_reseller_and_provider() {
    let (app, crowd) = crowded().await;
    let account = crowd.accounts[1];
    let viewer = id_of(&app.db, "viewer-1@example.com").await;
    let (support, viewer_path) = (staff(&app, "support").await, format!("{}/{viewer}", members(account)));
    let mut callers = vec![(app.provider.clone(), true), (support, false)];
    for role in MEMBER_ROLES {
        callers.push((one(&app, 1, role).await, matches!(role, "owner" | "admin")));
        callers.push((one(&app, 0, role).await, matches!(role, "owner" | "admin")));
    }
    for (n, (client, manages)) in callers.into_iter().enumerate() {
        let list = client.get(&members(account)).await.expect(200).body;
        assert_eq!(
            (&list["data"][0]["role"], &list["data"][0]["email"]),
            (&json!("owner"), &json!("owner-1@example.com"))
        );
        let new = json!({ "email": format!("owner-{}@example.com", n + 4), "role": "viewer" });
        let (added, changed) = if manages { (201, 200) } else { (403, 403) };
        client.post(&members(account), new).await.expect(added);
        let role = if n % 2 == 0 { "billing" } else { "viewer" };
        let now = patch(&client, &viewer_path, json!({ "role": role })).await.expect(changed).body;
        assert!(!manages || now["role"] == role, "{now}");
    }
    let list = app.provider.get(&format!("{}?q=VIEWER-1", members(account))).await.expect(200).body;
    assert_eq!((&list["total"], &list["data"][0]["userId"]), (&json!(1), &json!(viewer)));
    let page = app.provider.get(&format!("{}?limit=2&page=2", members(account))).await.expect(200).body;
    assert_eq!((page["data"].as_array().unwrap().len(), &page["total"]), (2, &json!(10)), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_can_t_be_added_or_changed_are_refused() {
    let app = TestApp::new().await;
    let (me, account) = (&app.customer, app.customer_account);
    let add = async |email: &str, role: &str| me.post(&members(account), json!({ "email": email, "role": role })).await;
    let unknown = add("nobody@example.com", "viewer").await.expect(422);
    assert_eq!(unknown.body["details"]["fields"]["email"], "No user has confirmed this address.");
    for role in ["owner", "unknown", "king"] {
        let refused = add("other@example.com", role).await.expect(422);
        assert!(refused.body["details"]["fields"]["role"].is_string(), "{}", refused.text);
    }
    let added = add("OTHER@example.com", "viewer").await.expect(201).body;
    assert_eq!((&added["email"], &added["role"]), (&json!("other@example.com"), &json!("viewer")));
    for email in ["other@example.com", "customer@example.com"] {
        assert_eq!(add(email, "admin").await.expect(409).code(), "ALREADY_EXISTS");
    }
    let owner = format!("{}/{}", members(account), app.customer_id);
    patch(me, &owner, json!({ "role": "viewer" })).await.expect(409);
    me.delete(&owner).await.expect(409);
    app.provider.delete(&owner).await.expect(409);
    let stranger = format!("{}/4711", members(account));
    patch(me, &stranger, json!({ "role": "viewer" })).await.expect(404);
    me.delete(&stranger).await.expect(404);
    // A token for a part of the account is none for the account.
    let token = json!({ "name": "t", "scopes": ["write:server:1"] });
    let token = me.post("/api/auth/tokens", token).await.expect(201).body;
    let token = app.nobody.with_token(token["token"].as_str().unwrap());
    token.get(&members(account)).await.expect(403);

    sqlx::query(
        "with u as (insert into users (email, password_hash, confirmed_at) select 'm' || n || '@example.com', '-', now()
                    from generate_series(1, 100) n returning id, email),
              a as (insert into accounts (name, owner_id) select email, id from u returning owner_id)
         insert into account_members (account_id, user_id, role)
         select $1, id, 'viewer' from u where email <> 'm100@example.com'",
    )
    .bind(account.0)
    .execute(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(add("m100@example.com", "viewer").await.expect(507).code(), "RESOURCE_UNAVAILABLE");
    let other = id_of(&app.db, "other@example.com").await;
    me.delete(&format!("{}/{other}", members(account))).await.expect(204);
    add("m100@example.com", "viewer").await.expect(201);
}

/// Adding many addresses is a way to find out which exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_can_t_be_guessed_by_adding_members() {
    let app = TestApp::with(|c| c.of::<accounts::AccountSettings>().login_limit_address = 3).await;
    let path = members(app.customer_account);
    let add = async |email: &str| app.customer.post(&path, json!({ "email": email, "role": "viewer" })).await.status;
    assert_eq!(
        [add("a@example.com").await, add("other@example.com").await, add("b@example.com").await],
        [422, 201, 422]
    );
    assert_eq!([add("c@example.com").await, add("d@example.com").await], [422, 429]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_s_rights_end_at_once() {
    let (app, crowd) = crowded().await;
    let account = crowd.accounts[3];
    let owner = one(&app, 3, "owner").await;
    let (member, viewer) = (crowd.member(&app, 3, "member").await, crowd.member(&app, 3, "viewer").await);
    let token = json!({ "name": "t", "scopes": ["write"] });
    let token = member.post("/api/auth/tokens", token).await.expect(201).body;
    assert_eq!(token["accountId"], json!(account));
    let token = app.nobody.with_token(token["token"].as_str().unwrap());
    for client in [&member, &token, &viewer] {
        client.get("/api/server").await.expect(200);
    }
    let of = async |email: &str| format!("{}/{}", members(account), id_of(&app.db, email).await);
    let (member_path, viewer_path) = (of("member-3@example.com").await, of("viewer-3@example.com").await);
    // What they may do changes with their role.
    member.get("/api/ssh-keys").await.expect(200);
    patch(&owner, &member_path, json!({ "role": "billing" })).await.expect(200);
    member.get("/api/ssh-keys").await.expect(403);
    token.get("/api/server").await.expect(403);

    viewer.delete(&member_path).await.expect(403);
    owner.delete(&member_path).await.expect(204);
    member.get("/api/server").await.expect(404);
    token.get("/api/auth/me").await.expect(401);
    // Back again, with new tokens only.
    let again = json!({ "email": "member-3@example.com", "role": "member" });
    owner.post(&members(account), again).await.expect(201);
    member.get("/api/server").await.expect(200);
    token.get("/api/auth/me").await.expect(401);
    // Everybody may leave, even while the account is suspended.
    app.provider.post(&format!("{}/suspend", path(account)), json!({ "reason": "unpaid" })).await.expect(200);
    viewer.delete(&viewer_path).await.expect(204);
    viewer.get("/api/server").await.expect(404);
    owner.delete(&member_path).await.expect(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_act_only_for_accounts_that_their_user_is_a_member_of() {
    let (app, crowd) = crowded().await;
    let token = json!({ "name": "t", "scopes": ["read"] });
    let above = one(&app, 0, "owner").await.acting_for(crowd.accounts[1]);
    above.get("/api/server").await.expect(200);
    above.post("/api/auth/tokens", token.clone()).await.expect(403);
    app.provider.acting_for(crowd.accounts[1]).post("/api/auth/tokens", token.clone()).await.expect(403);
    let made = crowd.member(&app, 1, "viewer").await.post("/api/auth/tokens", token).await.expect(201).body;
    let token = app.nobody.with_token(made["token"].as_str().unwrap());
    assert_eq!(token.get("/api/auth/me").await.expect(200).body["account"]["id"], json!(crowd.accounts[1]));
    token.acting_for(crowd.accounts[2]).get("/api/auth/me").await.expect(404);
}
