//! The master key: nothing starts with a wrong one, a new one takes over while the service runs, a lost one costs what
//! it sealed.

use std::process::Stdio;
use std::sync::Arc;

use kernel::config::{Config, SecretKeys};
use kernel::keyring::{SealCounts, service};
use kernel::operations::failpoints::Action;
use secrecy::SecretString;
use serde_json::json;

use crate::support::app::{KEY, config, signed_in};
use crate::support::child::{Service, command};
use crate::support::wait::within;
use crate::support::{Client, Pve, TestApp, TestDb, ended, expect_error, wait_for};

const NEW: &str = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXpBQkNERUY=";

/// Another process, which runs no tasks.
fn process(app: &TestApp, first: &str, old: &[&str]) -> Arc<innkeeper::run::Service> {
    innkeeper::run::Service::new(keys(config(&app.db, app.data.path()), first, old)).unwrap()
}

/// How many secrets of each kind there are, by key, as a process with the right one sees them.
async fn status(process: &innkeeper::run::Service) -> kernel::error::Result<Vec<(&'static str, SealCounts)>> {
    service::status(&process.core, process.features.all()).await
}

fn keys(config: Config, first: &str, old: &[&str]) -> Config {
    let old_secret_keys = SecretKeys(old.iter().map(|key| SecretString::from(*key)).collect());
    Config { secret_key: SecretString::from(first), old_secret_keys, ..config }
}

/// Runs a command with a key: whether it succeeded, and all its output.
async fn run(db: &TestDb, data: &std::path::Path, key: &str, line: &str) -> (bool, String) {
    run_with(db, data, [key, ""], line).await
}

/// The same with a key, and an old one if that is not empty.
async fn run_with(db: &TestDb, data: &std::path::Path, [key, old]: [&str; 2], line: &str) -> (bool, String) {
    let mut command = command(db, data);
    command.env("INNKEEPER_SECRET_KEY", key).args(line.split_whitespace()).stdin(Stdio::null());
    if !old.is_empty() {
        command.env("INNKEEPER_OLD_SECRET_KEYS", old);
    }
    // A service that starts would run for ever.
    let output = within("the end of a command", command.output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn sum(all: &[(&str, SealCounts)], take: fn(&SealCounts) -> u64) -> u64 {
    all.iter().map(|(_, n)| take(n)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_starts_with_a_wrong_master_key() {
    let (db, data) = (TestDb::new().await, tempfile::tempdir().unwrap());
    let add = "host add --name a --socket /nowhere --force";
    assert!(run(&db, data.path(), KEY, add).await.0);
    for from_before in [false, true] {
        if from_before {
            // A database of a version without a check value.
            sqlx::query("delete from key_check").execute(&db.pool).await.unwrap();
        }
        for line in ["serve", "host list", "user add --email a@example.com"] {
            let (well, said) = run(&db, data.path(), NEW, line).await;
            assert!(!well && said.contains("is not the key"), "{line}: {said}");
        }
    }
    assert_eq!(sqlx::query_scalar::<_, i64>("select count(*) from users").fetch_one(&db.pool).await.unwrap(), 3);
    let (well, said) = run(&db, data.path(), KEY, "host list").await;
    assert!(well, "{said}");
    // Nothing is lost, so nothing may be given up.
    let (well, said) = run(&db, data.path(), KEY, "key replace --lost").await;
    assert!(!well && said.contains("nothing is lost"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_key_is_rotated_while_the_service_runs() {
    let app = TestApp::with(|c| *c = keys(c.clone(), KEY, &[NEW])).await;
    service::check(&app.core, app.service.features.all()).await.unwrap();
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let points = &app.core.engine.failpoints;
    points.arm("create:create_guest:before", Action::Hold);
    let created = app.customer.post_once("/api/server/create", "one", &catalogue.container()).await.expect(200);
    wait_for("the step", async || points.all_fired().then_some(())).await;

    let other = process(&app, NEW, &[KEY]);
    let rotating = tokio::spawn(async move { service::rotate(&other.core, other.features.all()).await.unwrap() });
    // An operation holds the order's password, so the rotation waits for it.
    wait_for("the hosts' secrets", async || {
        let all = status(&process(&app, NEW, &[KEY])).await.unwrap();
        let old = |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, n)| n.old);
        match (old("settings of hosts"), old("passwords in operations")) {
            (Some(0), Some(1)) => Ok(()),
            _ => Err(all),
        }
    })
    .await;
    points.let_go();
    let all = rotating.await.unwrap();
    assert_eq!((sum(&all, |n| n.old), sum(&all, |n| n.lost)), (0, 0), "{all:?}");
    assert_eq!(ended(&app.customer, &created.body["operationId"]).await["state"], "succeeded");

    // The new key alone opens everything, nothing starts with the old one alone, and a request is recognised under
    // either.
    let alone = process(&app, NEW, &[]);
    let all = status(&alone).await.unwrap();
    assert_eq!(sum(&all, |n| n.master), sum(&all, SealCounts::all), "{all:?}");
    assert!(compute::hosts::service::all(&alone.core).await.unwrap()[0].config.is_some());
    assert!(status(&process(&app, KEY, &[])).await.is_err());
    let again = app.customer.post_once("/api/server/create", "one", &catalogue.container()).await.expect(200);
    assert_eq!(again.text, created.text);
    let data = app.data.path();
    let settings = [("INNKEEPER_SECRET_KEY", NEW), ("INNKEEPER_OLD_SECRET_KEYS", KEY)];
    let second = Service::start_with(&app.db, data, &settings).await;
    let customer = signed_in(&app.db, &Client::new(&second.base, None), "customer@example.com").await;
    let again = customer.post_once("/api/server/create", "one", &catalogue.container()).await.expect(200);
    assert_eq!(again.text, created.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_key_is_listed_and_rotated_on_the_command_line() {
    let app = TestApp::new().await;
    service::check(&app.core, app.service.features.all()).await.unwrap();
    let pve = Pve::new(&app.db).await;
    pve.register(&app.provider).await;
    let said = async |keys: [&str; 2], line: &str| run_with(&app.db, app.data.path(), keys, line).await;
    // How many secrets of hosts are sealed with the master key, resealed by this command, sealed with an old key, lost.
    let hosts = async |keys: [&str; 2], line: &str| -> [u64; 4] {
        let (well, said) = said(keys, line).await;
        assert!(well, "{line}: {said}");
        let row =
            said.lines().find_map(|row| row.strip_prefix("settings of hosts")).unwrap_or_else(|| panic!("{said}"));
        let counts: Vec<u64> = row.split_whitespace().map(|count| count.parse().unwrap()).collect();
        counts.try_into().unwrap()
    };
    let all = hosts([KEY, ""], "key list").await[0];
    assert!(all > 0);
    assert_eq!(hosts([NEW, KEY], "key list").await, [0, 0, all, 0], "a list changes nothing");
    for line in ["key list", "key rotate"] {
        let (well, said) = said([NEW, ""], line).await;
        assert!(!well && said.contains("is not the key"), "{line}: {said}");
    }
    assert_eq!(hosts([NEW, KEY], "key rotate").await, [0, all, 0, 0]);
    assert_eq!(hosts([NEW, KEY], "key rotate").await, [all, 0, 0, 0], "it can be repeated");

    // The new key alone opens the host's settings, and the old one alone nothing.
    assert_eq!(hosts([NEW, ""], "key list").await, [all, 0, 0, 0]);
    let (well, checked) = said([NEW, ""], "host check pve").await;
    assert!(well && checked.contains("pve1"), "{checked}");
    let (well, refused) = said([KEY, ""], "key list").await;
    assert!(!well && refused.contains("is not the key"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_master_key_costs_only_the_host_settings() {
    expect_error("could not sweep a host because of an internal error");
    let mut app = TestApp::new().await;
    service::check(&app.core, app.service.features.all()).await.unwrap();
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
    app.stop().await;
    let data = app.data.path();

    assert!(!run(&app.db, data, NEW, "key replace").await.0, "it requires --lost");
    let (well, said) = run(&app.db, data, NEW, "key replace --lost").await;
    assert!(well && said.contains("settings of each host again"), "{said}");
    let new = Service::start_with(&app.db, data, &[("INNKEEPER_SECRET_KEY", NEW)]).await;
    let nobody = Client::new(&new.base, None);
    let provider = signed_in(&app.db, &nobody, "provider@example.com").await;
    let customer = signed_in(&app.db, &nobody, "customer@example.com").await;

    let path = format!("/api/hosts/{}", catalogue.host);
    assert_eq!(provider.get("/api/hosts").await.expect(200).body[0]["config"], json!(null));
    let renamed = provider.put(&path, json!({ "name": "rack" })).await.expect(200).body;
    assert_eq!(renamed["name"], "rack");
    let mut settings = pve.settings();
    let secret = settings.as_object_mut().unwrap().remove("tokenSecret").unwrap();
    assert_eq!(provider.put(&path, json!({ "config": settings })).await.expect(422).code(), "INVALID");
    settings["tokenSecret"] = secret;
    // Nothing shows that it is the same cluster, which has a server on it.
    assert_eq!(provider.put(&path, json!({ "config": settings })).await.expect(409).code(), "CONFLICT");
    let given = provider.put(&path, json!({ "config": settings, "force": true })).await.expect(200).body;
    assert_ne!(given["managementKey"], renamed["managementKey"], "the private half was lost");

    let restart = format!("/api/server/{}/restart", created["id"]);
    let action = customer.post(&restart, None).await.expect(200).body;
    assert_eq!(ended(&customer, &action["operationId"]).await["state"], "succeeded");
    let created = customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&customer, &created["operationId"]).await["state"], "succeeded");
    pve.assert_no_orphan("after a lost key").await;
}
