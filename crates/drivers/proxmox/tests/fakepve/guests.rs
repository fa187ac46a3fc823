//! Guests in unusual states: what is reported, what is done with them, and what is left alone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use conformance::fakepve::ARCHIVE;
use conformance::wait::wait_for;
use hypervisor::{
    Consoles, Error, ExecOutput, GuestKind, GuestPower, GuestShell, GuestSize, Host, Inside, Inventory, Power,
    Provision, Result, ShellTarget, Snapshots, StopMode, Task, TaskState, Tasks,
};

use crate::Bench;

use GuestKind::{Lxc, Vm};

const CLEAN: StopMode = StopMode::Clean { timeout: Duration::from_secs(5) };

#[tokio::test]
async fn a_guest_whose_tag_was_taken_away_is_still_ours_and_gets_it_back() {
    for kind in [Lxc, Vm] {
        let bench = Bench::stopped(kind).await;
        bench.fake.run(&format!("guest({}).config.update(tags='web')", bench.vmid())).await;
        assert_eq!(bench.power().await, Some(GuestPower::Stopped));
        bench.done(bench.driver.start(&bench.spec.guest).await).await;
        let tags = bench.fake.run(&format!("guest({}).config['tags']", bench.vmid())).await;
        assert_eq!(tags, format!("innkeeper-{}-{};web", bench.vmid(), bench.spec.guest.marker));
    }
}

#[tokio::test]
async fn what_may_not_be_deleted_is_not() {
    let bench = Bench::stopped(Lxc).await;
    bench.fake.run(&format!("guest({}).config.update(protection=1)", bench.vmid())).await;
    let error = bench.driver.delete(&bench.spec.guest).await.unwrap_err();
    assert!(matches!(&error, Error::Protected(text) if text.contains("--protection 0")), "{error:?}");
    assert_eq!(bench.fake.guests().await, [bench.vmid()]);
}

#[tokio::test]
async fn a_storage_without_snapshots_is_said_to_have_none() {
    let bench = Bench::stopped(Lxc).await;
    bench.fake.run("pve.storages['local-lvm'].update(type='dir')").await;
    let error = bench.driver.create_snapshot(&bench.spec.guest, "one", "").await.unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
}

#[tokio::test]
async fn a_roll_back_that_failed_leaves_the_guest_as_it_was() {
    let bench = Bench::running(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    bench.done(driver.create_snapshot(guest, "one", "words").await).await;
    bench.fail("POST", &bench.path("/snapshot/one/rollback"), "unable_rollback_incomplete_snapshot_snapstate").await;
    bench.failed(driver.rollback(guest, "one").await).await;
    assert_eq!(bench.power().await, Some(GuestPower::Running));
    let description = bench.fake.run(&format!("guest({}).config['description']", bench.vmid())).await;
    assert!(!description.as_str().unwrap().contains("innkeeper-keep"), "{description}");
    // A rollback that nobody saw end is finished by the next one, and a resize waits for that.
    bench.fake.run("pve.after.update({('POST', '/rollback'): [596, 1]})").await;
    assert!(matches!(driver.rollback(guest, "one").await, Err(Error::OutcomeUnknown(_))));
    let more = GuestSize { cores: Some(2), ..GuestSize::default() };
    assert!(matches!(driver.resize(guest, &more).await, Err(Error::Conflict(_))));
    bench.done(driver.rollback(guest, "one").await).await;
    assert_eq!(bench.power().await, Some(GuestPower::Running));
    bench.done(driver.resize(guest, &more).await).await;
}

#[tokio::test]
async fn a_slow_shutdown_is_forced_and_one_under_way_is_cut_short() {
    let bench = Bench::running(Vm).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    bench.fake.run("pve.time_scale = 0.05").await;
    bench.fake.run(&format!("guest({}).shutdown_secs = 1e6", bench.vmid())).await;
    bench.done(driver.stop(guest, CLEAN).await).await;
    assert_eq!(bench.power().await, Some(GuestPower::Stopped));
    bench.done(driver.start(guest).await).await;
    let slow = driver.stop(guest, StopMode::Clean { timeout: Duration::from_secs(100) }).await.unwrap();
    // Repeating the call gives the same task, and a forced stop does not wait for it.
    assert_eq!(driver.stop(guest, CLEAN).await.unwrap(), slow);
    driver.stop(guest, StopMode::Force).await.unwrap();
    let asked = bench.fake.run("[a[1] for a in pve.asked if a[0] == 'DELETE']").await;
    assert!(asked[0].as_str().unwrap().contains("qmshutdown"), "{asked}");
}

#[tokio::test]
async fn a_restart_that_is_locked_out_pulls_no_plug() {
    let bench = Bench::running(Vm).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    bench.fail("POST", &bench.path("/status/reboot"), "config_lock_timeout").await;
    let locked = match driver.restart(guest, Duration::from_secs(5)).await {
        Ok(task) => bench.failed(Ok(task)).await,
        Err(error) => error,
    };
    assert!(matches!(locked, Error::Locked(_)), "{locked:?}");
    // In its task, as with a backup.
    let exit = "VM is locked (backup)";
    let body = serde_json::json!({ "data": { "status": "stopped", "exitstatus": exit } }).to_string();
    bench.canned("GET", "/status", 200, "OK", &body).await;
    let locked = bench.failed(driver.restart(guest, Duration::from_secs(5)).await).await;
    assert!(matches!(locked, Error::Locked(_)), "{locked:?}");
    let stops = bench.fake.run("[a[1] for a in pve.asked if a[0] == 'POST' and a[1].endswith('/status/stop')]").await;
    assert_eq!(stops, serde_json::json!([]));
    assert_eq!(bench.power().await, Some(GuestPower::Running));
}

/// What a roll-back needs afterwards may end between the look at the guest and the look at its tasks.
#[tokio::test]
async fn a_roll_back_that_looks_too_early_looks_again() {
    let bench = Bench::running(Lxc).await;
    let (driver, guest, vmid) = (&bench.driver, &bench.spec.guest, bench.vmid());
    bench.done(driver.create_snapshot(guest, "one", "").await).await;
    bench.done(driver.resize(guest, &GuestSize { disk_gib: Some(4), ..GuestSize::default() }).await).await;
    let (resize, start) = (("PUT", bench.path("/resize")), ("POST", bench.path("/status/start")));
    let count = async |(method, path): &(&str, String)| {
        let count = format!("sum(a[0] == '{method}' and a[1] == '{path}' for a in pve.asked)");
        bench.fake.run(&count).await.as_u64().unwrap()
    };
    let (resizes, starts) = (count(&resize).await, count(&start).await);
    let Task::Running(id) = driver.rollback(guest, "one").await.unwrap() else { panic!("it takes a task") };
    // Follows the task until it asks for this, and not a step further.
    let follow_until = async |what: &(&str, String), before: u64| {
        wait_for("a request", async || {
            driver.task(&id).await.unwrap();
            if count(what).await > before { Ok(()) } else { Err(&what.1) }
        })
        .await;
    };
    let is = async |what: &str| {
        wait_for(what, async || match bench.fake.run(what).await {
            serde_json::Value::Bool(true) => Ok(()),
            other => Err(other),
        })
        .await;
    };

    bench.fake.run(&format!("pve.held[('PUT', '{}')] = asyncio.Event()", resize.1)).await;
    let small = async {
        wait_for("the growth", async || if count(&resize).await > resizes { Ok(()) } else { Err("not asked for") })
            .await;
        let config = bench.fake.run(&format!("dict(guest({vmid}).config)")).await;
        bench.fake.run("[gate.set() for gate in pve.held.values()] and pve.held.clear()").await;
        config
    };
    let ((), small) = tokio::join!(follow_until(&resize, resizes), small);
    assert!(small["rootfs"].as_str().unwrap().contains("size=3G"), "{small}");
    is(&format!("'size=4G' in guest({vmid}).config['rootfs']")).await;
    // The disk has grown by now; this look was before.
    let body = serde_json::json!({ "data": small }).to_string();
    bench.canned("GET", &bench.path("/config"), 200, "OK", &body).await;
    let state = driver.task(&id).await.unwrap();
    assert!(!matches!(state, TaskState::Failed(_)), "{state:?}");

    // The same with the start that follows.
    follow_until(&start, starts).await;
    is(&format!("guest({vmid}).status == 'running'")).await;
    let tag = format!("innkeeper-{vmid}-{}", guest.marker);
    let stopped = serde_json::json!({ "data": { "status": "stopped", "vmid": vmid, "tags": tag } }).to_string();
    bench.canned("GET", &bench.path("/status/current"), 200, "OK", &stopped).await;
    bench.done(Ok(Task::Running(id.clone()))).await;
    assert_eq!(bench.power().await, Some(GuestPower::Running));
}

#[tokio::test]
async fn what_is_left_of_a_guest_that_is_being_destroyed_is_not_a_stranger_s() {
    let bench = Bench::stopped(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    bench.fake.run(&format!("setattr(guest({}), 'before', dict(guest({}).config))", bench.vmid(), bench.vmid())).await;
    bench
        .fake
        .run(&format!("(guest({0}).config.clear(), guest({0}).config.update(lock='destroyed')) and None", bench.vmid()))
        .await;
    // No task is working on it, so an operator must check.
    let found = driver.find(guest).await;
    assert!(matches!(found, Err(Error::StaleLock(_))), "{found:?}");
    let deleted = driver.delete(guest).await;
    assert!(matches!(deleted, Err(Error::StaleLock(_))), "{deleted:?}");
    bench
        .fake
        .run(&format!("guest({0}).config.clear() or guest({0}).config.update(guest({0}).before)", bench.vmid()))
        .await;
    bench.done(driver.delete(guest).await).await;
}

#[tokio::test]
async fn a_machine_that_is_up_for_its_backup_only_does_not_run() {
    let bench = Bench::running(Vm).await;
    let tag = format!("innkeeper-{}-{}", bench.vmid(), bench.spec.guest.marker);
    let status = serde_json::json!({ "data": { "status": "running", "qmpstatus": "prelaunch", "vmid": bench.vmid(),
                                               "lock": "backup", "tags": tag } });
    bench.canned("GET", &bench.path("/status/current"), 200, "OK", &status.to_string()).await;
    assert_eq!(bench.power().await, Some(GuestPower::Unknown));
}

#[tokio::test]
async fn a_template_is_found_though_its_storage_is_not_on_every_node() {
    let bench = Bench::new(Lxc).await;
    bench.fake.run("pve.add_node('pve0')").await;
    let text = "storage 'local' is not available on node 'pve0'";
    bench.canned("GET", "/nodes/pve0/storage/local/content", 500, text, "").await;
    assert!(bench.driver.has_image(Lxc, ARCHIVE).await.unwrap());
    // If a node that has the storage could not be asked, "not found" on the others does not count.
    bench.canned("GET", "/nodes/pve1/storage/local/content", 500, "got timeout", "").await;
    let unknown = bench.driver.has_image(Lxc, "local:vztmpl/none.tar.zst").await;
    assert!(unknown.is_err(), "{unknown:?}");
}

#[tokio::test]
async fn a_missing_or_hanging_agent_is_told_and_not_waited_for() {
    let bench = Bench::running(Vm).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    let second = Duration::from_secs(1);
    let without = driver.exec(guest, &["true"], b"", second).await;
    assert!(matches!(without, Err(Error::Conflict(_) | Error::Unsupported(_))), "{without:?}");
    let without = driver.set_password(guest, &"secret".to_owned().into()).await;
    assert!(matches!(without, Err(Error::Conflict(_) | Error::Unsupported(_))), "{without:?}");
    bench
        .fake
        .run(&format!(
            "guest({}).agent = {{'exec': {{'uname -r': {{'out-data': '6.1'}}, 'sleep 9': {{'exited': False}}}}}}",
            bench.vmid()
        ))
        .await;
    assert_eq!(driver.exec(guest, &["uname", "-r"], b"", second).await.unwrap().stdout, b"6.1");
    assert!(matches!(driver.exec(guest, &["sleep", "9"], b"", second).await, Err(Error::GuestHung(_))));
    let binary = driver.exec(guest, &["cat"], b"\xff\x00", second).await;
    assert!(matches!(binary, Err(Error::Unsupported(_))), "{binary:?}");
    driver.set_password(guest, &"secret".to_owned().into()).await.unwrap();
    assert_eq!(driver.interfaces(guest).await.unwrap()[0].name, "eth0");
    bench.fake.run(&format!("guest({}).agent_hangs = True", bench.vmid())).await;
    let hanging = driver.exec(guest, &["true"], b"", second).await;
    assert!(matches!(hanging, Err(Error::Conflict(_) | Error::Failed(_) | Error::OutcomeUnknown(_))), "{hanging:?}");
}

#[tokio::test]
async fn a_container_without_a_way_in_says_so() {
    let bench = Bench::running(Lxc).await;
    let error = bench.driver.set_password(&bench.spec.guest, &"secret".to_owned().into()).await.unwrap_err();
    assert!(matches!(&error, Error::Unsupported(text) if text.contains("SSH")), "{error:?}");
}

/// A shell that records its commands.
#[derive(Debug, Default)]
struct Noted(Mutex<Vec<Order>>);

/// Target, command and input.
type Order = (ShellTarget, Vec<String>, Vec<u8>);

#[async_trait]
impl GuestShell for Noted {
    async fn exec(&self, at: &ShellTarget, argv: &[&str], stdin: &[u8], _: Duration) -> Result<ExecOutput> {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        self.0.lock().unwrap().push((at.clone(), argv, stdin.to_vec()));
        Ok(ExecOutput { status: 0, stdout: Vec::new(), stderr: Vec::new() })
    }
}

#[tokio::test]
async fn a_container_s_commands_go_by_the_shell() {
    let bench = Bench::running(Lxc).await;
    let shell = Arc::new(Noted::default());
    let driver = bench.driver.clone().with_shell(Arc::<Noted>::clone(&shell));
    driver.set_password(&bench.spec.guest, &"it's:a \"secret\"".to_owned().into()).await.unwrap();
    let refused = driver.set_password(&bench.spec.guest, &"two\nlines".to_owned().into()).await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
    let noted = std::mem::take(&mut *shell.0.lock().unwrap());
    let [(target, argv, stdin)] = &noted[..] else { panic!("{noted:?}") };
    assert_eq!((argv.as_slice(), stdin.as_slice()), (&["chpasswd".to_owned()][..], &b"root:it's:a \"secret\"\n"[..]));
    assert_eq!(target.addresses, [bench.spec.network.addresses[0].address]);
    assert_eq!((target.node.as_str(), target.node_address), ("pve1", Some("192.0.2.11".parse().unwrap())));
    assert_eq!((target.vmid, target.marker), (bench.vmid(), bench.spec.guest.marker));
}

/// Proxmox VE keeps no console output: the log of the start is all that there is.
#[tokio::test]
async fn the_log_of_a_failed_start_is_a_guest_s_last_words() {
    for kind in [Lxc, Vm] {
        let bench = Bench::running(kind).await;
        let said = bench.driver.last_words(&bench.spec.guest).await.unwrap();
        assert!(said.ends_with("TASK OK"), "{said:?}");
        bench.done(bench.driver.stop(&bench.spec.guest, StopMode::Force).await).await;
        bench.fake.run(&format!("setattr(guest({}), 'start_error', 'no room for the manager')", bench.vmid())).await;
        bench.failed(bench.driver.start(&bench.spec.guest).await).await;
        let said = bench.driver.last_words(&bench.spec.guest).await.unwrap();
        assert!(said.ends_with("TASK ERROR: no room for the manager"), "{said:?}");
    }
}

#[tokio::test]
async fn high_availability_is_asked_and_then_watched() {
    let bench = Bench::stopped(Lxc).await;
    bench.fake.run(&format!("guest({}).ha_state = 'stopped'", bench.vmid())).await;
    // The request ends at once, the start not by itself.
    bench.fake.run("[setattr(pve, 'time_scale', 1), setattr(pve, 'ha_delay', 3600)] and None").await;
    let Task::Running(id) = bench.driver.start(&bench.spec.guest).await.unwrap() else { panic!("no task") };
    wait_for("the end of the request", async || {
        let ended = "[t['status'] for t in pve.tasklog if t['type'] == 'hastart'] == ['stopped']";
        if bench.fake.run(ended).await == true { Ok(()) } else { Err("it runs") }
    })
    .await;
    assert_eq!(bench.driver.task(&id).await.unwrap(), TaskState::Running(None));
    bench.fake.run(&format!("setattr(guest({}), 'status', 'running')", bench.vmid())).await;
    bench.done(Ok(Task::Running(id))).await;
    bench.fake.run("setattr(pve, 'time_scale', 0)").await;
    assert_eq!(bench.power().await, Some(GuestPower::Running));
    bench.done(bench.driver.stop(&bench.spec.guest, CLEAN).await).await;
    assert_eq!(bench.power().await, Some(GuestPower::Stopped));
}

#[tokio::test]
async fn a_clone_of_a_guest_of_ours_is_not_ours() {
    let bench = Bench::stopped(Lxc).await;
    let copy = bench.vmid() + 1;
    bench.fake.run(&format!("pve.add_ct({copy}, 'copy', config=dict(guest({}).config)) and None", bench.vmid())).await;
    let mut other = bench.spec.guest.clone();
    other.vmid = copy;
    assert!(matches!(bench.driver.delete(&other).await, Err(Error::NotOurs(_))));
    let sweep = bench.driver.sweep().await.unwrap();
    assert_eq!(sweep.guests.iter().filter(|g| g.marker == bench.spec.guest.marker).count(), 1);
}

#[tokio::test]
async fn a_number_that_is_taken_is_told_before_and_after_the_order() {
    let bench = Bench::new(Lxc).await;
    assert!(bench.driver.is_number_free(bench.vmid()).await.unwrap());
    bench.fake.run(&format!("pve.add_vm({}, 'theirs') and None", bench.vmid())).await;
    assert!(!bench.driver.is_number_free(bench.vmid()).await.unwrap());
    assert!(matches!(bench.driver.create(&bench.spec).await, Err(Error::AlreadyExists(_))));
    assert!(matches!(bench.driver.find(&bench.spec.guest).await, Err(Error::NotOurs(_))));
    // And the reverse: a VM whose number a container has.
    let bench = Bench::new(Vm).await;
    bench.fake.run(&format!("pve.add_ct({}, 'theirs') and None", bench.vmid())).await;
    assert!(matches!(bench.driver.create(&bench.spec).await, Err(Error::AlreadyExists(_))));
}

#[tokio::test]
async fn a_creation_that_was_killed_is_for_a_person_to_look_at() {
    let bench = Bench::new(Lxc).await;
    bench.fake.run(&format!("pve.add_ct({}, lock='create', defaults=False) and None", bench.vmid())).await;
    // It does not show its owner, and Proxmox VE lets no token unlock it.
    for error in
        [bench.driver.find(&bench.spec.guest).await.unwrap_err(), bench.driver.create(&bench.spec).await.unwrap_err()]
    {
        assert!(matches!(&error, Error::StaleLock(text) if text.contains("creat")), "{error:?}");
    }
    assert_eq!(bench.fake.guests().await, [bench.vmid()]);
}
