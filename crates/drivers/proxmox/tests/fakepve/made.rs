//! What is created, how, and with which privileges.

use conformance::wait::wait_for;
use hypervisor::{Error, GuestKind, GuestPower, Host, Inventory, Power, Provision, Task, Tasks};
use proxmox::Proxmox;
use serde_json::json;

use crate::{Bench, spec};

use GuestKind::{Lxc, Vm};

/// The writes to a guest's configuration, in order.
async fn writes(bench: &Bench, method: &str, path: &str) -> Vec<Vec<(String, String)>> {
    let asked =
        format!("[[[k, str(v)] for k, v in a[2]] for a in pve.asked if a[0] == '{method}' and a[1] == '{path}']");
    serde_json::from_value(bench.fake.run(&asked).await).unwrap()
}

/// The privileges that `host pveum --pool` grants, and no others: a pool's don't cover tags before the guest is in it.
#[tokio::test]
async fn rights_on_a_pool_suffice_for_a_container_s_whole_life() {
    let mut bench = Bench::new(Lxc).await;
    let mut config = bench.config();
    config.pool = Some("innkeeper".to_owned());
    bench.driver = Proxmox::new(config).unwrap();
    bench.fake.run("pve.pools.setdefault('innkeeper', set()) and None").await;
    let mut rights = Proxmox::privileges(9, "local-lvm", Some("innkeeper"));
    rights.push(("/storage/local".to_owned(), vec!["Datastore.Audit"]));
    for (path, privileges) in rights {
        let privileges: Vec<_> = privileges.iter().map(|p| format!("'{p}'")).collect();
        bench.fake.run(&format!("pve.grant('innkeeper@pve', '{path}', {})", privileges.join(", "))).await;
    }
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    driver.check_create(&bench.spec).await.unwrap();
    bench.done(driver.create(&bench.spec).await).await;
    // Its description identifies it until its tag does, which is with its first change.
    assert_eq!(bench.power().await, Some(GuestPower::Stopped));
    assert_eq!(driver.create(&bench.spec).await.unwrap(), Task::Done);
    driver.prepare(&bench.spec).await.unwrap();
    assert!(driver.sweep().await.unwrap().guests.iter().any(|g| g.marker == guest.marker), "before its first start");
    let made = writes(&bench, "POST", "/nodes/pve1/lxc").await;
    assert!(made[0].iter().all(|(key, _)| key != "tags"), "{made:?}");
    let first = &writes(&bench, "PUT", &bench.path("/config")).await[0];
    assert!(first.iter().any(|(key, value)| key == "tags" && value.contains(&guest.marker.to_string())), "{first:?}");
    bench.done(driver.start(guest).await).await;
    driver.check_delete(guest).await.unwrap();
    driver.check_create(&bench.spec).await.unwrap();
    bench.done(driver.stop(guest, hypervisor::StopMode::Force).await).await;
    bench.done(driver.delete(guest).await).await;
    assert_eq!(bench.power().await, None);
}

/// Tags set by others are kept.
#[tokio::test]
async fn a_tag_of_ours_comes_beside_others() {
    let bench = Bench::new(Lxc).await;
    bench.done(bench.driver.create(&bench.spec).await).await;
    bench.fake.run(&format!("guest({}).config.update(tags='theirs')", bench.vmid())).await;
    bench.driver.prepare(&bench.spec).await.unwrap();
    let tags = bench.fake.run(&format!("guest({}).config['tags']", bench.vmid())).await;
    let tags = tags.as_str().unwrap();
    assert!(tags.contains("theirs") && tags.contains(&bench.spec.guest.marker.to_string()), "{tags}");
}

#[tokio::test]
async fn containers_are_nested_unless_the_host_s_settings_say_otherwise() {
    let bench = Bench::stopped(Lxc).await;
    assert_eq!(bench.fake.run(&format!("guest({}).config['features']", bench.vmid())).await, "nesting=1");
    let mut config = bench.config();
    config.nesting = false;
    let (driver, plain) = (Proxmox::new(config).unwrap(), spec(Lxc));
    bench.done(driver.create(&plain).await).await;
    assert_eq!(bench.fake.run(&format!("guest({}).config.get('features')", plain.guest.vmid)).await, json!(null));
}

#[tokio::test]
async fn what_can_t_be_made_anew_is_told_while_the_old_one_runs() {
    for kind in [Lxc, Vm] {
        let bench = Bench::running(kind).await;
        let (driver, spec) = (&bench.driver, &bench.spec);
        driver.check_create(spec).await.unwrap();
        // The storage.
        bench.fake.run("pve.storages['local-lvm'].update(active=0)").await;
        assert!(matches!(driver.check_create(spec).await, Err(Error::Failed(text)) if text.contains("local-lvm")));
        bench.fake.run("pve.storages['local-lvm'].update(active=1)").await;
        let mut config = bench.config();
        config.storage = "other".to_owned();
        bench.fake.run("pve.storages.update(other=dict(pve.storages['local-lvm'], volumes={}, avail=1 << 20))").await;
        let elsewhere = Proxmox::new(config).unwrap();
        let full = elsewhere.check_create(spec).await;
        assert!(matches!(full, Err(Error::Exhausted(_))), "{full:?}");
        let content = if kind == Lxc { "images" } else { "rootdir" };
        bench.fake.run(&format!("pve.storages['local-lvm'].update(content='{content}')")).await;
        let refused = driver.check_create(spec).await;
        assert!(matches!(&refused, Err(Error::Invalid(text)) if text.contains("local-lvm")), "{refused:?}");
        bench.fake.run("pve.storages['local-lvm'].update(content='images,rootdir')").await;
        // The network.
        let mut bridgeless = spec.clone();
        "vmbr7".clone_into(&mut bridgeless.network.bridge);
        let refused = driver.check_create(&bridgeless).await;
        assert!(matches!(&refused, Err(Error::NotFound(text)) if text.contains("vmbr7")), "{refused:?}");
        let mut crowded = spec.clone();
        crowded.network.addresses.push(crowded.network.addresses[0].clone());
        assert!(matches!(driver.check_create(&crowded).await, Err(Error::Invalid(_))));
        // Each privilege on its own.
        let all = Proxmox::privileges(9, "local-lvm", None);
        for lost in ["VM.Allocate", "VM.Config.Options", "Datastore.AllocateSpace", "SDN.Use"] {
            bench.fake.run("setattr(pve, 'acl', None)").await;
            for (path, privileges) in all.iter().chain(&[("/storage/local".to_owned(), vec!["Datastore.Audit"])]) {
                let kept: Vec<_> = privileges.iter().filter(|p| **p != lost).map(|p| format!(", '{p}'")).collect();
                bench.fake.run(&format!("pve.grant('innkeeper@pve', '{path}'{})", kept.concat())).await;
            }
            let refused = driver.check_create(spec).await;
            assert!(matches!(&refused, Err(Error::Forbidden(text)) if text.contains(lost)), "{lost}: {refused:?}");
            let deletable = driver.check_delete(&spec.guest).await;
            assert_eq!(deletable.is_err(), lost == "VM.Allocate", "{lost}: {deletable:?}");
        }
        assert_eq!(bench.fake.run(&format!("guest({}).status", bench.vmid())).await, "running");
        let changes = bench.fake.run("[a[:2] for a in pve.asked if a[0] == 'DELETE']").await;
        assert_eq!(changes, json!([]), "nothing was touched");
    }
}

#[tokio::test]
async fn a_clone_has_nothing_of_its_template_that_was_not_sold() {
    let bench = Bench::new(Vm).await;
    let odd = json!({
        "protection": 1, "cpulimit": "0.5", "cpuunits": 8, "vcpus": 1, "affinity": "0", "startup": "order=1",
        "shares": 5, "hostpci0": "0000:01:00", "usb0": "host=1234:5678", "numa0": "cpus=0,memory=512",
        "scsi1": "local-lvm:base-9000-disk-1,size=5G", "unused0": "local-lvm:vm-9000-disk-2",
    });
    bench.fake.run(&format!("guest(9000).config.update({odd})")).await;
    // The provider is warned before anyone places an order.
    let problems = bench.driver.info().await.unwrap().problems.join("\n");
    for key in ["protection", "cpulimit", "hostpci0", "usb0", "scsi1", "qm set 9000 --delete"] {
        assert!(problems.contains(key), "{key}: {problems}");
    }
    bench.done(bench.driver.create(&bench.spec).await).await;
    let config = bench.fake.run(&format!("guest({}).config", bench.vmid())).await;
    for key in odd.as_object().unwrap().keys() {
        assert!(config.get(key).is_none(), "{key}: {config}");
    }
    for key in ["scsi0", "ide2", "agent", "serial0", "boot", "ostype"] {
        assert!(config.get(key).is_some(), "{key}: {config}");
    }
    // A node may refuse to remove such a device, which must not be discovered after a deletion.
    let doubtful = bench.driver.check_create(&bench.spec).await;
    assert!(matches!(&doubtful, Err(Error::Invalid(text)) if text.contains("hostpci0")), "{doubtful:?}");
    // Settings that only root may remove are reported before anything is created.
    bench.fake.run("guest(9000).config.update(hookscript='local:snippets/x.pl')").await;
    let other = spec(Vm);
    let refused = bench.driver.create(&other).await;
    assert!(matches!(&refused, Err(Error::Invalid(text)) if text.contains("--delete hookscript")), "{refused:?}");
    assert_eq!(bench.fake.guests().await, [bench.vmid()]);
}

/// A clone that was never finished has its template's protection, which is not its own.
#[tokio::test]
async fn a_half_made_clone_of_a_protected_template_can_be_deleted() {
    let bench = Bench::new(Vm).await;
    bench.fake.run("guest(9000).config.update(protection=1)").await;
    bench.fail("PUT", "/config", "no_quorum").await;
    let Task::Running(id) = bench.driver.create(&bench.spec).await.unwrap() else { panic!("no task") };
    wait_for("the refusal of the clone's first change", async || match bench.driver.task(&id).await {
        Err(refused) => Ok(refused),
        Ok(state) => Err(state),
    })
    .await;
    assert_eq!(bench.power().await, Some(GuestPower::Unknown));
    bench.driver.check_delete(&bench.spec.guest).await.unwrap();
    bench.done(bench.driver.delete(&bench.spec.guest).await).await;
    assert_eq!(bench.fake.guests().await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_template_reads_cloud_init_by_its_drive_and_not_by_its_name() {
    let bench = Bench::new(Vm).await;
    bench
        .fake
        .run("guest(9000).config.update(ide2='none,media=cdrom', name='debian-cloudinit', description='cloudinit')")
        .await;
    bench.fake.run("setattr(guest(9000), 'name', 'debian-cloudinit')").await;
    let mut named = bench.spec.clone();
    named.image = "debian-cloudinit".to_owned();
    let refused = bench.driver.create(&named).await;
    assert!(matches!(&refused, Err(Error::Invalid(text)) if text.contains("no cloud-init drive")), "{refused:?}");
    assert!(matches!(bench.driver.check_create(&named).await, Err(Error::Invalid(_))));
    // On any bus.
    bench.fake.run("guest(9000).config.update(scsi1='local-lvm:vm-9000-cloudinit,media=cdrom')").await;
    bench.done(bench.driver.create(&named).await).await;
}
