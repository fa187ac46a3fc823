//! What the preflight reports about a cluster, and what follows from its version and settings.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{
    Consoles, Error, ExecOutput, GuestKind, GuestPower, GuestShell, Host, Inside, Inventory, Power, Provision, Result,
    ShellTarget,
};
use proxmox::Proxmox;
use serde_json::json;

use crate::Bench;

use GuestKind::{Lxc, Vm};

#[tokio::test]
async fn a_storage_without_snapshots_is_named() {
    let bench = Bench::new(Lxc).await;
    assert_eq!(bench.driver.info().await.unwrap().problems, Vec::<String>::new());
    bench.fake.run("pve.storages['local-lvm'].update(type='nfs')").await;
    let problems = bench.driver.info().await.unwrap().problems;
    assert!(problems.iter().any(|p| p.contains("local-lvm is of the type nfs")), "{problems:?}");
    // Storages that Innkeeper's guests are not on don't matter.
    bench.fake.run("pve.storages['local-lvm'].update(type='lvmthin')").await;
    bench.fake.run("pve.storages['local'].update(type='dir')").await;
    assert_eq!(bench.driver.info().await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_node_in_maintenance_is_named_and_offers_no_room() {
    let bench = Bench::new(Lxc).await;
    bench.fake.run("pve.add_node('pve2')").await;
    let look = async || {
        let info = bench.driver.info().await.unwrap();
        let nodes: Vec<_> = info.nodes.into_iter().map(|node| (node.name, node.online)).collect();
        let named: Vec<_> = info.problems.into_iter().filter(|problem| problem.contains("maintenance")).collect();
        (named, nodes)
    };
    let [first, second] = ["pve1", "pve2"].map(str::to_owned);
    assert_eq!(look().await, (vec![], vec![(first.clone(), true), (second.clone(), true)]));
    bench.fake.run("pve.maintenance.add('pve2')").await;
    let named = "The node pve2 is in maintenance: no new guests are placed there.".to_owned();
    assert_eq!(look().await, (vec![named], vec![(first, true), (second.clone(), false)]));
    // What it says of its guests still counts.
    assert!(bench.driver.sweep().await.unwrap().coverage.nodes.contains(&second));
}

#[tokio::test]
async fn a_right_that_is_not_handed_down_is_missing() {
    let bench = Bench::new(Lxc).await;
    bench.fake.run("pve.canned.clear()").await;
    // As recorded: the value is the flag of `pveum acl modify --propagate`.
    let all = "VM.Allocate VM.Audit VM.Clone VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.Memory \
               VM.Config.Network VM.Config.Options VM.Console VM.PowerMgmt VM.Snapshot VM.Snapshot.Rollback \
               VM.GuestAgent.Audit VM.GuestAgent.Unrestricted";
    let mut guests: serde_json::Map<_, _> = all.split_whitespace().map(|p| (p.to_owned(), json!(1))).collect();
    let look = async |guests: &serde_json::Map<_, _>| {
        let held = json!({ "data": { "/": { "Sys.Audit": 1 }, "/vms": guests,
                                     "/sdn/zones/localnetwork": { "SDN.Use": 1 },
                                     "/storage/local-lvm": { "Datastore.AllocateSpace": 0, "Datastore.Audit": 0 } } });
        bench.canned("GET", "/access/permissions", 200, "OK", &held.to_string()).await;
        bench.driver.info().await.unwrap().problems
    };
    assert_eq!(look(&guests).await, Vec::<String>::new());
    guests.insert("VM.Audit".to_owned(), json!(0));
    let problems = look(&guests).await;
    assert!(problems.len() == 1 && problems[0].contains("lacks VM.Audit on /vms"), "{problems:?}");
}

#[tokio::test]
async fn a_cluster_is_known_by_its_own_authority_and_templates_by_their_storages() {
    let bench = Bench::new(Lxc).await;
    let certificates = json!({ "data": [
        { "filename": "/etc/pve/pve-root-ca.pem", "fingerprint": "AB:CD:01" },
        { "filename": "/etc/pve/nodes/pve1/pve-ssl.pem", "fingerprint": "EF:EF:EF" },
        // A wildcard certificate may be on many hosts.
        { "filename": "/etc/pve/nodes/pve1/pveproxy-ssl.pem", "fingerprint": "99:99:99" } ] });
    bench.canned("GET", "/certificates/info", 200, "OK", &certificates.to_string()).await;
    let info = bench.driver.info().await.unwrap();
    assert_eq!((info.identity, info.major), (vec!["abcd01".to_owned()], 9));
    assert_eq!(info.template_storages, ["local"]);
    // If it can't be read, the host can still be used.
    bench
        .canned("GET", "/certificates/info", 501, "Method 'GET /nodes/pve1/certificates/info' not implemented", "")
        .await;
    assert_eq!(bench.driver.info().await.unwrap().identity, Vec::<String>::new());
}

#[tokio::test]
async fn guests_have_a_search_domain_of_their_own_and_never_the_node_s() {
    for kind in [Lxc, Vm] {
        let mut bench = Bench::new(kind).await;
        for (set, hostname, right) in [
            (None, "test-1", "localdomain"),
            (None, "web.example.org", "example.org"),
            (Some("customers.example"), "web.example.org", "customers.example"),
        ] {
            let mut config = bench.config();
            config.search_domain = set.map(str::to_owned);
            bench.driver = Proxmox::new(config).unwrap();
            bench.spec = crate::spec(kind);
            bench.spec.hostname = hostname.to_owned();
            bench.done(bench.driver.create(&bench.spec).await).await;
            bench.driver.prepare(&bench.spec).await.unwrap();
            let config = bench.fake.run(&format!("guest({}).config", bench.vmid())).await;
            assert_eq!(config["searchdomain"], right, "{kind:?}: {config}");
        }
        if kind == Lxc {
            // From the creation on: otherwise the node's would already be in the container's files.
            let asked = bench
                .fake
                .run("[dict(a[2]).get('searchdomain') for a in pve.asked if a[0] == 'POST' and a[1].endswith('/lxc')]")
                .await;
            assert_eq!(asked, json!(["localdomain", "example.org", "customers.example"]));
        }
    }
}

#[tokio::test]
async fn a_screen_s_password_is_asked_for_only_where_it_must_be() {
    let bench = Bench::running(Vm).await;
    for (version, asked) in [("8.4.21", true), ("9.1.6", true), ("9.2.4", false), ("9.10.1", false), ("10.0.2", false)]
    {
        let body = json!({ "data": { "version": version, "release": "x", "repoid": "y" } }).to_string();
        bench.canned("GET", "/version", 200, "OK", &body).await;
        bench.fake.run("pve.asked.clear()").await;
        drop(bench.driver.console(&bench.spec.guest).await);
        let form = bench.fake.run("[sorted(dict(a[2])) for a in pve.asked if a[1].endswith('/vncproxy')]").await;
        let right = if asked { json!([["generate-password", "websocket"]]) } else { json!([["websocket"]]) };
        assert_eq!(form, right, "{version}");
    }
}

/// A shell in which every command fails.
#[derive(Debug)]
struct Failing;

#[async_trait]
impl GuestShell for Failing {
    async fn exec(&self, _: &ShellTarget, _: &[&str], _: &[u8], _: Duration) -> Result<ExecOutput> {
        Ok(ExecOutput { status: 1, stdout: Vec::new(), stderr: Vec::new() })
    }
}

#[tokio::test]
async fn a_container_whose_disk_is_full_is_not_taken_down() {
    let bench = Bench::running(Lxc).await;
    let driver = Proxmox::new(bench.config()).unwrap().with_shell(Arc::new(Failing));
    let guest = &bench.spec.guest;
    let tag = format!("innkeeper-{}-{}", bench.vmid(), guest.marker);
    let used = async |disk: u64| {
        let body = json!({ "data": { "status": "running", "vmid": bench.vmid(), "type": "lxc", "tags": tag,
                                     "disk": disk, "maxdisk": 3_u64 << 30 } });
        bench.canned("GET", &bench.path("/status/current"), 200, "OK", &body.to_string()).await;
    };
    used(3 << 30).await;
    let refused = driver.restart(guest, Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(Error::DiskFull(_))), "{refused:?}");
    used(3 << 30).await;
    let refused = driver.set_password(guest, &"secret".to_owned().into()).await;
    assert!(matches!(refused, Err(Error::DiskFull(_))), "{refused:?}");
    assert_eq!(bench.power().await, Some(GuestPower::Running));
    // With space left, a failure is just a failure, and a restart works.
    used(1 << 30).await;
    assert!(matches!(driver.set_password(guest, &"secret".to_owned().into()).await, Err(Error::Failed(_))));
    used(1 << 30).await;
    bench.done(driver.restart(guest, Duration::from_secs(5)).await).await;
}
