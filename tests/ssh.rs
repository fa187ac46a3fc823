//! SSH into guests, against the real OpenSSH server of a real container.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::ssh::{HostKeyOwner, KnownHosts, SshRoutes, SshShell, new_key};
use hypervisor::{Driver, Error, GuestKind, GuestRef, GuestShell, ShellTarget};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::is_root_password;
use crate::support::{Lab, Pve, TestApp, ended, wait_for};

const A_MINUTE: Duration = Duration::from_secs(60);

/// Host keys in memory.
#[derive(Debug, Default)]
struct InMemoryKnownHosts(Mutex<HashMap<HostKeyOwner, String>>);

#[async_trait]
impl KnownHosts for InMemoryKnownHosts {
    async fn is_known(&self, machine: &HostKeyOwner, key: &str) -> hypervisor::Result<bool> {
        let mut book = self.0.lock().unwrap();
        Ok(book.entry(machine.clone()).or_insert_with(|| key.to_owned()) == key)
    }
}

/// A running container of the lab that lets root in with these keys.
async fn container(app: &TestApp, lab: &Lab, keys: Value) -> (Arc<dyn Driver>, GuestRef, IpAddr) {
    let catalogue = lab.register(&app.provider).await;
    let order = json!({ "osId": catalogue.image, "tariffId": catalogue.tariff, "sshKeys": keys });
    let created = app.customer.post("/api/server/create", order).await.expect(200).body;
    let operation = ended(&app.customer, &created["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let (marker, vmid, node): (Uuid, i64, String) =
        sqlx::query_as("select uuid, guest_number, node from servers where id = $1")
            .bind(created["id"].as_i64().unwrap())
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
    let (driver, guest) = (lab.incus.driver(), GuestRef { marker, vmid, kind: GuestKind::Lxc, node });
    let address: IpAddr = lab.first.into();
    listening(address).await;
    (driver, guest, address)
}

async fn listening(address: IpAddr) {
    wait_for("the container's SSH server", async || tokio::net::TcpStream::connect((address, 22)).await).await;
}

async fn inside(driver: &Arc<dyn Driver>, guest: &GuestRef, argv: &[&str], stdin: &[u8]) {
    let output = driver.exec(guest, argv, stdin, A_MINUTE).await.unwrap();
    assert_eq!(output.status, 0, "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Gives the container other host keys, as after a reinstallation that nobody announced.
async fn change_host_keys(driver: &Arc<dyn Driver>, guest: &GuestRef, address: IpAddr) {
    let script = "rm /etc/ssh/ssh_host_* && ssh-keygen -qA && systemctl restart ssh";
    inside(driver, guest, &["sh", "-c", script], b"").await;
    listening(address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_arrive_verbatim_and_only_on_the_intended_machine() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let (key, line) = new_key().unwrap();
    let (driver, guest, address) = container(&app, &lab, json!([line])).await;
    let at = ShellTarget {
        marker: guest.marker,
        vmid: 105,
        kind: GuestKind::Lxc,
        addresses: vec![address],
        node: "pve1".to_owned(),
        node_address: Some(address),
    };
    let shell = |key, ways| SshShell::new(key, ways, Arc::<InMemoryKnownHosts>::default()).unwrap();
    let by_guest = shell(&key, SshRoutes { guests: Some(22), nodes: None });
    let hostile = ["$(id)", "'; id; '", "a\nb", "", "*", "\"\\", "-n", "`x`", "é☕"];
    let show: Vec<&str> = ["printf", "%s\\0"].into_iter().chain(hostile).collect();
    let output = by_guest.exec(&at, &show, b"", A_MINUTE).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().split_terminator('\0').collect::<Vec<_>>(), hostile);

    // More than any window both ways, of which no more than a MiB is kept.
    let much = vec![b'x'; 3 << 20];
    let output = by_guest.exec(&at, &["cat"], &much, A_MINUTE).await.unwrap();
    assert_eq!((output.stdout.len(), output.status), (1 << 20, 0));
    let output = by_guest.exec(&at, &["sh", "-c", "cat >&2; exit 3"], b"words", A_MINUTE).await.unwrap();
    assert_eq!((output.stderr.as_slice(), output.status), (&b"words"[..], 3));
    assert_eq!(by_guest.exec(&at, &["true"], &much, A_MINUTE).await.unwrap().status, 0, "input may stay unread");
    let missing = by_guest.exec(&at, &["no-such-program"], b"", A_MINUTE).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    let late = by_guest.exec(&at, &["sleep", "60"], b"", Duration::from_millis(300)).await;
    assert!(matches!(late, Err(Error::GuestHung(_))), "{late:?}");
    // A server that accepts connections and says nothing.
    let tarpit = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = SshRoutes { guests: Some(tarpit.local_addr().unwrap().port()), nodes: None };
    let caught = ShellTarget { addresses: vec![[127, 0, 0, 1].into()], ..at.clone() };
    let hung = shell(&key, way).exec(&caught, &["true"], b"", A_MINUTE).await;
    assert!(matches!(&hung, Err(Error::GuestHung(text)) if text.contains("no sign-in")), "{hung:?}");

    // Through the node: its `pct` gets the arguments unchanged.
    let pct = b"#!/bin/sh\nprintf '%s\\0' \"$@\"\n";
    inside(&driver, &guest, &["sh", "-c", "cat > /usr/bin/pct && chmod 755 /usr/bin/pct"], pct).await;
    let by_node = shell(&key, SshRoutes { guests: None, nodes: Some(22) });
    let argv: Vec<&str> = ["chpasswd"].into_iter().chain(hostile).collect();
    let output = by_node.exec(&at, &argv, b"", A_MINUTE).await.unwrap();
    let given = String::from_utf8(output.stdout).unwrap();
    assert_eq!(given.split_terminator('\0').collect::<Vec<_>>(), [&["exec", "105", "--"], &argv[..]].concat());
    // If nothing listens in the guest, the node is used instead.
    let both = shell(&key, SshRoutes { guests: Some(9), nodes: Some(22) });
    assert_eq!(both.exec(&at, &["true"], b"", A_MINUTE).await.unwrap().status, 0);

    // A key other than ours is not let in, and a machine other than the first one is not talked to.
    let stranger = shell(&new_key().unwrap().0, SshRoutes { guests: Some(22), nodes: None });
    let refused = stranger.exec(&at, &["true"], b"", A_MINUTE).await;
    assert!(matches!(&refused, Err(Error::Unsupported(text)) if text.contains("can't sign in")), "{refused:?}");
    change_host_keys(&driver, &guest, address).await;
    let refused = by_guest.exec(&at, &["true"], b"", A_MINUTE).await;
    assert!(matches!(&refused, Err(Error::Unsupported(text)) if text.contains("another host key")), "{refused:?}");
    let other = ShellTarget { marker: Uuid::new_v4(), ..at };
    assert!(by_guest.exec(&other, &["true"], b"", A_MINUTE).await.is_ok(), "another guest has its own key");
}

/// A Proxmox VE container whose address is a real container's: the service sets its password over SSH.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_of_proxmox_containers_are_set_over_ssh() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let host = app.provider.get(&format!("/api/hosts/{}", catalogue.host)).await.expect(200).body;
    let (driver, guest, address) = container(&app, &lab, json!([host["managementKey"]])).await;
    // The pool has only that address.
    let cidr = lab.incus.subnet.to_string();
    let pool = json!({ "cidr": cidr, "gateway": lab.incus.gateway, "first": address, "last": address });
    app.provider.put(&format!("/api/address-pools/{}", catalogue.pool), pool).await.expect(200);
    let me = &app.customer;
    let created = me.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(me, &created["operationId"]).await["state"], "succeeded");
    let path = format!("/api/server/{}", created["id"]);
    assert_eq!(me.get(&path).await.body["ipAddress"], address.to_string());

    let changed = me.post(&format!("{path}/password"), None).await.expect(200).body;
    assert_eq!(changed["status"], "success");
    assert!(is_root_password(&driver, &guest, changed["password"].as_str().unwrap()).await);
    let pinned: Option<String> = sqlx::query_scalar("select ssh_host_key from servers where id = $1")
        .bind(created["id"].as_i64().unwrap())
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert!(pinned.unwrap().starts_with("ssh-"));

    // Another machine at that address gets no password of ours until the server is reinstalled.
    change_host_keys(&driver, &guest, address).await;
    let refused = me.post(&format!("{path}/password"), None).await.expect(422);
    assert!(refused.body["error"].as_str().unwrap().contains("no access to this server"), "{}", refused.text);
    assert!(is_root_password(&driver, &guest, changed["password"].as_str().unwrap()).await, "the old one works");
    let anew = me.post(&format!("{path}/reinstall"), json!({ "osId": catalogue.lxc.0 })).await.expect(200).body;
    let operation = ended(me, &anew["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let changed = me.post(&format!("{path}/password"), None).await.expect(200).body;
    assert!(is_root_password(&driver, &guest, changed["password"].as_str().unwrap()).await);
}
