//! Guests that belong to no server, and addresses that something else uses: reported, reserved, skipped, adopted.

use std::net::IpAddr;

use hypervisor::{GuestAddress, GuestKind, GuestNetwork, GuestRef, GuestSize, GuestSpec, Presence};
use kernel::operations::failpoints::Action;
use serde_json::{Value, json};
use uuid::Uuid;
use watch::sweep::sweep_now;

use crate::support::lab::{finish, remove};
use crate::support::{Lab, Pve, TestApp, ended, wait_for};

pub(crate) async fn order(app: &TestApp, order: Value) -> Value {
    let made = app.customer.post("/api/server/create", order).await.expect(200).body;
    let operation = ended(&app.customer, &made["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    app.customer.get(&format!("/api/server/{}", made["id"])).await.expect(200).body
}

/// Makes the database forget a server, as after a restore; its guest number is the next one again.
pub(crate) async fn forget(app: &TestApp, server: &Value) {
    for sql in [
        "delete from addresses where server_id = $1",
        "delete from operations where subject_id = $1::bigint::text",
        "select setval('guest_numbers', guest_number, false) from servers where id = $1",
        "delete from servers where id = $1",
    ] {
        sqlx::query(sql).bind(server["id"].as_i64()).execute(&app.db.pool).await.unwrap();
    }
}

async fn held_back(app: &TestApp, pool: i64) -> Vec<(String, String)> {
    let page = app.provider.get(&format!("/api/address-pools/{pool}/addresses?limit=100")).await.expect(200).body;
    let rows = page["addresses"].as_array().unwrap().iter().filter(|row| row["serverId"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.map(|row| (text(&row["address"]), text(&row["reason"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_guest_is_reported_and_its_address_and_number_are_reserved() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let lost = order(&app, catalogue.container()).await;
    let known = order(&app, catalogue.machine()).await;
    forget(&app, &lost).await;
    let rule = json!({ "sustainSeconds": 0 });
    app.provider.put("/api/alert-rules/unknown_guest", rule).await.expect(200);
    sweep_now(&app.service.features.sweeps).await.unwrap();

    let path = format!("/api/hosts/{}/unknown-guests", catalogue.host);
    let unknown = app.provider.get(&path).await.expect(200).body;
    assert_eq!(unknown.as_array().unwrap().len(), 1, "{unknown}");
    assert_eq!(
        (&unknown[0]["proxmoxId"], &unknown[0]["addresses"], &unknown[0]["disk"]),
        (&lost["proxmoxId"], &json!([lost["ipAddress"]]), &json!(3))
    );
    watch::alerts::watch::evaluate_periodic(&app.service.features.alerts).await.unwrap();
    let alerts = app.provider.get("/api/alerts?open=true&type=unknown_guest").await.expect(200).body;
    let alerts = alerts["alerts"].as_array().or(alerts.as_array()).or(alerts["data"].as_array()).unwrap().clone();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["hostId"], catalogue.host);
    assert_eq!(app.customer.get(&path).await.status, 403);

    let held = held_back(&app, catalogue.pool).await;
    let of_lost =
        held.iter().find(|(address, _)| json!(address) == lost["ipAddress"]).expect("its address is held back");
    assert!(of_lost.1.contains(&lost["proxmoxId"].to_string()), "{of_lost:?}");
    let reserved = format!("/api/address-pools/{}/reserve/{}", catalogue.pool, of_lost.0);
    app.provider.delete(&reserved).await.expect(409);
    let next = order(&app, catalogue.container()).await;
    assert_ne!(next["ipAddress"], lost["ipAddress"]);
    assert_ne!(next["proxmoxId"], lost["proxmoxId"]);
    assert_ne!(next["ipAddress"], known["ipAddress"]);

    // It is adopted as it is.
    let adopt = format!("{path}/{}/adopt", lost["proxmoxId"]);
    let wish = json!({ "accountId": app.customer_account.0, "tariffId": catalogue.lxc.1, "osId": catalogue.lxc.0 });
    let mut strange = wish.clone();
    strange["osId"] = json!(catalogue.vm.0);
    app.provider.post(&adopt, strange).await.expect(422);
    let adopted = app.provider.post(&adopt, wish.clone()).await.expect(201).body;
    assert_eq!(
        (&adopted["proxmoxId"], &adopted["ipAddress"], &adopted["name"]),
        (&lost["proxmoxId"], &lost["ipAddress"], &lost["name"])
    );
    sweep_now(&app.service.features.sweeps).await.unwrap();
    assert_eq!(app.customer.get(&format!("/api/server/{}", adopted["id"])).await.expect(200).body["status"], "running");
    app.provider.post(&adopt, wish).await.expect(404);
    assert_eq!(app.provider.get(&path).await.expect(200).body, json!([]));
    let deleted = app.customer.delete(&format!("/api/server/{}", adopted["id"])).await.expect(200).body;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    pve.assert_no_orphan("after the adopted one is deleted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_conflicts_are_reported_and_a_deleted_guest_frees_its_address() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let lost = order(&app, catalogue.container()).await;
    forget(&app, &lost).await;
    // Before any sweep, its address went to the next server.
    let twin = order(&app, catalogue.container()).await;
    assert_eq!(twin["ipAddress"], lost["ipAddress"], "nothing on Proxmox VE says that it is taken");
    sweep_now(&app.service.features.sweeps).await.unwrap();
    let path = format!("/api/hosts/{}/unknown-guests", catalogue.host);
    let unknown = app.provider.get(&path).await.expect(200).body;
    assert_eq!(unknown[0]["conflicts"], json!([twin["id"]]), "{unknown}");
    let adopt = format!("{path}/{}/adopt", lost["proxmoxId"]);
    let wish = json!({ "accountId": app.customer_account.0, "tariffId": catalogue.lxc.1, "osId": catalogue.lxc.0 });
    let refused = app.provider.post(&adopt, wish).await.expect(409);
    assert!(refused.text.contains(lost["ipAddress"].as_str().unwrap()), "{}", refused.text);

    // One with an address of its own is deleted: the address is free again, but not for others at once.
    let second = order(&app, catalogue.container()).await;
    forget(&app, &second).await;
    sweep_now(&app.service.features.sweeps).await.unwrap();
    assert_eq!(app.provider.get(&path).await.expect(200).body.as_array().unwrap().len(), 2);
    for gone in [&lost, &second] {
        pve.run(&format!("pve.cts.remove(guest({}))", gone["proxmoxId"])).await;
    }
    sweep_now(&app.service.features.sweeps).await.unwrap();
    assert_eq!(app.provider.get(&path).await.expect(200).body, json!([]));
    assert!(!held_back(&app, catalogue.pool).await.iter().any(|(address, _)| json!(address) == second["ipAddress"]));
    let pool = app.provider.get(&format!("/api/address-pools/{}", catalogue.pool)).await.expect(200).body;
    assert_eq!(pool["resting"], 1, "{pool}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_on_the_host_is_skipped_and_reserved() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let driver = lab.incus.driver();
    let taken = IpAddr::from(lab.first);
    let at = GuestRef {
        marker: Uuid::new_v4(),
        vmid: rand::random_range(900_000_000..999_999_999),
        kind: GuestKind::Lxc,
        node: String::new(),
    };
    let spec = GuestSpec {
        guest: at.clone(),
        hostname: "stranger".into(),
        image: lab.incus.image.clone(),
        limits: GuestSize { cores: Some(1), memory_mib: Some(128), disk_gib: Some(1), bandwidth_mbps: None },
        network: GuestNetwork {
            bridge: lab.incus.bridge.clone(),
            vlan: None,
            addresses: vec![GuestAddress { address: taken, prefix: 24, gateway: None }],
            dns: vec![],
        },
        ssh_keys: vec![],
        password: "x".to_owned().into(),
    };
    finish(&*driver, driver.create(&spec).await).await.unwrap();
    // The step is repeated, as after a crash.
    app.core.engine.failpoints.arm("create:create_guest:acted", Action::Repeat);
    let made = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let first = ended(&app.customer, &made["operationId"]).await;
    let held = held_back(&app, catalogue.pool).await;
    let second = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let second = ended(&app.customer, &second["operationId"]).await;
    let still_there = driver.find(&at).await;
    remove(&*driver, &at).await.unwrap();

    assert_eq!((&first["state"], &second["state"]), (&json!("succeeded"), &json!("succeeded")), "{first} {second}");
    assert!(matches!(still_there, Ok(Presence::Present { .. })), "it was not touched");
    let of_taken = held.iter().find(|(address, _)| *address == taken.to_string()).expect("it is held back");
    assert!(of_taken.1.contains("already defined"), "the host's own words: {of_taken:?}");
    let used: Vec<String> =
        sqlx::query_scalar("select host(address) from addresses where server_id is not null order by address")
            .fetch_all(&app.db.pool)
            .await
            .unwrap();
    assert_eq!(used.len(), 2, "{used:?}");
    assert!(!used.contains(&taken.to_string()), "{used:?}");
    wait_for("both guests", async || if lab.guests().await == 2 { Ok(()) } else { Err(lab.guests().await) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_on_a_host_with_no_free_address_fails_and_leaves_nothing() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let one = json!({ "first": lab.first.to_string(), "last": lab.first.to_string() });
    app.provider.put(&format!("/api/address-pools/{}", catalogue.pool), one).await.expect(200);
    let first = order(&app, catalogue.order()).await;
    let guests = lab.guests().await;
    forget(&app, &first).await;
    let made = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let operation = ended(&app.customer, &made["operationId"]).await;
    assert_eq!((&operation["state"], &operation["error"]["code"]), (&json!("failed"), &json!("RESOURCE_UNAVAILABLE")));
    let refused = app.customer.post("/api/server/create", catalogue.order()).await.expect(507);
    assert!(refused.text.contains("no free address"), "held back for good: {}", refused.text);
    assert_eq!(guests, 1);

    // The lost one is adopted with the address that was reserved because the host uses it.
    sweep_now(&app.service.features.sweeps).await.unwrap();
    let adopt = format!("/api/hosts/{}/unknown-guests/{}/adopt", catalogue.host, first["proxmoxId"]);
    let wish = json!({ "accountId": app.customer_account.0, "tariffId": catalogue.tariff, "osId": catalogue.image });
    let adopted = app.provider.post(&adopt, wish).await.expect(201).body;
    assert_eq!(adopted["ipAddress"], first["ipAddress"]);
}
