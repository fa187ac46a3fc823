//! What each server says can be done with it: its operation, its alerts, and why an action is refused.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::app::signed_in;
use crate::support::client::Response;
use crate::support::crowd::Crowd;
use crate::support::{Client, Pve, TestApp};

/// The routes of actions, with requests that a server in order accepts.
fn routes(server: &Value, image: i64) -> Vec<(&'static str, Method, String, Value)> {
    let path = |rest: &str| format!("/api/server/{}{rest}", server["id"]);
    let named = json!({ "snapname": "s1" });
    vec![
        ("start", Method::POST, path("/start"), Value::Null),
        ("stop", Method::POST, path("/stop"), Value::Null),
        ("restart", Method::POST, path("/restart"), Value::Null),
        ("console", Method::POST, "/api/server/console".to_owned(), json!({ "vmid": server["proxmoxId"] })),
        ("password", Method::POST, path("/password"), Value::Null),
        ("resize", Method::PUT, path("/resize"), json!({ "memory": 128, "allowRestart": true })),
        ("snapshot", Method::POST, path("/snapshots"), named.clone()),
        ("rollback", Method::POST, path("/snapshots/rollback"), named),
        ("reinstall", Method::POST, path("/reinstall"), json!({ "osId": image })),
        ("update", Method::PATCH, path(""), json!({ "labels": {} })),
        ("delete", Method::DELETE, path(""), Value::Null),
    ]
}

/// Whether a request got past everything that is known without its host, which knows no such guest.
fn is_allowed(answer: &Response) -> bool {
    (200..300).contains(&answer.status) || answer.text.contains("no guest on its host")
}

/// Conditions of a server: a name, and the SQL that sets it.
const CONDITIONS: [(&str, &str); 10] = [
    ("running", "status = 'running'"),
    ("stopped", "status = 'stopped'"),
    ("starting", "status = 'starting'"),
    ("unknown", "status = 'unknown'"),
    ("protected", "protected = true"),
    ("suspended", "suspended_at = now(), suspend_reason = 'unpaid'"),
    ("suspended and protected", "suspended_at = now(), suspend_reason = 'unpaid', protected = true"),
    ("never created", "status = 'failed', reserved = false"),
    ("never created and protected", "status = 'failed', reserved = false, protected = true"),
    ("not reinstalled", "status = 'failed'"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_against_an_action_is_what_its_route_answers() {
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    // Operations are accepted, and stay where they are.
    app.db.hold_operations().await;
    let crowd = Crowd::new(&app).await;
    let account = crowd.accounts[1].0;
    let owner = crowd.member(&app, 1, "owner").await;
    let reads = owner.post("/api/auth/tokens", json!({ "name": "r", "scopes": ["read"] })).await.expect(201).body;
    run(
        &app,
        "with u as (insert into users (email, staff_role, password_hash, confirmed_at)
                    values ('support@example.com', 'support', '-', now()) returning id)
         insert into accounts (name, owner_id) select 'support', id from u;
         update users u set account_id = a.id from accounts a where a.owner_id = u.id and u.account_id is null",
    )
    .await;
    let callers = [
        ("owner", owner.clone()),
        ("viewer", crowd.member(&app, 1, "viewer").await),
        ("reseller", crowd.member(&app, 0, "owner").await),
        ("read-only token", app.nobody.with_token(reads["token"].as_str().unwrap())),
        ("support", signed_in(&app.db, &app.nobody, "support@example.com").await),
        ("provider", app.provider.clone()),
    ];

    let mut tried = tokio::task::JoinSet::new();
    for (condition, set) in CONDITIONS {
        for busy in [false, true] {
            if busy && set.contains("reserved") {
                // Nothing is done to it.
                continue;
            }
            for (who, client) in &callers {
                let id: i64 = sqlx::query_scalar(
                    "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                                          status, cores, memory_mib, disk_gib)
                     values (gen_random_uuid(), $1, $2, $3, $4, 'pve1', nextval('guest_numbers'), 'lxc', 's',
                             'running', 1, 256, 3) returning id",
                )
                .bind(account)
                .bind(catalogue.lxc.1)
                .bind(catalogue.lxc.0)
                .bind(catalogue.host)
                .fetch_one(&app.db.pool)
                .await
                .unwrap();
                let (what, client, pool) =
                    (format!("{condition}, busy: {busy}, {who}"), client.clone(), app.db.pool.clone());
                let image = catalogue.lxc.0;
                tried.spawn(async move { compare(&what, &client, &pool, (id, image), set, busy).await });
            }
        }
    }
    let mut counts = (0, 0);
    while let Some(done) = tried.join_next().await {
        let (refused, allowed) = done.unwrap();
        counts = (counts.0 + refused, counts.1 + allowed);
    }
    assert!(counts.0 > 300 && counts.1 > 200, "{counts:?}");
}

/// Tries every action with a server in this condition; returns how many were refused and how many accepted.
async fn compare(
    what: &str,
    client: &Client,
    db: &sqlx::PgPool,
    (id, image): (i64, i64),
    set: &str,
    busy: bool,
) -> (usize, usize) {
    let sql = |text: String| async move { sqlx::raw_sql(AssertSqlSafe(text)).execute(db).await.unwrap() };
    let (mut refused, mut allowed) = (0, 0);
    for name in routes(&json!({ "id": id }), image).into_iter().map(|route| route.0) {
        sql(format!(
            "update operations set state = 'failed', ended_at = now()
             where subject_kind = 'server' and subject_id = '{id}' and ended_at is null;
             update servers set status = 'running', deleted_at = null where id = {id};
             update servers set {set} where id = {id};"
        ))
        .await;
        if busy {
            sql(format!(
                "insert into operations (id, subject_kind, subject_id, lane, kind, state, step, data, deadline)
                 values (gen_random_uuid(), 'server', '{id}', 'none', 'restart', 'stuck', 'restart', '{{}}', now())"
            ))
            .await;
        }
        let server = client.get(&format!("/api/server/{id}")).await.expect(200).body;
        assert_eq!(server["currentOperation"]["kind"], if busy { json!("restart") } else { Value::Null }, "{what}");
        let (_, method, path, body) = routes(&server, image).into_iter().find(|route| route.0 == name).unwrap();
        let answer = client.send(method, &path, Some(body).filter(|body| !body.is_null())).await;
        match &server["actions"][name] {
            Value::Null => {
                assert!(is_allowed(&answer), "{what}: {name} is allowed: {} {}", answer.status, answer.text);
                allowed += 1;
            }
            // Snapshots are looked for on the host before the turn is taken.
            reason if busy && answer.text.contains("no guest on its host") => {
                assert!(reason.as_str().unwrap().contains("(restart) is in progress"), "{what}: {name}: {reason}");
            }
            reason => {
                assert!([403, 409].contains(&answer.status), "{what}: {name}: {} {}", answer.status, answer.text);
                assert_eq!(reason, &answer.body["error"], "{what}: {name}");
                refused += 1;
            }
        }
    }
    (refused, allowed)
}

async fn run(app: &TestApp, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&app.db.pool).await.unwrap();
}
