//! Filters against address spoofing, and that the guest has what was ordered.

use std::net::IpAddr;

use hypervisor::{GuestAddress, GuestKind, Host, Power, Provision};
use proxmox::Proxmox;

use crate::Bench;

async fn set(bench: &Bench) -> Vec<String> {
    let text = format!(
        "sorted(e['cidr'] for e in pve.firewall_config('vm', 'pve1', {})['ipset']['ipfilter-net0'])",
        bench.vmid()
    );
    serde_json::from_value(bench.fake.run(&text).await).unwrap()
}

async fn options(bench: &Bench) -> serde_json::Value {
    bench.fake.run(&format!("pve.firewall_config('vm', 'pve1', {})['options']", bench.vmid())).await
}

async fn only_own_addresses(kind: GuestKind) {
    let mut bench = Bench::stopped(kind).await;
    let own = bench.spec.network.addresses[0].address.to_string();
    assert_eq!(set(&bench).await, [own.as_str()]);
    let options = options(&bench).await;
    for (option, value) in [("enable", 1), ("macfilter", 1), ("ipfilter", 1), ("dhcp", 0), ("radv", 0)] {
        assert_eq!(options[option], value, "{option}");
    }
    assert_eq!((&options["policy_in"], &options["policy_out"]), (&"ACCEPT".into(), &"ACCEPT".into()));
    let net = bench.fake.run(&format!("guest({}).config['net0']", bench.vmid())).await;
    assert!(net.as_str().unwrap().contains("firewall=1"), "{net}");
    // Entries from a template, or for a former address, are removed.
    bench
        .fake
        .run(&format!(
            "pve.firewall_config('vm', 'pve1', {})['ipset']['ipfilter-net0'].append({{'cidr': '10.9.9.9'}})",
            bench.vmid()
        ))
        .await;
    bench
        .fake
        .run(&format!(
            "pve.firewall_config('vm', 'pve1', {})['options'].update(enable=0, policy_in='DROP')",
            bench.vmid()
        ))
        .await;
    let six: IpAddr = "2001:db8::5".parse().unwrap();
    bench.spec.network.addresses[0].address = "10.0.0.77".parse().unwrap();
    bench.spec.network.addresses.push(GuestAddress { address: six, prefix: 64, gateway: None });
    bench.driver.prepare(&bench.spec).await.unwrap();
    let after = set(&bench).await;
    assert_eq!(after[..2], ["10.0.0.77", "2001:db8::5"]);
    assert!(after.len() == 3 && after[2].starts_with("fe80::"), "{after:?}");
    assert_eq!(self::options(&bench).await["enable"], 1);
    // Repeating it changes nothing.
    let before = bench.fake.run("len([a for a in pve.asked if a[0] in ('POST', 'DELETE')])").await;
    bench.driver.prepare(&bench.spec).await.unwrap();
    assert_eq!(bench.fake.run("len([a for a in pve.asked if a[0] in ('POST', 'DELETE')])").await, before);
}

#[tokio::test]
async fn a_container_may_use_only_its_own_addresses() {
    only_own_addresses(GuestKind::Lxc).await;
}

#[tokio::test]
async fn a_machine_may_use_only_its_own_addresses() {
    only_own_addresses(GuestKind::Vm).await;
}

/// A template's other interfaces would not be filtered.
#[tokio::test]
async fn a_machine_has_one_interface_whatever_its_template_has() {
    let bench = Bench::new(GuestKind::Vm).await;
    bench
        .fake
        .run("guest(9000).config.update(net1='virtio=BC:24:11:00:00:02,bridge=vmbr1', ipconfig1='ip=dhcp')")
        .await;
    bench.done(bench.driver.create(&bench.spec).await).await;
    bench.driver.prepare(&bench.spec).await.unwrap();
    let config = bench.fake.run(&format!("guest({}).config", bench.vmid())).await;
    let keys: Vec<&String> =
        config.as_object().unwrap().keys().filter(|k| k.starts_with("net") || k.starts_with("ipconfig")).collect();
    assert_eq!(keys, ["ipconfig0", "net0"], "{config}");
}

/// The node filters ARP only if the set has an IPv4 address.
#[tokio::test]
async fn a_guest_of_ipv6_alone_can_t_answer_for_anybody_s_ipv4() {
    let mut bench = Bench::new(GuestKind::Lxc).await;
    bench.spec.network.addresses[0].address = "2001:db8::5".parse().unwrap();
    bench.spec.network.addresses[0].prefix = 64;
    bench.spec.network.addresses[0].gateway = Some("2001:db8::1".parse().unwrap());
    bench.done(bench.driver.create(&bench.spec).await).await;
    bench.driver.prepare(&bench.spec).await.unwrap();
    let set = set(&bench).await;
    assert!(set.contains(&"127.0.0.1".to_owned()) && set.contains(&"2001:db8::5".to_owned()), "{set:?}");
    bench.fake.run("pve._fw()['cluster']['options'].update(ebtables=0)").await;
    let problems = bench.driver.info().await.unwrap().problems;
    assert!(problems.iter().any(|p| p.contains("ARP")), "{problems:?}");
}

#[tokio::test]
async fn filters_can_be_switched_off_and_the_preflight_says_so() {
    let mut bench = Bench::new(GuestKind::Lxc).await;
    let mut config = bench.config();
    config.address_filters = false;
    bench.driver = Proxmox::new(config).unwrap();
    bench.done(bench.driver.create(&bench.spec).await).await;
    bench.driver.prepare(&bench.spec).await.unwrap();
    assert_eq!(options(&bench).await, serde_json::json!({}));
    let problems = bench.driver.info().await.unwrap().problems;
    assert!(problems.len() == 1 && problems[0].contains("switched off"), "{problems:?}");
}

#[tokio::test]
async fn a_container_is_made_as_ordered() {
    let bench = Bench::stopped(GuestKind::Lxc).await;
    let config = bench.fake.run(&format!("guest({}).config", bench.vmid())).await;
    assert_eq!((&config["unprivileged"], &config["swap"], &config["cores"]), (&1.into(), &0.into(), &1.into()));
    assert_eq!(config["rootfs"].as_str().unwrap().split_once(',').unwrap().1, "size=3G");
    assert_eq!(config["features"], "nesting=1");
    let address = bench.spec.network.addresses[0].address;
    assert!(config["net0"].as_str().unwrap().contains(&format!("ip={address}/8")), "{config}");
    assert_eq!(config["nameserver"], "10.0.0.1");
    let sent = bench.fake.run("[dict(a[2]) for a in pve.asked if a[:2] == ('POST', '/nodes/pve1/lxc')][0]").await;
    assert_eq!(sent["ssh-public-keys"], bench.spec.ssh_keys[0]);
    assert_eq!(sent["password"], "secret of root");
}

#[tokio::test]
async fn a_machine_is_made_as_ordered() {
    let bench = Bench::stopped(GuestKind::Vm).await;
    let config = bench.fake.run(&format!("guest({}).config", bench.vmid())).await;
    assert_eq!((config["cores"].as_str(), config["sockets"].as_str()), (Some("1"), Some("1")));
    assert!(config.get("balloon").is_none(), "{config}");
    assert!(config["scsi0"].as_str().unwrap().contains("size=3G"), "{config}");
    let full = "[dict(a[2])['full'] for a in pve.asked if a[1].endswith('/clone')]";
    assert_eq!(bench.fake.run(full).await, serde_json::json!(["0"]));
    assert_eq!((config["ciuser"].as_str(), config["ciupgrade"].as_str()), (Some("root"), Some("0")));
    assert_eq!(config["cipassword"], "secret of root");
    // Encoded once more than the form that carried it.
    assert!(
        config["sshkeys"].as_str().unwrap().contains("ssh%2Ded25519%20AAAA")
            || config["sshkeys"].as_str().unwrap().contains("ssh-ed25519%20AAAA"),
        "{config}"
    );
    let address = bench.spec.network.addresses[0].address;
    assert_eq!(config["ipconfig0"], format!("gw=10.0.0.1,ip={address}/8"));
    // A storage other than the template's needs a full clone.
    bench.fake.run("pve.storages.update(other=dict(pve.storages['local-lvm'], volumes={}))").await;
    let mut config = bench.config();
    config.storage = "other".to_owned();
    let other = crate::spec(GuestKind::Vm);
    bench.done(Proxmox::new(config).unwrap().create(&other).await).await;
    let disk = bench.fake.run(&format!("guest({}).config['scsi0']", other.guest.vmid)).await;
    assert!(disk.as_str().unwrap().starts_with("other:vm-"), "{disk}");
}

#[tokio::test]
async fn guests_start_with_their_node_as_long_as_they_are_to_run() {
    let bench = Bench::stopped(GuestKind::Lxc).await;
    let onboot = async || bench.fake.run(&format!("str(guest({}).config.get('onboot', 0))", bench.vmid())).await;
    assert_eq!(onboot().await, "0");
    bench.done(bench.driver.start(&bench.spec.guest).await).await;
    assert_eq!(onboot().await, "1");
    bench.done(bench.driver.stop(&bench.spec.guest, hypervisor::StopMode::Force).await).await;
    assert_eq!(onboot().await, "0");
}
