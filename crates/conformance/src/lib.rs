//! The suite that a driver must pass, on a real host of its kind.
//!
//! A driver's test file gives a [`Rig`] and calls [`conformance_tests!`], which makes one test of each behaviour. Every
//! test makes guests of its own and removes them, also when it fails. The suite knows the driver trait and no driver.

// This is test code that happens to live in a library: it fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod consoles;
pub mod fakepve;
mod inside;
mod life;
pub mod relay;
mod rules;
mod snaps;
pub mod wait;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use hypervisor::{
    Driver, Error, ExecOutput, GuestPower, GuestRef, GuestSpec, Presence, Result, Task, TaskId, TaskState,
};

pub use consoles::*;
pub use inside::*;
pub use life::*;
pub use rules::*;
pub use snaps::*;

use wait::wait_for;

/// What can be made to go wrong between a rig's driver and its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// All is well.
    None,
    /// No connection can be made.
    Cut,
    /// Requests that change something are carried out, their answers lost.
    LoseAnswers,
}

/// A host to test a driver on. What not every rig can do is a part of the suite: [`conformance_tests!`] has no tests of
/// the parts that it isn't given.
#[async_trait]
pub trait Rig: Send + Sync {
    /// A driver of this host, created again by each call, as after a restart of the service.
    fn driver(&self) -> Arc<dyn Driver>;

    /// What to make a small guest from, that nothing else on the host uses: number, marker, one IPv4 address first.
    async fn spec(&self) -> GuestSpec;

    /// Removes what a test made of `spec`, in whatever state it is, and a stranger of that number.
    async fn remove(&self, spec: &GuestSpec);

    /// Makes a running guest with the spec's number but without our marker.
    async fn stranger(&self, spec: &GuestSpec);

    /// Whether the stranger is there, runs and is as it was made.
    async fn stranger_is_untouched(&self, spec: &GuestSpec) -> bool;

    /// Leaves behind what a creation leaves that was killed half-way. Part `half_made_guests`.
    async fn half_made(&self, _spec: &GuestSpec) {
        panic!("this rig has no half-made guests");
    }

    /// Switches the host's own protection of a guest from deletion on or off, as its provider would.
    async fn protect(&self, spec: &GuestSpec, on: bool);

    /// Makes something go wrong for this rig's drivers from now on.
    async fn fault(&self, fault: Fault);

    /// Has the host recount the guests' disk usage, if its storage may lose count under a test's load.
    async fn recount(&self) {}

    /// Halts a running guest where it stands, past the driver. Part `paused_guests`.
    async fn pause(&self, _spec: &GuestSpec) {
        panic!("this rig has no paused guests");
    }

    /// How many requests this rig's drivers have sent so far.
    async fn requests(&self) -> Option<u64> {
        None
    }

    /// A driver of this host that lets guests have whatever addresses they are given. Part `insides`.
    fn without_filters(&self) -> Arc<dyn Driver> {
        panic!("this rig has no traffic");
    }

    /// Whether the host still knows of a task. Part `insides`.
    async fn remembers(&self, _task: &TaskId) -> bool {
        panic!("this rig keeps its tasks");
    }

    /// Whether its guests are real: programs run in them, files are in them, traffic is counted. A stand-in for a host
    /// has no such guests: it goes without the part `insides`, and tests that also look inside leave that out.
    fn has_insides(&self) -> bool {
        true
    }

    /// Makes a guest ignore requests to shut down, in a way of the rig's own; `false`: it is to be done inside.
    async fn stubborn(&self, _spec: &GuestSpec) -> bool {
        false
    }

    /// What differs from one boot of a guest to its next, as the host knows; `None`: the guest is to be asked.
    async fn boot(&self, _spec: &GuestSpec) -> Option<String> {
        None
    }

    /// The rate of a guest's network in Mbit/s as the host's own configuration has it; `None`: not limited.
    async fn bandwidth(&self, spec: &GuestSpec) -> Option<f64>;

    /// The id of a task that this kind of host could have had, and this one doesn't know.
    fn unknown_task(&self) -> TaskId {
        TaskId(uuid::Uuid::new_v4().to_string())
    }

    /// Whether an address answers from where customers are.
    async fn answers(&self, address: IpAddr) -> bool {
        // Nothing listens on this port: a guest that is there says so.
        let attempt = tokio::net::TcpStream::connect((address, 9));
        match tokio::time::timeout(Duration::from_secs(1), attempt).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        }
    }
}

/// What a behaviour is tested with.
#[derive(Clone)]
pub struct Lab {
    /// The host.
    pub rig: Arc<dyn Rig>,
    /// The driver under test.
    pub driver: Arc<dyn Driver>,
    specs: Arc<Mutex<Vec<GuestSpec>>>,
}

/// Runs one behaviour and removes what it made, also when it fails.
pub async fn run<F, Fut>(rig: Arc<dyn Rig>, behaviour: F)
where
    F: FnOnce(Lab) -> Fut,
    Fut: Future<Output = ()>,
{
    let lab = Lab { driver: rig.driver(), rig, specs: Arc::default() };
    let outcome = AssertUnwindSafe(behaviour(lab.clone())).catch_unwind().await;
    lab.rig.fault(Fault::None).await;
    let specs = lab.specs.lock().unwrap().clone();
    for spec in &specs {
        lab.rig.remove(spec).await;
    }
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure);
    }
}

impl Lab {
    /// A spec whose guest is removed after the test.
    pub async fn spec(&self) -> GuestSpec {
        let spec = self.rig.spec().await;
        self.specs.lock().unwrap().push(spec.clone());
        spec
    }

    /// Waits for a task's end.
    pub async fn end(&self, task: Task) -> Result<()> {
        let Task::Running(id) = task else { return Ok(()) };
        wait_for(&format!("the end of {id:?}"), async || match self.driver.task(&id).await {
            Ok(state @ TaskState::Running(_)) => Err(state),
            Ok(TaskState::Succeeded(_)) => Ok(Ok(())),
            Ok(TaskState::Failed(error)) | Err(error) => Ok(Err(error)),
            Ok(TaskState::Unknown) => panic!("the host forgot {id:?} while it was looked at"),
        })
        .await
    }

    /// Waits for a task that must end well.
    pub async fn done(&self, task: Result<Task>) {
        self.end(task.unwrap()).await.unwrap();
    }

    /// A stopped guest.
    pub async fn stopped(&self) -> GuestSpec {
        let spec = self.spec().await;
        self.done(self.driver.create(&spec).await).await;
        self.driver.prepare(&spec).await.unwrap();
        spec
    }

    /// A running guest whose init is up.
    pub async fn running(&self) -> GuestSpec {
        let spec = self.spec().await;
        self.run(&spec).await;
        spec
    }

    /// Makes and starts a guest, and waits until its init is up.
    pub async fn run(&self, spec: &GuestSpec) {
        self.done(self.driver.create(spec).await).await;
        self.driver.prepare(spec).await.unwrap();
        self.done(self.driver.start(&spec.guest).await).await;
        self.up(&spec.guest).await;
    }

    /// A guest's link-local address; empty where it has none yet.
    async fn link_local(&self, spec: &GuestSpec) -> String {
        let script = "ip -6 -o addr show dev eth0 scope link -tentative | sed -n 's,.*inet6 \\([^/]*\\)/.*,\\1,p'";
        self.sh(&spec.guest, script).await.trim().to_owned()
    }

    /// What differs from one boot of a running guest to its next.
    pub async fn boot(&self, spec: &GuestSpec) -> String {
        match self.rig.boot(spec).await {
            Some(boot) => boot,
            None => {
                self.output_of(&spec.guest, "cat /proc/sys/kernel/random/boot_id; cut -d ' ' -f 22 /proc/1/stat").await
            }
        }
    }

    /// Waits until a guest's init is up (degraded will do).
    pub async fn up(&self, guest: &GuestRef) {
        if !self.rig.has_insides() {
            assert_eq!(self.power(guest).await, Some(GuestPower::Running));
            return;
        }
        self.eventually("the guest is up", async || {
            let state =
                self.driver.exec(guest, &["systemctl", "is-system-running"], b"", Duration::from_secs(10)).await;
            state.is_ok_and(|o| ["running", "degraded"].contains(&String::from_utf8_lossy(&o.stdout).trim()))
        })
        .await;
    }

    /// Waits until something holds.
    pub async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        wait_for(what, async || holds().await.then_some(())).await;
    }

    /// Runs a command that must end well and gives its standard output.
    pub async fn sh(&self, guest: &GuestRef, script: &str) -> String {
        let output = self.exec(guest, &["sh", "-ec", script]).await;
        assert_eq!(output.status, 0, "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for a command that prints something.
    pub async fn output_of(&self, guest: &GuestRef, script: &str) -> String {
        let output = self.heard(guest, &["sh", "-ec", script], b"").await;
        assert_eq!(output.status, 0, "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that prints something. A busy Incus sometimes loses all of a command's output, and is then asked
    /// again.
    pub async fn heard(&self, guest: &GuestRef, argv: &[&str], stdin: &[u8]) -> ExecOutput {
        let mut output = None;
        self.eventually("the command prints something", async || {
            let ran = self.driver.exec(guest, argv, stdin, Duration::from_secs(30)).await.unwrap();
            let is_silent = ran.stdout.is_empty() && ran.stderr.is_empty();
            output = Some(ran).filter(|_| !is_silent);
            !is_silent
        })
        .await;
        output.unwrap()
    }

    /// Runs a command without input.
    pub async fn exec(&self, guest: &GuestRef, argv: &[&str]) -> ExecOutput {
        self.driver.exec(guest, argv, b"", Duration::from_secs(30)).await.unwrap()
    }

    /// How a guest stands, or `None` where it is absent.
    pub async fn power(&self, guest: &GuestRef) -> Option<GuestPower> {
        match self.driver.find(guest).await.unwrap() {
            Presence::Present { power, .. } => Some(power),
            Presence::Absent => None,
        }
    }
}

/// Asserts the kind of an error.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, right: impl FnOnce(&Error) -> bool) {
    match result {
        Err(error) => assert!(right(&error), "the wrong error: {error:?}"),
        Ok(value) => panic!("should have been refused, gave {value:?}"),
    }
}

/// Makes a test of each behaviour. `$rig` is an async function that gives an `Arc<dyn Rig>`; then come the parts of the
/// suite that not every rig has: `insides`, `half_made_guests`, `paused_guests`.
#[macro_export]
macro_rules! conformance_tests {
    ($rig:path $(, $part:ident)* $(,)?) => {
        $crate::conformance_tests!(@each $rig;
            info_names_the_host_and_no_problem, images_are_found_by_kind, a_guest_is_made_once_and_stopped,
            power_calls_may_be_repeated, a_guest_that_won_t_stop_is_forced, a_guest_that_won_t_restart_is_forced,
            a_running_guest_is_not_deleted, a_protected_guest_is_told_before_it_is_touched,
            what_could_not_be_made_is_told_before, cores_memory_and_disk_grow_live, a_disk_does_not_shrink,
            a_network_keeps_to_its_rate, a_full_spec_is_asked_for, strangers_are_never_touched,
            an_unreachable_host_is_not_an_empty_one, a_lost_answer_is_no_failure, a_forgotten_task_is_unknown,
            another_process_carries_a_task_on, a_sweep_costs_the_same_for_any_number, a_sweep_has_true_figures,
            a_stopped_guest_runs_nothing, snapshots_are_kept_in_order, a_roll_back_restores_files,
            a_roll_back_keeps_size_and_rest, snapshot_calls_may_be_repeated, only_a_running_guest_has_a_console,
        );
        $( $crate::conformance_tests!(@part $part $rig); )*
    };
    // Programs, files and traffic of real guests.
    (@part insides $rig:path) => {
        $crate::conformance_tests!(@each $rig;
            a_password_is_set_and_works, commands_are_vectors_and_not_shell, commands_end_in_time,
            large_output_is_cut, the_guest_is_what_was_ordered, a_gateway_may_be_elsewhere_on_the_link,
            a_guest_can_t_take_another_s_address, guests_reach_each_other, a_task_that_the_host_forgot_is_repeated,
            a_guest_that_can_t_boot_leaves_its_last_words, a_sweep_counts_what_a_guest_uses,
            a_console_shows_what_is_typed, a_console_can_be_opened_again, a_console_ends_with_its_guest,
        );
    };
    // Where a killed creation leaves something that a driver can clear up.
    (@part half_made_guests $rig:path) => {
        $crate::conformance_tests!(@each $rig; a_half_made_guest_is_made_again);
    };
    // Where guests can be halted.
    (@part paused_guests $rig:path) => {
        $crate::conformance_tests!(@each $rig; a_paused_guest_is_shown_as_such_and_woken);
    };
    (@each $rig:path; $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::run($rig().await, $crate::$name).await;
            }
        )*
    };
}
