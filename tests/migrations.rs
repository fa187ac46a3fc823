//! Migrations that change what is already there, each on the filled database of the version before.

use std::borrow::Cow;

use kernel::db::MIGRATIONS;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;

use crate::support::{Pve, TestApp, TestDb, ended, expect_error};

/// Counts the rows of the tables that migrations must keep.
const ROWS: &str = "select jsonb_build_object(
    'operations', (select count(*) from operations), 'log', (select count(*) from operation_log),
    'servers', (select count(*) from servers), 'addresses', (select count(*) from addresses),
    'audit', (select count(*) from audit_entries), 'tokens', (select count(*) from tokens))";

/// A database with the schema of before this migration, and this content.
async fn filled_before(migration: i64, content: &'static str) -> TestDb {
    let db = TestDb::empty().await;
    let before = MIGRATIONS.iter().filter(|m| m.version < migration).cloned().collect();
    let older = Migrator { migrations: Cow::Owned(before), ..Migrator::DEFAULT };
    older.run(&db.pool).await.expect("the older migrations run");
    sqlx::raw_sql(content).execute(&db.pool).await.expect("the content fits the older schema");
    db
}

async fn rows(db: &TestDb) -> Value {
    sqlx::query_scalar(ROWS).fetch_one(&db.pool).await.unwrap()
}

/// Kind and id of a server's operations, latest first.
async fn operations(db: &TestDb, server: i64) -> Vec<Value> {
    sqlx::query_scalar(
        "select jsonb_build_array(kind, id) from operations where subject_kind = 'server' and subject_id = $1
         order by created_at desc",
    )
    .bind(server.to_string())
    .fetch_all(&db.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_get_subjects_are_kept_and_go_on() {
    let db = filled_before(20_261_130_000_001, include_str!("migrations/before_subjects.sql")).await;
    sqlx::raw_sql(
        "update installation set beats = 1, beat_at = now();
         update operations set run_at = now(), deadline = now() + interval '1 hour' where ended_at is null;
         insert into tokens (id, kind, hash, user_id, name, scopes)
         values (gen_random_uuid(), 'api', sha256('one'), 2, 'one server', '{write:server:003}');
         insert into audit (id, user_id, role, action, subject, subject_id, server_id, status, ended_at)
         values (gen_random_uuid(), 1, 'provider', 'POST /api/server/{id}/stop', 'server', '3', 3, 200, now());
         insert into audit_open (id, user_id, role, action, subject, subject_id, server_id)
         values (gen_random_uuid(), 1, 'provider', 'POST /api/server/{id}/start', 'server', '3', 3);",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    let before = rows(&db).await;
    MIGRATIONS.run(&db.pool).await.expect("the migrations run");
    assert_eq!(rows(&db).await, before);
    let written: (Vec<String>, Vec<i64>, Vec<String>) = sqlx::query_as(
        "select array_agg(distinct lane), array_agg(distinct account_id),
                (select scopes from tokens where name = 'one server') from operations",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(written, (vec!["host:1".into()], vec![2], vec!["write:server:3".into()]));
    // Every user owns an account with their id, limit and things; what they were for the provider they still are.
    let owners: Vec<Value> = sqlx::query_scalar(
        "select jsonb_build_array(u.email, u.staff_role, a.id = u.id, a.kind, a.server_limit,
                (select count(*) from servers s where s.account_id = a.id) > 0)
         from users u join accounts a on a.owner_id = u.id order by u.id",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let customer = |email: &str, has: bool| json!([email, null, true, "customer", 100, has]);
    assert_eq!(
        owners,
        [
            json!(["provider@example.com", "admin", true, "customer", 100, false]),
            customer("customer@example.com", true),
            customer("other@example.com", false),
        ]
    );
    let checked: Vec<Option<String>> =
        sqlx::query_scalar("select checked_at::text from operation_lanes").fetch_all(&db.pool).await.unwrap();
    assert_eq!(checked, [None], "the host was never swept");

    // Its host is elsewhere, and empty: it has yet to hear of the server that is being created.
    expect_error("host");
    let app = TestApp::on(db, |_| {}).await;
    let pve = Pve::new(&app.db).await;
    app.provider.put("/api/hosts/1", json!({ "config": pve.settings(), "force": true })).await.expect(200);
    let of = |server: i64| format!("/api/server/{server}");
    for (server, kinds) in
        [(1, vec!["delete", "create"]), (2, vec!["suspend", "delete", "create"]), (4, vec!["create"])]
    {
        let known = operations(&app.db, server).await;
        assert_eq!(known.iter().map(|o| &o[0]).collect::<Vec<_>>(), kinds, "server {server}");
        for operation in known {
            let operation = ended(&app.provider, &operation[1]).await;
            assert_eq!(operation["state"], "succeeded", "{operation}");
            assert_eq!(
                (&operation["subject"], &operation["serverId"]),
                (&json!(format!("server:{server}")), &json!(server))
            );
        }
    }
    assert_eq!(app.customer.get(&of(4)).await.expect(200).body["status"], "running");
    app.customer.get(&of(1)).await.expect(404);

    // A scope of before still covers its server and no other; the history of a server still names it.
    let token = app.nobody.with_token("one");
    assert_eq!(token.get(&of(3)).await.expect(200).body["id"], 3);
    token.get(&of(4)).await.expect(404);
    for filter in ["serverId=3", "about=server:3"] {
        let seen = app.customer.get(&format!("/api/audit?{filter}")).await.expect(200).body;
        assert_eq!(seen["total"], 2, "{seen}");
    }
    // The next operation takes its turn as ever.
    let stopped = app.customer.post(&format!("{}/stop", of(4)), None).await.expect(200).body;
    assert_eq!(ended(&app.customer, &stopped["operationId"]).await["state"], "succeeded");
}
