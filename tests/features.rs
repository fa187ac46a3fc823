//! A feature plugs in by its own folder and one line: the test kit's, which is as small as one can be, is whole once it is
//! in the list.

use std::sync::atomic::Ordering;

use kernel::feature::Feature;
use serde_json::json;

use crate::support::notes::Notes;
use crate::support::{TestApp, wait_for};

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
    app.customer.post("/api/notes", json!({ "text": "milk" })).await.expect(201);
    wait_for("the note to be read", async || {
        let notes = app.customer.get("/api/notes").await.expect(200).body;
        if notes == json!([{ "text": "milk", "read": true }]) { Ok(()) } else { Err(notes) }
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
    app.customer.post("/api/notes", json!({ "text": "milk" })).await.expect(201);
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
