//! The catalogue: tariffs, images and hosts, as providers write them and customers read them.

use serde_json::{Value, json};

use crate::support::{Lab, TestApp};

fn tariff(name: &str) -> Value {
    json!({ "name": name, "kind": "lxc", "cores": 1, "memory": 512, "disk": 5, "price": 300 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tariff_is_created_changed_withdrawn_and_deleted() {
    let app = TestApp::new().await;
    app.provider.post("/api/tariffs", tariff(" Базовый ")).await.expect(422);
    let made = app.provider.post("/api/tariffs", tariff("Базовый")).await.expect(201).body;
    assert_eq!((&made["name"], &made["currency"], &made["traffic"]), (&json!("Базовый"), &json!("EUR"), &json!(null)));
    let path = format!("/api/tariffs/{}", made["id"]);
    assert_eq!(app.customer.get(&path).await.expect(200).body, made);
    assert_eq!(app.provider.post("/api/tariffs", tariff("Базовый")).await.expect(409).code(), "ALREADY_EXISTS");

    let changed =
        app.provider.put(&path, json!({ "price": 450, "traffic": 1000, "bandwidth": 200 })).await.expect(200).body;
    assert_eq!(
        (&changed["price"], &changed["traffic"], &changed["bandwidth"]),
        (&json!(450), &json!(1000), &json!(200))
    );
    assert_eq!(app.provider.put(&path, json!({ "traffic": null })).await.expect(200).body["traffic"], json!(null));
    app.provider.post("/api/tariffs", tariff("Pro")).await.expect(201);
    assert_eq!(app.provider.put(&path, json!({ "name": "pro" })).await.expect(409).code(), "ALREADY_EXISTS");
    app.provider.put(&path, json!({ "cores": 0 })).await.expect(422);
    app.provider.put(&path, json!({ "cores": null, "colour": 1 })).await.expect(422);

    app.provider.put(&path, json!({ "enabled": false })).await.expect(200);
    app.customer.get(&path).await.expect(404);
    assert_eq!(app.customer.get("/api/tariffs").await.body.as_array().unwrap().len(), 1);
    assert_eq!(app.provider.get("/api/tariffs").await.body.as_array().unwrap().len(), 2);
    app.provider.delete(&path).await.expect(204);
    app.provider.delete(&path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_host_is_saved_only_with_force() {
    let app = TestApp::new().await;
    let config = json!({ "socket": "/nowhere/incus.socket" });
    let host = |force: bool| json!({ "name": "h", "kind": "incus", "config": config, "force": force });
    let answer = app.provider.post("/api/hosts", host(false)).await.expect(503);
    assert_eq!(answer.code(), "HOST_UNREACHABLE");
    assert!(answer.body["error"].as_str().unwrap().contains("/nowhere/incus.socket"), "{}", answer.text);
    assert_eq!(app.provider.get("/api/hosts").await.body, json!([]));
    let made = app.provider.post("/api/hosts", host(true)).await.expect(201).body;
    assert!(made["lastError"].is_string() && made["problems"][0].is_string(), "{made}");
    assert_eq!(made["config"]["project"], "default");
    app.provider.post("/api/hosts", host(true)).await.expect(409);
    let path = format!("/api/hosts/{}", made["id"]);
    app.provider.post(&format!("{path}/check"), None).await.expect(503);
    let changed = app.provider.put(&path, json!({ "memoryOvercommit": 1.5, "name": "main" })).await.expect(200).body;
    assert_eq!((&changed["memoryOvercommit"], &changed["name"]), (&json!(1.5), &json!("main")));
    app.provider.put(&path, json!({ "config": { "socket": "/elsewhere" } })).await.expect(503);
    app.provider.put(&path, json!({ "config": { "socket": "elsewhere" } })).await.expect(422);
    let sealed: Vec<u8> = sqlx::query_scalar("select config_sealed from hosts").fetch_one(&app.db.pool).await.unwrap();
    assert!(!sealed.windows(7).any(|w| w == b"nowhere"), "settings are sealed");

    // Sources are shown to providers only, and checked on their hosts first.
    let image = |verify: bool| {
        json!({ "name": "Debian 12", "kind": "lxc", "verify": verify,
                "sources": [{ "hostId": made["id"], "source": "debian-12" }] })
    };
    app.provider.post("/api/images", image(true)).await.expect(503);
    let debian = app.provider.post("/api/images", image(false)).await.expect(201).body;
    assert_eq!((&debian["type"], &debian["sources"][0]["source"]), (&json!("linux"), &json!("debian-12")));
    // The default is what most systems do, and everybody can see it.
    assert_eq!(debian["rootLogin"], "key");
    let path_of_image = format!("/api/images/{}", debian["id"]);
    app.provider.put(&path_of_image, json!({ "rootLogin": "yes" })).await.expect(422);
    let changed = app.provider.put(&path_of_image, json!({ "rootLogin": "password" })).await.expect(200).body;
    assert_eq!((&changed["rootLogin"], &changed["name"]), (&json!("password"), &debian["name"]));
    assert_eq!(app.customer.get(&path_of_image).await.expect(200).body["rootLogin"], "password");
    let seen = app.customer.get(&format!("/api/images/{}", debian["id"])).await.expect(200).body;
    assert!(seen["name"] == "Debian 12" && seen.get("sources").is_none(), "{seen}");
    let unknown = json!({ "name": "x", "kind": "lxc", "sources": [{ "hostId": 4711, "source": "x" }] });
    let answer = app.provider.post("/api/images", unknown).await.expect(422);
    assert!(answer.body["details"]["fields"]["sources[0].hostId"].is_string(), "{}", answer.text);

    let pool = json!({ "name": "p", "hostId": made["id"], "cidr": "10.0.0.0/24", "bridge": "b" });
    let pool = app.provider.post("/api/address-pools", pool).await.expect(201).body;
    app.provider.delete(&path).await.expect(409);
    app.provider.delete(&format!("/api/address-pools/{}", pool["id"])).await.expect(204);
    app.provider.delete(&path).await.expect(204);
    assert_eq!(app.provider.get("/api/images").await.body[0]["sources"], json!([]));
}

/// An Incus server is recognised by its certificate, whatever the path of its socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_incus_server_is_not_registered_twice() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    lab.register(&app.provider).await;
    let link = app.data.path().join("incus.socket");
    std::os::unix::fs::symlink(&lab.incus.socket, &link).unwrap();
    let host = |force: bool| {
        json!({ "name": "again", "kind": "incus", "force": force,
                "config": { "socket": link, "project": lab.incus.project, "storagePool": lab.incus.pool } })
    };
    let refused = app.provider.post("/api/hosts", host(false)).await.expect(409);
    assert!(refused.body["error"].as_str().unwrap().contains("The host lab is the same"), "{}", refused.text);
    let made = app.provider.post("/api/hosts", host(true)).await.expect(201).body;
    assert!(made["problems"].to_string().contains("The host lab is the same"), "{made}");
}
