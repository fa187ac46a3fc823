//! Every request that the client sends, against the API's own schema where that is there: `INNKEEPER_PVE_SCHEMA`, or
//! `shared/pve/apidoc.json` beside the workspace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{
    Consoles, Error, ExecOutput, GuestKind, GuestShell, GuestSize, Host, Inside, Inventory, Power, Provision, Result,
    ShellTarget, Snapshots, StopMode,
};
use proxmox::{PasswordLogin, Proxmox};
use serde_json::Value;

use crate::Bench;

/// All requests of the driver. The test fails if one is missing here or is never sent below.
const ALL: &[&str] = &[
    "DELETE /nodes/{node}/lxc/{vmid}",
    "DELETE /nodes/{node}/lxc/{vmid}/firewall/ipset/{name}/{cidr}",
    "DELETE /nodes/{node}/lxc/{vmid}/snapshot/{snapname}",
    "DELETE /nodes/{node}/qemu/{vmid}",
    "DELETE /nodes/{node}/qemu/{vmid}/firewall/ipset/{name}/{cidr}",
    "DELETE /nodes/{node}/qemu/{vmid}/snapshot/{snapname}",
    "DELETE /nodes/{node}/tasks/{upid}",
    "GET /access/permissions",
    "GET /cluster/firewall/options",
    "GET /cluster/nextid",
    "GET /cluster/options",
    "GET /cluster/resources",
    "GET /cluster/status",
    "GET /nodes/{node}/certificates/info",
    "GET /nodes/{node}/firewall/options",
    "GET /nodes/{node}/lxc/{vmid}/config",
    "GET /nodes/{node}/lxc/{vmid}/feature",
    "GET /nodes/{node}/lxc/{vmid}/firewall/ipset",
    "GET /nodes/{node}/lxc/{vmid}/firewall/ipset/{name}",
    "GET /nodes/{node}/lxc/{vmid}/firewall/options",
    "GET /nodes/{node}/lxc/{vmid}/interfaces",
    "GET /nodes/{node}/lxc/{vmid}/snapshot",
    "GET /nodes/{node}/lxc/{vmid}/status/current",
    "GET /nodes/{node}/lxc/{vmid}/vncwebsocket",
    "GET /nodes/{node}/network",
    "GET /nodes/{node}/qemu/{vmid}/agent/exec-status",
    "GET /nodes/{node}/qemu/{vmid}/agent/network-get-interfaces",
    "GET /nodes/{node}/qemu/{vmid}/config",
    "GET /nodes/{node}/qemu/{vmid}/feature",
    "GET /nodes/{node}/qemu/{vmid}/firewall/ipset",
    "GET /nodes/{node}/qemu/{vmid}/firewall/ipset/{name}",
    "GET /nodes/{node}/qemu/{vmid}/firewall/options",
    "GET /nodes/{node}/qemu/{vmid}/snapshot",
    "GET /nodes/{node}/qemu/{vmid}/status/current",
    "GET /nodes/{node}/qemu/{vmid}/vncwebsocket",
    "GET /nodes/{node}/storage/{storage}/content",
    "GET /nodes/{node}/storage/{storage}/status",
    "GET /nodes/{node}/tasks",
    "GET /nodes/{node}/tasks/{upid}/log",
    "GET /nodes/{node}/tasks/{upid}/status",
    "GET /version",
    "POST /access/ticket",
    "POST /nodes/{node}/lxc",
    "POST /nodes/{node}/lxc/{vmid}/firewall/ipset",
    "POST /nodes/{node}/lxc/{vmid}/firewall/ipset/{name}",
    "POST /nodes/{node}/lxc/{vmid}/snapshot",
    "POST /nodes/{node}/lxc/{vmid}/snapshot/{snapname}/rollback",
    "POST /nodes/{node}/lxc/{vmid}/status/reboot",
    "POST /nodes/{node}/lxc/{vmid}/status/shutdown",
    "POST /nodes/{node}/lxc/{vmid}/status/start",
    "POST /nodes/{node}/lxc/{vmid}/status/stop",
    "POST /nodes/{node}/lxc/{vmid}/termproxy",
    "POST /nodes/{node}/qemu/{vmid}/agent/exec",
    "POST /nodes/{node}/qemu/{vmid}/agent/set-user-password",
    "POST /nodes/{node}/qemu/{vmid}/clone",
    "POST /nodes/{node}/qemu/{vmid}/firewall/ipset",
    "POST /nodes/{node}/qemu/{vmid}/firewall/ipset/{name}",
    "POST /nodes/{node}/qemu/{vmid}/snapshot",
    "POST /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback",
    "POST /nodes/{node}/qemu/{vmid}/status/reboot",
    "POST /nodes/{node}/qemu/{vmid}/status/resume",
    "POST /nodes/{node}/qemu/{vmid}/status/shutdown",
    "POST /nodes/{node}/qemu/{vmid}/status/start",
    "POST /nodes/{node}/qemu/{vmid}/status/stop",
    "POST /nodes/{node}/qemu/{vmid}/vncproxy",
    "PUT /nodes/{node}/lxc/{vmid}/config",
    "PUT /nodes/{node}/lxc/{vmid}/firewall/options",
    "PUT /nodes/{node}/lxc/{vmid}/resize",
    "PUT /nodes/{node}/qemu/{vmid}/config",
    "PUT /nodes/{node}/qemu/{vmid}/firewall/options",
    "PUT /nodes/{node}/qemu/{vmid}/resize",
];

fn schema() -> Option<Vec<Value>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/pve/apidoc.json");
    let path = std::env::var_os("INNKEEPER_PVE_SCHEMA").map_or(beside, PathBuf::from);
    let text = std::fs::read_to_string(path).ok()?;
    let tree: Value = serde_json::from_str(&text).unwrap();
    let mut flat = Vec::new();
    let mut left = tree.as_array().unwrap().clone();
    while let Some(node) = left.pop() {
        left.extend(node["children"].as_array().cloned().unwrap_or_default());
        flat.push(node);
    }
    Some(flat)
}

/// A shell that always fails: only the preceding requests to the host matter here.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl GuestShell for Nowhere {
    async fn exec(&self, _: &ShellTarget, _: &[&str], _: &[u8], _: Duration) -> Result<ExecOutput> {
        Err(Error::Unsupported("nowhere".to_owned()))
    }
}

/// Everything that a driver does, with every option, on one kind of guest.
async fn live(kind: GuestKind) -> Vec<(String, String, Vec<(String, String)>)> {
    let mut bench = Bench::new(kind).await;
    let mut config = bench.config();
    config.login =
        Some(PasswordLogin { user: "innkeeper@pve".to_owned(), password: "secret of the login".to_owned().into() });
    config.pool = Some("guests".to_owned());
    bench.fake.run("pve.pools.setdefault('guests', set()) and None").await;
    bench.driver = Proxmox::new(config).unwrap().with_shell(Arc::new(Nowhere));
    bench.spec.network.vlan = Some(12);
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    driver.info().await.unwrap();
    driver.find(guest).await.unwrap();
    driver.check_create(&bench.spec).await.unwrap();
    assert!(driver.has_image(kind, &bench.spec.image).await.unwrap());
    bench.done(driver.create(&bench.spec).await).await;
    driver.prepare(&bench.spec).await.unwrap();
    bench
        .fake
        .run(&format!(
            "pve.firewall_config('vm', 'pve1', {})['ipset']['ipfilter-net0'].append({{'cidr': '10.9.9.9'}})",
            bench.vmid()
        ))
        .await;
    driver.prepare(&bench.spec).await.unwrap();
    bench.done(driver.start(guest).await).await;
    bench.fake.run(&format!("setattr(guest({}), 'agent', {{}})", bench.vmid())).await;
    driver.interfaces(guest).await.unwrap();
    let shell = driver.exec(guest, &["echo", "a;b&c"], b"input", Duration::from_secs(5)).await;
    assert_eq!(shell.is_ok(), kind == GuestKind::Vm);
    let _ = driver.set_password(guest, &"secret".to_owned().into()).await;
    drop(driver.console(guest).await.unwrap());
    let more = GuestSize { cores: Some(2), memory_mib: Some(512), disk_gib: Some(4), bandwidth_mbps: Some(100) };
    bench.done(driver.resize(guest, &more).await).await;
    bench.done(driver.create_snapshot(guest, "one", "two words; & more").await).await;
    bench.done(driver.rollback(guest, "one").await).await;
    bench.done(driver.delete_snapshot(guest, "one").await).await;
    bench.done(driver.restart(guest, Duration::from_secs(5)).await).await;
    bench
        .fake
        .run(&format!("pve.fail('POST', '{}', error='config_lock_timeout', times=1)", bench.path("/status/stop")))
        .await;
    assert!(driver.stop(guest, StopMode::Force).await.is_err());
    bench
        .fake
        .run(&format!("pve.fail('POST', '{}', error='config_lock_timeout', times=1)", bench.path("/snapshot")))
        .await;
    let _ = driver.create_snapshot(guest, "two", "").await;
    bench.fake.run("pve.time_scale = 0.05").await;
    bench.fake.run(&format!("guest({}).shutdown_secs = 1e6", bench.vmid())).await;
    driver.stop(guest, StopMode::Clean { timeout: Duration::from_secs(100) }).await.unwrap();
    let _ = driver.stop(guest, StopMode::Force).await;
    bench.fake.run("pve.time_scale = 0").await;
    let paused = format!(
        "(lambda g: (setattr(g, 'status', 'running'), setattr(g, 'qmpstatus', 'paused'), \
         setattr(g, 'lock_holder', None)))(guest({}))",
        bench.vmid()
    );
    bench.fake.run(&paused).await;
    if kind == GuestKind::Vm {
        let _ = driver.start(guest).await;
    }
    // The fake's view of a guest that was manipulated like this varies.
    let _ = driver.stop(guest, StopMode::Force).await;
    let broken = format!(
        "(lambda g: (setattr(g, 'status', 'stopped'), setattr(g, 'qmpstatus', 'stopped'), \
         setattr(g, 'start_error', 'broken')))(guest({}))",
        bench.vmid()
    );
    bench.fake.run(&broken).await;
    bench.failed(driver.start(guest).await).await;
    bench.done(driver.delete(guest).await).await;
    serde_json::from_value(bench.fake.run("[(a[0], a[1], [[k, str(v)] for k, v in a[2]]) for a in pve.asked]").await)
        .unwrap()
}

/// The schema's node for a path, with the names of its placeholders.
fn find<'a>(schema: &'a [Value], method: &str, path: &str) -> Option<&'a Value> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |node: &&Value| {
        let template: Vec<&str> = node["path"].as_str().unwrap().split('/').collect();
        template.len() == parts.len()
            && template.iter().zip(&parts).all(|(t, p)| t == p || t.starts_with('{'))
            && node["info"].get(method).is_some()
    };
    // Literal segments take precedence over placeholders.
    schema.iter().filter(fits).min_by_key(|node| node["path"].as_str().unwrap().matches('{').count())
}

fn check(name: &str, value: &str, rule: &Value) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{name}={value:?}: {what}"));
    match rule["type"].as_str().unwrap_or("string") {
        "integer" if value.parse::<i64>().is_err() => return wrong("not an integer"),
        "number" if value.parse::<f64>().is_err() => return wrong("not a number"),
        "boolean" if value != "0" && value != "1" => return wrong("not a flag"),
        _ => {}
    }
    if let Some(words) = rule["enum"].as_array().filter(|words| !words.iter().any(|w| w == value)) {
        return wrong(&format!("none of {words:?}"));
    }
    if rule["maxLength"].as_u64().is_some_and(|max| value.len() as u64 > max) {
        return wrong("too long");
    }
    let number = value.parse::<f64>().ok();
    if number.zip(rule["minimum"].as_f64()).is_some_and(|(n, min)| n < min) {
        return wrong("too small");
    }
    // Property strings: check their keys.
    if let Some(keys) = rule["format"].as_object() {
        for part in value.split(',') {
            let known = |key: &str| keys.contains_key(key);
            match part.split_once('=') {
                Some((key, _)) if !known(key) => return wrong(&format!("no key {key}")),
                None if !keys.values().any(|k| k["default_key"].as_i64() == Some(1)) => return wrong("no default key"),
                _ => {}
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_as_the_schema_says() {
    let Some(schema) = schema() else {
        eprintln!("not tested: the API's schema is not available (INNKEEPER_PVE_SCHEMA)");
        return;
    };
    let mut asked = live(GuestKind::Lxc).await;
    asked.extend(live(GuestKind::Vm).await);
    let (mut seen, mut wrong) = (BTreeSet::new(), BTreeSet::new());
    for (method, path, params) in &asked {
        let Some(node) = find(&schema, method, path) else {
            wrong.insert(format!("{method} {path} is not in the schema"));
            continue;
        };
        let (template, info) = (node["path"].as_str().unwrap(), &node["info"][method]);
        seen.insert(format!("{method} {template}"));
        let rules = info["parameters"]["properties"].as_object().cloned().unwrap_or_default();
        let numbered = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned() + "[n]";
        for (name, value) in params {
            match rules.get(name).or_else(|| rules.get(&numbered(name))) {
                None => drop(wrong.insert(format!("{method} {template}: no parameter {name}"))),
                Some(rule) => {
                    if let Err(text) = check(name, value, rule) {
                        wrong.insert(format!("{method} {template}: {text}"));
                    }
                }
            }
        }
        for (name, rule) in &rules {
            let given = template.contains(&format!("{{{name}}}")) || params.iter().any(|(n, _)| n == name);
            if rule["optional"].as_i64() != Some(1) && !given && !name.ends_with("[n]") {
                wrong.insert(format!("{method} {template}: {name} is missing"));
            }
        }
    }
    assert_eq!(wrong, BTreeSet::new());
    let all: BTreeSet<String> = ALL.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(seen.difference(&all).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the list");
    assert_eq!(all.difference(&seen).collect::<Vec<_>>(), Vec::<&String>::new(), "never sent");
}
