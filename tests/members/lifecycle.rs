//! How accounts are created, changed, handed over and deleted.

use kernel::ids::AccountId;
use serde_json::{Value, json};

use super::{crowded, ids, members, one, patch, path};
use crate::support::TestApp;
use crate::support::app::{account_of, id_of};
use crate::users::server_of;

fn id(account: &Value) -> AccountId {
    AccountId(account["id"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_creates_any_account() {
    let (app, crowd) = crowded().await;
    let create = async |new: Value| app.provider.post("/api/accounts", new).await;
    let owner = json!({ "email": "r@example.com", "name": "R" });
    let new = json!({ "name": "Reseller", "kind": "reseller", "owner": owner, "serverLimit": null });
    let made = create(new.clone()).await.expect(201).body;
    assert_eq!(
        (&made["kind"], &made["serverLimit"], &made["role"]),
        (&json!("reseller"), &Value::Null, &json!("admin"))
    );
    let login = json!({ "email": "r@example.com", "password": made["password"] });
    let signed_in = app.nobody.post("/api/auth/login", login).await.expect(200).body;
    assert_eq!(signed_in["user"]["accountId"], made["id"], "the new account is the only one of its owner");
    assert!(signed_in["user"]["emailConfirmedAt"].is_string());
    assert_eq!(create(new).await.expect(409).code(), "ALREADY_EXISTS");

    let known = json!({ "name": "Second", "ownerId": app.customer_id, "parentId": made["id"] });
    let second = create(known).await.expect(201).body;
    assert_eq!((&second["parentId"], &second["serverLimit"]), (&made["id"], &json!(100)));
    assert!(second.get("password").is_none());
    let me = app.customer.get("/api/auth/me").await.expect(200).body;
    assert_eq!(me["account"]["id"], json!(app.customer_account), "their first account stays the one that they act for");
    let owner = json!({ "email": "new@example.com", "name": "" });
    for (field, bad) in [
        ("owner", json!({ "name": "x" })),
        ("owner", json!({ "name": "x", "owner": owner, "ownerId": app.customer_id })),
        ("ownerId", json!({ "name": "x", "ownerId": 4711 })),
        ("parentId", json!({ "name": "x", "owner": owner, "parentId": 4711 })),
        ("parentId", json!({ "name": "x", "owner": owner, "parentId": app.customer_account })),
        ("parentId", json!({ "name": "x", "owner": owner, "parentId": crowd.accounts[0], "kind": "reseller" })),
        ("name", json!({ "name": " ", "owner": owner })),
        ("serverLimit", json!({ "name": "x", "owner": owner, "serverLimit": -1 })),
        ("owner.email", json!({ "name": "x", "owner": { "email": "nonsense", "name": "" } })),
    ] {
        let answer = create(bad).await.expect(422);
        assert!(answer.body["details"]["fields"][field].is_string(), "{field}: {}", answer.text);
    }
    let left: i64 = sqlx::query_scalar("select count(*) from users where email = 'new@example.com'")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(left, 0, "nothing is left of what was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reseller_creates_customers_of_its_own_with_new_users() {
    let (app, crowd) = crowded().await;
    let owner = |n: u32| json!({ "email": format!("c{n}@example.com"), "name": "C", "password": "a long password" });
    let new = json!({ "name": "Customer", "owner": owner(1), "serverLimit": 3 });
    let reseller = one(&app, 0, "owner").await;
    let made = reseller.post_once("/api/accounts", "one", &new).await.expect(201).body;
    assert_eq!((&made["parentId"], &made["serverLimit"]), (&json!(crowd.accounts[0]), &json!(3)));
    assert_eq!(made["role"], "owner", "as in the reseller");
    assert_eq!(reseller.post_once("/api/accounts", "one", &new).await.expect(201).body, made);
    let owners: (bool, i64) = sqlx::query_as(
        "select confirmed_at is null, (select count(*) from accounts where owner_id = users.id) from users
         where email = 'c1@example.com'",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(owners, (true, 1));
    let mails: i64 = sqlx::query_scalar("select count(*) from mails where recipient = 'c1@example.com'")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(mails, 1, "the address is to be confirmed");

    let admin = crowd.member(&app, 0, "admin").await;
    let named = json!({ "name": "x", "owner": owner(2), "parentId": crowd.accounts[0], "kind": "customer" });
    admin.post("/api/accounts", named).await.expect(201);
    assert_eq!(admin.post("/api/accounts", new.clone()).await.expect(409).code(), "ALREADY_EXISTS");
    for bad in [
        json!({ "name": "x", "owner": owner(3), "parentId": crowd.accounts[1] }),
        json!({ "name": "x", "owner": owner(3), "parentId": 4711 }),
        json!({ "name": "x", "owner": owner(3), "kind": "reseller" }),
    ] {
        admin.post("/api/accounts", bad).await.expect(403);
    }
    let known = json!({ "name": "x", "ownerId": app.customer_id });
    let refused = admin.post("/api/accounts", known).await.expect(422);
    assert!(refused.body["details"]["fields"]["ownerId"].is_string());
    // Others may not.
    let new = json!({ "name": "x", "owner": owner(4) });
    for client in [
        crowd.member(&app, 0, "member").await,
        crowd.member(&app, 0, "billing").await,
        crowd.member(&app, 0, "viewer").await,
        one(&app, 0, "admin").await,
        reseller.acting_for(crowd.accounts[1]),
        one(&app, 1, "owner").await,
        app.customer.clone(),
        super::staff(&app, "support").await,
        super::staff(&app, "billing").await,
    ] {
        client.post("/api/accounts", new.clone()).await.expect(403);
    }
    app.provider.post(&format!("{}/suspend", path(crowd.accounts[0])), json!({ "reason": "unpaid" })).await.expect(200);
    admin.post("/api/accounts", new).await.expect(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reseller_limits_its_customers_and_nobody_else_s() {
    let (app, crowd) = crowded().await;
    let reseller = one(&app, 0, "owner").await;
    let (own, customer, foreign) = (path(crowd.accounts[0]), path(crowd.accounts[1]), path(crowd.accounts[3]));
    let limit = json!({ "serverLimit": 2 });
    assert_eq!(patch(&reseller, &customer, limit.clone()).await.expect(200).body["serverLimit"], 2);
    assert_eq!(
        patch(&reseller, &customer, json!({ "serverLimit": null })).await.expect(200).body["serverLimit"],
        Value::Null
    );
    patch(&reseller, &foreign, limit.clone()).await.expect(404);
    patch(&reseller, &own, limit.clone()).await.expect(403);
    for role in ["owner", "admin", "member"] {
        patch(&one(&app, 1, role).await, &customer, limit.clone()).await.expect(403);
    }
    patch(&one(&app, 0, "viewer").await, &customer, limit.clone()).await.expect(403);
    patch(&app.provider, &own, limit.clone()).await.expect(200);
    // Its own name is everybody's who manages it; what it is is the provider's.
    let owner = one(&app, 1, "owner").await;
    assert_eq!(patch(&owner, &customer, json!({ "name": "New name" })).await.expect(200).body["name"], "New name");
    patch(&one(&app, 1, "member").await, &customer, json!({ "name": "x" })).await.expect(403);
    for change in [json!({ "kind": "reseller" }), json!({ "parentId": null }), json!({ "parentId": crowd.accounts[3] })]
    {
        patch(&owner, &customer, change.clone()).await.expect(403);
        patch(&reseller, &customer, change).await.expect(403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_and_parents_of_accounts_fit() {
    let (app, crowd) = crowded().await;
    let at = |n: usize| path(crowd.accounts[n]);
    let by_provider = async |n: usize, change: Value| patch(&app.provider, &at(n), change).await;
    by_provider(0, json!({ "kind": "customer" })).await.expect(409);
    by_provider(0, json!({ "parentId": crowd.accounts[0] })).await.expect(422);
    by_provider(1, json!({ "kind": "reseller" })).await.expect(422);
    by_provider(1, json!({ "parentId": crowd.accounts[1] })).await.expect(422);
    by_provider(1, json!({ "parentId": crowd.accounts[3] })).await.expect(422);
    by_provider(1, json!({ "parentId": 4711 })).await.expect(422);
    let now = by_provider(1, json!({ "kind": "reseller", "parentId": null })).await.expect(200).body;
    assert_eq!((&now["kind"], &now["parentId"]), (&json!("reseller"), &Value::Null));
    by_provider(2, json!({ "parentId": crowd.accounts[1] })).await.expect(200);
    by_provider(0, json!({ "kind": "customer", "parentId": crowd.accounts[1] })).await.expect(200);
    // The rights of a reseller's members move with its customers.
    one(&app, 1, "admin").await.get(&at(2)).await.expect(200);
    one(&app, 0, "admin").await.get(&at(2)).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_handed_over_to_a_member() {
    let (app, crowd) = crowded().await;
    let account = crowd.accounts[3];
    let (owner, admin) = (one(&app, 3, "owner").await, one(&app, 3, "admin").await);
    let to = |user: kernel::ids::UserId| json!({ "ownerId": user });
    let admin_id = id_of(&app.db, "admin-3@example.com").await;
    patch(&admin, &path(account), to(admin_id)).await.expect(403);
    patch(&owner, &path(account), to(admin_id)).await.expect(403);
    for stranger in [id_of(&app.db, "owner-4@example.com").await, kernel::ids::UserId(4711)] {
        let refused = patch(&app.provider, &path(account), to(stranger)).await.expect(422);
        assert!(refused.body["details"]["fields"]["ownerId"].is_string(), "{}", refused.text);
    }
    let before = account_of(&app.db, "owner-3@example.com").await;
    assert_eq!(before, account);
    let now = patch(&app.provider, &path(account), to(admin_id)).await.expect(200).body;
    assert_eq!((&now["ownerId"], &now["role"]), (&json!(admin_id), &json!("admin")));
    assert_ne!(account_of(&app.db, "owner-3@example.com").await, account, "nobody is left without an account");
    let list = owner.get(&members(account)).await.expect(200).body;
    assert_eq!((&list["data"][0]["userId"], &list["total"]), (&json!(admin_id), &json!(5)), "{list}");
    // A previous owner who owns another account gets none. The own account of a new owner stays the one that they act
    // for.
    let viewer = id_of(&app.db, "viewer-3@example.com").await;
    patch(&app.provider, &path(account), to(viewer)).await.expect(200);
    let owned: i64 = sqlx::query_scalar("select count(*) from accounts where owner_id = $1")
        .bind(admin_id.0)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(owned, 1);
    let viewer = crate::support::app::signed_in(&app.db, &app.nobody, "viewer-3@example.com").await;
    let me = viewer.get("/api/auth/me").await.expect(200).body;
    assert_eq!(me["account"]["name"], "viewer-3@example.com", "{me}");
    // The reseller does not hand over what its customers own.
    let member = id_of(&app.db, "member-1@example.com").await;
    patch(&one(&app, 0, "owner").await, &path(crowd.accounts[1]), to(member)).await.expect(403);
}

/// Two accounts are all that somebody owns, and both go at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hands_over_everything_at_once_still_owns_one_account() {
    let app = TestApp::new().await;
    let second = json!({ "name": "second", "ownerId": app.customer_id });
    let second = id(&app.provider.post("/api/accounts", second).await.expect(201).body);
    let other = id_of(&app.db, "other@example.com").await;
    let accounts = [app.customer_account, second];
    for account in accounts {
        let member = json!({ "email": "other@example.com", "role": "admin" });
        app.customer.post(&members(account), member).await.expect(201);
    }
    let given = accounts.map(|account| patch(&app.provider, path(account), json!({ "ownerId": other })));
    for answer in futures_util::future::join_all(given).await {
        answer.expect(200);
    }
    let owned: i64 = sqlx::query_scalar("select count(*) from accounts where owner_id = $1")
        .bind(app.customer_id.0)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(owned, 1);
    app.customer.get("/api/auth/me").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_deleted_by_those_who_may_when_nothing_is_left() {
    let (app, crowd) = crowded().await;
    let owner = one(&app, 1, "owner").await;
    let refused = owner.delete(&path(crowd.accounts[1])).await.expect(409);
    assert!(refused.text.contains("delete the user"), "{}", refused.text);
    for role in ["admin", "member", "viewer"] {
        one(&app, 1, role).await.delete(&path(crowd.accounts[1])).await.expect(403);
    }
    app.provider.delete(&path(crowd.accounts[0])).await.expect(409);
    let user = id_of(&app.db, "owner-0@example.com").await;
    let refused = app.provider.delete(&format!("/api/users/{user}")).await.expect(409);
    assert!(refused.text.contains("customers"), "{}", refused.text);
    let create = async |email: &str, parent: Option<AccountId>| {
        let owner = id_of(&app.db, email).await;
        let new = json!({ "name": "second", "ownerId": owner, "parentId": parent });
        id(&app.provider.post("/api/accounts", new).await.expect(201).body)
    };
    let first = create("owner-1@example.com", None).await;
    let token = json!({ "name": "t", "scopes": ["read"] });
    let token = owner.acting_for(first).post("/api/auth/tokens", token).await.expect(201).body;
    let token = app.nobody.with_token(token["token"].as_str().unwrap());
    token.get("/api/server").await.expect(200);
    let server = server_of(&app, first.0).await;
    assert_eq!(owner.delete(&path(first)).await.expect(409).code(), "CONFLICT");
    sqlx::query("update servers set deleted_at = now(), reserved = false where id = $1")
        .bind(server)
        .execute(&app.db.pool)
        .await
        .unwrap();
    owner.delete(&path(first)).await.expect(204);
    token.get("/api/server").await.expect(401);
    owner.get(&path(first)).await.expect(404);
    owner.delete(&path(first)).await.expect(404);
    owner.acting_for(first).get("/api/server").await.expect(404);
    let of_reseller = create("owner-1@example.com", Some(crowd.accounts[0])).await;
    one(&app, 0, "viewer").await.delete(&path(of_reseller)).await.expect(403);
    one(&app, 0, "admin").await.delete(&path(of_reseller)).await.expect(204);
    let list = owner.get("/api/accounts").await.expect(200).body;
    assert_eq!(ids(&list), [crowd.accounts[1].0]);
}
