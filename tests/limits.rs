//! Rate limits: by token and by address, across all processes, reported on every answer.

use accounts::AccountSettings;
use base64::Engine as _;
use serde_json::json;

use crate::support::child::Service;
use crate::support::wait::released_together;
use crate::support::{Client, TestApp};

fn left(answer: &crate::support::client::Response) -> (u64, u64, u64) {
    let number = |name: &str| answer.headers[name].to_str().unwrap().parse().unwrap();
    (number("x-ratelimit-limit"), number("x-ratelimit-remaining"), number("x-ratelimit-reset"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_says_how_many_requests_are_left() {
    let app = TestApp::with(|c| (c.rate_limit_token, c.rate_limit_address) = (1000, 500)).await;
    let (limit, first, reset) = left(&app.customer.get("/api/server").await.expect(200));
    assert_eq!((limit, first), (1000, 999));
    assert!((1..=60).contains(&reset), "{reset}");
    for (path, status) in
        [("/api/server/4711", 404), ("/api/server/x", 400), ("/api/hosts", 403), ("/api/nothing", 404)]
    {
        left(&app.customer.get(path).await.expect(status));
    }
    assert_eq!(left(&app.customer.get("/api/server").await.expect(200)).1, 994);
    assert_eq!(left(&app.other.get("/api/server").await.expect(200)).1, 999, "each token has its own limit");
    let nobody = left(&app.nobody.get("/api/server").await.expect(401));
    assert_eq!(nobody.0, 500);
    assert!(nobody.1 < 500, "the logins of this test count as well");
    let health = app.nobody.get("/health/live").await.expect(200);
    assert!(!health.headers.contains_key("x-ratelimit-limit"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_holds_across_processes() {
    let app = TestApp::with(|c| c.rate_limit_token = 40).await;
    let settings = [("INNKEEPER_RATE_LIMIT_TOKEN", "40")];
    let second = Service::start_with(&app.db, app.data.path(), &settings).await;
    let there = Client { base: second.base.clone(), ..app.customer.clone() };
    let requests: Vec<_> = (0..100)
        .map(|n| {
            let client = if n % 2 == 0 { app.customer.clone() } else { there.clone() };
            tokio::spawn(async move { client.get("/api/server").await })
        })
        .collect();
    let (mut fine, mut refused) = (0, 0);
    for request in requests {
        let answer = request.await.unwrap();
        match answer.status {
            200 => fine += 1,
            _ => {
                let answer = answer.expect(429);
                assert_eq!((answer.code(), left(&answer).1), ("RATE_LIMITED", 0));
                let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=60).contains(&wait) && wait == left(&answer).2, "{wait}");
                refused += 1;
            }
        }
    }
    assert_eq!((fine, refused), (40, 60));
    app.other.get("/api/server").await.expect(200);

    // The next minute, in a process that knows nothing of the last one.
    sqlx::query("update rate_limits set window_end = now()").execute(&app.db.pool).await.unwrap();
    let third = Service::start_with(&app.db, app.data.path(), &settings).await;
    Client { base: third.base.clone(), ..app.customer.clone() }.get("/api/server").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_valid_token_are_limited_by_address() {
    let app = TestApp::with(|c| c.rate_limit_address = 20).await;
    let bad = app.nobody.with_token("ink_t_nonsense");
    let mut statuses = vec![];
    for n in 0..30 {
        let client = if n % 2 == 0 { &bad } else { &app.nobody };
        statuses.push(client.get("/api/server").await.status);
    }
    let refused = statuses.iter().filter(|s| **s == 429).count();
    assert_eq!(refused, 10, "{statuses:?}");
    app.customer.get("/api/server").await.expect(200);
    app.nobody.get("/health/live").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_a_proxy_can_t_choose_the_address_they_are_counted_by() {
    let app = TestApp::with(|c| {
        c.of::<AccountSettings>().login_limit_address = 5;
        c.trusted_proxies = "127.0.0.0/8".to_owned().try_into().unwrap();
    })
    .await;
    let login = async |forwarded: &[String]| {
        let mut request = app.nobody.http.post(format!("{}/api/auth/login", app.nobody.base));
        for line in forwarded {
            request = request.header("x-forwarded-for", line);
        }
        // A different account each time: only the address is the same.
        let email = format!("{}@example.com", uuid::Uuid::now_v7());
        let body = json!({ "email": email, "password": "a wrong password" });
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    let mut statuses = vec![];
    for n in 0..12 {
        let made_up = format!("203.0.113.{n}");
        let line = match n % 3 {
            0 => vec![format!("{made_up}, 198.51.100.77:{}", 4000 + n)],
            1 => vec![made_up, format!("198.51.100.77:{}", 4000 + n)],
            _ => vec![format!("{made_up}, ::ffff:198.51.100.77, 127.0.0.2:{n}")],
        };
        statuses.push(login(&line).await);
    }
    assert_eq!(statuses, [[401; 5].as_slice(), &[429; 7]].concat());
    // Another client of the same proxy has a limit of its own.
    assert_eq!(login(&["198.51.100.77, 198.51.100.78:4711".to_owned()]).await, 401);
    // A client that can't be told from the proxy is counted with it, and not by the header's earlier entries.
    let mut statuses = vec![];
    for n in 0..12 {
        statuses.push(login(&[format!("203.0.113.{n}, unknown")]).await);
    }
    assert!(statuses[5..].iter().all(|status| *status == 429), "{statuses:?}");
    let audit = app.provider.get("/api/audit?limit=100").await.expect(200).text;
    assert!(audit.contains("\"198.51.100.77\"") && !audit.contains("203.0.113."), "{audit}");
}

/// Looking up a token is work, so clients without a valid one get a limited number of lookups a minute: over HTTP and
/// in handshakes of the live view alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_tokens_are_limited_on_sockets_too() {
    let app = TestApp::with(|c| c.rate_limit_address = 10).await;
    let bad = |n| app.nobody.with_token(&format!("ink_t_made_up_{n}"));
    for n in 0..5 {
        bad(n).get("/api/server").await.expect(401);
    }
    let mut live = crate::support::Live::new(&app.base);
    let mut said = vec![];
    for n in 0..8 {
        live.tell(json!({ "do": "connect", "token": format!("ink_a_made_up_{n}") })).await;
        let refused = live.next("connect_error").await;
        said.push(refused["message"].as_str().unwrap().split(':').next().unwrap().to_owned());
    }
    assert_eq!(said[..5], ["UNAUTHENTICATED"; 5]);
    assert_eq!(said[5..], ["RATE_LIMITED"; 3]);
    let answer = app.nobody.with_token("ink_a_another").get("/api/server").await.expect(429);
    assert!(answer.headers.contains_key("retry-after"));
}

/// A hundred tokens don't allow a hundred times as many requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_limited_across_all_its_tokens() {
    let app = TestApp::with(|c| (c.rate_limit_token, c.rate_limit_account) = (40, 60)).await;
    let mut statuses = vec![];
    for n in 0..4 {
        let client = crate::support::app::signed_in(&app.db, &app.nobody, "customer@example.com").await;
        for _ in 0..20 {
            statuses.push((n, client.get("/api/server").await.status));
        }
    }
    let fine = statuses.iter().filter(|(_, status)| *status == 200).count();
    assert_eq!(fine, 60, "{statuses:?}");
    app.other.get("/api/server").await.expect(200);
}

/// Pages and health checks cost no query, and are limited all the same, each by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_health_checks_are_limited_by_address() {
    let app = TestApp::with(|c| c.rate_limit_address = 20).await;
    for path in ["/health/live", "/console/"] {
        let mut refused = 0;
        for _ in 0..25 {
            refused += usize::from(app.nobody.get(path).await.status == 429);
        }
        assert_eq!(refused, 5, "{path}");
    }
}

/// A /48 has 65,536 networks to guess from: they count together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_from_the_networks_of_one_48_are_counted_together() {
    let app = TestApp::with(|c| {
        c.of::<AccountSettings>().login_limit_address = 5;
        c.trusted_proxies = "127.0.0.0/8".to_owned().try_into().unwrap();
    })
    .await;
    let mut statuses = vec![];
    for n in 0..25 {
        let body = json!({ "email": format!("{n}@example.com"), "password": "a wrong password" });
        let request = app.nobody.http.post(format!("{}/api/auth/login", app.nobody.base)).json(&body);
        let request = request.header("x-forwarded-for", format!("2001:db8:1:{n:x}::1"));
        statuses.push(request.send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [[401; 20].as_slice(), &[429; 5]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_ssh_keys_holds_under_parallel_requests() {
    let app = TestApp::new().await;
    sqlx::query(
        "insert into ssh_keys (account_id, name, public_key, fingerprint)
         select $1, n::text, n::text, n::text from generate_series(1, 95) n",
    )
    .bind(app.customer_account.0)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let made = (0..40_u8).map(|n| {
        let customer = app.customer.clone();
        let key = [&b"\0\0\0\x0bssh-ed25519\0\0\0\x20"[..], &[n; 32]].concat();
        let key = format!("ssh-ed25519 {}", base64::engine::general_purpose::STANDARD.encode(key));
        async move { customer.post("/api/ssh-keys", json!({ "name": "k", "publicKey": key })).await }
    });
    let statuses = released_together(&app.db.pool, "ssh_keys", made).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_confirmation_mails_holds_under_parallel_requests() {
    let app = TestApp::new().await;
    let unconfirmed = "update users set confirmed_at = null where email = 'customer@example.com'";
    sqlx::query(unconfirmed).execute(&app.db.pool).await.unwrap();
    let asked = (0..30).map(|_| {
        let customer = app.customer.clone();
        async move { customer.post("/api/auth/confirm/mail", None).await }
    });
    let statuses = released_together(&app.db.pool, "address_confirmations", asked).await;
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 3, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 27, "{statuses:?}");
    let mails: i64 = sqlx::query_scalar("select count(*) from mails").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(mails, 3);
}
