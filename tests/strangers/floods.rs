//! Floods by unauthenticated clients, against the program as a child process: memory, log and statements stay bounded.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;

use crate::support::child::Service;
use crate::support::{Client, PASSWORD, TestDb, wait_for};

const MIB: u64 = 1024;

/// With the default settings, but for the log and a trusted proxy that reports the clients' addresses.
async fn service(db: &TestDb, data: &std::path::Path) -> Service {
    let settings = [
        ("INNKEEPER_RATE_LIMIT_ADDRESS", "600"),
        ("INNKEEPER_LOG", "info"),
        ("INNKEEPER_TRUSTED_PROXIES", "127.0.0.0/8"),
    ];
    Service::start_with(db, data, &settings).await
}

/// Statements (and transactions) that this database has finished so far, once all of them are counted.
async fn statements(db: &PgPool) -> i64 {
    let mut before = -1;
    wait_for("the database's statistics to settle", async || {
        let sql = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
        let now: i64 = sqlx::query_scalar(sql).fetch_one(db).await.unwrap();
        // This query is one itself.
        let still = now - before <= 2;
        before = now;
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        if still { Ok(now) } else { Err(now) }
    })
    .await
}

async fn from(client: &Client, address: &str, path: &str, token: Option<&str>) -> StatusCode {
    let mut request = client.http.get(format!("{}{path}", client.base)).header("x-forwarded-for", address);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_view_sessions_are_refused_before_they_cost_memory() {
    let (db, data) = (TestDb::new().await, tempfile::tempdir().unwrap());
    let service = service(&db, data.path()).await;
    let client = Client::new(&service.base, None);
    let begin = "/socket.io/?EIO=4&transport=polling";
    let all = async |address: &'static str, times: usize| {
        let lines = (0..8).map(async |_| {
            let mut fine = 0;
            for _ in 0..times / 8 {
                fine += usize::from(from(&client, address, begin, None).await == StatusCode::OK);
            }
            fine
        });
        join_all(lines).await.into_iter().sum::<usize>()
    };
    all("192.0.2.1", 80).await;
    let before = service.memory();
    let fine = all("192.0.2.1", 4000).await;
    // 100 at a time, of 600 handshakes a minute.
    assert!(fine < 200, "{fine} sessions from one address were opened");
    let grown = service.memory().saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} KiB for sessions that nobody signed in to");
    assert_eq!(all("192.0.2.2", 8).await, 8, "another address has sessions of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_of_made_up_tokens_are_limited() {
    let (db, data) = (TestDb::new().await, tempfile::tempdir().unwrap());
    let service = service(&db, data.path()).await;
    let client = Client::new(&service.base, None);
    let before = statements(&db.pool).await;
    for path in ["/health/ready", "/api/server", "/api/hosts", "/api/tariffs", "/api/nothing"] {
        for n in 0..15 {
            let many = (0..40).map(|m| {
                let (client, token) = (client.clone(), format!("ink_t_{n}_{m}"));
                async move { from(&client, "192.0.2.1", path, Some(&token)).await }
            });
            join_all(many).await;
        }
    }
    // 2400 requests with a token that the API would look up, of which 600 may; that takes two statements: the
    // connection is checked when it is returned.
    let asked = statements(&db.pool).await - before;
    assert!(asked < 1800, "{asked} statements for made-up tokens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_paths_and_refused_requests_do_not_fill_the_log() {
    let (db, data) = (TestDb::new().await, tempfile::tempdir().unwrap());
    let service = service(&db, data.path()).await;
    let client = Client::new(&service.base, None);
    let before = service.logged();
    let long = format!("/api/{}", "x".repeat(50_000));
    for _ in 0..100 {
        from(&client, "192.0.2.1", &long, None).await;
    }
    for _ in 0..1200 {
        from(&client, "192.0.2.1", "/api/tariffs", None).await;
    }
    let answered = "answered";
    wait_for("the log", async || if service.logged() > before { Ok(()) } else { Err(answered) }).await;
    let grown = service.logged() - before;
    // 600 lines of requests that were answered, 100 of them with long paths.
    assert!(grown < 600 * 330, "{grown} bytes of log for 1300 requests");
}

/// 500 logins of users that don't exist, from as many networks, as fast as they can; the owner signs in meanwhile. More
/// follow until 500 passwords were checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_logins_costs_no_memory_and_does_not_block_known_clients() {
    let (db, data) = (TestDb::new().await, tempfile::tempdir().unwrap());
    let service = service(&db, data.path()).await;
    let client = Client::new(&service.base, None);
    let login = async |address: &str, email: &str, password: &str| {
        let body = json!({ "email": email, "password": password });
        let url = format!("{}/api/auth/login", client.base);
        client.http.post(url).header("x-forwarded-for", address).json(&body).send().await.unwrap().status()
    };
    let owner = async || login("198.51.100.7", "customer@example.com", PASSWORD).await;
    assert_eq!(owner().await, StatusCode::OK);
    let before = service.memory();
    let strangers = (0..500).map(async |n: u32| {
        let address = format!("2001:db8:{n:x}::1");
        login(&address, &format!("nobody-{n}@example.com"), "a wrong password").await
    });
    let (strangers, owners) = futures_util::join!(join_all(strangers), async {
        let mut answers = vec![];
        for _ in 0..10 {
            answers.push(owner().await);
        }
        answers
    });
    assert_eq!(owners, [StatusCode::OK; 10], "a known client gets in");
    let refused = strangers.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
    assert!(refused > 0, "a queue of 500 is refused, not waited for");
    let mut looked_at = strangers.len() - refused;
    for round in 0..100 {
        if looked_at >= 500 {
            break;
        }
        let some = (0..20).map(async |n: u32| {
            login(&format!("203.0.{round}.{n}"), &format!("nobody-{n}@{round}.example.com"), "a wrong password").await
        });
        looked_at += join_all(some).await.into_iter().filter(|status| *status == StatusCode::UNAUTHORIZED).count();
    }
    assert!(looked_at >= 500, "{looked_at} passwords were checked");
    let grown = service.memory().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} KiB more after {looked_at} logins were checked");
}
