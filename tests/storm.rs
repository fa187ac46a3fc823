//! Many people doing many things at once, with two processes and one host: there are no internal errors and no
//! deadlocks, every operation ends, and the host and the database agree.

use std::collections::BTreeMap;
use std::time::Duration;

use compute::ids::AccountId;
use compute::servers::ServerSettings;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;
use watch::monitoring::MonitoringSettings;

use crate::support::child::Service;
use crate::support::crowd::Crowd;
use crate::support::pve::Catalogue;
use crate::support::wait::PATIENCE;
use crate::support::{Client, Pve, TestApp};

const ACTS: usize = 30;

/// How many servers the reseller and its customers may have together.
const RESELLER_LIMIT: i64 = 6;

/// Somebody in the storm.
struct Person {
    client: Client,
    /// Whether they do what only providers may.
    provides: bool,
    /// Whether they list what others own, too.
    lists_all: bool,
    /// An account that they suspend now and then.
    suspends: Option<AccountId>,
}

impl Person {
    fn new(client: &Client) -> Self {
        Self { client: client.clone(), provides: false, lists_all: false, suspends: None }
    }
}

/// What somebody does next, with one of the servers that they see or with none.
fn act(rng: &mut StdRng, catalogue: &Catalogue, server: Option<i64>, person: &Person) -> (Method, String, Value) {
    if let Some(AccountId(id)) = person.suspends.filter(|_| rng.random_bool(0.15)) {
        return match rng.random() {
            true => (Method::POST, format!("/api/accounts/{id}/suspend"), json!({ "reason": "unpaid" })),
            false => (Method::POST, format!("/api/accounts/{id}/unsuspend"), Value::Null),
        };
    }
    let order = |machine: bool| if machine { catalogue.machine() } else { catalogue.container() };
    let Some(id) = server else {
        return (Method::POST, "/api/server/create".into(), order(rng.random()));
    };
    let of = |rest: &str| format!("/api/server/{id}{rest}");
    let number = rng.random_range(1..4);
    let snapshot = json!({ "snapname": format!("s{number}") });
    let alert = ["cpu", "memory", "down"].choose(rng).unwrap();
    match rng.random_range(if person.provides { 0..26 } else { 4..26 }) {
        0 => (Method::POST, of("/suspend"), json!({ "reason": "unpaid" })),
        1 => (Method::POST, of("/unsuspend"), Value::Null),
        2 => {
            let tariff = json!({ "name": "Small", "kind": "lxc", "cores": 1, "memory": 256, "disk": 3,
                                 "maxCores": 4, "maxMemory": 1024, "maxDisk": 20, "price": rng.random_range(1..900) });
            (Method::PUT, format!("/api/tariffs/{}", catalogue.lxc.1), tariff)
        }
        3 => (Method::PUT, format!("/api/alert-rules/{alert}"), json!({ "sustainSeconds": number })),
        4..8 => (Method::POST, "/api/server/create".into(), order(rng.random_bool(0.3))),
        8 => (Method::POST, of("/start"), Value::Null),
        9 => (Method::POST, of("/stop"), Value::Null),
        10 => (Method::POST, of("/restart"), Value::Null),
        11 | 12 => {
            let wish = json!({ "cores": number, "memory": 256 * number, "disk": 3 + number, "allowRestart": true });
            (Method::PUT, of("/resize"), wish)
        }
        13 => (Method::POST, of("/snapshots"), snapshot),
        14 => (Method::POST, of("/snapshots/rollback"), snapshot),
        15 => (Method::DELETE, of("/snapshots"), snapshot),
        16 => {
            let image = if rng.random() { catalogue.lxc.0 } else { catalogue.vm.0 };
            (Method::POST, of("/reinstall"), json!({ "osId": image }))
        }
        17 => {
            (Method::PATCH, of(""), json!({ "name": format!("host-{number}"), "labels": { "n": number.to_string() } }))
        }
        18 | 19 => (Method::DELETE, of(""), Value::Null),
        20 => (Method::PUT, of(&format!("/alert-rules/{alert}")), json!({ "sustainSeconds": number })),
        21 => (Method::DELETE, of(&format!("/alert-rules/{alert}")), Value::Null),
        22 => (Method::POST, of("/mute"), json!({})),
        23 => (Method::POST, "/api/server/console".into(), json!({ "serverId": id })),
        24 => (Method::GET, "/api/alerts".into(), Value::Null),
        _ => {
            let rest = ["", "/status", "/metrics", "/traffic", "/operations", "/snapshots", "/addresses"];
            (Method::GET, of(rest.choose(rng).unwrap()), Value::Null)
        }
    }
}

/// One person's session: how often each request got which answer.
async fn live(seed: u64, person: Person, catalogue: &Catalogue) -> BTreeMap<String, usize> {
    let client = &person.client;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut answers = BTreeMap::new();
    for _ in 0..ACTS {
        let all = if person.lists_all { "/api/server?all=true&limit=100" } else { "/api/server?limit=100" };
        let servers = client.get(all).await.expect(200).body;
        let ids: Vec<i64> = servers.as_array().unwrap().iter().map(|s| s["id"].as_i64().unwrap()).collect();
        let server = ids.choose(&mut rng).copied();
        let (method, path, body) = act(&mut rng, catalogue, server, &person);
        let answer = if method == Method::POST {
            client.post_once(&path, &Uuid::new_v4().to_string(), &body).await
        } else {
            client.send(method.clone(), &path, (!body.is_null()).then_some(body)).await
        };
        assert!(answer.status < 500 || answer.status == 507, "{method} {path}: {} {}", answer.status, answer.text);
        *answers.entry(format!("{method} {} {}", answer.status, answer.code())).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_requests_leaves_everything_consistent() {
    let app = TestApp::with(|c| {
        c.workers = 8;
        c.database_pool = 30;
        c.of::<MonitoringSettings>().sweep_seconds = 1;
        c.of::<ServerSettings>().shutdown_seconds = 1;
    })
    .await;
    sqlx::query("update accounts set server_limit = 1000").execute(&app.db.pool).await.unwrap();
    let second = Service::start_with(&app.db, app.data.path(), &[("INNKEEPER_SWEEP_SECONDS", "1")]).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    // Long enough for one request to come while another is in progress.
    pve.run("pve.time_scale = 0.02").await;

    let seed: u64 = std::env::var("STORM_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("STORM_SEED={seed}");
    let crowd = Crowd::new(&app).await;
    let reseller = crowd.accounts[0];
    let sql = "update accounts set server_limit = $2 where id = $1";
    sqlx::query(sql).bind(reseller.0).bind(RESELLER_LIMIT as i32).execute(&app.db.pool).await.unwrap();
    let provider = Person { provides: true, lists_all: true, ..Person::new(&app.provider) };
    let mut people = vec![
        Person::new(&app.customer),
        Person::new(&app.customer),
        Person::new(&app.other),
        Person { suspends: Some(reseller), ..provider },
        Person { provides: true, lists_all: true, ..Person::new(&app.provider) },
        Person {
            lists_all: true,
            suspends: Some(crowd.accounts[1]),
            ..Person::new(&crowd.member(&app, 0, "owner").await)
        },
        Person { lists_all: true, ..Person::new(&crowd.member(&app, 0, "admin").await) },
    ];
    for (account, role) in [(1, "owner"), (1, "member"), (2, "admin"), (2, "viewer"), (3, "member"), (4, "owner")] {
        people.push(Person::new(&crowd.member(&app, account, role).await));
    }
    let people = people.into_iter().enumerate().map(|(n, mut person)| {
        if n % 2 == 1 {
            person.client.base.clone_from(&second.base);
        }
        live(seed.wrapping_add(n as u64), person, &catalogue)
    });
    let mut answers = BTreeMap::new();
    for of_one in futures_util::future::join_all(people).await {
        for (answer, count) in of_one {
            *answers.entry(answer).or_insert(0) += count;
        }
    }
    eprintln!("{answers:#?}");
    assert!(answers.iter().any(|(answer, n)| answer.starts_with("POST 200") && *n > 20), "{answers:?}");

    // What is suspended would never be seen again.
    for account in &crowd.accounts[..2] {
        app.provider.post(&format!("/api/accounts/{account}/unsuspend"), None).await;
    }
    let sql = "select count(*) from servers s join accounts a on a.id = s.account_id
               where s.deleted_at is null and (a.id = $1 or a.parent_id = $1)";
    let resold: i64 = sqlx::query_scalar(sql).bind(reseller.0).fetch_one(&app.db.pool).await.unwrap();
    assert!(resold <= RESELLER_LIMIT, "{resold} servers of a reseller and its customers");

    pve.run("pve.time_scale = 0").await;
    app.all_ended(PATIENCE).await;
    let stuck: Vec<(String, Option<String>)> =
        sqlx::query_as("select kind, error_message from operations where state = 'stuck'")
            .fetch_all(&app.db.pool)
            .await
            .unwrap();
    assert_eq!(stuck, [], "no operation needs the provider");
    pve.assert_no_orphan("after the storm").await;
    // This connection's counters are published later unless asked for; the deadlocks of others are there by now.
    sqlx::query("select pg_stat_force_next_flush()").execute(&app.db.pool).await.unwrap();
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0, "no deadlocks");
}
