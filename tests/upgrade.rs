//! Another version of the program beside this one, or before it (`make upgrade-test`).

use serde_json::{Value, json};

use crate::support::app::signed_in;
use crate::support::child::{Service, command, command_of};
use crate::support::{Client, Pve, TestDb, ended};

/// How often both are killed.
const ROUNDS: usize = 3;

fn other_program() -> String {
    std::env::var("INNKEEPER_TEST_OLD_PROGRAM").expect("`make upgrade-test` names the other program")
}

struct World {
    db: std::sync::Arc<TestDb>,
    data: tempfile::TempDir,
}

impl World {
    async fn other(&self) -> Service {
        Service::start_program(&other_program(), &self.db, self.data.path(), &[("INNKEEPER_LEASE_SECONDS", "3")]).await
    }

    async fn present(&self) -> Service {
        Service::start_with(&self.db, self.data.path(), &[("INNKEEPER_LEASE_SECONDS", "3")]).await
    }

    async fn client(&self, service: &Service, email: &str) -> Client {
        signed_in(&self.db, &Client::new(&service.base, None), email).await
    }
}

/// A server created through one of them, used through both, and deleted.
async fn life(one: &Client, two: &Client, order: &Value) {
    let created = one.post("/api/server/create", order.clone()).await.expect(200).body;
    assert_eq!(ended(two, &created["operationId"]).await["state"], "succeeded");
    let path = format!("/api/server/{}", created["id"]);
    for (client, action) in [(two, "stop"), (one, "start"), (two, "restart")] {
        let done = client.post(&format!("{path}/{action}"), None).await.expect(200).body;
        assert_eq!(ended(one, &done["operationId"]).await["state"], "succeeded", "{action}");
    }
    let taken = one.post(&format!("{path}/snapshots"), json!({ "snapname": "one" })).await.expect(200).body;
    assert_eq!(ended(two, &taken["operationId"]).await["state"], "succeeded");
    for client in [one, two] {
        for list in ["/api/server", "/api/tariffs", "/api/images", "/api/alerts"] {
            client.get(list).await.expect(200);
        }
    }
    let deleted = two.delete(&path).await.expect(200).body;
    assert_eq!(ended(one, &deleted["operationId"]).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the program of another version: make upgrade-test"]
async fn two_versions_side_by_side_lose_and_duplicate_nothing() {
    let world = World { db: std::sync::Arc::new(TestDb::empty().await), data: tempfile::tempdir().unwrap() };
    let mut old = world.other().await;
    world.db.add_users().await;
    let pve = Pve::new(&world.db).await;
    let catalogue = pve.register(&world.client(&old, "provider@example.com").await).await;
    let order = catalogue.container();
    let customer = world.client(&old, "customer@example.com").await;
    life(&customer, &customer, &order).await;

    let mut new = world.present().await;
    for round in 0..ROUNDS {
        let (by_old, by_new) =
            (world.client(&old, "customer@example.com").await, world.client(&new, "customer@example.com").await);
        life(&by_old, &by_new, &order).await;
        life(&by_new, &by_old, &order).await;
        // Orders in progress in both, while first one and then the other is killed.
        let mut under_way = vec![];
        for client in [&by_old, &by_new, &by_old, &by_new] {
            under_way.push(client.post("/api/server/create", order.clone()).await.expect(200).body);
        }
        old.kill().await;
        let by_new = world.client(&new, "customer@example.com").await;
        for created in &under_way[..2] {
            assert_eq!(ended(&by_new, &created["operationId"]).await["state"], "succeeded", "round {round}");
        }
        let restarted = by_new.post(&format!("/api/server/{}/stop", under_way[0]["id"]), None).await.expect(200).body;
        old = world.other().await;
        new.kill().await;
        let by_old = world.client(&old, "customer@example.com").await;
        assert_eq!(ended(&by_old, &restarted["operationId"]).await["state"], "succeeded", "round {round}");
        for created in &under_way {
            assert_eq!(ended(&by_old, &created["operationId"]).await["state"], "succeeded", "round {round}");
        }
        pve.assert_no_orphan("after both were killed").await;
        new = world.present().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the program of another version: make upgrade-test"]
async fn an_earlier_generation_s_program_refuses_the_migrated_schema() {
    let (db, data) = (TestDb::empty().await, tempfile::tempdir().unwrap());
    let old = async |command: &str| command_of(&other_program(), &db, data.path()).arg(command).output().await.unwrap();
    assert!(old("migrate").await.status.success(), "it knows its own schema");
    let migrated = command(&db, data.path()).arg("migrate").output().await.unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    for command in ["migrate", "serve"] {
        let refused = old(command).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{command}: {said}");
        assert!(said.contains("only knows generations up to") && said.trim().lines().count() == 1, "{command}: {said}");
    }
}
