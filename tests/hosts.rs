//! Hosts: how their settings are stored.

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::TestApp;

/// Runs a request to its end while every connection to the host is closed.
async fn hang_up_during<T>(connected: &mut mpsc::UnboundedReceiver<TcpStream>, request: impl Future<Output = T>) -> T {
    tokio::pin!(request);
    loop {
        tokio::select! {
            done = &mut request => return done,
            stream = connected.recv() => drop(stream.expect("the host listens")),
        }
    }
}

/// A change that leaves the secrets out keeps the current ones, not those from when it began: checking a host can take
/// long, and somebody else may change its token meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_secrets_keeps_concurrently_changed_secrets() {
    let app = TestApp::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let (tell, mut connected) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if tell.send(stream).is_err() {
                return;
            }
        }
    });
    let config = |secret: Option<&str>, storage: &str| {
        let mut config = json!({ "endpoints": [endpoint], "tokenId": "ink@pve!t", "storage": storage,
                                 "fingerprint": "ab".repeat(32) });
        if let Some(secret) = secret {
            config["tokenSecret"] = json!(secret);
        }
        config
    };
    let new = json!({ "name": "pve", "kind": "proxmox", "config": config(Some("old"), "local"), "force": true,
                      "enabled": false });
    let added = hang_up_during(&mut connected, app.provider.post("/api/hosts", new)).await.expect(201).body;
    let path = format!("/api/hosts/{}", added["id"]);

    // One request is checking the host, which is slow to answer; the other stores a new secret meanwhile.
    let slow = tokio::spawn({
        let (provider, path) = (app.provider.clone(), path.clone());
        let body = json!({ "config": config(None, "other"), "force": true });
        async move { provider.put(&path, body).await }
    });
    let held = connected.recv().await.expect("the host is checked");
    let body = json!({ "config": config(Some("new"), "local"), "force": true });
    hang_up_during(&mut connected, app.provider.put(&path, body)).await.expect(200);
    drop(held);
    hang_up_during(&mut connected, slow).await.unwrap().expect(200);

    let sealed: Vec<u8> = sqlx::query_scalar("select config_sealed from hosts").fetch_one(&app.db.pool).await.unwrap();
    let stored: Value = serde_json::from_slice(&app.core.sealer.open("host", &sealed).unwrap()).unwrap();
    assert_eq!((&stored["tokenSecret"], &stored["storage"]), (&json!("new"), &json!("other")));
}
