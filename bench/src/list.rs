//! `GET /api/server` with 1,000 servers in the database, next to pgbench with the query behind it.

use std::time::Duration;

use accounts::model::NewApiToken;
use accounts::service::create_api_token;
use compute::ids::{AccountId, UserId};
use kernel::idempotency::Once;
use sqlx::PgPool;

use crate::house::House;
use crate::report::{Report, Row, say};
use crate::stats::{mean, quantile};
use crate::{load, pgbench};

pub(crate) const TENANTS: i32 = 100;
const SERVERS_EACH: i32 = 10;
/// Clients per side.
const CLIENTS: usize = 16;
const TIME: Duration = Duration::from_secs(8);
/// Rounds per side.
const ROUNDS: usize = 2;
/// At least half of pgbench's rate.
const AIM: f64 = 2.0;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let house = House::open(None).await?;
    let measured = rounds(&house, report).await;
    house.close().await.and(measured)
}

async fn rounds(house: &House, report: &mut Report) -> anyhow::Result<()> {
    let first = fill(&house.app.core.db, SERVERS_EACH).await?;
    let mut tokens = Vec::new();
    for tenant in 0..TENANTS {
        let new = NewApiToken { name: "bench".into(), scopes: vec!["read".into()], expires_at: None };
        tokens.push(
            create_api_token(
                &house.app.features.accounts,
                &Once::default(),
                (UserId(first + i64::from(tenant)), AccountId(first + i64::from(tenant))),
                None,
                new,
            )
            .await?
            .token,
        );
    }
    sqlx::query("vacuum analyze").execute(&house.app.core.db).await?;
    let ours = async |time| load::run(house.address, "/api/server", &tokens, CLIENTS, time).await;
    ours(Duration::from_secs(2)).await?;
    let query = pgbench::prepared(&house.app.core.db, "%from servers s join images i%").await?;
    let script = script(&query, first);
    let peer = async |time| pgbench::run(&house.database_url, &script, CLIENTS, time).await;
    peer(Duration::from_secs(1)).await?;

    let (mut our_rates, mut our_times, mut peer_rates, mut peer_times) = (vec![], vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        let measured = ours(TIME).await?;
        let p99 = quantile(&measured.latencies, 0.99);
        say(&format!("GET /api/server {round}/{ROUNDS}: {:.0}/s, p99 {p99:.2} ms", measured.rate));
        our_rates.push(measured.rate);
        our_times.extend(measured.latencies);
        let measured = peer(TIME).await?;
        let p99 = quantile(&measured.latencies, 0.99);
        say(&format!("pgbench {round}/{ROUNDS}: {:.0}/s, p99 {p99:.2} ms", measured.rate));
        peer_rates.push(measured.rate);
        peer_times.extend(measured.latencies);
    }
    let who = format!("pgbench, the same query, {CLIENTS} clients");
    report.add(Row {
        aim: Some(AIM),
        ..Row::rate("GET /api/server, 1,000 servers: rate", "1/s", mean(&our_rates), mean(&peer_rates), &who)
    });
    let p99 = |times: &[f64]| quantile(times, 0.99);
    report.add(Row::cost("GET /api/server, 1,000 servers: p99", "ms", p99(&our_times), p99(&peer_times), &who));
    Ok(())
}

/// Creates 100 tenants with this many servers each, one address per server; returns the first tenant's id.
pub(crate) async fn fill(db: &PgPool, servers_each: i32) -> anyhow::Result<i64> {
    let one = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await;
    // Disabled, so that nothing is requested from it.
    let host = one(
        "insert into hosts (name, kind, config_sealed, enabled) values ('bench', 'incus', '\\x00', false) returning id",
    )
    .await?;
    let image = one("insert into images (name, kind) values ('Debian 12', 'lxc') returning id").await?;
    let tariff = one("insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
                      values ('Базовый', 'lxc', 1, 512, 10, 300) returning id")
    .await?;
    let pool: i64 = sqlx::query_scalar(
        "insert into address_pools (host_id, name, cidr, gateway, first_address, last_address, bridge)
         values ($1, 'bench', '10.99.0.0/16', '10.99.0.1', '10.99.0.2', '10.99.255.254', 'br0') returning id",
    )
    .bind(host)
    .fetch_one(db)
    .await?;
    let first = sqlx::query_scalar::<_, i64>(
        "with new as (
             insert into users (email, name, password_hash)
             select 'tenant' || n || '@example.com', 'Tenant ' || n, '-' from generate_series(1, $1) n
             returning id, name),
         own as (insert into accounts (id, name, owner_id) select id, name, id from new returning id)
         select min(id) from own",
    )
    .bind(TENANTS)
    .fetch_one(db)
    .await?;
    // Interleave the tenants' servers, as if they had ordered one by one.
    sqlx::query(
        "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
                              cores, memory_mib, disk_gib)
         select gen_random_uuid(), $1 + n % $2, $3, $4, $5, 'node', nextval('guest_numbers'), 'lxc', 'server-' || n,
                'running', 1, 512, 10 from generate_series(0, $2 * $6 - 1) n",
    )
    .bind(first)
    .bind(TENANTS)
    .bind(tariff)
    .bind(image)
    .bind(host)
    .bind(servers_each)
    .execute(db)
    .await?;
    sqlx::query(
        "insert into addresses (pool_id, address, server_id)
         select $1, '10.99.1.0'::inet + row_number() over (order by id), id from servers",
    )
    .bind(pool)
    .execute(db)
    .await?;
    Ok(first)
}

/// The pgbench script: each client prepares the query once and then runs it with the service's parameters, for a random
/// tenant. (pgbench's own `--protocol prepared` can't pass null as a parameter; EXECUTE can.)
fn script(query: &str, first: i64) -> String {
    let last = first + i64::from(TENANTS) - 1;
    format!(
        "\\if :prepared\n\\else\nprepare list (bigint, bigint, bigint, bigint[]) as {query};\n\
         \\set prepared 1\n\\endif\n\\set tenant random({first}, {last})\n\
         execute list (null, 0, :tenant, null);\n"
    )
}
