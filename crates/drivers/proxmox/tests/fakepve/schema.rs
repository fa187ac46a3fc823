//! Every request that the driver sends, against the API's own schema.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{
    Consoles, Error, ExecOutput, GuestKind, GuestShell, GuestSize, Host, Inside, Inventory, Power, Provision, Result,
    ShellTarget, Snapshots, StopMode,
};
use proxmox::{PasswordLogin, Proxmox};

use crate::Bench;

/// The calls of the API that the driver makes: a line each, with its parameters below it.
const CALLS: &str = include_str!("schema.txt");

struct Call {
    method: &'static str,
    /// With names in braces for what varies.
    path: &'static str,
    parameters: BTreeMap<&'static str, Rule>,
}

/// A parameter's type, and what else is said of it.
struct Rule(Vec<&'static str>);

impl Rule {
    fn says(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn limit(&self, name: &str) -> Option<&'static str> {
        self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.limit(name).map(|limit| limit.parse().expect("a number"))
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let number = value.parse::<f64>();
        let right = match self.0[0] {
            "integer" => value.parse::<i64>().is_ok(),
            "number" => number.is_ok(),
            "boolean" => value == "0" || value == "1",
            "string" | "array" => true,
            other => panic!("{other} is no type"),
        };
        if !right {
            return Err(format!("not of the type {}", self.0[0]));
        }
        if let Some(words) = self.limit("enum").filter(|words| words.split(',').all(|word| word != value)) {
            return Err(format!("none of {words}"));
        }
        let length = value.len() as f64;
        for (least, most, is) in [("minimum", "maximum", number.ok()), ("minLength", "maxLength", Some(length))] {
            if is.zip(self.number(least)).is_some_and(|(is, least)| is < least) {
                return Err("too small".to_owned());
            }
            if is.zip(self.number(most)).is_some_and(|(is, most)| is > most) {
                return Err("too large".to_owned());
            }
        }
        // Property strings: check their keys.
        let Some(keys) = self.limit("keys") else { return Ok(()) };
        for part in value.split(',') {
            match part.split_once('=') {
                Some((key, _)) if keys.split(',').all(|known| known.trim_start_matches('*') != key) => {
                    return Err(format!("no key {key}"));
                }
                None if !keys.contains('*') => return Err("no default key".to_owned()),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Call {
    fn all() -> Vec<Self> {
        let mut calls: Vec<Self> = Vec::new();
        for line in CALLS.lines().filter(|line| !line.starts_with('#')) {
            if let Some(parameter) = line.strip_prefix("    ") {
                let (name, rule) = parameter.split_once(' ').expect("a name and a type");
                let call = calls.last_mut().expect("a call before its parameters");
                call.parameters.insert(name, Rule(rule.split(' ').collect()));
            } else {
                let (method, path) = line.split_once(' ').expect("a method and a path");
                calls.push(Self { method, path, parameters: BTreeMap::new() });
            }
        }
        calls
    }

    /// The call that a request makes.
    fn of<'a>(calls: &'a [Self], method: &str, path: &str) -> Option<&'a Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |call: &&Self| {
            let template: Vec<&str> = call.path.split('/').collect();
            call.method == method
                && template.len() == parts.len()
                && template.iter().zip(&parts).all(|(t, p)| t == p || t.starts_with('{'))
        };
        // Literal segments take precedence over placeholders.
        calls.iter().filter(fits).min_by_key(|call| call.path.matches('{').count())
    }

    /// What is wrong with a request of these parameters.
    fn faults(&self, given: &[(String, String)]) -> Vec<String> {
        let numbered = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned() + "[n]";
        let mut faults = Vec::new();
        for (name, value) in given {
            let rule = self.parameters.get(name.as_str()).or_else(|| self.parameters.get(numbered(name).as_str()));
            match rule.map(|rule| rule.check(value)) {
                None => faults.push(format!("{self}: no parameter {name}")),
                Some(Err(text)) => faults.push(format!("{self}: {name}={value:?}: {text}")),
                Some(Ok(())) => {}
            }
        }
        let missing = |name: &&&str| given.iter().all(|(other, _)| other != **name);
        let required = self.parameters.iter().filter(|(_, rule)| !rule.says("optional")).map(|(name, _)| name);
        faults.extend(required.filter(missing).map(|name| format!("{self}: {name} is missing")));
        faults
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_as_the_schema_says() {
    let calls = Call::all();
    let mut asked = live(GuestKind::Lxc).await;
    asked.extend(live(GuestKind::Vm).await);
    let (mut made, mut wrong) = (BTreeSet::new(), BTreeSet::new());
    for (method, path, parameters) in &asked {
        let Some(call) = Call::of(&calls, method, path) else {
            wrong.insert(format!("{method} {path} is not in schema.txt"));
            continue;
        };
        made.insert(call.to_string());
        wrong.extend(call.faults(parameters));
    }
    assert_eq!(wrong, BTreeSet::new());
    let never: Vec<_> = calls.iter().map(Call::to_string).filter(|call| !made.contains(call)).collect();
    assert_eq!(never, Vec::<String>::new(), "never sent");
}

#[test]
fn a_request_that_the_schema_forbids_is_told() {
    let calls = Call::all();
    assert!(Call::of(&calls, "PATCH", "/version").is_none() && Call::of(&calls, "GET", "/nodes/pve1").is_none());
    for (method, path, parameters, told) in [
        ("PUT", "/nodes/pve1/lxc/100/config", vec![("memroy", "512")], "no parameter memroy"),
        ("PUT", "/nodes/pve1/lxc/100/config", vec![("memory", "half")], "not of the type integer"),
        ("PUT", "/nodes/pve1/lxc/100/config", vec![("memory", "8")], "too small"),
        ("PUT", "/nodes/pve1/lxc/100/config", vec![("tty", "7")], "too large"),
        ("PUT", "/nodes/pve1/lxc/100/config", vec![("onboot", "true")], "not of the type boolean"),
        ("PUT", "/nodes/pve1/lxc/100/config", vec![("net0", "name=eth0,speed=5")], "no key speed"),
        ("PUT", "/nodes/pve1/lxc/100/config", vec![("net0", "eth0")], "no default key"),
        ("GET", "/cluster/resources", vec![("type", "vms")], "none of vm,storage,node,sdn"),
        ("POST", "/nodes/pve1/lxc/100/snapshot", vec![], "snapname is missing"),
    ] {
        let given: Vec<_> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let faults = Call::of(&calls, method, path).unwrap().faults(&given);
        assert!(faults.len() == 1 && faults[0].ends_with(told), "{faults:?}");
    }
    let right = [("memory", "512"), ("net0", "name=eth0,bridge=vmbr0"), ("rootfs", "local-lvm:3"), ("tty", "6")];
    let right = right.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(Call::of(&calls, "PUT", "/nodes/pve1/lxc/100/config").unwrap().faults(&right), Vec::<String>::new());
}
