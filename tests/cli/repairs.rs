//! What the provider does on the command line after a restore: operations are taken up or given up, guests adopted.

use kernel::operations::failpoints::Action;
use serde_json::{Value, json};
use uuid::Uuid;
use watch::sweep::sweep_now;

use super::{run, text};
use crate::support::{Pve, TestApp, ended, wait_for};
use crate::unknown_guests::{forget, order};

/// The output of a command that succeeds.
async fn good(app: &TestApp, line: &str) -> String {
    let output = run(&app.db, app.data.path(), line, "").await;
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The error of a command that fails.
async fn bad(app: &TestApp, line: &str) -> String {
    let output = run(&app.db, app.data.path(), line, "").await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}: {said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{line}: {said}");
    said
}

/// What the audit log has of a command: what each was about, and its outcome.
async fn audited(app: &TestApp, action: &str) -> Vec<(Value, Value)> {
    let page = app.provider.get(&format!("/api/audit?order=asc&action={action}")).await.expect(200).body;
    let entries = page["data"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            assert_eq!(entry["role"], "cli", "{entry}");
            (entry["subjectId"].clone(), entry["status"].clone())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_declared_and_its_operations_are_retried_or_abandoned_on_the_command_line() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let points = &app.core.engine.failpoints;
    let mut held = vec![];
    for _ in 0..2 {
        points.arm("create:prepare_guest:before", Action::Hold);
        let made = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
        wait_for("the step", async || points.all_fired().then_some(())).await;
        held.push(made["operationId"].as_str().unwrap().to_owned());
    }
    sqlx::query(
        "insert into mails (id, event, recipient, subject, text_body, html_body)
         values (gen_random_uuid(), 'e', 'customer@example.com', 'About a server', 't', 'h')",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    let listed = async || good(&app, "operation list").await.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(listed().await, [""; 0], "nothing is stuck yet");

    assert!(good(&app, "restored").await.contains("now stuck: 2 "));
    let stuck = listed().await;
    assert_eq!(stuck.len(), 2, "{stuck:#?}");
    for id in &held {
        let line = stuck.iter().find(|line| line.starts_with(id.as_str())).unwrap_or_else(|| panic!("{stuck:#?}"));
        assert!(line.contains(" prepare_guest ") && line.contains("restored"), "{line}");
        assert!(good(&app, &format!("operation log {id}")).await.contains("restored"));
        // Their workers write nothing any more.
        points.let_go();
    }
    assert!(good(&app, "mail list").await.lines().any(|l| l.contains("About a server") && l.contains("unknown")));
    sweep_now(&app.service.features.sweeps).await.unwrap();

    let [retried, abandoned] = [json!(held[0]), json!(held[1])];
    assert!(good(&app, &format!("operation retry {}", held[0])).await.contains("will be retried"));
    assert_eq!(ended(&app.customer, &retried).await["state"], "succeeded");
    assert!(good(&app, &format!("operation abandon {}", held[1])).await.contains("has been abandoned"));
    assert_eq!(ended(&app.customer, &abandoned).await["state"], "failed");
    assert_eq!(listed().await, [""; 0], "nothing is left to decide");
    for verb in ["retry", "abandon"] {
        assert!(bad(&app, &format!("operation {verb} {}", held[0])).await.contains("Only a stuck operation"));
        assert!(bad(&app, &format!("operation {verb} {}", Uuid::nil())).await.contains("no such operation"));
    }

    let ok = json!(200);
    assert_eq!(audited(&app, "restored").await.len(), 1);
    assert_eq!(audited(&app, "operation%20retry").await[0], (retried, ok.clone()));
    assert_eq!(audited(&app, "operation%20abandon").await[0], (abandoned, ok));
    assert!(audited(&app, "operation%20list").await.is_empty(), "reads leave no entries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_guests_are_listed_and_adopted_on_the_command_line() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let lost = order(&app, catalogue.container()).await;
    forget(&app, &lost).await;
    sweep_now(&app.service.features.sweeps).await.unwrap();

    let number = lost["proxmoxId"].to_string();
    let (number, address) = (number.as_str(), lost["ipAddress"].as_str().unwrap());
    let said = good(&app, "host unknown pve").await;
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{said}");
    assert_eq!(rows[1][..6], [number, lost["name"].as_str().unwrap(), "lxc", "pve1", address, "1"][..], "{said}");
    bad(&app, "host unknown nowhere").await;

    let to_customer = "--user customer@example.com --tariff Small";
    for (line, words) in [
        (format!("host adopt pve 1 {to_customer}"), "no such guest"),
        (format!("host adopt pve {number} --user customer@example.com --tariff Large"), "no tariff"),
        (format!("host adopt pve {number} --user nobody@example.com --tariff Small"), "no such user"),
        (format!("host adopt pve {number} {to_customer} --image Windows"), "no such image"),
    ] {
        let said = bad(&app, &line).await;
        assert!(said.contains(words), "{line}: {said}");
    }
    assert_eq!(app.customer.get("/api/server").await.expect(200).body, json!([]), "nothing was adopted yet");

    let said = good(&app, &format!("host adopt pve {number} {to_customer} --name found")).await;
    assert!(said.contains("customer@example.com"), "{said}");
    let servers = app.customer.get("/api/server").await.expect(200).body;
    let found = &servers[0];
    assert_eq!(
        (&found["proxmoxId"], &found["ipAddress"], &found["name"]),
        (&lost["proxmoxId"], &lost["ipAddress"], &json!("found")),
        "{servers}"
    );
    assert_eq!(good(&app, "host unknown pve").await.lines().count(), 1);
    assert_eq!(audited(&app, "host%20adopt").await.last().unwrap().0, json!(found["id"].to_string()));
    sweep_now(&app.service.features.sweeps).await.unwrap();
    let deleted = app.customer.delete(&format!("/api/server/{}", found["id"])).await.expect(200).body;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    pve.assert_no_orphan("after the adopted one is deleted").await;
}
