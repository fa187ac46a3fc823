//! A feature plugs in by its own folder and one line. The test kit has the smallest one; these tests add it to the
//! list.

use std::sync::atomic::Ordering;

use kernel::feature::Feature;
use serde_json::json;

use crate::support::live::Live;
use crate::support::notes::{ILLEGIBLE, Notes};
use crate::support::{TestApp, ended, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_routes_are_documented_and_admit_the_right_callers() {
    let (app, notes) = TestApp::adding(Notes::new).await;
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    assert!(document["paths"]["/api/notes"]["post"].is_object());
    crate::authorization::walk(&app, notes.access()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_task_runs_and_ends_at_shutdown() {
    let (app, notes) = TestApp::adding(Notes::new).await;
    let mut app = app.running("notes");
    let left = app.customer.post("/api/notes", json!({ "text": "milk" })).await.expect(201).body;
    ended(&app.customer, &left["operationId"]).await;
    wait_for("the note to be read", async || {
        let notes = app.customer.get("/api/notes").await.expect(200).body;
        if notes[0]["read"] == true { Ok(()) } else { Err(notes) }
    })
    .await;
    assert_eq!(app.other.get("/api/notes").await.expect(200).body, json!([]));
    assert!(notes.reading.load(Ordering::Relaxed));
    app.stop().await;
    assert!(!notes.reading.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_metric_is_described_and_its_upkeep_called() {
    let (app, _) = TestApp::adding(Notes::new).await;
    let app = app.running("notes");
    let left = app.customer.post("/api/notes", json!({ "text": "milk" })).await.expect(201).body;
    ended(&app.customer, &left["operationId"]).await;
    let figures = wait_for("the metric", async || {
        let figures = app.figures().await;
        if figures.contains("innkeeper_notes_read_total 1") { Ok(figures) } else { Err(figures) }
    })
    .await;
    assert!(figures.contains("# HELP innkeeper_notes_read_total Notes read."), "{figures}");
    let app = app.running("upkeep");
    wait_for("the note to be deleted", async || {
        let notes = app.customer.get("/api/notes").await.expect(200).body;
        if notes == json!([]) { Ok(()) } else { Err(notes) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_operations_run_are_undone_and_belong_to_its_subjects() {
    let (app, _) = TestApp::adding(Notes::new).await;
    let leave = async |text: &str| app.customer.post("/api/notes", json!({ "text": text })).await.expect(201).body;
    let mut live = Live::connected(&app.base, app.customer.token.as_deref().unwrap()).await;
    let first = leave("milk").await;
    let done = ended(&app.customer, &first["operationId"]).await;
    assert_eq!(
        (&done["state"], &done["subject"], &done["serverId"]),
        (&json!("succeeded"), &json!("note:1"), &json!(null))
    );

    // A socket and a token for one note. What another has, or the token does not cover, does not exist.
    let path = |note: &serde_json::Value| format!("/api/operations/{}", note["operationId"].as_str().unwrap());
    let illegible = leave(ILLEGIBLE).await;
    live.tell(json!({ "do": "emit", "event": "subscribe", "args": ["note:2"], "ack": true })).await;
    assert_eq!(live.next("ack").await["args"][0], json!({ "status": "success", "subject": "note:2" }));
    live.tell(json!({ "do": "emit", "event": "subscribe", "args": ["note:99"], "ack": true })).await;
    assert_eq!(live.next("subscribe-error").await["args"][0]["subject"], "note:99");
    let undone = ended(&app.customer, &illegible["operationId"]).await;
    assert_eq!((&undone["state"], &undone["step"]), (&json!("failed"), &json!("pin")), "{undone}");
    let notes = app.customer.get("/api/notes").await.expect(200).body;
    assert_eq!([&notes[0]["pinned"], &notes[1]["pinned"]], [true, false], "the second one was unpinned");
    app.other.get(&path(&first)).await.expect(404);
    // What others do to it is in its owner's log.
    app.provider.put("/api/notes/1/read", None).await.expect(204);
    let log = app.customer.get("/api/audit?about=note:1").await.expect(200).body;
    let actions: Vec<_> = log["data"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    assert!(actions.contains(&&json!("PUT /api/notes/{id}/read")), "{log}");
    assert_eq!(app.other.get("/api/audit?about=note:1").await.expect(200).body["total"], 0);
    let scopes = json!({ "name": "one note", "scopes": ["read:note:1"] });
    let token = app.customer.post("/api/auth/tokens", scopes).await.expect(201).body;
    let token = app.nobody.with_token(token["token"].as_str().unwrap());
    token.get(&path(&first)).await.expect(200);
    token.get(&path(&illegible)).await.expect(404);
    for unknown in ["read:letter:1", "read:note:x"] {
        let scopes = json!({ "name": "none", "scopes": [unknown] });
        app.customer.post("/api/auth/tokens", scopes).await.expect(422);
    }
}
