//! Traffic is metered from what the host sees of a server, whatever happens inside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hypervisor::{Driver, GuestKind, GuestRef};
use watch::sweep::sweep_now;

use crate::support::wait::PATIENCE;
use crate::support::{Lab, TestApp, ended, wait_for};

/// Payload of a datagram, and its size on the wire, with UDP, IP and Ethernet headers.
const PAYLOAD: usize = 1400;
const FRAME: i64 = 1442;

struct Metered {
    app: TestApp,
    lab: Lab,
    path: String,
    guest: GuestRef,
    driver: Arc<dyn Driver>,
}

impl Metered {
    async fn new() -> Self {
        let app = TestApp::new().await;
        let lab = Lab::new(&app.db).await;
        let catalogue = lab.register(&app.provider).await;
        let made = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
        assert_eq!(ended(&app.customer, &made["operationId"]).await["state"], "succeeded");
        let (marker, vmid, node): (uuid::Uuid, i64, String) =
            sqlx::query_as("select uuid, guest_number, node from servers").fetch_one(&app.db.pool).await.unwrap();
        let metered = Self {
            path: format!("/api/server/{}", made["id"]),
            guest: GuestRef { marker, vmid, kind: GuestKind::Lxc, node },
            driver: lab.incus.driver(),
            app,
            lab,
        };
        metered.listening().await;
        metered
    }

    fn address(&self) -> Ipv4Addr {
        self.lab.first
    }

    async fn listening(&self) {
        let at = SocketAddr::from((self.address(), 22));
        wait_for("the server's SSH", async || tokio::net::TcpStream::connect(at).await).await;
    }

    async fn sh(&self, script: &str) {
        let out = self.driver.exec(&self.guest, &["bash", "-c", script], b"", PATIENCE).await.unwrap();
        assert_eq!(out.status, 0, "{script}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Bytes received and sent this month, after a sweep.
    async fn traffic(&self) -> (i64, i64) {
        sweep_now(&self.app.service.features.sweeps).await.unwrap();
        let months = self.app.customer.get(&format!("{}/traffic", self.path)).await.expect(200).body;
        let month = &months["months"][0];
        (month["received"].as_i64().unwrap(), month["sent"].as_i64().unwrap())
    }

    /// Sends the server this many datagrams.
    async fn receive(&self, datagrams: i64) {
        let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
        for _ in 0..datagrams {
            socket.send_to(&[0; PAYLOAD], (self.address(), 9)).await.unwrap();
            // The first ones wait for address resolution, and only a few can.
            tokio::task::yield_now().await;
        }
    }
}

/// Whether it grew by this many datagrams and little else: neighbours send packets, too.
#[track_caller]
fn grew(before: i64, after: i64, datagrams: i64, what: &str) {
    let (least, grown) = (datagrams * FRAME, after - before);
    assert!(grown >= least && grown < least + least / 4 + 200_000, "{what}: {grown} bytes for {datagrams} datagrams");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_is_counted_whatever_a_server_does_with_its_interface() {
    let metered = Metered::new().await;
    let (gateway, address) = (metered.lab.incus.gateway, metered.address());
    let prefix = metered.lab.incus.subnet.prefix_len();
    let sends = |datagrams: i64| {
        format!("for i in $(seq {datagrams}); do head -c {PAYLOAD} /dev/zero > /dev/udp/{gateway}/9 || true; done")
    };
    let before = metered.traffic().await;
    metered.receive(500).await;
    metered.sh(&sends(300)).await;
    let plain = metered.traffic().await;
    grew(before.0, plain.0, 500, "received");
    grew(before.1, plain.1, 300, "sent");

    // Renamed, and moved into another namespace; beside many more interfaces of the server's own.
    metered
        .sh(&format!(
            "ip netns add hidden && ip link set eth0 down && ip link set eth0 name lan0 \
             && ip link set lan0 netns hidden \
             && nsenter --net=/run/netns/hidden sh -c 'ip addr add {address}/{prefix} dev lan0 && ip link set lan0 up' \
             && for i in $(seq 100); do ip link add v$i type veth peer name w$i; done"
        ))
        .await;
    let hidden = metered.traffic().await;
    // Nothing listens there, and the server says so: it is reachable.
    let at = SocketAddr::from((address, 22));
    wait_for("the hidden interface", async || match tokio::net::TcpStream::connect(at).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    metered.receive(500).await;
    metered.sh(&format!("nsenter --net=/run/netns/hidden bash -c '{}'", sends(300))).await;
    let moved = metered.traffic().await;
    grew(hidden.0, moved.0, 500, "received by a hidden interface");
    grew(hidden.1, moved.1, 300, "sent by a hidden interface");
    assert!(metered.driver.interfaces(&metered.guest).await.unwrap().len() <= 64);

    // Restarted between two sweeps, after which it counts from 0 and past its old count.
    let restarted = metered.app.customer.post(&format!("{}/restart", metered.path), None).await.expect(200).body;
    assert_eq!(ended(&metered.app.customer, &restarted["operationId"]).await["state"], "succeeded");
    metered.listening().await;
    metered.receive(2000).await;
    let anew = metered.traffic().await;
    grew(moved.0, anew.0, 2000, "received since the restart");
}
