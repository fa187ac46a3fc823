//! Slow heads, bodies and readers, on every path there is: each connection ends, and nobody can have all of them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::TestApp;

/// Far more than any of the settings here, and less than what would end by itself.
const SOON: Duration = Duration::from_secs(20);

const PATHS: [&str; 7] = [
    "/api/auth/login",
    "/api/server",
    "/api/docs/swagger-ui-bundle.js",
    "/console/socket",
    "/console/",
    "/health/ready",
    "/socket.io/?EIO=4&transport=polling",
];

async fn hasty(request_seconds: u32) -> (TestApp, SocketAddr) {
    let app = TestApp::with(|c| {
        (c.head_seconds, c.request_seconds, c.write_seconds) = (2, request_seconds, 2);
        (c.rate_limit_address, c.max_connections, c.max_connections_address) = (1_000_000, 400, Some(400));
    })
    .await;
    let at = app.base.trim_start_matches("http://").parse().unwrap();
    (app, at)
}

/// Reads to the end, which may be a reset.
async fn ends(mut stream: TcpStream) {
    let mut buf = [0; 4096];
    while let Ok(1..) = stream.read(&mut buf).await {}
}

/// Sends these one after the other, with a pause before each, until the other side has had enough.
async fn drip(at: SocketAddr, first: String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(first.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let dripping = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if writer.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let reading = async {
        let mut buf = [0; 4096];
        while let Ok(1..) = reader.read(&mut buf).await {}
    };
    tokio::select! {
        () = dripping => {}
        () = reading => {}
    }
}

/// The session id of a session of the live view that has begun.
async fn begun(app: &TestApp) -> String {
    let answer = app.nobody.get("/socket.io/?EIO=4&transport=polling").await.expect(200).text;
    answer.split('"').nth(3).unwrap().to_owned()
}

async fn all_end(what: &str, each: Vec<(String, impl Future<Output = ()> + Send + 'static)>) {
    let each: Vec<_> = each.into_iter().map(|(path, one)| (path, tokio::spawn(timeout(SOON, one)))).collect();
    for (path, one) in each {
        assert!(one.await.unwrap().is_ok(), "{what} of {path} holds its connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_head_ends_on_every_path() {
    let (_app, at) = hasty(120).await;
    let each = PATHS.map(|path| (path.to_owned(), drip(at, format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Slow: "))));
    all_end("a slow head", each.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_ends_on_every_path() {
    let (app, at) = hasty(2).await;
    let mut paths: Vec<String> = PATHS.map(str::to_owned).into();
    paths.push(format!("{}&sid={}", PATHS[6], begun(&app).await));
    let head = "Host: x\r\nContent-Type: application/json\r\nContent-Length: 10000";
    let each = paths.into_iter().map(|path| {
        let first = format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n");
        (path, drip(at, first))
    });
    all_end("a slow body", each.collect()).await;
}

/// Requests without end, and not one answer read.
async fn never_reads(at: SocketAddr, path: String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(20);
    while stream.write_all(request.as_bytes()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_ends_on_every_path() {
    let (app, at) = hasty(120).await;
    // The kernel takes some megabytes for a client: what has short answers would have to be asked for very often.
    let paths =
        ["/api/docs/swagger-ui-bundle.js", "/api/openapi.json", "/console/", "/socket.io/?EIO=4&transport=none"];
    let each = paths.map(str::to_owned).into_iter().map(|path| (path.clone(), never_reads(at, path)));
    all_end("a reader that reads nothing", each.collect()).await;
    app.nobody.get("/health/live").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_can_t_have_all_connections() {
    let app = TestApp::with(|c| (c.max_connections, c.head_seconds, c.request_seconds) = (40, 3600, 3600)).await;
    let at: SocketAddr = app.base.trim_start_matches("http://").parse().unwrap();
    let mut held = vec![];
    for _ in 0..60 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(at).await.unwrap();
        // One without a place is closed.
        let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\n").await;
        held.push(stream);
    }
    // Somebody else, and who has the places already.
    let open = timeout(SOON, app.nobody.get("/health/live")).await.expect("there is a place for others");
    open.expect(200);
    let at_home = reqwest::Client::builder().local_address(Some("127.0.0.2".parse().unwrap())).build().unwrap();
    assert!(at_home.get(format!("{}/health/live", app.base)).send().await.is_err(), "more places than there are");
    // Given up, they are free.
    drop(held);
    crate::support::wait_for("a place for who gave up theirs", async || {
        at_home.get(format!("{}/health/live", app.base)).send().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_more_is_let_go() {
    let (_app, at) = hasty(120).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    timeout(SOON, ends(stream)).await.expect("an idle connection is closed");
}
