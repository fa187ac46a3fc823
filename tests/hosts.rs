//! Hosts: how their settings are kept.

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::TestApp;

/// Runs a request to the end while whoever connects to the host is hung up on.
async fn hung_up_on<T>(connected: &mut mpsc::UnboundedReceiver<TcpStream>, request: impl Future<Output = T>) -> T {
    tokio::pin!(request);
    loop {
        tokio::select! {
            done = &mut request => return done,
            stream = connected.recv() => drop(stream.expect("the host listens")),
        }
    }
}

/// A change that leaves the secrets out means those of this moment, not those of when it began: a host may take long to
/// be looked at, and somebody else may give it another token meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_secrets_undoes_no_change_of_them() {
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
    let added = hung_up_on(&mut connected, app.provider.post("/api/hosts", new)).await.expect(201).body;
    let path = format!("/api/hosts/{}", added["id"]);

    // One looks at the host, which is slow to answer; the other has another secret stored meanwhile.
    let slow = tokio::spawn({
        let (provider, path) = (app.provider.clone(), path.clone());
        let body = json!({ "config": config(None, "other"), "force": true });
        async move { provider.put(&path, body).await }
    });
    let held = connected.recv().await.expect("the host is looked at");
    let body = json!({ "config": config(Some("new"), "local"), "force": true });
    hung_up_on(&mut connected, app.provider.put(&path, body)).await.expect(200);
    drop(held);
    hung_up_on(&mut connected, slow).await.unwrap().expect(200);

    let sealed: Vec<u8> = sqlx::query_scalar("select config_sealed from hosts").fetch_one(&app.db.pool).await.unwrap();
    let stored: Value = serde_json::from_slice(&app.core.sealer.open("host", &sealed).unwrap()).unwrap();
    assert_eq!((&stored["tokenSecret"], &stored["storage"]), (&json!("new"), &json!("other")));
}
