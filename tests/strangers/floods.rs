//! Floods by strangers, against the program as a child: memory, log and statements have ceilings.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;

use crate::support::child::Service;
use crate::support::{Client, PASSWORD, TestDb, wait_for};

const MIB: u64 = 1024;

/// As it is where nobody has set anything, but for the log, and a proxy that says who the clients are.
async fn service(db: &TestDb, data: &std::path::Path) -> Service {
    let settings = [
        ("INNKEEPER_RATE_LIMIT_ADDRESS", "600"),
        ("INNKEEPER_LOG", "info"),
        ("INNKEEPER_TRUSTED_PROXIES", "127.0.0.0/8"),
    ];
    Service::start_with(db, data, &settings).await
}

/// Statements (and transactions) that this database has ended so far, as soon as all of them are counted.
async fn statements(db: &PgPool) -> i64 {
    let mut before = -1;
    wait_for("the database's figures to stand still", async || {
        let sql = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
        let now: i64 = sqlx::query_scalar(sql).fetch_one(db).await.unwrap();
        // The look itself is one.
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
async fn sessions_of_the_live_view_are_refused_before_they_cost_memory() {
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
    assert!(fine < 600, "{fine} sessions of one address were begun");
    let grown = service.memory().saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} KiB for sessions that nobody signed in to");
    assert_eq!(all("192.0.2.2", 8).await, 8, "another address has sessions of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_tokens_reach_the_database_so_often_and_no_more() {
    let (db, data) = (TestDb::new().await, tempfile::tempdir().unwrap());
    let service = service(&db, data.path()).await;
    let client = Client::new(&service.base, None);
    let before = statements(&db.pool).await;
    for path in ["/health/ready", "/console/", "/api/tariffs", "/nothing"] {
        for n in 0..15 {
            let many = (0..40).map(|m| {
                let (client, token) = (client.clone(), format!("ink_t_{n}_{m}"));
                async move { from(&client, "192.0.2.1", path, Some(&token)).await }
            });
            join_all(many).await;
        }
    }
    // 2400 requests. 600 of them may ask whose token it is, which is two: the connection is looked at when it comes back.
    let asked = statements(&db.pool).await - before;
    assert!(asked < 1800, "{asked} statements for tokens that are none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_takes_no_more_of_a_path_than_it_needs_and_no_line_for_what_is_refused() {
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
    // 600 lines of requests that were answered.
    assert!(grown < 600 * 600, "{grown} bytes of log for 1300 requests");
}

/// 500 logins by people who are none, from as many networks, as fast as they can; the owner signs in meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_from_many_networks_take_neither_the_memory_nor_the_place_of_those_who_were_here_before() {
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
    assert_eq!(owners, [StatusCode::OK; 10], "who was here before gets in");
    let refused = strangers.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
    assert!(refused > 0, "a queue of 500 is refused, not waited for");
    let mut looked_at = strangers.len() - refused;
    for round in 0..100 {
        if looked_at >= 200 {
            break;
        }
        let some = (0..20).map(async |n: u32| {
            login(&format!("203.0.{round}.{n}"), &format!("nobody-{n}@{round}.example.com"), "a wrong password").await
        });
        looked_at += join_all(some).await.into_iter().filter(|status| *status == StatusCode::UNAUTHORIZED).count();
    }
    assert!(looked_at >= 200, "{looked_at} passwords were looked at");
    let grown = service.memory().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} KiB more after {looked_at} logins that were looked at");
}
