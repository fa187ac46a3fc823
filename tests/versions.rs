//! Two versions side by side: rows that another one wrote, operations that it started, a schema that it migrated.

use std::process::Stdio;

use kernel::operations::service;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::app::signed_in;
use crate::support::child::command;
use crate::support::{Pve, TestApp, TestDb, ended, eventually, expect_error};

/// Releases an operation after changing it into what another version would have written.
async fn let_go(db: &PgPool, id: &Value, change: &str) {
    let sql = format!("update operations set run_at = now() - interval '11 minutes', {change} where id = $1::uuid");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_str()).execute(db).await.unwrap();
    sqlx::query("select pg_notify('operation_due', '')").execute(db).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_whose_step_has_moved_in_this_version_is_stuck() {
    expect_error("operation is stuck");
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    app.db.hold_operations().await;

    // Started by a version that had no step before this one.
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let path = format!("/api/operations/{}", created["operationId"].as_str().unwrap());
    let_go(&app.db.pool, &created["operationId"], "step = 'create_guest', step_index = 0").await;
    let stuck = eventually(&app.provider, &path, |o| o["state"] == "stuck").await;
    assert_eq!(stuck["step"], "create_guest");
    let log = app.provider.get(&format!("{path}/log")).await.expect(200).text;
    assert!(log.contains("not where this version has it"), "{log}");
    assert_eq!(pve.run("len(pve.cts)").await, json!(0), "the host has heard nothing");
    app.provider.post(&format!("{path}/retry"), None).await.expect(200);
    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");

    // Started by a version that has another name for it.
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let path = format!("/api/operations/{}", created["operationId"].as_str().unwrap());
    let_go(&app.db.pool, &created["operationId"], "step = 'brew_guest', step_index = 1").await;
    eventually(&app.provider, &path, |o| o["state"] == "stuck").await;
    app.provider.post(&format!("{path}/retry"), None).await.expect(200);
    let stuck = eventually(&app.provider, &path, |o| o["state"] == "stuck").await;
    assert_eq!(stuck["step"], "brew_guest");
    assert_eq!(pve.run("len(pve.cts)").await, json!(1), "the first one's");
    app.db.allow_unfinished();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_of_a_newer_version_is_left_alone_and_stuck_if_no_process_takes_it() {
    expect_error("operation is stuck");
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    app.db.hold_operations().await;
    let order = async || app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let (data, kind, known) = (order().await, order().await, order().await);
    let_go(&app.db.pool, &data["operationId"], "data_version = 99").await;
    let_go(&app.db.pool, &kind["operationId"], "kind = 'brew'").await;
    let_go(&app.db.pool, &known["operationId"], "attempts = 0").await;
    assert_eq!(ended(&app.customer, &known["operationId"]).await["state"], "succeeded");
    // The last one was claimed, so these were left alone.
    for newer in [&data, &kind] {
        let path = format!("/api/operations/{}", newer["operationId"].as_str().unwrap());
        assert_eq!(app.provider.get(&path).await.expect(200).body["state"], "queued");
    }

    service::mark_unknown_stuck(&app.service.features.operations).await.unwrap();
    for newer in [&data, &kind] {
        let path = format!("/api/operations/{}", newer["operationId"].as_str().unwrap());
        let told = app.provider.get(&path).await.expect(200).body;
        assert_eq!(told["state"], "stuck");
        assert!(told["error"]["detail"].as_str().unwrap().contains("start the version that started it"), "{told}");
    }
    let_go(&app.db.pool, &data["operationId"], "data_version = 1").await;
    let path = format!("/api/operations/{}", data["operationId"].as_str().unwrap());
    app.provider.post(&format!("{path}/retry"), None).await.expect(200);
    assert_eq!(ended(&app.customer, &data["operationId"]).await["state"], "succeeded");
    app.db.allow_unfinished();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_values_of_a_newer_version_break_no_list() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
    let server = created["id"].as_i64().unwrap();
    // A newer version's migrations allow what ours don't.
    sqlx::query(
        "do $$ declare c record; begin
             for c in select conrelid::regclass as t, conname from pg_constraint
                      where contype = 'c' and connamespace = 'public'::regnamespace and conparentid = 0
                        and conrelid <> 0 loop
                 execute format('alter table %s drop constraint %I', c.t, c.conname);
             end loop; end $$",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    let fresh = signed_in(&app.db, &app.nobody, "other@example.com").await;
    for (table, column) in [
        ("servers", "status"),
        ("images", "kind"),
        ("images", "root_login"),
        ("tariffs", "kind"),
        ("hosts", "kind"),
        ("mails", "state"),
        ("operations", "state"),
        ("alerts", "kind"),
        ("alerts", "level"),
        ("alerts", "ended"),
        ("alert_rules", "kind"),
    ] {
        if table == "alerts" && column == "kind" {
            sqlx::query(
                "insert into alerts (subject, kind, level, value, server_id, raised_at, resolved_at, ended)
                 values ('server:' || $1, 'cpu', 'warning', 0.9, $1, now(), now(), 'recovered')",
            )
            .bind(server)
            .execute(&app.db.pool)
            .await
            .unwrap();
        }
        let sql = format!("update {table} set {column} = 'brewing'");
        let changed = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&app.db.pool).await.unwrap();
        assert!(changed.rows_affected() > 0 || table == "alert_rules", "{table}");
    }
    sqlx::query("update users set staff_role = 'brewer', alert_mails = 'brewing' where email = 'other@example.com'")
        .execute(&app.db.pool)
        .await
        .unwrap();

    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let mut unknown = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if methods.get("get").is_none() {
            continue;
        }
        let path = path
            .replace("/server/{id}", &format!("/server/{server}"))
            .replace("/servers/{id}", &format!("/servers/{server}"));
        let path = path.replace("/hosts/{id}", &format!("/hosts/{}", catalogue.host));
        if path.contains('{') || !path.starts_with("/api/") {
            continue;
        }
        for client in [&app.provider, &app.customer, &fresh] {
            let answer = client.get(&path).await;
            assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text);
            unknown += usize::from(answer.text.contains("\"unknown\""));
        }
    }
    assert!(unknown >= 8, "lists show unknown values as unknown: {unknown}");
    // A user with an unknown role can do no more than anybody else, and nothing of an unknown kind can be ordered.
    fresh.get("/api/hosts").await.expect(403);
    let refused = app.customer.post("/api/server/create", catalogue.container()).await;
    assert!(refused.status == 409 || refused.status == 400, "{} {}", refused.status, refused.text);
    // The operations belong to another version, and their states are unknown to the check at the end.
    sqlx::query("update operations set state = 'succeeded'").execute(&app.db.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_accepted_until_its_generation_changes() {
    let (db, data) = (TestDb::new().await, tempfile::tempdir().unwrap());
    let migrate = async || {
        let run = command(&db, data.path()).arg("migrate").stdin(Stdio::null()).output().await.unwrap();
        (run.status.success(), String::from_utf8([run.stdout, run.stderr].concat()).unwrap())
    };
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (99990101000001, 'of a newer version', true, '\\x00', 1)",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    let (well, said) = migrate().await;
    assert!(well, "{said}");
    sqlx::query("update schema_generation set generation = generation + 1").execute(&db.pool).await.unwrap();
    let (well, said) = migrate().await;
    assert!(!well && said.contains("only knows generations up to") && said.lines().count() == 1, "{said}");
}
