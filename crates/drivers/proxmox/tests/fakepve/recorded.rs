//! Responses of the real API (recorded from version 9.2) that differ from fakepve's.

use hypervisor::{
    Error, GuestKind, GuestPower, GuestSize, Inside, Inventory, Power, Presence, Provision, Snapshots, Task, TaskId,
    TaskState, Tasks,
};
use proxmox::Proxmox;

use crate::{Bench, spec};

use GuestKind::{Lxc, Vm};

/// A task id as nodes format it, with a given start time.
fn upid(kind: &str, vmid: i64, start: i64) -> String {
    format!("UPID:pve1:000004F0:0002D892:{start:08X}:{kind}:{vmid}:innkeeper@pve!test:")
}

const NO_SUCH_TASK: &str =
    r#"{"data":null,"message":"Parameter verification failed.\n","errors":{"upid":"no such task"}}"#;

/// The recorded status of an ended task.
fn ended(upid: &str, exit: &str) -> String {
    format!(
        r#"{{"data":{{"type":"vzcreate","user":"root@pam","pstart":186514,"status":"stopped","tokenid":"t1",
            "node":"pve1","id":"100","pid":1264,"exitstatus":"{exit}","upid":"{upid}","starttime":1795263098}}}}"#
    )
}

#[tokio::test]
async fn both_texts_of_a_taken_number_are_known() {
    let bench = Bench::new(Lxc).await;
    for text in
        ["CT 120 already exists on node 'pve1'", "unable to create CT 120 - CT 120 already exists on node 'pve1'"]
    {
        let body = serde_json::json!({"data": null, "message": format!("{text}\n")}).to_string();
        bench.canned("POST", "/nodes/pve1/lxc", 500, text, &body).await;
        let error = bench.driver.create(&bench.spec).await.unwrap_err();
        assert_eq!(error, Error::AlreadyExists(text.to_owned()));
    }
    // Older versions have the message only in the reason phrase.
    bench.canned("POST", "/nodes/pve1/lxc", 500, "CT 120 already exists on node 'pve1'", r#"{"data":null}"#).await;
    assert!(matches!(bench.driver.create(&bench.spec).await, Err(Error::AlreadyExists(_))));
    bench
        .canned(
            "GET",
            "/cluster/nextid",
            400,
            "Parameter verification failed.",
            r#"{"message":"Parameter verification failed.\n","data":null,"errors":{"vmid":"VM 100 already exists"}}"#,
        )
        .await;
    assert!(!bench.driver.is_number_free(100).await.unwrap());
    bench.canned("GET", "/cluster/nextid", 200, "OK", r#"{"data":"101"}"#).await;
    assert!(bench.driver.is_number_free(101).await.unwrap());
}

#[tokio::test]
async fn a_forgotten_task_is_unknown_unless_it_is_young() {
    let bench = Bench::new(Lxc).await;
    let old = upid("vzstop", bench.vmid(), 0x6B01_8A7A - 100_000_000);
    bench.canned("GET", "/status", 400, "Parameter verification failed.", NO_SUCH_TASK).await;
    assert_eq!(bench.driver.task(&TaskId(old)).await.unwrap(), TaskState::Unknown);
    // Its node may not have recorded it yet.
    let young = upid("vzstop", bench.vmid(), chrono::Utc::now().timestamp());
    bench.canned("GET", "/status", 400, "Parameter verification failed.", NO_SUCH_TASK).await;
    assert_eq!(bench.driver.task(&TaskId(young)).await.unwrap(), TaskState::Running(None));
}

#[tokio::test]
async fn warnings_are_a_success_with_words() {
    let bench = Bench::new(Lxc).await;
    let upid = upid("vzstop", bench.vmid(), 0x6B01_8A7A);
    bench.canned("GET", "/status", 200, "OK", &ended(&upid, "WARNINGS: 1")).await;
    let log = r#"{"data":[{"n":1,"t":"WARN: Systemd 255 detected."},{"t":"TASK WARNINGS: 1","n":2}],"total":2}"#;
    bench.canned("GET", "/log", 200, "OK", log).await;
    let state = bench.driver.task(&TaskId(upid)).await.unwrap();
    assert!(matches!(&state, TaskState::Succeeded(Some(words)) if words.contains("Systemd 255")), "{state:?}");
}

#[tokio::test]
async fn an_unexpected_status_is_looked_into() {
    let bench = Bench::new(Lxc).await;
    let upid = upid("vzstop", bench.vmid(), 0x6B01_8A7A);
    for (log, right) in [
        (r#"{"data":[{"n":1,"t":"TASK OK"}],"total":1}"#, "Succeeded(None)"),
        (r#"{"data":[{"n":1,"t":"TASK ERROR: CT is locked (backup)"}],"total":1}"#, "Failed(Locked"),
        (r#"{"data":[{"n":1,"t":"extracting archive"}],"total":1}"#, "Unknown"),
    ] {
        bench.canned("GET", "/status", 200, "OK", &ended(&upid, "unexpected status")).await;
        bench.canned("GET", "/log", 200, "OK", log).await;
        let state = bench.driver.task(&TaskId(upid.clone())).await.unwrap();
        assert!(format!("{state:?}").starts_with(right), "{state:?}");
    }
}

#[tokio::test]
async fn a_task_that_died_with_its_node_is_judged_by_the_guest() {
    let bench = Bench::stopped(Lxc).await;
    let Task::Running(id) = bench.driver.start(&bench.spec.guest).await.unwrap() else { panic!("no task") };
    let (upid, _) = id.0.split_once('?').unwrap();
    let nothing = r#"{"data":[{"n":1,"t":"half a li"}],"total":1}"#;
    // It is running, as it should be.
    bench.canned("GET", &format!("{upid}/status"), 200, "OK", &ended(upid, "unexpected status")).await;
    bench.canned("GET", &format!("{upid}/log"), 200, "OK", nothing).await;
    assert_eq!(bench.driver.task(&id).await.unwrap(), TaskState::Succeeded(None));
    // It is not running, so it has to be started again.
    bench.fake.run(&format!("setattr(guest({}), 'status', 'stopped')", bench.vmid())).await;
    bench.canned("GET", &format!("{upid}/status"), 200, "OK", &ended(upid, "unexpected status")).await;
    bench.canned("GET", &format!("{upid}/log"), 200, "OK", nothing).await;
    assert_eq!(bench.driver.task(&id).await.unwrap(), TaskState::Unknown);
    bench.done(bench.driver.start(&bench.spec.guest).await).await;
}

#[tokio::test]
async fn refusals_without_a_body_are_read_from_the_reason() {
    let bench = Bench::stopped(Lxc).await;
    for (status, reason, right) in [
        (401, "Authentication failed!", "Unauthorized"),
        (401, "No ticket", "Unauthorized"),
        (595, "No route to host", "Unreachable"),
        (596, "Connection timed out", "Unreachable"),
        (599, "Too many redirections", "Unreachable"),
        (500, "CT is locked (backup)", "Locked"),
    ] {
        bench.canned("GET", &bench.path("/status/current"), status, reason, "").await;
        let error = match bench.driver.interfaces(&bench.spec.guest).await {
            // The guest is looked for elsewhere and found on its own node.
            Ok(_) if status > 500 => continue,
            Ok(other) => panic!("{other:?}"),
            Err(error) => error,
        };
        assert!(format!("{error:?}").starts_with(right) && error.to_string().contains(reason), "{error:?}");
    }
}

#[tokio::test]
async fn a_guest_that_was_just_made_has_no_figures_yet() {
    let bench = Bench::new(Lxc).await;
    let recorded = r#"{"data":[
        {"status":"unknown","vmid":100,"type":"lxc","node":"pve1","lock":"create","id":"lxc/100"},
        {"type":"node","node":"pve1","id":"node/pve1","status":"unknown"},
        {"type":"storage","node":"pve1","plugintype":"dir","storage":"local","status":"unknown",
            "id":"storage/pve1/local","content":"rootdir,snippets,backup,iso,vztmpl,images","shared":0},
        {"id":"network/pve1/zone/localnetwork","status":"ok","network-type":"zone","node":"pve1","type":"network",
            "network":"localnetwork"}]}"#;
    bench.canned("GET", "/cluster/resources", 200, "OK", recorded).await;
    let sweep = bench.driver.sweep().await.unwrap();
    // Nor is the node online; none of this is evidence.
    assert!(sweep.guests.is_empty() && sweep.coverage.nodes.is_empty() && !sweep.nodes[0].online);
}

#[tokio::test]
async fn a_configuration_as_recorded_is_understood() {
    let bench = Bench::stopped(Lxc).await;
    let word = format!("innkeeper-{}-{}", bench.vmid(), bench.spec.guest.marker);
    let config = serde_json::json!({"data": {
        "features": "nesting=1", "unprivileged": 1, "hostname": "ct100", "swap": 0, "tags": format!("a;{word}"),
        "net0": "name=eth0,bridge=vmbr0,firewall=1,gw=10.0.0.1,hwaddr=BC:24:11:78:DA:22,\
                 ip=10.0.0.5/24,rate=10,type=veth",
        "cores": 1, "onboot": 1, "memory": 256, "ostype": "alpine", "arch": "amd64", "cpulimit": "0.5",
        "description": "hello\n", "rootfs": "local:100/vm-100-disk-0.raw,size=102M",
        "digest": "6f2ed9cca881e35da62ce420642f8b09baa05227"}});
    bench.canned("GET", &bench.path("/config"), 200, "OK", &config.to_string()).await;
    // Nothing differs, so nothing is written; 1 GiB is more than 102 MiB.
    let same = GuestSize { cores: Some(1), memory_mib: Some(256), ..GuestSize::default() };
    assert_eq!(bench.driver.resize(&bench.spec.guest, &same).await.unwrap(), Task::Done);
    assert_eq!(
        bench.fake.run("[a[1] for a in pve.asked if a[0] == 'PUT' and a[1].endswith('/lxc/config')]").await,
        serde_json::json!([])
    );
    bench.canned("GET", &bench.path("/config"), 200, "OK", &config.to_string()).await;
    bench
        .canned(
            "PUT",
            &bench.path("/resize"),
            500,
            "unable to shrink disk size",
            r#"{"message":"unable to shrink disk size\n","data":null}"#,
        )
        .await;
    let error = bench
        .driver
        .resize(&bench.spec.guest, &GuestSize { disk_gib: Some(1), ..GuestSize::default() })
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
}

#[tokio::test]
async fn a_snapshot_list_as_recorded_is_put_in_order() {
    let bench = Bench::stopped(Lxc).await;
    // Of two from the same second, the parent comes first.
    let recorded = r#"{"data":[
        {"snaptime":1795264104,"description":"","parent":"s1","name":"s2"},
        {"name":"s1","description":"d\n","snaptime":1795264104},
        {"digest":"5c13","description":"You are here!","parent":"s2","name":"current","running":0}]}"#;
    bench.canned("GET", &bench.path("/snapshot"), 200, "OK", recorded).await;
    let list = bench.driver.snapshots(&bench.spec.guest).await.unwrap();
    let seen: Vec<_> = list.iter().map(|s| (s.name.as_str(), s.description.as_str(), s.parent.as_deref())).collect();
    assert_eq!(seen, [("s1", "d", None), ("s2", "", Some("s1"))]);
}

#[tokio::test]
async fn a_power_change_that_has_come_about_is_done() {
    let bench = Bench::running(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    // It stopped on its own between our read and our call.
    let text = format!("CT {} not running", bench.vmid());
    let body = serde_json::json!({"data": null, "message": format!("{text}\n")}).to_string();
    bench.canned("POST", &bench.path("/status/shutdown"), 500, &text, &body).await;
    let running = r#"{"data":{"status":"running","vmid":100,"type":"lxc","tags":"TAG"}}"#
        .replace("TAG", &format!("innkeeper-{}-{}", bench.vmid(), guest.marker));
    bench.canned("GET", &bench.path("/status/current"), 200, "OK", &running).await;
    bench.fake.run(&format!("setattr(guest({}), 'status', 'stopped')", bench.vmid())).await;
    let mode = hypervisor::StopMode::Clean { timeout: std::time::Duration::from_secs(2) };
    assert_eq!(driver.stop(guest, mode).await.unwrap(), Task::Done);
    assert_eq!(bench.power().await, Some(GuestPower::Stopped));
}

#[tokio::test]
async fn a_shrunken_machine_disk_fails_in_its_task() {
    let bench = Bench::stopped(Vm).await;
    let upid = upid("resize", bench.vmid(), 0x6B01_8A7A);
    bench.canned("GET", "/status", 200, "OK", &ended(&upid, "shrinking disks is not supported")).await;
    bench
        .canned(
            "GET",
            "/log",
            200,
            "OK",
            r#"{"total":1,"data":[{"t":"TASK ERROR: shrinking disks is not supported","n":1}]}"#,
        )
        .await;
    let state = bench.driver.task(&TaskId(upid)).await.unwrap();
    assert!(matches!(state, TaskState::Failed(Error::Invalid(_))), "{state:?}");
}

#[tokio::test]
async fn a_machine_s_path_for_a_container_is_no_evidence() {
    let bench = Bench::stopped(Vm).await;
    // A node gives the same answer for a guest of the other kind as for a missing one.
    let mut wrong = bench.spec.guest.clone();
    wrong.kind = Lxc;
    assert!(matches!(bench.driver.find(&wrong).await, Err(Error::NotOurs(_))));
    let gone = spec(Lxc);
    assert_eq!(bench.driver.find(&gone.guest).await.unwrap(), Presence::Absent);
}

#[tokio::test]
async fn an_answer_that_is_not_proxmox_s_is_no_success() {
    let bench = Bench::stopped(Lxc).await;
    bench.canned("POST", &bench.path("/status/start"), 200, "OK", "<html>").await;
    assert!(matches!(bench.driver.start(&bench.spec.guest).await, Err(Error::OutcomeUnknown(_))));
    bench.canned("GET", "/cluster/resources", 200, "OK", "<html>").await;
    assert!(matches!(bench.driver.sweep().await, Err(Error::Failed(_))));
    assert!(Proxmox::new(bench.config()).is_ok());
}
