//! What each role sees of everything that can be read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::matrix::rows;
use super::world::{Others, World, host, token};
use crate::support::app::login;
use crate::support::{TestApp, eventually};

/// What each role sees of everything that can be read: every field with its type. A field that is new, gone or visible
/// to more roles than before changes tests/fields.txt; FIELDS=write rewrites that file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_sees_the_fields_it_should_see_and_no_others() {
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    for who in ["provider", "customer", "other"] {
        login(&app.nobody, &format!("{who}@example.com")).await;
    }
    let host = host(&app).await;
    let world = World::new(&app, host).await;
    let others = Others::new(&app).await;
    let read_only = token(&app, "read").await.0;
    sqlx::query("update operations set error_code = 'HOST_ERROR', error_message = 'm', error_detail = 'd'")
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query("insert into operation_log (operation_id, level, step, message) values ($1::uuid, 'info', 's', 'm')")
        .bind(&world.operation)
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into nodes (host_id, name, online, cores, memory_mib, disk_gib) values ($1, 'n', true, 1, 1, 1)",
    )
    .bind(host)
    .execute(&app.db.pool)
    .await
    .unwrap();
    sqlx::query("insert into image_sources values ($1, $2, 's')")
        .bind(world.image)
        .bind(host)
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into unknown_guests (host_id, marker, guest_number, kind, node, hostname, addresses, cores, memory_mib,
                                     disk_gib)
         values ($1, gen_random_uuid(), 4711, 'lxc', 'n', 'web', '{10.9.0.9,10.9.0.7}', 1, 64, 1)",
    )
    .bind(host)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let started = app.provider.post(&format!("/api/server/{}/start", world.server), None).await.expect(200).body;
    // It has no error to show until it has found the host unreachable.
    let path = format!("/api/operations/{}", started["operationId"].as_str().unwrap());
    eventually(&app.provider, &path, |operation| operation["error"].is_object()).await;
    let mut seen = String::new();
    let rows = rows(&app.service);
    let reads = rows.values().copied().flatten().filter(|(method, _, _)| *method == "GET").map(|(_, path, _)| *path);
    for path in reads.filter(|path| path.starts_with("/api/")).collect::<BTreeSet<_>>() {
        for (role, client) in [
            ("nobody", &app.nobody),
            ("owner", &app.customer),
            ("other customer", &app.other),
            ("provider", &app.provider),
            ("read-only token", &read_only),
            ("token for this server", &world.here),
            ("viewer of the account", &others.members[3]),
            ("reseller", &others.reseller),
            ("support", &others.support),
        ] {
            let mut fields = BTreeSet::new();
            let answer = client.get(&world.fill(path)).await;
            shape(&answer.body, "", &mut fields);
            let fields: Vec<String> = fields.into_iter().collect();
            seen += &format!("GET {path} as {role}: {}\n", answer.status);
            fields.iter().for_each(|field| seen += &format!("    {field}\n"));
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fields.txt");
    if std::env::var("FIELDS").is_ok_and(|v| v == "write") {
        std::fs::write(file, &seen).unwrap();
    }
    let known = std::fs::read_to_string(file).unwrap();
    for (line, (seen, known)) in seen.lines().zip(known.lines()).enumerate() {
        assert_eq!(seen, known, "tests/fields.txt, line {}", line + 1);
    }
    assert_eq!(seen.lines().count(), known.lines().count());
}

/// A value's fields with their types, as `data[].id number`.
fn shape(value: &Value, at: &str, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            let dot = if at.is_empty() { "" } else { "." };
            shape(value, &format!("{at}{dot}{name}"), fields);
        }),
        Value::Array(values) => values.iter().for_each(|value| shape(value, &format!("{at}[]"), fields)),
        Value::Null => drop(fields.insert(format!("{at} null"))),
        Value::Bool(_) => drop(fields.insert(format!("{at} boolean"))),
        Value::Number(_) => drop(fields.insert(format!("{at} number"))),
        Value::String(_) => drop(fields.insert(format!("{at} text"))),
    }
}
