//! Slow heads and bodies on every path, and slow readers: each connection is closed, and nobody can take all of them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::app::document;
use crate::support::wait::PATIENCE;
use crate::support::{Client, TestApp, expect_error};

/// Far longer than any limit set here, and shorter than any default.
const SOON: Duration = Duration::from_secs(20);

/// What is served beside the document's routes.
const PAGES: [&str; 10] = [
    "/",
    "/api/docs/swagger-ui-bundle.js",
    "/api/nothing",
    "/api/openapi.json",
    "/console/",
    "/console/socket",
    "/health/ready",
    "/metrics",
    POLLING,
    "/socket.io/?EIO=4&transport=websocket",
];

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// Every route of the OpenAPI document, by method, with ids of nothing.
fn routes() -> Vec<(String, String)> {
    let document = document();
    let mut routes = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut path = path.clone();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let id = if parameter["schema"]["type"] == "integer" { "999999999" } else { NOTHING };
                path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), id);
            }
            assert!(!path.contains('{'), "{path}");
            routes.push((method.to_uppercase(), path));
        }
    }
    assert!(routes.len() > 100, "{routes:?}");
    routes
}

const NOTHING: &str = "00000000-0000-4000-8000-000000000000";

async fn impatient_app(request_seconds: u32) -> (TestApp, SocketAddr) {
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

/// Sends a head and then single bytes, with a pause before each, until the other side closes.
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

/// The id of a new live view session.
async fn begun(app: &TestApp) -> String {
    let answer = app.nobody.get("/socket.io/?EIO=4&transport=polling").await.expect(200).text;
    answer.split('"').nth(3).unwrap().to_owned()
}

async fn all_end(what: &str, each: Vec<(String, impl Future<Output = ()> + Send + 'static)>) {
    let each: Vec<_> = each.into_iter().map(|(path, one)| (path, tokio::spawn(timeout(SOON, one)))).collect();
    for (path, one) in each {
        assert!(one.await.unwrap().is_ok(), "{what} on {path} keeps its connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_request_heads_time_out_on_every_path() {
    let (_app, at) = impatient_app(120).await;
    let pages = PAGES.map(|path| ("GET".to_owned(), path.to_owned()));
    let each = routes().into_iter().chain(pages).map(|(method, path)| {
        let first = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nX-Slow: ");
        (format!("{method} {path}"), drip(at, first))
    });
    all_end("a slow head", each.collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_request_bodies_time_out_on_every_path() {
    expect_error("TOO_SLOW");
    let (app, at) = impatient_app(2).await;
    let session = format!("{POLLING}&sid={}", begun(&app).await);
    let pages = PAGES.iter().copied().chain([session.as_str()]).map(|path| ("POST".to_owned(), path.to_owned()));
    let head = "Host: x\r\nContent-Type: application/json\r\nContent-Length: 10000";
    let slow = |method: &str, path: &str, by: Option<&Client>| {
        let token =
            by.and_then(|client| client.token.as_deref()).map(|token| format!("Authorization: Bearer {token}\r\n"));
        let first = format!("{method} {path} HTTP/1.1\r\n{}{head}\r\n\r\n", token.unwrap_or_default());
        (format!("{method} {path}"), drip(at, first))
    };
    // Where a caller is needed, only a known one's body is waited for: the provider's, but where logins may end.
    let known = |path: &str| if path.starts_with("/api/auth/") { &app.customer } else { &app.provider };
    let mut each: Vec<_> = pages.map(|(method, path)| slow(&method, &path, None)).collect();
    each.extend(routes().iter().map(|(method, path)| slow(method, path, Some(known(path)))));
    all_end("a slow body", each).await;
}

/// Endless requests, and not one answer is read. Returns whether the other side closes soon after it stopped reading.
async fn request_without_reading(at: SocketAddr, path: &'static str) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(20);
    loop {
        match timeout(SOON, stream.write_all(request.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return true,
            Err(_) => return false,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_are_disconnected() {
    let (app, at) = impatient_app(120).await;
    // The kernel buffers some megabytes per client: of short answers, as most routes give, that would be a great many.
    // All are written to the same kind of connection, which is what waits.
    let paths =
        ["/api/docs/swagger-ui-bundle.js", "/api/openapi.json", "/console/", "/socket.io/?EIO=4&transport=none"];
    for (path, closes) in paths.map(|path| (path, tokio::spawn(request_without_reading(at, path)))) {
        let closes = timeout(PATIENCE, closes).await.unwrap_or_else(|_| panic!("{path} is answered for ever")).unwrap();
        assert!(closes, "a reader that reads nothing on {path} keeps its connection");
    }
    app.nobody.get("/health/live").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_can_t_take_all_connections() {
    let app = TestApp::with(|c| (c.max_connections, c.head_seconds, c.request_seconds) = (40, 3600, 3600)).await;
    let at: SocketAddr = app.base.trim_start_matches("http://").parse().unwrap();
    let mut held = vec![];
    for _ in 0..60 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(at).await.unwrap();
        // A connection without a slot is closed.
        let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\n").await;
        held.push(stream);
    }
    // Somebody else gets a slot; the address that has its share does not.
    let open = timeout(SOON, app.nobody.get("/health/live")).await.expect("there is a slot for others");
    open.expect(200);
    let at_home = reqwest::Client::builder().local_address(Some("127.0.0.2".parse().unwrap())).build().unwrap();
    assert!(at_home.get(format!("{}/health/live", app.base)).send().await.is_err(), "more than its share of slots");
    // Released slots are free again.
    drop(held);
    crate::support::wait_for("a slot after releasing them", async || {
        at_home.get(format!("{}/health/live", app.base)).send().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed() {
    let (_app, at) = impatient_app(120).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    timeout(SOON, ends(stream)).await.expect("an idle connection is closed");
}
