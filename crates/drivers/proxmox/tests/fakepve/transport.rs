//! TLS rules, several endpoints, limits on concurrent calls, and the format of requests.

use std::sync::Arc;
use std::time::Duration;

use hypervisor::{Error, GuestKind, GuestPower, Inventory, Power, Provision};
use proxmox::{Proxmox, Tls};

use crate::Bench;

#[tokio::test]
async fn a_certificate_is_trusted_by_authority_or_fingerprint() {
    let bench = Bench::new(GuestKind::Lxc).await;
    let with = |tls| {
        let mut config = bench.config();
        config.tls = tls;
        Proxmox::new(config).unwrap()
    };
    let Tls::Fingerprint { sha256: right } = bench.config().tls else { unreachable!() };
    with(Tls::Fingerprint { sha256: right.clone() }).sweep().await.unwrap();
    with(Tls::Ca { pem: bench.fake.certificate().to_owned() }).sweep().await.unwrap();
    // Every rule that refuses it reports the fingerprint, so that it can be pinned.
    let seen: Vec<_> =
        right.to_uppercase().as_bytes().chunks(2).map(|b| String::from_utf8_lossy(b).into_owned()).collect();
    for tls in [Tls::SystemRoots, Tls::Fingerprint { sha256: "ab".repeat(32) }] {
        let error = with(tls).sweep().await.unwrap_err();
        assert!(matches!(&error, Error::Unreachable(text) if text.contains(&seen.join(":"))), "{error:?}");
    }
}

#[tokio::test]
async fn another_endpoint_is_asked_where_one_can_t_be_reached() {
    let bench = Bench::stopped(GuestKind::Lxc).await;
    let mut config = bench.config();
    config.endpoints.insert(0, "https://127.0.0.1:1".to_owned());
    let driver = Proxmox::new(config).unwrap();
    bench.done(driver.start(&bench.spec.guest).await).await;
    assert_eq!(bench.power().await, Some(GuestPower::Running));
    // All down: certainly not received.
    bench.fake.run("close()").await;
    let error = driver.sweep().await.unwrap_err();
    assert!(error.is_unsent(), "{error:?}");
}

#[tokio::test]
async fn another_endpoint_is_asked_where_one_is_cut_off_from_its_cluster() {
    let bench = Bench::stopped(GuestKind::Lxc).await;
    // Two names of one fake; the first response is from a node without quorum.
    let mut config = bench.config();
    config.endpoints.push(config.endpoints[0].replace("127.0.0.1", "localhost"));
    let driver = Proxmox::new(config).unwrap();
    let text = "cluster not ready - no quorum?";
    bench.canned("GET", "/cluster/resources", 500, text, "").await;
    assert!(driver.sweep().await.is_ok());
    bench.canned("POST", &bench.path("/status/start"), 500, text, "").await;
    bench.done(driver.start(&bench.spec.guest).await).await;
}

#[tokio::test]
async fn at_most_two_calls_are_under_way_to_a_host() {
    let bench = Bench::stopped(GuestKind::Lxc).await;
    bench.fake.run("pve.time_scale = 1").await;
    bench.fake.run("pve.slow_network(0.05)").await;
    bench.fake.run("setattr(pve, 'most', 0)").await;
    // Two drivers for one host, as after its settings were changed.
    let drivers = [bench.driver.clone(), Proxmox::new(bench.config()).unwrap()].map(Arc::new);
    let looks = (0..10).map(|n| {
        let (driver, guest) = (Arc::clone(&drivers[n % 2]), bench.spec.guest.clone());
        tokio::spawn(async move { driver.find(&guest).await.unwrap() })
    });
    for look in looks.collect::<Vec<_>>() {
        look.await.unwrap();
    }
    assert_eq!(bench.fake.run("pve.most").await, 2);
}

#[tokio::test]
async fn at_most_twenty_calls_are_under_way_in_all() {
    let bench = Bench::stopped(GuestKind::Lxc).await;
    bench.fake.run("pve.time_scale = 1").await;
    bench.fake.run("pve.slow_network(0.3)").await;
    bench.fake.run("setattr(pve, 'most', 0)").await;
    // Twelve hosts, from the driver's point of view.
    let hosts = (1..=12).map(|n| {
        let mut config = bench.config();
        config.endpoints = vec![config.endpoints[0].clone(); n];
        Arc::new(Proxmox::new(config).unwrap())
    });
    let hosts: Vec<_> = hosts.collect();
    let sweeps = (0..48).map(|n| {
        let host = Arc::clone(&hosts[n % 12]);
        tokio::spawn(async move { host.sweep().await.unwrap() })
    });
    for sweep in sweeps.collect::<Vec<_>>() {
        sweep.await.unwrap();
    }
    // Other tests may hold some of the slots.
    let most = bench.fake.run("pve.most").await.as_u64().unwrap();
    assert!((3..=20).contains(&most), "{most} at one time");
}

#[tokio::test]
async fn a_host_that_hangs_is_given_up_in_time() {
    let bench = Bench::stopped(GuestKind::Lxc).await;
    let mut config = bench.config();
    config.request_timeout_s = 1;
    let driver = Proxmox::new(config).unwrap();
    bench.fake.run("pve.flaky_network(hang_rate=1.0, hang_secs=30)").await;
    let look = tokio::time::timeout(Duration::from_secs(10), driver.find(&bench.spec.guest)).await.unwrap();
    assert!(matches!(look, Err(Error::Unreachable(_))), "{look:?}");
}

#[tokio::test]
async fn requests_have_a_length_and_deletions_no_body() {
    let bench = Bench::running(GuestKind::Lxc).await;
    bench.done(bench.driver.stop(&bench.spec.guest, hypervisor::StopMode::Force).await).await;
    bench.done(bench.driver.delete(&bench.spec.guest).await).await;
    let chunked = bench.fake.run("[a for a in pve.asked if a[3]['Transfer-Encoding']]").await;
    assert_eq!(chunked, serde_json::json!([]));
    let without = "[a for a in pve.asked if a[0] in ('POST', 'PUT') and a[3]['Content-Length'] is None]";
    assert_eq!(bench.fake.run(without).await, serde_json::json!([]));
    let with = "[a for a in pve.asked if a[0] in ('GET', 'DELETE') and a[3]['Content-Length'] not in (None, '0')]";
    assert_eq!(bench.fake.run(with).await, serde_json::json!([]));
    assert_eq!(
        bench.fake.run("[a[2] for a in pve.asked if a[0] == 'DELETE']").await,
        serde_json::json!([[["purge", "1"]]])
    );
}
