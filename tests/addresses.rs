//! Address pools: what is assigned, in which order, to whom, and what is refused.

use compute::addresses::store::{of_server, release, take};
use compute::ids::{AccountId, HostId, ServerId};
use serde_json::{Value, json};

use crate::support::TestApp;
use crate::support::app::account_of;
use crate::support::client::Response;

/// A host that doesn't answer: pools don't need one that does.
async fn host(app: &TestApp) -> i64 {
    let config = json!({ "socket": "/nowhere/incus.socket" });
    let host = json!({ "name": "h", "kind": "incus", "config": config, "force": true });
    app.provider.post("/api/hosts", host).await.expect(201).body["id"].as_i64().unwrap()
}

async fn pool(app: &TestApp, host: i64, change: Value) -> Response {
    let mut pool = json!({ "name": "v4", "hostId": host, "cidr": "10.0.0.0/24", "gateway": "10.0.0.1",
                           "first": "10.0.0.1", "last": "10.0.0.5", "bridge": "br0", "dns": ["1.1.1.1", "::1"] });
    pool.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    app.provider.post("/api/address-pools", pool).await
}

/// The rows that a server with an address needs.
async fn server(app: &TestApp, host: i64) -> ServerId {
    server_of(app, host, app.customer_account).await
}

async fn server_of(app: &TestApp, host: i64, owner: AccountId) -> ServerId {
    let id = sqlx::query_scalar(
        "with t as (insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
                    values (gen_random_uuid()::text, 'lxc', 1, 128, 1, 1) returning id),
              i as (insert into images (name, kind) values (gen_random_uuid()::text, 'lxc') returning id)
         insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
             cores, memory_mib, disk_gib)
         select gen_random_uuid(), $1, t.id, i.id, $2, 'n', nextval('guest_numbers'), 'lxc', 's', 'stopped', 1, 128, 1
         from t, i returning id",
    )
    .bind(owner.0)
    .bind(host)
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    ServerId(id)
}

/// Assigns addresses to a server in a transaction of its own and returns them, or `None` if there are none.
async fn taken(app: &TestApp, host: i64, server: ServerId) -> Option<Vec<String>> {
    let mut tx = kernel::db::begin(&app.core.db).await.unwrap();
    let done = take(&mut tx, HostId(host), server, app.service.features.addresses.settings.rest()).await.unwrap();
    let held = of_server(&mut tx, server).await.unwrap().into_iter().map(|a| a.address.to_string()).collect();
    tx.commit().await.unwrap();
    done.then_some(held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lowest_free_address_is_assigned_and_reused() {
    let app = TestApp::new().await;
    let host = host(&app).await;
    let made = pool(&app, host, json!({})).await.expect(201).body;
    assert_eq!(
        (&made["total"], &made["taken"], &made["heldBack"], &made["free"]),
        (&json!(5), &json!(1), &json!(1), &json!(4))
    );
    let mut servers = vec![];
    for n in 2..=5 {
        let server = server(&app, host).await;
        assert_eq!(taken(&app, host, server).await.unwrap(), [format!("10.0.0.{n}")], "the gateway is held back");
        servers.push(server);
    }
    // A server that has its address already gets no second one.
    assert_eq!(taken(&app, host, servers[0]).await.unwrap(), ["10.0.0.2"]);
    let late = server(&app, host).await;
    assert_eq!(taken(&app, host, late).await, None);
    let mut db = app.core.db.acquire().await.unwrap();
    release(&mut db, servers[1]).await.unwrap();
    release(&mut db, servers[1]).await.unwrap();
    assert_eq!(taken(&app, host, late).await.unwrap(), ["10.0.0.3"], "the gap is filled");
    let held = of_server(&mut db, late).await.unwrap().remove(0);
    assert_eq!((held.prefix, held.gateway.unwrap().to_string(), held.bridge.as_str()), (24, "10.0.0.1".into(), "br0"));
    assert_eq!(held.dns.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.1.1.1", "::1"], "in the order given");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_assignments_are_distinct_and_never_exceed_the_pools() {
    let app = TestApp::with(|c| c.database_pool = 25).await;
    let host = host(&app).await;
    pool(&app, host, json!({})).await.expect(201);
    pool(&app, host, json!({ "name": "v4b", "first": "10.0.0.100", "last": "10.0.0.102" })).await.expect(201);
    let mut servers = vec![];
    for _ in 0..20 {
        servers.push(server(&app, host).await);
    }
    let got = futures_util::future::join_all(servers.into_iter().map(|s| taken(&app, host, s))).await;
    let mut addresses: Vec<String> = got.into_iter().flatten().flatten().collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 7, "{addresses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_of_each_family_or_none_at_all() {
    let app = TestApp::new().await;
    let host = host(&app).await;
    let first = server(&app, host).await;
    assert_eq!(taken(&app, host, first).await, Some(vec![]), "a host without pools assigns none, which is no error");
    let v4 = pool(&app, host, json!({})).await.expect(201).body;
    let v6 = json!({ "name": "v6", "cidr": "fd00::/64", "gateway": "fd00::1", "first": null, "last": null });
    let made = pool(&app, host, v6).await.expect(201).body;
    assert_eq!(made["free"], 9_007_199_254_740_991_i64, "too many to count exactly");
    assert_eq!(taken(&app, host, first).await.unwrap(), ["10.0.0.2", "fd00::2"]);

    let small = json!({ "first": "fd00::1", "last": "fd00::2" });
    let path = format!("/api/address-pools/{}", made["id"]);
    assert_eq!(app.provider.put(&path, small).await.expect(200).body["free"], 0);
    let second = server(&app, host).await;
    assert_eq!(taken(&app, host, second).await, None);
    let mut db = app.core.db.acquire().await.unwrap();
    assert!(of_server(&mut db, second).await.unwrap().is_empty(), "the IPv4 address is not kept");

    app.provider.put(&path, json!({ "enabled": false })).await.expect(200);
    assert_eq!(taken(&app, host, second).await.unwrap(), ["10.0.0.3"]);
    app.provider.put(&format!("/api/address-pools/{}", v4["id"]), json!({ "enabled": false })).await.expect(200);
    let third = server(&app, host).await;
    assert_eq!(taken(&app, host, third).await, None, "no server without an address on a host with pools");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_pools_are_refused_and_the_field_is_named() {
    let app = TestApp::new().await;
    let host = host(&app).await;
    for (change, field) in [
        (json!({ "hostId": host + 1 }), "hostId"),
        (json!({ "cidr": "10.0.0.7/24" }), "cidr"),
        (json!({ "cidr": "0.0.0.0/0" }), "cidr"),
        (json!({ "cidr": "banana" }), "cidr"),
        (json!({ "gateway": "10.0.0.0" }), "gateway"),
        (json!({ "gateway": "fe80::1" }), "gateway"),
        (json!({ "gateway": "224.0.0.1" }), "gateway"),
        (json!({ "cidr": "10.0.0.7/32", "gateway": "10.0.0.7", "first": null, "last": null }), "gateway"),
        (json!({ "first": "10.0.0.0" }), "first"),
        (json!({ "last": "10.0.0.255" }), "last"),
        (json!({ "first": "10.0.0.9" }), "last"),
        (json!({ "bridge": "br0; reboot" }), "bridge"),
        (json!({ "vlan": 4095 }), "vlan"),
        (json!({ "name": " " }), "name"),
    ] {
        let answer = pool(&app, host, change.clone()).await.expect(422);
        assert!(answer.body["details"]["fields"][field].is_string(), "{change}: {}", answer.text);
    }
    pool(&app, host, json!({})).await.expect(201);
    assert_eq!(pool(&app, host, json!({})).await.expect(409).code(), "CONFLICT", "the same addresses");
    let elsewhere = json!({ "cidr": "10.1.0.0/24", "gateway": null, "first": null, "last": null });
    assert_eq!(pool(&app, host, elsewhere).await.expect(409).code(), "ALREADY_EXISTS", "the same name");
    let overlapping = json!({ "name": "b", "first": "10.0.0.5", "last": "10.0.0.9" });
    pool(&app, host, overlapping).await.expect(409);
    let over_gateway = json!({ "name": "b", "gateway": "10.0.0.3", "first": "10.0.0.6", "last": "10.0.0.9" });
    pool(&app, host, over_gateway).await.expect(409);
    assert_eq!(app.provider.get("/api/address-pools").await.body.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn link_local_and_off_subnet_gateways_are_accepted() {
    let app = TestApp::new().await;
    let host = host(&app).await;
    for (n, (cidr, gateway, free)) in [
        ("2001:db8:1::/64", "fe80::1", 9_007_199_254_740_991_i64),
        ("2001:db8:2::/64", "fe80::1", 9_007_199_254_740_991),
        ("192.0.2.7/32", "198.51.100.1", 1),
        ("192.0.2.8/30", "198.51.100.1", 2),
    ]
    .into_iter()
    .enumerate()
    {
        let net = json!({ "name": format!("n{n}"), "cidr": cidr, "gateway": gateway, "first": null, "last": null });
        let made = pool(&app, host, net).await.expect(201).body;
        assert_eq!((&made["gateway"], &made["free"]), (&json!(gateway), &json!(free)), "{made}");
    }
    // An address on the link that is somebody else's can't be a gateway.
    let within = json!({ "name": "b", "cidr": "203.0.113.0/24", "gateway": "192.0.2.7", "first": null, "last": null });
    assert_eq!(pool(&app, host, within).await.expect(409).code(), "CONFLICT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_can_be_reserved_and_released() {
    let app = TestApp::new().await;
    let host = host(&app).await;
    let id = pool(&app, host, json!({})).await.expect(201).body["id"].clone();
    let path = |rest: &str| format!("/api/address-pools/{id}{rest}");
    app.provider.post(&path("/reserve"), json!({ "address": "10.0.0.2" })).await.expect(201);
    app.provider.post(&path("/reserve"), json!({ "address": "10.0.0.2" })).await.expect(409);
    app.provider.post(&path("/reserve"), json!({ "address": "10.0.0.9" })).await.expect(422);
    let server = server(&app, host).await;
    assert_eq!(taken(&app, host, server).await.unwrap(), ["10.0.0.3"]);
    app.provider.post(&path("/reserve"), json!({ "address": "10.0.0.3" })).await.expect(409);
    let page = app.provider.get(&path("/addresses?limit=2&page=2")).await.expect(200).body;
    assert_eq!((&page["total"], &page["pages"]), (&json!(3), &json!(2)));
    assert_eq!(page["addresses"][0]["address"], "10.0.0.3");
    assert_eq!(page["addresses"][0]["serverId"], server.0);
    app.provider.get(&path("/addresses?limit=1000")).await.expect(422);
    app.provider.get(&path("/addresses?limit=many")).await.expect(422);
    for (address, status) in [("10.0.0.2", 204), ("10.0.0.2", 404), ("10.0.0.1", 409), ("10.0.0.3", 409), ("x", 400)] {
        app.provider.delete(&path(&format!("/reserve/{address}"))).await.expect(status);
    }

    // While servers hold addresses the pool can't be deleted and its network can't change; its range can.
    app.provider.delete(&path("")).await.expect(409);
    app.provider.put(&path(""), json!({ "cidr": "10.1.0.0/24" })).await.expect(409);
    app.provider.put(&path(""), json!({ "gateway": "10.0.0.3" })).await.expect(409);
    let moved = app.provider.put(&path(""), json!({ "gateway": "10.0.0.4", "vlan": 7 })).await.expect(200).body;
    assert_eq!((&moved["gateway"], &moved["vlan"], &moved["heldBack"]), (&json!("10.0.0.4"), &json!(7), &json!(1)));
    let mut db = app.core.db.acquire().await.unwrap();
    release(&mut db, server).await.unwrap();
    let renumbered = app.provider.put(&path(""), json!({ "cidr": "10.1.0.0/29", "vlan": null })).await.expect(200).body;
    assert_eq!((&renumbered["first"], &renumbered["last"]), (&json!("10.1.0.1"), &json!("10.1.0.6")));
    assert_eq!(
        (&renumbered["gateway"], &renumbered["vlan"], &renumbered["taken"]),
        (&json!(null), &json!(null), &json!(0))
    );
    app.provider.delete(&path("")).await.expect(204);
    app.provider.get(&path("")).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_address_rests_before_another_account_gets_it() {
    let app = TestApp::new().await;
    let host = host(&app).await;
    let id = pool(&app, host, json!({})).await.expect(201).body["id"].clone();
    let path = format!("/api/address-pools/{id}");
    let other = account_of(&app.db, "other@example.com").await;
    let mut mine = vec![];
    for n in 2..=5 {
        let server = server(&app, host).await;
        assert_eq!(taken(&app, host, server).await.unwrap(), [format!("10.0.0.{n}")]);
        mine.push(server);
    }
    let mut db = app.core.db.acquire().await.unwrap();
    // .4 first, then .3.
    for n in [2, 1] {
        release(&mut db, mine[n]).await.unwrap();
    }
    let theirs = server_of(&app, host, other).await;
    assert_eq!(taken(&app, host, theirs).await, None, "the free ones were another account's a moment ago");
    let shown = app.provider.get(&path).await.expect(200).body;
    assert_eq!((&shown["resting"], &shown["free"], &shown["taken"]), (&json!(2), &json!(0), &json!(3)));
    let own = server(&app, host).await;
    assert_eq!(taken(&app, host, own).await.unwrap(), ["10.0.0.4"], "its own, the one released first");
    release(&mut db, own).await.unwrap();

    // A day later everybody can have them; .3 was released before .4.
    sqlx::query("update released_addresses set released_at = released_at - interval '25 hours'")
        .execute(&mut *db)
        .await
        .unwrap();
    assert_eq!(app.provider.get(&path).await.expect(200).body["free"], 2);
    assert_eq!(taken(&app, host, theirs).await.unwrap(), ["10.0.0.3"], "the one free for longest");
    let (of, whose): (i64, i64) =
        sqlx::query_as("select account_id, server_id from released_addresses where host(address) = '10.0.0.4'")
            .fetch_one(&mut *db)
            .await
            .unwrap();
    assert_eq!((of, whose), (app.customer_account.0, own.0), "the previous owner is remembered");

    // An address that was never used comes before one that was.
    app.provider.put(&path, json!({ "last": "10.0.0.6" })).await.expect(200);
    let fresh = server_of(&app, host, other).await;
    assert_eq!(taken(&app, host, fresh).await.unwrap(), ["10.0.0.6"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_pools_of_two_hosts_are_accepted_and_reported() {
    let app = TestApp::new().await;
    let first = host(&app).await;
    let config = json!({ "socket": "/nowhere/else.socket" });
    let second = json!({ "name": "h2", "kind": "incus", "config": config, "force": true });
    let second = app.provider.post("/api/hosts", second).await.expect(201).body["id"].as_i64().unwrap();
    let one = pool(&app, first, json!({})).await.expect(201).body;
    assert_eq!(one["overlaps"], json!([]));
    let two =
        pool(&app, second, json!({ "name": "b", "first": "10.0.0.4", "last": "10.0.0.9" })).await.expect(201).body;
    assert_eq!(two["overlaps"], json!([one["id"]]));
    let apart =
        pool(&app, second, json!({ "name": "c", "gateway": null, "first": "10.0.0.20", "last": "10.0.0.29" })).await;
    assert_eq!(apart.expect(201).body["overlaps"], json!([]));
    let again = app.provider.get(&format!("/api/address-pools/{}", one["id"])).await.expect(200).body;
    assert_eq!(again["overlaps"], json!([two["id"]]));
    let problems = compute::addresses::service::problems(&app.service.features.addresses, HostId(first)).await.unwrap();
    assert!(problems.len() == 1 && problems[0].contains("v4"), "{problems:?}");
}
