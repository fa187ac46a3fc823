//! Runs the real drivers against a simulated fleet and checks what they see.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use std::sync::Arc;
use std::time::Duration;

use fleet::{Behaviour, Change, Fleet, GuestKind, Host, Kind, Load, Options, Power, control, marker};
use hypervisor::{Driver, Error, GuestPower, GuestRef, Presence};
use incus::Incus;
use proxmox::Proxmox;
use serde_json::{Value, json};

/// A driver as the service builds it from a host's settings, with short timeouts.
fn driver(kind: Kind, host: &Host) -> Arc<dyn Driver> {
    let mut settings = host.driver_settings();
    settings["request_timeout_s"] = json!(1);
    match kind {
        Kind::Proxmox => Arc::new(Proxmox::new(serde_json::from_value(settings).unwrap()).unwrap()),
        Kind::Incus => Arc::new(Incus::new(serde_json::from_value(settings).unwrap()).unwrap()),
    }
}

fn guest(host: &Host, place: usize) -> GuestRef {
    let guest = host.guests().swap_remove(place);
    let kind = if guest.kind == GuestKind::Lxc { hypervisor::GuestKind::Lxc } else { hypervisor::GuestKind::Vm };
    GuestRef { marker: guest.marker, vmid: guest.number, kind, node: String::new() }
}

async fn is_seen_and_changed(options: Options) {
    let kind = options.kind;
    let fleet = Fleet::start(options.clone()).await.unwrap();
    let host = fleet.host(1);
    let driver = driver(kind, host);

    let info = driver.info().await.unwrap();
    assert!(info.problems.is_empty(), "{:?}", info.problems);
    assert_eq!(info.nodes.len(), options.nodes);

    let asked = host.asked();
    let first = driver.sweep().await.unwrap();
    let calls = host.asked() - asked;
    assert!(
        first.nodes.iter().all(|node| first.coverage.includes(&node.name, 1))
            && first.nodes.iter().all(|node| node.online && node.disk_gib > 0)
    );
    assert_eq!(first.guests.iter().map(|g| g.marker).collect::<Vec<_>>(), host.markers());
    let number = options.first_number + i64::try_from(options.guests).unwrap();
    assert_eq!(first.guests[0].marker, marker(options.seed, number), "guest numbers continue across hosts");
    assert!(
        first.guests.iter().all(|g| g.power == GuestPower::Running && g.memory_used > Some(0))
            // Traffic of Incus guests is read from this machine's interfaces, which simulated guests don't have.
            && first.guests.iter().all(|g| if kind == Kind::Incus { g.net_in.is_none() } else { g.net_in > Some(0) })
    );

    host.alter([0], |g| g.power = Power::Stopped);
    host.alter([1], |g| g.present = false);
    host.alter([2], |g| g.load = Load { cpu: 0.97, memory: 0.95, disk: 0.93 });
    let asked = host.asked();
    let second = driver.sweep().await.unwrap();
    assert_eq!(host.asked() - asked, calls, "the number of calls is unchanged");
    assert_eq!((second.guests.len(), second.guests[0].power), (options.guests - 1, GuestPower::Stopped));
    let busy = &second.guests[1];
    assert!(busy.memory_used > busy.memory_max.map(|max| max / 100 * 93) && busy.net_in >= first.guests[2].net_in);
    match kind {
        Kind::Proxmox => assert!(busy.cpu.unwrap() > 0.95),
        Kind::Incus => assert!(busy.cpu_time_ns > first.guests[2].cpu_time_ns),
    }
    assert!(matches!(
        driver.find(&guest(host, 0)).await.unwrap(),
        Presence::Present { power: GuestPower::Stopped, .. }
    ));
    assert_eq!(driver.find(&guest(host, 1)).await.unwrap(), Presence::Absent);
    assert!(matches!(
        driver.find(&guest(host, 2)).await.unwrap(),
        Presence::Present { power: GuestPower::Running, .. }
    ));
}

async fn goes_wrong_and_comes_back(kind: Kind) {
    let fleet = Fleet::start(Options::new(kind, 2, 3)).await.unwrap();
    let host = fleet.host(0);
    let driver = driver(kind, host);
    driver.sweep().await.unwrap();
    for (behaviour, unreachable) in [
        (Behaviour::Hung, true),
        (Behaviour::Dead, true),
        (Behaviour::Slow(5_000), true),
        (Behaviour::Failing(500), false),
    ] {
        host.set(behaviour);
        let error = driver.sweep().await.unwrap_err();
        assert_eq!(matches!(error, Error::Unreachable(_)), unreachable, "{behaviour:?}: {error:?}");
        host.set(Behaviour::Well);
        // A port that was dead takes a moment to reopen.
        let mut tries = 0;
        while let Err(error) = driver.sweep().await {
            tries += 1;
            assert!(tries < 500, "{behaviour:?}: {error:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    host.set(Behaviour::Dead);
    driver.sweep().await.unwrap_err();
    // The other hosts are not affected.
    self::driver(kind, fleet.host(1)).sweep().await.unwrap();
}

#[tokio::test]
async fn a_cluster_of_proxmox_ve_is_seen_and_changed() {
    is_seen_and_changed(Options { nodes: 3, seed: 7, ..Options::new(Kind::Proxmox, 2, 8) }).await;
}

#[tokio::test]
async fn a_server_of_incus_is_seen_and_changed() {
    is_seen_and_changed(Options::new(Kind::Incus, 2, 8)).await;
}

#[tokio::test]
async fn hosts_of_proxmox_ve_go_wrong_and_come_back() {
    goes_wrong_and_comes_back(Kind::Proxmox).await;
}

#[tokio::test]
async fn hosts_of_incus_go_wrong_and_come_back() {
    goes_wrong_and_comes_back(Kind::Incus).await;
}

#[tokio::test]
async fn lists_stay_for_as_long_as_is_asked_for() {
    let sweeps = async |fresh_for| {
        let fleet = Fleet::start(Options { fresh_for, ..Options::new(Kind::Proxmox, 1, 3) }).await.unwrap();
        let driver = driver(Kind::Proxmox, fleet.host(0));
        let (one, two) = (driver.sweep().await.unwrap(), driver.sweep().await.unwrap());
        one.guests == two.guests
    };
    assert!(sweeps(Duration::from_mins(10)).await);
    assert!(!sweeps(Duration::ZERO).await);
}

#[tokio::test]
async fn the_control_port_changes_what_it_is_told() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fleet = Arc::new(Fleet::start(Options::new(Kind::Incus, 2, 2)).await.unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(control(Arc::clone(&fleet), listener));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let change = async |body: Value| http.post(&url).json(&body).send().await.unwrap().status().as_u16();
    assert_eq!(change(json!({"hosts": [1], "behaviour": {"slow": 7}, "guests": [0], "power": "stopped"})).await, 204);
    let hosts: Vec<Value> = http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!((&hosts[0]["behaviour"], &hosts[1]["behaviour"]), (&json!("well"), &json!({"slow": 7})));
    let guests: Vec<Value> = http.get(format!("{url}1")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&guests[0]["power"], &guests[1]["power"]), (&json!("stopped"), &json!("running")));
    assert_eq!(fleet.host(0).guests()[0].power, Power::Running);
    assert_eq!(change(json!({"hosts": [2], "behaviour": "dead"})).await, 404);
    assert_eq!(change(json!({"behavior": "dead"})).await, 422);
    assert!(fleet.apply(&Change { behaviour: Some(Behaviour::Hung), ..Change::default() }));
    assert_eq!(fleet.host(0).behaviour(), Behaviour::Hung);
}

#[tokio::test]
async fn what_can_t_be_made_is_refused() {
    for options in [
        Options::new(Kind::Proxmox, 0, 1),
        Options { nodes: 2, ..Options::new(Kind::Incus, 1, 1) },
        Options { first_number: 99, ..Options::new(Kind::Proxmox, 1, 1) },
    ] {
        assert!(Fleet::start(options).await.is_err());
    }
}
