use std::collections::BTreeSet;
use std::sync::Mutex;

use hypervisor::{GuestKind, GuestPower, GuestRef, GuestSample, Presence, Result, Sweep};

use super::*;

/// Behaviour of a test host.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Hung,
    Broken,
    Panics,
    /// Works, but finding its address takes us longer than its timeout.
    Obscure,
}

#[derive(Debug)]
struct Fake(Mood);

#[async_trait]
impl Inventory for Fake {
    async fn sweep(&self) -> Result<Sweep> {
        match self.0 {
            Mood::Hung => std::future::pending().await,
            Mood::Broken => return Err(Error::Unreachable("refused".into())),
            Mood::Panics => panic!("a bug"),
            Mood::Well | Mood::Obscure => {}
        }
        let guest = GuestSample {
            marker: Uuid::nil(),
            vmid: 100,
            kind: GuestKind::Lxc,
            created_at: None,
            node: "n1".into(),
            power: GuestPower::Running,
            reason: None,
            uptime_s: Some(10),
            cpu: Some(0.5),
            cpu_time_ns: None,
            cores: 1,
            memory_used: Some(1),
            memory_max: Some(2),
            disk_used: Some(1),
            disk_max: Some(2),
            net_in: Some(0),
            net_out: Some(0),
        };
        let coverage = Coverage::default();
        Ok(Sweep { taken_at: Utc::now(), lag: Duration::ZERO, nodes: vec![], guests: vec![guest], coverage })
    }

    async fn find(&self, _: &GuestRef) -> Result<Presence> {
        unimplemented!()
    }
}

/// A fleet in memory: the behaviour of each host, claims as the database would give them, and the results.
#[derive(Debug, Default)]
struct Hotel {
    hosts: Mutex<HashMap<i64, Mood>>,
    claims: Mutex<HashMap<i64, Instant>>,
    stored: Mutex<Vec<(i64, Instant)>>,
    failed: Mutex<Vec<(i64, Error)>>,
}

impl Hotel {
    fn with(hosts: &[(i64, Mood)]) -> Arc<Self> {
        let hotel = Self::default();
        hotel.hosts.lock().unwrap().extend(hosts.iter().map(|(id, mood)| (*id, *mood)));
        Arc::new(hotel)
    }

    fn times(&self, host: i64) -> Vec<Instant> {
        self.stored.lock().unwrap().iter().filter(|(h, _)| *h == host).map(|(_, t)| *t).collect()
    }
}

#[async_trait]
impl SweepBackend for Hotel {
    type Error = String;

    async fn hosts(&self) -> Result<Vec<i64>, String> {
        Ok(self.hosts.lock().unwrap().keys().copied().collect())
    }
    async fn driver(&self, host: i64) -> Result<Arc<dyn Inventory>, String> {
        let mood = *self.hosts.lock().unwrap().get(&host).ok_or("gone")?;
        if mood == Mood::Obscure {
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(Arc::new(Fake(mood)))
    }
    async fn claim(&self, host: i64, interval: Duration) -> Result<SweepClaim, String> {
        let mut claims = self.claims.lock().unwrap();
        let now = Instant::now();
        match claims.get(&host).map(|at| *at + interval.mul_f64(0.95)) {
            Some(due) if due > now => Ok(SweepClaim::Due(due - now)),
            _ => {
                claims.insert(host, now);
                Ok(SweepClaim::Ours(Utc::now()))
            }
        }
    }
    async fn store(&self, host: i64, report: SweepReport) -> Result<(), String> {
        assert_eq!(report.samples.len(), 1);
        self.stored.lock().unwrap().push((host, Instant::now()));
        Ok(())
    }
    async fn failed(&self, host: i64, error: Error) -> Result<(), String> {
        self.failed.lock().unwrap().push((host, error));
        Ok(())
    }
}

const INTERVAL: Duration = Duration::from_secs(30);

async fn watch(hotel: &Arc<Hotel>, processes: usize, time: Duration, meanwhile: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let running: Vec<_> = (0..processes)
        .map(|_| {
            let (hotel, stop) = (Arc::clone(hotel), stop.clone());
            tokio::spawn(async move { Sweeper::every(INTERVAL).run(hotel, stop).await })
        })
        .collect();
    meanwhile.await;
    tokio::time::sleep(time).await;
    stop.cancel();
    for task in running {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_delays_nobody_and_says_so() {
    let hotel = Hotel::with(&[(1, Mood::Well), (2, Mood::Hung), (3, Mood::Broken), (4, Mood::Panics)]);
    watch(&hotel, 1, Duration::from_secs(299), async {}).await;
    let times = hotel.times(1);
    assert_eq!(times.len(), 10, "one sweep per interval");
    for pair in times.windows(2) {
        let gap = (pair[1] - pair[0]).as_secs_f64();
        assert!((29.9..30.1).contains(&gap), "the rate is fixed, but the gap was {gap} s");
    }
    let failed = hotel.failed.lock().unwrap();
    assert_eq!(failed.iter().map(|(h, _)| *h).collect::<BTreeSet<_>>(), BTreeSet::from([2, 3]));
    assert_eq!(failed.iter().filter(|(h, _)| *h == 2).count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_host_is_not_blamed_for_the_time_that_we_take_ourselves() {
    let hotel = Hotel::with(&[(1, Mood::Obscure)]);
    Sweeper::every(INTERVAL).once(Arc::clone(&hotel)).await.unwrap();
    assert_eq!(*hotel.failed.lock().unwrap(), vec![]);
    assert_eq!(hotel.times(1).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn several_processes_share_and_one_that_dies_is_replaced_within_an_interval() {
    let hotel = Hotel::with(&[(1, Mood::Well)]);
    let stop = CancellationToken::new();
    let doomed = tokio::spawn({
        let (hotel, stop) = (Arc::clone(&hotel), stop.clone());
        async move { Sweeper::every(INTERVAL).run(hotel, stop).await }
    });
    watch(&hotel, 2, Duration::from_mins(5), async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        stop.cancel();
        doomed.await.unwrap();
    })
    .await;
    let times = hotel.times(1);
    assert!((12..=15).contains(&times.len()), "{} sweeps in 400 s", times.len());
    for pair in times.windows(2) {
        let gap = (pair[1] - pair[0]).as_secs_f64();
        assert!((28.0..33.0).contains(&gap), "the gap was {gap} s");
    }
}

#[tokio::test(start_paused = true)]
async fn all_are_swept_once_when_that_is_asked_for() {
    let hotel = Hotel::with(&[(1, Mood::Well), (2, Mood::Hung), (3, Mood::Broken), (4, Mood::Well)]);
    for round in 1..=2 {
        Sweeper::every(INTERVAL).once(Arc::clone(&hotel)).await.unwrap();
        assert_eq!((hotel.times(1).len(), hotel.times(4).len()), (round, round), "swept whether due or not");
        assert_eq!(hotel.failed.lock().unwrap().len(), 2 * round);
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_come_go_and_change() {
    let hotel = Hotel::with(&[(1, Mood::Well)]);
    watch(&hotel, 1, Duration::from_secs(100), async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        let mut hosts = hotel.hosts.lock().unwrap();
        hosts.remove(&1);
        hosts.insert(2, Mood::Broken);
    })
    .await;
    let before = hotel.times(1).len();
    assert!((3..=4).contains(&before), "{before}");
    assert!(hotel.times(2).is_empty());
    watch(&hotel, 1, Duration::from_secs(100), async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        hotel.hosts.lock().unwrap().insert(2, Mood::Well);
    })
    .await;
    assert_eq!(hotel.times(1).len(), before, "a removed host is no longer swept");
    assert!(hotel.times(2).len() >= 3, "changed settings are used");
}
