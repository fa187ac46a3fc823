//! Hosts: how their settings are stored, whatever their kind.

use std::sync::Arc;

use compute::hosts::kinds::{self, Ask, HostKind};
use compute::hosts::service;
use compute::ids::HostId;
use garde::Validate;
use hypervisor::ssh::SshRoutes;
use hypervisor::{Driver, GuestShell};
use incus::{Incus, IncusConfig};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{TestApp, sources};

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

/// A host kind that exists only in this test.
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

    fn ways(&self) -> Option<SshRoutes> {
        Some(SshRoutes { guests: Some(22), nodes: None })
    }

    fn hint(&self, _: &hypervisor::Error) -> Option<String> {
        Some(format!("Is there a light in the {}?", self.room))
    }

    fn connect(&self, _: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>> {
        Ok(Arc::new(Incus::new(IncusConfig { socket: "/nowhere".into(), ..IncusConfig::default() })?))
    }
}

/// Registering a kind is all it takes: requests, the database, responses and the OpenAPI document then support it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_kind_is_supported_everywhere() {
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
    assert!(again["problems"].to_string().contains("The host box is the same toy box"), "{again}");

    // The key is not sent anywhere new.
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
    let stored: Value = serde_json::from_slice(&app.core.sealer.open("host", &sealed).unwrap()).unwrap();
    assert_eq!(stored, json!({ "room": "attic", "topShelf": 3, "key": "s3cret" }));

    let shown = app.provider.get("/api/hosts").await.expect(200);
    assert!(shown.body[0]["config"]["room"] == "attic" && !shown.text.contains("s3cret"), "{}", shown.text);
    app.service.features.hosts.driver(HostId(id)).await.unwrap();
    assert_eq!(service::guest_key(&app.core, HostId(id)).await.unwrap().as_deref(), added["managementKey"].as_str());
    let schemas = app.nobody.get("/api/openapi.json").await.expect(200).body["components"]["schemas"].take();
    assert!(schemas["HostKind"]["enum"].as_array().unwrap().contains(&json!("toy")), "{}", schemas["HostKind"]);
    assert!(schemas["HostSettings"].to_string().contains("#/components/schemas/ToySettings"));
    assert!(schemas["ToySettings"]["properties"]["topShelf"].is_object(), "{}", schemas["ToySettings"]);
}

/// Code outside of its own file neither compares a host's kind nor looks into its settings.
#[test]
fn host_kinds_are_named_only_in_their_own_files() {
    const KINDS: &str = "crates/compute/src/hosts/kinds/";
    let (kinds, others): (Vec<_>, Vec<_>) =
        sources(&["src", "crates/compute/src"]).into_iter().partition(|(file, _)| file.starts_with(KINDS));
    assert!(!kinds.is_empty(), "the kinds have moved");
    for (file, text) in &others {
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in ["\"incus\"", "\"proxmox\"", "IncusSettings", "ProxmoxSettings"] {
            // The demonstration registers an Incus host.
            let is_demo = file == "src/cli/demo.rs";
            assert!(is_demo || !code.contains(word), "{file} names a host kind: {word}");
        }
    }
    assert!(others.len() > 50, "{}", others.len());
}
