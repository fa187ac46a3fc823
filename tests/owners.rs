//! What accounts own, and who reaches it: members by their roles, resellers, staff.

use compute::ids::AccountId;
use serde_json::json;

use crate::support::app::{account_of, signed_in};
use crate::support::crowd::{ACCOUNTS, Crowd, MEMBER_ROLES};
use crate::support::wait::PATIENCE;
use crate::support::{Client, Pve, TestApp, ended};

/// One server of each of these accounts, on a host that is switched off.
async fn servers(app: &TestApp, accounts: &[AccountId]) -> Vec<i64> {
    let accounts: Vec<i64> = accounts.iter().map(|account| account.0).collect();
    sqlx::query_scalar(
        "with t as (insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
                    values ('t', 'lxc', 1, 128, 1, 1) returning id),
              i as (insert into images (name, kind) values ('i', 'lxc') returning id),
              h as (insert into hosts (name, kind, config_sealed, enabled) values ('h', 'incus', '', false)
                    returning id),
              s as (insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                                         status, cores, memory_mib, disk_gib)
                    select gen_random_uuid(), a, t.id, i.id, h.id, 'n', nextval('guest_numbers'), 'lxc', 's', 'stopped',
                           1, 128, 1 from unnest($1::bigint[]) with ordinality g (a, n), t, i, h order by n
                    returning id, account_id)
         select s.id from s order by array_position($1, s.account_id)",
    )
    .bind(accounts)
    .fetch_all(&app.db.pool)
    .await
    .unwrap()
}

async fn rename(client: &Client, server: i64) -> u16 {
    let path = format!("/api/server/{server}");
    client.send(reqwest::Method::PATCH, &path, Some(json!({ "name": "renamed" }))).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_twenty_accounts_reach_their_own_servers_and_a_reseller_its_customers() {
    let app = TestApp::new().await;
    let crowd = Crowd::new(&app).await;
    let servers = servers(&app, &crowd.accounts).await;
    for account in 0..ACCOUNTS {
        for role in MEMBER_ROLES {
            let client = crowd.member(&app, account, role).await;
            // What the role allows with what it reaches.
            let (read, write, list) = match role {
                "billing" => (404, 404, 403),
                "viewer" => (200, 403, 200),
                _ => (200, 200, 200),
            };
            let listed = client.get("/api/server").await.expect(list).body;
            if list == 200 {
                let ids: Vec<_> = listed.as_array().unwrap().iter().map(|s| s["id"].as_i64().unwrap()).collect();
                assert_eq!(ids, [servers[account]], "{role} of account {account}");
            }
            for (of, server) in servers.iter().enumerate() {
                let reaches = of == account || (account == 0 && (1..=2).contains(&of));
                let expected = if reaches { (read, write) } else { (404, 404) };
                let got = (client.get(&format!("/api/server/{server}")).await.status, rename(&client, *server).await);
                assert_eq!(got, expected, "{role} of account {account} and a server of account {of}");
            }
        }
    }
    let all = crowd.member(&app, 0, "viewer").await.get("/api/server?all=true").await.expect(200).body;
    let ids: Vec<_> = all.as_array().unwrap().iter().map(|s| s["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, servers[..3], "a reseller's own and its customers'");
    crowd.member(&app, 1, "owner").await.get("/api/server?all=true").await.expect(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_acts_for_the_account_that_it_names_if_its_user_may() {
    let app = TestApp::new().await;
    let crowd = Crowd::new(&app).await;
    let servers = servers(&app, &crowd.accounts[..4]).await;
    let member = signed_in(&app.db, &app.nobody, "member-3@example.com").await;
    let ids = async |client: &Client| -> Vec<i64> {
        let list = client.get("/api/server").await.expect(200).body;
        list.as_array().unwrap().iter().map(|s| s["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids(&member).await, [0_i64; 0], "without a name it is their own account, which has nothing");
    assert_eq!(ids(&member.acting_for(crowd.accounts[3])).await, [servers[3]]);
    // A stranger's account, and none at all, look the same.
    for account in [crowd.accounts[1], AccountId(999_999)] {
        let refused = member.acting_for(account).get("/api/server").await.expect(404);
        assert_eq!(
            (refused.code(), refused.body["error"].as_str().unwrap()),
            ("NOT_FOUND", "There is no such account.")
        );
    }
    // A reseller acts for its customers, who don't act for it.
    let reseller = signed_in(&app.db, &app.nobody, "owner-0@example.com").await;
    assert_eq!(ids(&reseller.acting_for(crowd.accounts[2])).await, [servers[2]]);
    let customer = signed_in(&app.db, &app.nobody, "owner-2@example.com").await;
    customer.acting_for(crowd.accounts[0]).get("/api/server").await.expect(404);
    // Staff act for everybody, each as far as they may.
    let staff = app.provider.acting_for(crowd.accounts[3]);
    assert_eq!((ids(&staff).await, rename(&staff, servers[3]).await), (vec![servers[3]], 200));
    let mut named = app.nobody.http.get(format!("{}/api/server", app.base)).header("x-account", "me");
    named = named.bearer_auth(member.token.as_ref().unwrap());
    assert_eq!(named.send().await.unwrap().status(), 400);

    // An API token acts for the account that it was created for, and for its customers; not for others of its user.
    let token = |account: AccountId, client: Client| async move {
        let new = json!({ "name": "t", "scopes": ["write"] });
        client.acting_for(account).post("/api/auth/tokens", new).await.expect(201).body
    };
    let made = token(crowd.accounts[3], member.clone()).await;
    assert_eq!(made["accountId"], crowd.accounts[3].0);
    let api = app.nobody.with_token(made["token"].as_str().unwrap());
    assert_eq!(ids(&api).await, [servers[3]]);
    let own = account_of(&app.db, "member-3@example.com").await;
    api.acting_for(own).get("/api/server").await.expect(404);
    let made = token(crowd.accounts[0], reseller).await;
    let api = app.nobody.with_token(made["token"].as_str().unwrap());
    assert_eq!(ids(&api.acting_for(crowd.accounts[1])).await, [servers[1]]);
    api.acting_for(crowd.accounts[3]).get("/api/server").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_idempotency_key_for_another_account_is_another_request() {
    let app = TestApp::new().await;
    let crowd = Crowd::new(&app).await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me";
    let key = json!({ "name": "k", "publicKey": key });
    let reseller = crowd.member(&app, 0, "owner").await;
    reseller.acting_for(crowd.accounts[1]).post_once("/api/ssh-keys", "one", &key).await.expect(201);
    let other = reseller.acting_for(crowd.accounts[2]).post_once("/api/ssh-keys", "one", &key).await.expect(422);
    assert_eq!(other.code(), "INVALID", "{}", other.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_members_do_is_in_their_account_s_audit_log() {
    let app = TestApp::new().await;
    let crowd = Crowd::new(&app).await;
    let servers = servers(&app, &crowd.accounts[..2]).await;
    let (member, owner) = (crowd.member(&app, 1, "member").await, crowd.member(&app, 1, "owner").await);
    assert_eq!(rename(&member, servers[1]).await, 200);
    assert_eq!(rename(&crowd.member(&app, 0, "owner").await, servers[1]).await, 200);
    let acting = crowd.member(&app, 0, "admin").await.acting_for(crowd.accounts[1]);
    assert_eq!(rename(&acting, servers[1]).await, 200);
    assert_eq!(rename(&app.provider, servers[1]).await, 200);
    let log = owner.get("/api/audit?order=asc").await.expect(200).body;
    let seen: Vec<_> = log["data"].as_array().unwrap().iter().map(|e| (&e["role"], e["userId"].is_i64())).collect();
    let [customer, reseller, provider] = [json!("customer"), json!("reseller"), json!("provider")];
    assert_eq!(
        seen,
        [(&customer, true), (&reseller, false), (&reseller, false), (&provider, false)],
        "a fellow member by name, the reseller and the provider without: {log}"
    );
    let theirs = crowd.member(&app, 2, "owner").await.get("/api/audit").await.expect(200).body;
    assert_eq!(theirs["data"], json!([]));
    crowd.member(&app, 1, "billing").await.get("/api/audit").await.expect(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_suspension_restores_exactly_what_was() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let me = &app.customer;
    let mut servers = vec![];
    for _ in 0..3 {
        let ordered = me.post("/api/server/create", catalogue.container()).await.expect(200).body;
        assert_eq!(ended(me, &ordered["operationId"]).await["state"], "succeeded");
        servers.push(ordered["id"].as_i64().unwrap());
    }
    let [runs, stopped, blamed] = servers[..] else { unreachable!() };
    let at = |server: i64, rest: &str| format!("/api/server/{server}{rest}");
    let stop = me.post(&at(stopped, "/stop"), None).await.expect(200).body;
    assert_eq!(ended(me, &stop["operationId"]).await["state"], "succeeded");
    app.provider.post(&at(blamed, "/suspend"), json!({ "reason": "spam" })).await.expect(200);
    app.all_ended(PATIENCE).await;
    let seen = async |server: i64| {
        let view = me.get(&at(server, "")).await.expect(200).body;
        (view["status"].clone(), view["suspendReason"].clone())
    };
    let before = (seen(runs).await, seen(stopped).await, seen(blamed).await);

    let account = format!("/api/accounts/{}", app.customer_account);
    app.provider.post(&format!("{account}/suspend"), json!({ "reason": "unpaid" })).await.expect(200);
    app.all_ended(PATIENCE).await;
    let unpaid = (json!("stopped"), json!("unpaid"));
    assert_eq!((seen(runs).await, seen(stopped).await), (unpaid.clone(), unpaid));
    assert_eq!(seen(blamed).await, before.2, "it was suspended for a reason of its own");
    // Nothing can be changed, started or ordered, and a server's suspension does not end before its account's.
    for refused in [
        me.post(&at(runs, "/start"), None).await,
        me.post("/api/server/create", catalogue.container()).await,
        app.provider.post(&at(runs, "/unsuspend"), None).await,
    ] {
        assert_eq!(refused.expect(409).code(), "CONFLICT");
    }
    // What is no longer to blame for itself goes on with its account's suspension, and ends with it.
    app.provider.post(&at(blamed, "/unsuspend"), None).await.expect(200);
    app.all_ended(PATIENCE).await;
    assert_eq!(seen(blamed).await, (json!("stopped"), json!("unpaid")));
    app.provider.post(&format!("{account}/unsuspend"), None).await.expect(200);
    app.all_ended(PATIENCE).await;
    assert_eq!((seen(runs).await, seen(stopped).await), (before.0, before.1));
    assert_eq!(seen(blamed).await, (json!("running"), json!(null)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_orders_of_customers_never_exceed_their_reseller_s_limit() {
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    let crowd = Crowd::new(&app).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    sqlx::query("update accounts set server_limit = 3 where id = $1")
        .bind(crowd.accounts[0].0)
        .execute(&app.db.pool)
        .await
        .unwrap();
    let mut buyers = vec![];
    for account in 0..3 {
        buyers.push(crowd.member(&app, account, "owner").await);
    }
    let orders = (0..12).map(|n| {
        let (buyer, order) = (buyers[n % 3].clone(), catalogue.container());
        tokio::spawn(async move { buyer.post("/api/server/create", order).await })
    });
    let mut accepted = 0;
    for order in orders.collect::<Vec<_>>() {
        let answer = order.await.unwrap();
        match answer.status {
            200 => accepted += 1,
            _ => assert_eq!(answer.expect(507).code(), "RESOURCE_UNAVAILABLE"),
        }
    }
    assert_eq!(accepted, 3);
    app.all_ended(PATIENCE).await;
}
