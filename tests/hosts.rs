//! Hosts: how their settings are kept, and that of whatever kind.

use std::sync::Arc;

use garde::Validate;
use hypervisor::incus::{Incus, IncusConfig};
use hypervisor::ssh::Ways;
use hypervisor::{Driver, GuestShell};
use innkeeper::hosts::kinds::{self, Ask, HostKind};
use innkeeper::hosts::service;
use innkeeper::ids::HostId;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
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
    let stored: Value = serde_json::from_slice(&app.app.sealer.open("host", &sealed).unwrap()).unwrap();
    assert_eq!((&stored["tokenSecret"], &stored["storage"]), (&json!("new"), &json!("other")));
}

/// A kind of host that nothing but this test knows.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ToySettings {
    #[garde(length(min = 1))]
    room: String,
    #[serde(default)]
    #[garde(range(max = 9))]
    top_shelf: u8,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "in_plain")]
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    key: Option<SecretString>,
}

fn in_plain<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

#[derive(Debug, clap::Args)]
struct ToyFlags {
    /// The room
    #[arg(long)]
    room: Option<String>,
}

impl HostKind for ToySettings {
    const NAME: &'static str = "toy";
    const ABOUT: &'static str = "A toy";
    const NOUN: &'static str = "toy box";

    type Flags = ToyFlags;

    fn from_flags(flags: ToyFlags, ask: &Ask<'_>) -> anyhow::Result<Self> {
        Ok(Self { room: flags.room.unwrap_or_default(), top_shelf: 0, key: Some(ask("The key")?) })
    }

    fn secrets(&mut self) -> Vec<(&'static str, &mut Option<SecretString>)> {
        vec![("key", &mut self.key)]
    }

    fn keeps(&self, _: &str, before: &Self) -> bool {
        self.room == before.room
    }

    fn meets(&self, other: &Self) -> bool {
        self.room == other.room
    }

    fn moved(&self, before: &Self) -> bool {
        self.room != before.room
    }

    fn ways(&self) -> Option<Ways> {
        Some(Ways { guests: Some(22), nodes: None })
    }

    fn hint(&self, _: &hypervisor::Error) -> Option<String> {
        Some(format!("Is there a light in the {}?", self.room))
    }

    fn connect(&self, _: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>> {
        Ok(Arc::new(Incus::new(IncusConfig { socket: "/nowhere".into(), ..IncusConfig::default() })?))
    }
}

/// Adding a kind of host is one registration: requests, rows, answers and the OpenAPI document know it then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_of_host_that_is_registered_is_one_like_any_other() {
    kinds::register::<ToySettings>();
    let app = TestApp::new().await;
    let host = |name: &str, config: Value| json!({ "name": name, "kind": "toy", "config": config, "force": true });
    let attic = json!({ "room": "attic", "key": "s3cret" });
    for (config, field) in [
        (json!({ "room": "", "key": "s3cret" }), "config.room"),
        (json!({ "room": "attic", "key": "s3cret", "topShelf": 10 }), "config.topShelf"),
        (json!({ "room": "attic", "key": "s3cret", "socket": "/nowhere" }), "config.socket"),
        (json!({ "room": "attic" }), "config.key"),
    ] {
        let refused = app.provider.post("/api/hosts", host("box", config)).await.expect(422).body;
        assert!(refused["details"]["fields"].get(field).is_some(), "{field}: {refused}");
    }
    let mut carefully = host("box", attic.clone());
    carefully["force"] = json!(false);
    let refused = app.provider.post("/api/hosts", carefully).await.expect(503).text;
    assert!(refused.contains("Is there a light in the attic?"), "{refused}");

    let added = app.provider.post("/api/hosts", host("box", attic.clone())).await.expect(201);
    assert!(!added.text.contains("s3cret"), "{}", added.text);
    let added = added.body;
    assert_eq!((&added["kind"], &added["config"]), (&json!("toy"), &json!({ "room": "attic", "topShelf": 0 })));
    assert!(added["managementKey"].is_string(), "{added}");
    let again = app.provider.post("/api/hosts", host("another", attic)).await.expect(201).body;
    assert!(again["problems"].to_string().contains("the toy box that the host box is too"), "{again}");

    // The key goes where it went before.
    let path = format!("/api/hosts/{}", added["id"]);
    let change = |config: Value| json!({ "config": config, "force": true });
    app.provider.put(&path, change(json!({ "room": "cellar" }))).await.expect(422);
    let changed = app.provider.put(&path, change(json!({ "room": "attic", "topShelf": 3 }))).await.expect(200);
    assert_eq!(changed.body["config"], json!({ "room": "attic", "topShelf": 3 }));
    let id = added["id"].as_i64().unwrap();
    let sealed: Vec<u8> = sqlx::query_scalar("select config_sealed from hosts where id = $1 and kind = 'toy'")
        .bind(id)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    let stored: Value = serde_json::from_slice(&app.app.sealer.open("host", &sealed).unwrap()).unwrap();
    assert_eq!(stored, json!({ "room": "attic", "topShelf": 3, "key": "s3cret" }));

    let shown = app.provider.get("/api/hosts").await.expect(200);
    assert!(shown.body[0]["config"]["room"] == "attic" && !shown.text.contains("s3cret"), "{}", shown.text);
    service::driver(&app.app, HostId(id)).await.unwrap();
    assert_eq!(service::guest_key(&app.app, HostId(id)).await.unwrap().as_deref(), added["managementKey"].as_str());
    let schemas = app.nobody.get("/api/openapi.json").await.expect(200).body["components"]["schemas"].take();
    assert!(schemas["HostKind"]["enum"].as_array().unwrap().contains(&json!("toy")), "{}", schemas["HostKind"]);
    assert!(schemas["HostSettings"].to_string().contains("#/components/schemas/ToySettings"));
    assert!(schemas["ToySettings"]["properties"]["topShelf"].is_object(), "{}", schemas["ToySettings"]);
}

/// What differs from one kind to another is in its own file: nothing else compares a kind, or looks into its settings.
#[test]
fn no_kind_of_host_is_named_but_where_it_is_made() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut seen) = (vec![root.clone()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "hosts/kinds" {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                seen += usize::from(name.starts_with("hosts/"));
                for word in ["\"incus\"", "\"proxmox\"", "IncusSettings", "ProxmoxSettings"] {
                    // The demonstration is of one kind.
                    assert!(name == "cli/demo.rs" || !code.contains(word), "{name} names a kind of host: {word}");
                }
            }
        }
    }
    assert!(seen > 5 && root.join("hosts/kinds/mod.rs").exists(), "the sources of hosts are elsewhere: {seen}");
}
