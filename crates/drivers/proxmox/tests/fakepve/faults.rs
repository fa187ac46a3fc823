//! Faults of a host: each is recognised, changes nothing that it should not, and is overcome by repeating the call.

use hypervisor::{
    Error, GuestKind, GuestPower, GuestSize, Host, Inventory, Power, Presence, Provision, Snapshots, StopMode, Task,
    TaskState, Tasks,
};
use proxmox::Proxmox;

use crate::{Bench, spec};

use GuestKind::{Lxc, Vm};

/// Errors that fakepve can simulate: at which request, and what they mean.
#[tokio::test]
async fn refusals_by_name() {
    let bench = Bench::stopped(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    for (name, right) in [
        ("config_lock_timeout", "Locked"),
        ("no_quorum", "Unreachable"),
        ("permission_denied", "Forbidden"),
        ("not_implemented", "Unsupported"),
    ] {
        bench.fail("POST", &bench.path("/status/start"), name).await;
        let error = driver.start(guest).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(right), "{name}: {error:?}");
        assert_eq!(bench.power().await, Some(GuestPower::Stopped), "{name}");
    }
    for (name, right) in [("locked", "Locked"), ("config_lock_timeout", "Locked"), ("no_quorum", "Unreachable")] {
        bench.fail("DELETE", &bench.path(""), name).await;
        let error = driver.delete(guest).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(right), "{name}: {error:?}");
        assert_eq!(bench.power().await, Some(GuestPower::Stopped), "{name}");
    }
    let bigger = GuestSize { disk_gib: Some(4), ..GuestSize::default() };
    for (name, right) in
        [("locked", "Locked"), ("config_lock_timeout", "Locked"), ("storage_does_not_exist", "NotFound")]
    {
        bench.fail("PUT", &bench.path("/resize"), name).await;
        let error = driver.resize(guest, &bigger).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(right), "{name}: {error:?}");
    }
    bench.done(driver.resize(guest, &bigger).await).await;
    bench.done(driver.start(guest).await).await;
}

/// Of two deletions the slower one finds no configuration any more: the guest is gone, as it should be.
#[tokio::test]
async fn a_deletion_that_another_one_overtook_has_succeeded() {
    let bench = Bench::stopped(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    let missing = format!("Configuration file 'nodes/pve1/lxc/{}.conf' does not exist", guest.vmid);
    let ended = serde_json::json!({ "data": { "status": "stopped", "exitstatus": missing } }).to_string();
    let Task::Running(slower) = driver.delete(guest).await.unwrap() else { panic!("no task") };
    bench.done(Ok(Task::Running(slower.clone()))).await;
    bench.canned("GET", "/status", 200, "OK", &ended).await;
    assert_eq!(driver.task(&slower).await.unwrap(), TaskState::Succeeded(None));
}

/// The same as exit statuses of tasks.
#[tokio::test]
async fn failures_of_tasks_by_name() {
    let bench = Bench::stopped(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    bench.fail("POST", &bench.path("/status/start"), "locked").await;
    let error = bench.failed(driver.start(guest).await).await;
    assert!(matches!(&error, Error::Locked(text) if text.contains("TASK ERROR")), "{error:?}");
    assert!(error.is_transient());
    bench.fail("POST", &bench.path("/snapshot"), "snapshot_name_already_used").await;
    let error = bench.failed(driver.create_snapshot(guest, "one", "").await).await;
    assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}");
    bench.fail("POST", &bench.path("/snapshot"), "snapshot_feature_not_available").await;
    let error = bench.failed(driver.create_snapshot(guest, "one", "").await).await;
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
    bench.fake.run(&format!("guest({}).start_error = 'the container broke at its start'", bench.vmid())).await;
    let error = bench.failed(driver.start(guest).await).await;
    assert!(matches!(&error, Error::Failed(text) if text.contains("broke at its start")), "{error:?}");
}

#[tokio::test]
async fn a_lock_that_somebody_holds_comes_as_an_answer_and_as_a_task_s_end() {
    let bench = Bench::stopped(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    bench.fake.run(&format!("pve.hold_config_lock({}, None)", bench.vmid())).await;
    let more = GuestSize { cores: Some(2), ..GuestSize::default() };
    let error = driver.resize(guest, &more).await.unwrap_err();
    assert!(matches!(&error, Error::Locked(text) if text.contains("can't lock file")), "{error:?}");
    let error = bench.failed(driver.delete(guest).await).await;
    assert!(matches!(&error, Error::Locked(text) if text.contains("can't lock file")), "{error:?}");
    bench.fake.run(&format!("pve.release_config_lock({})", bench.vmid())).await;
    bench.done(driver.resize(guest, &more).await).await;
    // The locks that a killed backup, migration or snapshot leaves behind: they don't pass on their own.
    for lock in ["backup", "migrate", "snapshot", "snapshot-delete", "rollback", "disk", "mounted"] {
        bench.fake.run(&format!("pve.snapshot_lock({}, '{lock}')", bench.vmid())).await;
        let error = driver.delete(guest).await.unwrap_err();
        assert!(matches!(&error, Error::StaleLock(text) if text.contains(lock)), "{error:?}");
        bench.fake.run(&format!("pve.unlock({})", bench.vmid())).await;
    }
    bench.done(driver.delete(guest).await).await;
    assert_eq!(bench.fake.guests().await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_lost_quorum_stops_everything_and_harms_nothing() {
    let bench = Bench::stopped(Lxc).await;
    bench.fake.run("pve.lose_quorum()").await;
    let other = spec(Lxc);
    for error in [
        bench.driver.create(&other).await.unwrap_err(),
        bench.driver.start(&bench.spec.guest).await.unwrap_err(),
        bench
            .driver
            .resize(&bench.spec.guest, &GuestSize { cores: Some(2), ..GuestSize::default() })
            .await
            .unwrap_err(),
    ] {
        assert!(error.is_unsent() && error.is_transient(), "{error:?}");
    }
    bench.fake.run("pve.regain_quorum()").await;
    bench.done(bench.driver.create(&other).await).await;
    assert_eq!(bench.fake.guests().await.len(), 2);
}

#[tokio::test]
async fn a_storage_that_is_full_or_away_is_told_apart() {
    let bench = Bench::new(Vm).await;
    bench.fake.run("pve.storages.update(other=dict(pve.storages['local-lvm'], volumes={}, avail=1 << 20))").await;
    let mut config = bench.config();
    config.storage = "other".to_owned();
    let driver = Proxmox::new(config).unwrap();
    let error = bench.failed(driver.create(&bench.spec).await).await;
    assert!(matches!(&error, Error::Exhausted(text) if text.contains("No space left")), "{error:?}");
    assert_eq!(driver.find(&bench.spec.guest).await.unwrap(), Presence::Absent);
    assert_eq!(bench.fake.guests().await, Vec::<i64>::new());
    bench.fake.run("pve.storages['local-lvm'].update(active=0)").await;
    let error = bench.driver.create(&spec(Lxc)).await.unwrap_err();
    assert!(matches!(&error, Error::Failed(text) if text.contains("not online")), "{error:?}");
    let problems = bench.driver.info().await.unwrap().problems;
    assert!(problems.iter().any(|p| p.contains("local-lvm")), "{problems:?}");
}

#[tokio::test]
async fn a_machine_s_disk_that_can_t_grow_fails_its_creation_and_is_repeated() {
    let bench = Bench::new(Vm).await;
    bench.fake.run("setattr(pve, 'broken_resize', True)").await;
    let error = bench.failed(bench.driver.create(&bench.spec).await).await;
    assert!(matches!(&error, Error::Exhausted(_)), "{error:?}");
    // Half-made: neither running nor stopped; it can't be started, and is either finished or deleted.
    assert_eq!(bench.power().await, Some(GuestPower::Unknown));
    assert!(matches!(bench.driver.start(&bench.spec.guest).await, Err(Error::Conflict(_))));
    assert_eq!(bench.driver.stop(&bench.spec.guest, StopMode::Force).await.unwrap(), Task::Done);
    bench.fake.run("setattr(pve, 'broken_resize', False)").await;
    bench.done(bench.driver.create(&bench.spec).await).await;
    assert_eq!(bench.power().await, Some(GuestPower::Stopped));
    bench.done(bench.driver.delete(&bench.spec.guest).await).await;
}

#[tokio::test]
async fn a_node_that_goes_away_in_the_middle_of_a_creation_is_waited_for() {
    for kind in [Lxc, Vm] {
        let bench = Bench::new(kind).await;
        bench.fake.run("pve.ct_secs.update(create=1)").await;
        bench.fake.run("pve.time_scale = 0.2").await;
        let Task::Running(id) = bench.driver.create(&bench.spec).await.unwrap() else { panic!("no task") };
        bench.fake.run("pve.set_node_offline('pve1')").await;
        assert!(matches!(bench.driver.task(&id).await, Err(Error::Unreachable(_))));
        // Unknown, not deleted.
        assert!(matches!(bench.driver.find(&bench.spec.guest).await, Err(Error::Unreachable(_))));
        assert!(matches!(bench.driver.create(&bench.spec).await, Err(Error::Unreachable(_))));
        let sweep = bench.driver.sweep().await.unwrap();
        assert!(!sweep.coverage.includes("pve1", 1));
        assert!(sweep.guests.iter().all(|guest| guest.power == GuestPower::Unknown), "{sweep:?}");
        bench.fake.run("pve.set_node_offline('pve1', False)").await;
        bench.done(Ok(Task::Running(id))).await;
        assert_eq!(bench.driver.create(&bench.spec).await.unwrap(), Task::Done);
        assert_eq!(bench.fake.guests().await, [bench.vmid()]);
    }
}

#[tokio::test]
async fn absence_is_believed_when_a_majority_and_every_node_that_is_up_say_so() {
    let bench = Bench::new(Lxc).await;
    let guest = &bench.spec.guest;
    let unknown = async |what: &str| {
        let look = bench.driver.find(guest).await;
        assert!(matches!(&look, Err(e) if e.is_transient()), "{what}: {look:?}");
    };
    bench.fake.run("pve.add_node('pve2', online=False)").await;
    // The cluster knows the guests of an offline node, and this is not one of them.
    assert_eq!(bench.driver.find(guest).await.unwrap(), Presence::Absent);
    let mut there = guest.clone();
    there.node = "pve2".to_owned();
    assert_eq!(bench.driver.find(&there).await.unwrap(), Presence::Absent);
    // The minority part of a cluster only has old knowledge.
    let quorum = async |quorate: &str| {
        let status = format!(
            r#"{{"data":[{{"type":"cluster","id":"cluster","name":"c","nodes":2,"quorate":{quorate},"version":1}},
                {{"type":"node","id":"node/pve1","name":"pve1","online":1,"local":1,"nodeid":1}}]}}"#
        );
        bench.canned("GET", "/cluster/status", 200, "OK", &status).await;
    };
    for lost in ["0", r#""0""#, "null", "false"] {
        quorum(lost).await;
        unknown("a node is down, and there is no quorum").await;
    }
    quorum(r#""1""#).await;
    assert_eq!(bench.driver.find(guest).await.unwrap(), Presence::Absent);
    bench.fake.run("pve.set_node_offline('pve2', False)").await;
    assert_eq!(bench.driver.find(guest).await.unwrap(), Presence::Absent);
    // A malformed row may be the guest's.
    for odd in [r#"{"type":null,"id":"lxc/VMID"}"#, r#"{"type":"node","node":null}"#, "null", r#"{"type":"qemu"}"#] {
        let list = format!(
            r#"{{"data":[{{"type":"node","node":"pve1","status":"online"}},{}]}}"#,
            odd.replace("VMID", &guest.vmid.to_string())
        );
        bench.canned("GET", "/cluster/resources", 200, "OK", &list).await;
        unknown(odd).await;
    }
    bench.canned("GET", "/cluster/resources", 200, "OK", r#"{"data":[]}"#).await;
    unknown("an empty list").await;
    bench.canned("GET", &format!("/nodes/pve2/lxc/{}/config", guest.vmid), 595, "No route to host", "").await;
    unknown("a node that can't be asked").await;
    let mut elsewhere = guest.clone();
    elsewhere.node = "pve9".to_owned();
    assert!(bench.driver.find(&elsewhere).await.is_err(), "its node is not in the cluster");
    // A guest hidden by missing privileges: no list shows it, but its number is taken.
    bench.fake.run(&format!("pve.add_ct({}, 'hidden', node='pve2') and None", guest.vmid)).await;
    bench.fake.run("pve.grant('innkeeper@pve', '/nodes', 'Sys.Audit')").await;
    let look = bench.driver.find(guest).await;
    assert!(matches!(look, Err(Error::Forbidden(_))), "{look:?}");
}

#[tokio::test]
async fn a_guest_that_moved_is_found_where_it_is() {
    let bench = Bench::running(Lxc).await;
    bench.fake.run("pve.add_node('pve2')").await;
    bench.fake.run(&format!("pve.migrate({}, 'pve2')", bench.vmid())).await;
    let at = |node: &str, power| Presence::Present { node: node.to_owned(), power, busy: false };
    assert_eq!(bench.driver.find(&bench.spec.guest).await.unwrap(), at("pve2", GuestPower::Running));
    // It does not matter any more that its old node is offline.
    bench.fake.run("pve.set_node_offline('pve1')").await;
    bench.done(bench.driver.stop(&bench.spec.guest, StopMode::Force).await).await;
    assert_eq!(bench.driver.find(&bench.spec.guest).await.unwrap(), at("pve2", GuestPower::Stopped));
}

#[tokio::test]
async fn a_596_is_neither_believed_nor_repeated_blindly() {
    // The guest was created.
    let bench = Bench::new(Lxc).await;
    bench.fake.run("pve.after.update({('POST', '/nodes/pve1/lxc'): [596, 1]})").await;
    let error = bench.driver.create(&bench.spec).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
    assert_eq!(bench.driver.create(&bench.spec).await.unwrap(), Task::Done);
    assert_eq!(bench.fake.guests().await, [bench.vmid()]);
    // The guest was not created.
    let other = spec(Lxc);
    bench.canned("POST", "/nodes/pve1/lxc", 596, "Connection timed out", "").await;
    let error = bench.driver.create(&other).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
    assert_eq!(bench.driver.find(&other.guest).await.unwrap(), Presence::Absent);
    bench.done(bench.driver.create(&other).await).await;
    assert_eq!(bench.fake.guests().await.len(), 2);
    // An error page of something in between.
    bench
        .fake
        .run(&format!("pve.fail('GET', '{}', 502, '<html>', html=True, times=1)", bench.path("/status/current")))
        .await;
    assert!(matches!(bench.driver.find(&bench.spec.guest).await, Err(Error::Unreachable(_))));
}

#[tokio::test]
async fn a_500_that_had_written_is_seen_to_have_written() {
    let bench = Bench::stopped(Lxc).await;
    bench.fake.run("pve.after.update({('PUT', '/config'): [500, 1]})").await;
    let more = GuestSize { cores: Some(2), ..GuestSize::default() };
    assert_eq!(bench.driver.resize(&bench.spec.guest, &more).await.unwrap(), Task::Done);
    assert_eq!(bench.fake.run(&format!("guest({}).config['cores']", bench.vmid())).await, 2);
    // If it was not written, this is an error.
    bench.canned("PUT", "/config", 500, "it broke", r#"{"data":null,"message":"it broke\n"}"#).await;
    let less = GuestSize { cores: Some(1), ..GuestSize::default() };
    assert!(matches!(bench.driver.resize(&bench.spec.guest, &less).await, Err(Error::Failed(_))));
}

#[tokio::test]
async fn credentials_that_are_no_longer_good_say_so() {
    let bench = Bench::stopped(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    let Task::Running(id) = driver.start(guest).await.unwrap() else { panic!("no task") };
    bench.fake.run("pve.apitokens.update({'innkeeper@pve!test': 'another'})").await;
    assert!(matches!(driver.find(guest).await, Err(Error::Unauthorized(_))));
    assert!(matches!(driver.sweep().await, Err(Error::Unauthorized(_))));
    // Tasks started with these credentials are waited for: the node may be unable to verify users right now.
    assert!(matches!(driver.task(&id).await, Err(Error::Unreachable(_))));
    bench.fake.run("pve.apitokens.update({'innkeeper@pve!test': '11111111-2222-3333-4444-555555555555'})").await;
    bench.done(Ok(Task::Running(id))).await;
}

#[tokio::test]
async fn a_privilege_that_was_taken_away_is_named() {
    let bench = Bench::stopped(Lxc).await;
    bench.fake.run("pve.grant('innkeeper@pve', '/vms', 'VM.Audit', 'VM.Config.Options')").await;
    bench.fake.run("pve.grant('innkeeper@pve', '/', 'Sys.Audit')").await;
    let error = bench.driver.start(&bench.spec.guest).await.unwrap_err();
    assert!(matches!(&error, Error::Forbidden(text) if text.contains("VM.PowerMgmt")), "{error:?}");
    let problems = bench.driver.info().await.unwrap().problems.join("\n");
    for privilege in ["VM.PowerMgmt", "VM.Allocate", "VM.GuestAgent.Unrestricted", "Datastore.AllocateSpace", "SDN.Use"]
    {
        assert!(problems.contains(privilege), "{privilege}: {problems}");
    }
    assert!(!problems.contains("VM.Audit,"), "{problems}");
}

#[tokio::test]
async fn the_preflight_names_what_is_missing() {
    let bench = Bench::new(Lxc).await;
    assert_eq!(bench.driver.info().await.unwrap().problems, Vec::<String>::new());
    let problems = async || bench.driver.info().await.unwrap().problems.join("\n");
    bench.fake.run("pve._fw()['cluster']['options'].update(enable=0)").await;
    assert!(problems().await.contains("firewall is off"));
    bench.fake.run("pve.firewall_config('host', 'pve1')['options'].update(enable=0)").await;
    assert!(problems().await.contains("firewall of the node pve1 is off"));
    let tags = r#"{"data":{"user-tag-access":{"user-allow":"existing"}}}"#;
    bench.canned("GET", "/cluster/options", 200, "OK", tags).await;
    assert!(problems().await.contains("User Tag Access"));
    bench.fake.run("pve.version = '7.4-3'").await;
    assert!(problems().await.contains("only versions 8 and 9"));
    bench.fake.run("pve.storages['local'].update(volumes={}, content='iso')").await;
    bench.fake.run("[setattr(vm, 'template', False) for vm in pve.vms]").await;
    assert!(problems().await.contains("nothing to create guests from"));
    bench.fake.run("pve.storages['local-lvm'].update(content='backup')").await;
    assert!(problems().await.contains("allows neither containers"));
    bench.fake.run("pve.storages.pop('local-lvm') and None").await;
    assert!(problems().await.contains("is not on the node pve1"));
    bench.canned("GET", "/nodes/pve1/network", 200, "OK", r#"{"data":[]}"#).await;
    assert!(problems().await.contains("no bridge"));
    bench.fake.run("pve.add_node('pve2', online=False)").await;
    assert!(problems().await.contains("pve2 is not online"));
}
