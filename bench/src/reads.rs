//! Every read endpoint at 200 clients, with 10,000 servers of 100 tenants, next to the cheapest possible read: pgbench
//! with as many clients that select one server by its id.

use std::time::Duration;

use accounts::model::NewApiToken;
use accounts::service::create_api_token;
use compute::hosts;
use compute::ids::{AccountId, UserId};
use kernel::auth::StaffRole;
use kernel::idempotency::Once;
use serde_json::json;

use crate::house::House;
use crate::list::{TENANTS, fill};
use crate::report::{Report, Row, say};
use crate::stats::quantile;
use crate::{load, pgbench};

const SERVERS_EACH: i32 = 100;
const CLIENTS: usize = 200;
/// Duration per endpoint.
const TIME: Duration = Duration::from_secs(4);

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let house = House::open(None).await?;
    let measured = endpoints(&house, report).await;
    house.close().await.and(measured)
}

async fn endpoints(house: &House, report: &mut Report) -> anyhow::Result<()> {
    let db = &house.app.core.db;
    let first = fill(db, SERVERS_EACH).await?;
    // Providers are shown the settings, so there must be something to open.
    let config = json!({ "socket": "/nowhere" });
    let new = json!({ "name": "sealed", "kind": "incus", "config": config, "force": true, "enabled": false });
    hosts::service::add(&house.app.core, &Once::default(), serde_json::from_value(new)?).await?;
    sqlx::query("update hosts set config_sealed = (select config_sealed from hosts where name = 'sealed')")
        .execute(db)
        .await?;
    sqlx::query(
        "insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline, ended_at)
         select gen_random_uuid(), 'server', s.id::text, 'host:' || s.host_id, 'start', 'succeeded', 'null',
                now(), now()
         from servers s, generate_series(1, 3)",
    )
    .execute(db)
    .await?;
    sqlx::query(
        "insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max, disk_used, disk_max,
                              net_in, net_out)
         select s.id, now() - make_interval(mins => n), 'running', 60, 0.5, 1, 2, 1, 2, 1, 1
         from servers s, generate_series(1, 10) n",
    )
    .execute(db)
    .await?;
    sqlx::query("vacuum analyze").execute(db).await?;
    let provider = house.person("provider@example.com", Some(StaffRole::Admin)).await?;
    let token = async |who: (UserId, AccountId)| {
        let new = NewApiToken { name: "bench".into(), scopes: vec!["read".into()], expires_at: None };
        create_api_token(&house.app.features.accounts, &Once::default(), who, None, new).await.map(|made| made.token)
    };
    let whole = token((provider.id, provider.account_id)).await?;
    let mut tenants = Vec::new();
    for tenant in 0..i64::from(TENANTS) {
        tenants.push((UserId(first + tenant), token((UserId(first + tenant), AccountId(first + tenant))).await?));
    }
    // One server and one operation of each tenant.
    let mut own = Vec::new();
    for (user, token) in &tenants {
        let (server, operation): (i64, String) = sqlx::query_as(
            "select s.id, o.id::text from servers s join operations o on o.subject_id = s.id::text
             where s.account_id = $1 limit 1",
        )
        .bind(user.0)
        .fetch_one(db)
        .await?;
        own.push((server, operation, token.clone()));
    }
    let script = "\\set id random(1, 10000)\nselect * from servers where id = :id;\n";
    let peer = pgbench::run(&house.database_url, script, CLIENTS, TIME).await?;
    let (p50, p99) = (quantile(&peer.latencies, 0.5), quantile(&peer.latencies, 0.99));
    say(&format!("pgbench, one row: {:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms", peer.rate));

    for path in [
        "/api/server",
        "/api/server?page=2&limit=20&sort=name",
        "/api/server/{server}",
        "/api/server/{server}/status",
        "/api/server/{server}/metrics",
        "/api/server/{server}/traffic",
        "/api/server/{server}/operations",
        "/api/alerts",
        "/api/operations/{operation}",
        "/api/tariffs",
        "/api/tariffs/1",
        "/api/images",
        "/api/images/1",
        "/api/auth/me",
        "/api/audit",
        "provider: /api/server?all=true&page=100&limit=100",
        "provider: /api/hosts",
        "provider: /api/address-pools",
        "provider: /api/address-pools/1/addresses?limit=100",
        "provider: /api/operations?state=stuck",
        "provider: /api/audit",
    ] {
        let requests: Vec<(String, String)> = match path.strip_prefix("provider: ") {
            Some(path) => vec![(path.to_owned(), whole.clone())],
            None => own
                .iter()
                .map(|(server, operation, token)| {
                    let path = path.replace("{server}", &server.to_string()).replace("{operation}", operation);
                    (path, token.clone())
                })
                .collect(),
        };
        let measured = match load::run_each(house.address, &requests, CLIENTS, TIME).await {
            Ok(measured) => measured,
            Err(error) => {
                report.keep(&format!("GET {path}"), Err(error));
                continue;
            }
        };
        let (ours50, ours99) = (quantile(&measured.latencies, 0.5), quantile(&measured.latencies, 0.99));
        say(&format!("GET {path}: {:.0}/s, p50 {ours50:.2} ms, p99 {ours99:.2} ms", measured.rate));
        let who = format!("pgbench, one row, {CLIENTS} clients");
        report.add(Row::cost(&format!("GET {path}: p50"), "ms", ours50, p50, &who));
        report.add(Row::cost(&format!("GET {path}: p99"), "ms", ours99, p99, &who));
    }
    Ok(())
}
