//! The marker, faults, tasks and sweeps.

use std::time::Duration;

use hypervisor::{Error, GuestPower, GuestSample, GuestSize, GuestSpec, StopMode, Task, TaskId, TaskState};
use uuid::Uuid;

use super::wait::wait_for;
use super::{Fault, Lab, refused};

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
    lab.rig.fault(Fault::Cut).await;
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
    lab.rig.fault(Fault::LoseAnswers).await;
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
    // And where nobody has kept the task's id, the call is repeated.
    let unseen = lab.spec().await;
    lab.driver.create(&unseen).await.unwrap();
    later.done(later.driver.create(&unseen).await).await;
    assert_eq!(later.power(&unseen.guest).await, Some(GuestPower::Stopped));
}

/// A task that no driver looked at until the host had forgotten it: the call is repeated.
pub async fn a_task_that_the_host_forgot_is_repeated(lab: Lab) {
    let unseen = lab.spec().await;
    let Task::Running(id) = lab.driver.create(&unseen).await.unwrap() else { panic!("no task") };
    lab.eventually("the host forgets the task", async || !lab.rig.remembers(&id).await).await;
    let later = Lab { driver: lab.rig.driver(), ..lab };
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

/// What a sweep says of a guest of ours.
async fn seen(lab: &Lab, spec: &GuestSpec) -> GuestSample {
    let sweep = lab.driver.sweep().await.unwrap();
    sweep.guests.into_iter().find(|g| g.marker == spec.guest.marker).unwrap()
}

/// A sweep's values match those of the guest.
pub async fn a_sweep_has_true_figures(lab: Lab) {
    let spec = lab.running().await;
    let running = seen(&lab, &spec).await;
    assert_eq!(running.power, GuestPower::Running);
    assert_eq!(Some(running.cores), spec.limits.cores);
    assert_eq!(running.memory_max.map(|bytes| bytes >> 20), spec.limits.memory_mib);
    assert_eq!(running.disk_max.map(|bytes| bytes >> 30), spec.limits.disk_gib);
    lab.done(lab.driver.stop(&spec.guest, StopMode::Force).await).await;
    let stopped = seen(&lab, &spec).await;
    assert_eq!((stopped.power, stopped.uptime_s), (GuestPower::Stopped, Some(0)));
}

/// A sweep counts the memory, processor time, traffic and disk space that a guest uses.
pub async fn a_sweep_counts_what_a_guest_uses(lab: Lab) {
    let spec = lab.running().await;
    let before = seen(&lab, &spec).await;
    assert!(before.memory_used > Some(0) && before.memory_used < before.memory_max, "{before:?}");
    assert!(before.cpu.is_some() || before.cpu_time_ns.is_some_and(|ns| ns > 0), "{before:?}");
    assert!(before.uptime_s.is_some() && before.net_in.is_some() && before.net_out.is_some(), "{before:?}");
    let address = spec.network.addresses[0].address;
    lab.eventually("its address responds", async || lab.rig.answers(address).await).await;
    lab.sh(&spec.guest, "dd if=/dev/urandom of=/var/tmp/fill bs=1M count=64 2>/dev/null; sync").await;
    let after = wait_for("more of everything", async || {
        let now = seen(&lab, &spec).await;
        let more = now.uptime_s > before.uptime_s
            && now.net_in > before.net_in
            && now.net_out > before.net_out
            && (now.cpu.is_some() || now.cpu_time_ns > before.cpu_time_ns);
        if more { Ok(now) } else { Err(now) }
    })
    .await;
    assert!(after.uptime_s < Some(600), "{after:?}");
    if let Some(used) = before.disk_used {
        // Some storages update their counts late.
        lab.eventually("the disk usage is counted", async || {
            lab.rig.recount().await;
            seen(&lab, &spec).await.disk_used >= Some(used + (60 << 20))
        })
        .await;
    }
}
