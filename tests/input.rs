//! Bad input: a clear 4xx that names the field, and nothing changed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::TestApp;

async fn rows(app: &TestApp) -> Vec<i64> {
    let mut counts = vec![];
    for table in ["users", "tariffs", "images", "hosts", "address_pools", "addresses", "servers", "operations", "mails"]
    {
        let sql = format!("select count(*) from {table}");
        counts.push(sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&app.db.pool).await.unwrap());
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_request_bodies_are_refused_with_a_clear_error() {
    let app = TestApp::new().await;
    let before = rows(&app).await;
    let post = async |body: &[u8], kind: &str| app.customer.raw(Method::POST, "/api/server/create", kind, body).await;
    let json = "application/json";
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    for (body, status, code) in [
        (&b""[..], 400, "MALFORMED"),
        (b"{", 400, "MALFORMED"),
        (b"{\"osId\": 1, \"tariffId\": 1} extra", 400, "MALFORMED"),
        (b"{\"osId\": 1, \"tariffId\": \xff}", 400, "MALFORMED"),
        (b"null", 422, "INVALID"),
        (b"[]", 422, "INVALID"),
        (b"{}", 422, "INVALID"),
        (b"{\"osId\": 1}", 422, "INVALID"),
        (b"{\"osId\": \"1\", \"tariffId\": 1}", 422, "INVALID"),
        (b"{\"osId\": 1.5, \"tariffId\": 1}", 422, "INVALID"),
        (b"{\"osId\": 1, \"osId\": 2, \"tariffId\": 1}", 422, "INVALID"),
        (b"{\"osId\": 99999999999999999999, \"tariffId\": 1}", 422, "INVALID"),
        (b"{\"osId\": 1e400, \"tariffId\": 1}", 400, "MALFORMED"),
        (b"{\"osId\": -1, \"tariffId\": 1}", 422, "INVALID"),
        (b"{\"osId\": 1, \"tariffId\": 1, \"memory\": 4096}", 422, "INVALID"),
        (&deep, 422, "INVALID"),
    ] {
        let answer = post(body, json).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((answer.status, answer.code()), (status, code), "{shown}: {}", answer.text);
        assert!(answer.body["error"].as_str().unwrap().len() > 10, "{}", answer.text);
        assert!(answer.body["requestId"].is_string());
    }
    assert_eq!(post(b"osId=1", "application/x-www-form-urlencoded").await.expect(415).code(), "UNSUPPORTED_MEDIA_TYPE");
    let large = format!("{{\"osId\": 1, \"tariffId\": 1, \"name\": \"{}\"}}", "a".repeat(10_000_000));
    match app.customer.try_send(Method::POST, "/api/server/create", Some((json, large.into_bytes()))).await {
        Ok(answer) => assert_eq!(answer.expect(413).code(), "TOO_LARGE"),
        // The server may close before everything is sent.
        Err(error) => assert!(error.is_request() || error.is_body(), "{error}"),
    }
    assert_eq!(rows(&app).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_bad_field() {
    let app = TestApp::new().await;
    let before = rows(&app).await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me";
    for (field, value) in [
        ("name", json!("a\r\nb")),
        ("name", json!("nul\0")),
        ("name", json!("../../etc")),
        ("name", json!("-web")),
        ("name", json!("a".repeat(300))),
        ("name", json!(format!("{}.example.com", "c".repeat(60)))),
        ("name", json!("\u{202e}web")),
        ("name", json!(7)),
        ("sshKeys[0]", json!(["not a key"])),
        ("sshKeys[0]", json!([format!("{key}\ncommand=\"x\" {key}")])),
        ("sshKeys[0]", json!(["ssh-ed25519 AAAAAAAAAAAAAAAAAAAAAAA="])),
        ("sshKeys[0]", json!([key.replace("ssh-ed25519", "ssh-rsa")])),
        ("sshKeys[0]", json!([&key[..70]])),
        ("sshKeys", json!(vec![key; 21])),
    ] {
        let name = field.split('[').next().unwrap();
        let mut body = json!({ "osId": 1, "tariffId": 1 });
        body[name] = value.clone();
        let answer = app.customer.post("/api/server/create", body).await.expect(422);
        let fields = answer.body["details"]["fields"].as_object().unwrap();
        assert!(fields.contains_key(field), "{value}: {}", answer.text);
    }
    for id in ["abc", "1e3", "-", "99999999999999999999", "%00", "1%2F..", "0x1"] {
        app.customer.get(&format!("/api/server/{id}")).await.expect(400);
    }
    for id in ["0", "-1", "4711", "9223372036854775807"] {
        app.customer.get(&format!("/api/server/{id}")).await.expect(404);
    }
    for query in ["page=0", "limit=0", "limit=101", "page=x", "nonsense=1", "page=99999999999999999999"] {
        let answer = app.customer.get(&format!("/api/server?{query}")).await;
        assert!(matches!(answer.status, 400 | 422), "{query}: {}", answer.text);
    }
    assert_eq!(rows(&app).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ssh_key_pasted_with_a_trailing_newline_is_accepted() {
    let app = TestApp::new().await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me";
    let new = json!({ "name": "laptop", "publicKey": format!("{key}\r\n") });
    assert_eq!(app.customer.post("/api/ssh-keys", new).await.expect(201).body["publicKey"], key);
    for bad in [format!("{key}\n{key}"), key.replace("ssh-ed25519", "ssh-rsa"), "ssh-ed25519 AAAA me".to_owned()] {
        let new = json!({ "name": "bad", "publicKey": bad });
        let answer = app.customer.post("/api/ssh-keys", new).await.expect(422);
        assert!(answer.body["details"]["fields"]["publicKey"].is_string(), "{}", answer.text);
    }
    // An order's keys are checked before anything else in it.
    let order = json!({ "osId": 4711, "tariffId": 4711, "sshKeys": [format!("{key}\n")] });
    let answer = app.customer.post("/api/server/create", order).await.expect(422);
    assert!(answer.body["details"]["fields"].get("sshKeys[0]").is_none(), "{}", answer.text);
}

/// Every text field accepts any script, and no control characters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_stored_exactly_or_refused() {
    let app = TestApp::new().await;
    let tariff =
        |name: &str| json!({ "name": name, "kind": "lxc", "cores": 1, "memory": 512, "disk": 5, "price": 300 });
    for good in ["Базовый", "名前", "O'Brien \"& Söhne\" <b>", "a".repeat(100).as_str(), "; drop table users --"]
    {
        let made = app.provider.post("/api/tariffs", tariff(good)).await.expect(201).body;
        let read = app.customer.get(&format!("/api/tariffs/{}", made["id"])).await.expect(200).body;
        assert_eq!(read["name"], good);
    }
    for bad in ["", "   ", "a\0b", "a\nb", "\u{1b}[2J", "a\u{202e}b", "a".repeat(101).as_str()] {
        let answer = app.provider.post("/api/tariffs", tariff(bad)).await.expect(422);
        assert!(answer.body["details"]["fields"]["name"].is_string(), "{bad:?}: {}", answer.text);
    }
    for (field, value) in [
        ("cores", json!(0)),
        ("cores", json!(-1)),
        ("cores", json!(1_000_000)),
        ("memory", json!(0)),
        ("memory", json!(i64::MAX)),
        ("disk", json!(0)),
        ("price", json!(-1)),
        ("price", json!("300")),
        ("kind", json!("jail")),
    ] {
        let mut body = tariff("numbers");
        body[field] = value.clone();
        let answer = app.provider.post("/api/tariffs", body).await.expect(422);
        let fields: Vec<_> = answer.body["details"]["fields"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, [field], "{value}: {}", answer.text);
    }
    let login = |email: Value| json!({ "email": email, "password": "whatever" });
    for bad in [json!("a\0@example.com"), json!(""), json!(null), json!(["a"]), json!("a".repeat(10_000))] {
        app.nobody.post("/api/auth/login", login(bad)).await.expect(422);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_carry_security_headers_and_a_request_id() {
    let app = TestApp::new().await;
    let answer = app.customer.get("/api/server").await.expect(200);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["x-frame-options"], "DENY");
    let id = answer.headers["x-request-id"].to_str().unwrap();
    assert!(id.len() >= 32, "{id}");

    let docs = app.nobody.get("/api/docs/").await.expect(200);
    assert!(docs.text.contains("swagger"), "{}", docs.text);
    assert!(!docs.text.contains("https://"), "the docs are served offline: {}", docs.text);
    let figures = app.figures().await;
    assert!(figures.contains("innkeeper_http_requests_total"), "{figures}");
}

/// A connection that never completes its request is closed, and does not hold its slot for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_requests_time_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let app = TestApp::with(|c| (c.head_seconds, c.max_connections, c.max_connections_address) = (1, 6, Some(6))).await;
    let address = app.base.trim_start_matches("http://").to_owned();
    let mut halves = Vec::new();
    for half in ["", "GET /health/live HTTP/1.1\r\nHost: x\r\n", "POST /api/auth/login HTTP/1.1\r\nX: ", "GET"] {
        for _ in 0..4 {
            let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            halves.push(stream);
        }
    }
    // More than there are slots for: a client that comes later is still served.
    let quick = std::time::Duration::from_secs(20);
    tokio::time::timeout(quick, app.nobody.get("/health/live")).await.unwrap().expect(200);
    for mut half in halves {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(quick, half.read_to_end(&mut rest)).await.expect("the server closes it");
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    }
}
