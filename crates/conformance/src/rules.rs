//! The marker, faults, tasks and sweeps.

use std::time::Duration;

use hypervisor::{Error, GuestPower, GuestSize, GuestSpec, StopMode, Task, TaskId, TaskState};
use uuid::Uuid;

use super::{Fault, Lab, refused, untested};

/// Every call on a guest that has the number but not our marker is refused, and the guest stays unchanged.
pub async fn strangers_are_never_touched(lab: Lab) {
    let spec = lab.spec().await;
    lab.rig.stranger(&spec).await;
    let (driver, guest) = (&lab.driver, &spec.guest);
    let not_ours = |e: &Error| matches!(e, Error::NotOurs(_));
    let limits = GuestSize { cores: Some(2), ..GuestSize::default() };
    let second = Duration::from_secs(1);
    refused(driver.create(&spec).await, |e| matches!(e, Error::AlreadyExists(_)));
    refused(driver.check_create(&spec).await, |e| matches!(e, Error::AlreadyExists(_)));
    refused(driver.check_delete(guest).await, not_ours);
    refused(driver.find(guest).await, not_ours);
    refused(driver.prepare(&spec).await, not_ours);
    refused(driver.start(guest).await, not_ours);
    refused(driver.stop(guest, StopMode::Force).await, not_ours);
    refused(driver.stop(guest, StopMode::Clean { timeout: second }).await, not_ours);
    refused(driver.restart(guest, second).await, not_ours);
    refused(driver.delete(guest).await, not_ours);
    refused(driver.resize(guest, &limits).await, not_ours);
    refused(driver.set_password(guest, &"secret".to_owned().into()).await, not_ours);
    refused(driver.exec(guest, &["true"], b"", second).await, not_ours);
    refused(driver.interfaces(guest).await, not_ours);
    refused(driver.snapshots(guest).await, not_ours);
    refused(driver.create_snapshot(guest, "one", "").await, not_ours);
    refused(driver.rollback(guest, "one").await, not_ours);
    refused(driver.delete_snapshot(guest, "one").await, not_ours);
    assert!(driver.sweep().await.unwrap().guests.iter().all(|g| g.marker != guest.marker));
    assert!(lab.rig.stranger_is_untouched(&spec).await);
    // Nor is one of our guests mistaken for another.
    let ours = lab.stopped().await;
    let mut other = ours.guest.clone();
    other.marker = Uuid::new_v4();
    refused(driver.delete(&other).await, not_ours);
    assert_eq!(lab.power(&ours.guest).await, Some(GuestPower::Stopped));
}

/// With an unreachable host every call fails; none reports a guest as absent.
pub async fn an_unreachable_host_is_not_an_empty_one(lab: Lab) {
    let spec = lab.stopped().await;
    if !lab.rig.fault(Fault::Cut).await {
        return untested("an unreachable host");
    }
    let unreachable = |e: &Error| matches!(e, Error::Unreachable(_)) && e.is_unsent() && e.is_transient();
    refused(lab.driver.find(&spec.guest).await, unreachable);
    refused(lab.driver.sweep().await, unreachable);
    refused(lab.driver.info().await, unreachable);
    refused(lab.driver.check_delete(&spec.guest).await, unreachable);
    refused(lab.driver.check_create(&spec).await, unreachable);
    refused(lab.driver.create(&spec).await, unreachable);
    refused(lab.driver.start(&spec.guest).await, unreachable);
    refused(lab.driver.delete(&spec.guest).await, unreachable);
    refused(lab.driver.task(&lab.rig.unknown_task()).await, unreachable);
    lab.rig.fault(Fault::None).await;
    assert_eq!(lab.power(&spec.guest).await, Some(GuestPower::Stopped));
}

/// A request whose answer is lost has an unknown outcome; repeating it gives the same result as if it had been
/// answered.
pub async fn a_lost_answer_is_no_failure(lab: Lab) {
    let spec = lab.spec().await;
    if !lab.rig.fault(Fault::LoseAnswers).await {
        return untested("lost answers");
    }
    let unknown = |e: &Error| matches!(e, Error::OutcomeUnknown(_)) && !e.is_unsent() && e.is_transient();
    refused(lab.driver.create(&spec).await, unknown);
    lab.rig.fault(Fault::None).await;
    lab.done(lab.driver.create(&spec).await).await;
    lab.driver.prepare(&spec).await.unwrap();
    lab.rig.fault(Fault::LoseAnswers).await;
    refused(lab.driver.start(&spec.guest).await, unknown);
    lab.rig.fault(Fault::None).await;
    lab.done(lab.driver.start(&spec.guest).await).await;
    lab.up(&spec.guest).await;
    lab.done(lab.driver.stop(&spec.guest, StopMode::Force).await).await;
    lab.rig.fault(Fault::LoseAnswers).await;
    refused(lab.driver.delete(&spec.guest).await, unknown);
    lab.rig.fault(Fault::None).await;
    lab.done(lab.driver.delete(&spec.guest).await).await;
    assert_eq!(lab.power(&spec.guest).await, None);
}

/// A task that the host does not know is `Unknown`, and a malformed task id is an error.
pub async fn a_forgotten_task_is_unknown(lab: Lab) {
    let spec = lab.spec().await;
    let Task::Running(id) = lab.driver.create(&spec).await.unwrap() else { panic!("no task") };
    lab.end(Task::Running(id.clone())).await.unwrap();
    // Whatever the host still knows, this must never become a failure.
    let state = lab.driver.task(&id).await.unwrap();
    assert!(matches!(state, TaskState::Unknown | TaskState::Succeeded(_)), "{state:?}");
    refused(lab.driver.task(&TaskId("no task of ours".to_owned())).await, |e| matches!(e, Error::Invalid(_)));
}

/// A task id is plain text. With it a new driver, as after a restart of the service, carries the task to its end.
pub async fn another_process_carries_a_task_on(lab: Lab) {
    let spec = lab.spec().await;
    let Task::Running(id) = lab.driver.create(&spec).await.unwrap() else { panic!("no task") };
    let text = serde_json::to_string(&id).unwrap();
    let mut later = lab.clone();
    later.driver = lab.rig.driver();
    later.end(Task::Running(serde_json::from_str(&text).unwrap())).await.unwrap();
    assert_eq!(later.driver.create(&spec).await.unwrap(), Task::Done);
    assert_eq!(later.power(&spec.guest).await, Some(GuestPower::Stopped));
    // Nobody polls this one until the host may have forgotten it: then the call has to be repeated.
    let unseen = lab.spec().await;
    lab.driver.create(&unseen).await.unwrap();
    if lab.inside("the time after which a host forgets a task") {
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
    later.done(later.driver.create(&unseen).await).await;
    assert_eq!(later.power(&unseen.guest).await, Some(GuestPower::Stopped));
}

/// A sweep takes as many requests for three guests as for one, and sees only our guests.
pub async fn a_sweep_costs_the_same_for_any_number(lab: Lab) {
    let requests = async || lab.rig.requests().await.unwrap_or_default();
    let first = lab.stopped().await;
    let before = requests().await;
    lab.driver.sweep().await.unwrap();
    let cost = requests().await - before;
    let stranger = lab.spec().await;
    lab.rig.stranger(&stranger).await;
    let second = lab.running().await;
    let mut sweep = None;
    // Guests of other tests come and go meanwhile, and may be listed but unreadable.
    lab.eventually("a sweep sees all of them", async || {
        let before = requests().await;
        let now = lab.driver.sweep().await.unwrap();
        assert_eq!(requests().await - before, cost);
        let all = now.coverage.unread.is_empty() && !now.coverage.nodes.is_empty();
        sweep = Some(now);
        all
    })
    .await;
    let sweep = sweep.unwrap();
    let seen = |spec: &GuestSpec| sweep.guests.iter().filter(|g| g.marker == spec.guest.marker).count();
    assert_eq!((seen(&first), seen(&second), seen(&stranger)), (1, 1, 0));
    assert!(sweep.nodes.iter().any(|n| n.online && n.memory_mib > 0));
}

/// A sweep's values match those of the guest.
pub async fn a_sweep_has_true_figures(lab: Lab) {
    let spec = lab.running().await;
    let inside = lab.inside("a guest's resource usage");
    let look = async || {
        let sweep = lab.driver.sweep().await.unwrap();
        sweep.guests.into_iter().find(|g| g.marker == spec.guest.marker).unwrap()
    };
    let before = look().await;
    assert_eq!(before.power, GuestPower::Running);
    assert_eq!(Some(before.cores), spec.limits.cores);
    assert_eq!(before.memory_max.map(|bytes| bytes >> 20), spec.limits.memory_mib);
    assert_eq!(before.disk_max.map(|bytes| bytes >> 30), spec.limits.disk_gib);
    if !inside {
        lab.done(lab.driver.stop(&spec.guest, StopMode::Force).await).await;
        let stopped = look().await;
        assert_eq!((stopped.power, stopped.uptime_s), (GuestPower::Stopped, Some(0)));
        return;
    }
    assert!(before.memory_used > Some(0) && before.memory_used < before.memory_max, "{before:?}");
    assert!(before.cpu.is_some() || before.cpu_time_ns.is_some_and(|ns| ns > 0), "{before:?}");
    let address = spec.network.addresses[0].address;
    lab.eventually("its address responds", async || lab.rig.answers(address).await).await;
    lab.sh(&spec.guest, "dd if=/dev/urandom of=/var/tmp/fill bs=1M count=64 2>/dev/null; sync").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = look().await;
    let (up, now_up) = (before.uptime_s.unwrap(), after.uptime_s.unwrap());
    assert!(now_up > up && now_up < 600, "{up} {now_up}");
    assert!(
        before.net_in.is_some() && after.net_in > before.net_in && after.net_out > before.net_out,
        "{before:?} {after:?}"
    );
    assert!(after.cpu_time_ns > before.cpu_time_ns || after.cpu.is_some());
    if let Some(used) = before.disk_used {
        // Some storages update their counts late.
        lab.eventually("the disk usage is counted", async || {
            lab.rig.recount().await;
            look().await.disk_used >= Some(used + (60 << 20))
        })
        .await;
    }
    lab.done(lab.driver.stop(&spec.guest, StopMode::Force).await).await;
    let stopped = look().await;
    assert_eq!((stopped.power, stopped.uptime_s), (GuestPower::Stopped, Some(0)));
}
