//! What Innkeeper adds to creating a guest: the time from an order until its operation succeeds, next to the driver's
//! own create and start of the same guest, in turns.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use kernel::auth::StaffRole;
use kernel::operations;
use kernel::operations::model::OperationState;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::house::House;
use crate::lab::{self, Lab, OURS, PEERS};
use crate::report::{Report, Row, say};
use crate::stats::median;

/// Guests per side.
const PAIRS: u8 = 20;
/// Pairs that are created first and not counted, to warm everything up.
const WARM_UP: u8 = 2;
/// Target for the added time, in milliseconds.
const AIM: f64 = 300.0;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::from_env()?;
    let house = House::open(Some(&lab)).await?;
    let measured = pairs(&house, &lab, report).await;
    house.close().await.and(measured)
}

/// Times of the driver alone, in milliseconds.
struct Peer {
    create: f64,
    prepare: f64,
    start: f64,
    password: f64,
}

async fn pairs(house: &House, lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let shop = Shop::open(house, lab).await?;
    // Above the numbers of the shop's own guests.
    let numbers = rand::random_range(900_010_000i64..999_000_000);
    let (mut ours, mut peers, mut operations) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..WARM_UP + PAIRS {
        let counted = pair >= WARM_UP;
        let spec = lab.spec(numbers + i64::from(pair), PEERS.0 + pair);
        // Alternate, so that neither side always goes first.
        let (took, operation, peer) = if pair % 2 == 0 {
            let (took, operation) = shop.order(house).await?;
            (took, operation, alone(house, lab, &spec).await?)
        } else {
            let peer = alone(house, lab, &spec).await?;
            let (took, operation) = shop.order(house).await?;
            (took, operation, peer)
        };
        say(&format!(
            "create {}: ours {took:.0} ms, the driver's create {:.0} + start {:.0} ms",
            if counted { format!("{}/{PAIRS}", pair - WARM_UP + 1) } else { "warm-up".into() },
            peer.create,
            peer.start
        ));
        if counted {
            ours.push(took);
            peers.push(peer);
            operations.push(operation);
        }
    }
    let of = |f: fn(&Peer) -> f64| median(&peers.iter().map(f).collect::<Vec<_>>());
    let (ours, peer) = (median(&ours), of(|p| p.create + p.start));
    report.add(Row {
        aim: Some((peer + AIM) / peer),
        remark: format!("{:.0} ms added (aim: less than {AIM:.0})", ours - peer),
        ..Row::cost(
            "create: added over the driver's own create + start",
            "ms",
            ours,
            peer,
            "the driver's create + start",
        )
    });
    report.note(format!(
        "create, the driver alone (medians, ms): create {:.0}, start {:.0}; not counted as the peer's: \
         prepare {:.0}, password {:.0}",
        of(|p| p.create),
        of(|p| p.start),
        of(|p| p.prepare),
        of(|p| p.password)
    ));
    report.note(format!("create, ours by step (medians, ms): {}", steps(house, &operations).await?));
    Ok(())
}

/// The catalogue and its customer.
pub(crate) struct Shop {
    pub customer: String,
    order: Value,
}

impl Shop {
    pub(crate) async fn open(house: &House, lab: &Lab) -> anyhow::Result<Self> {
        let numbers = rand::random_range(1_000_000i64..900_000_000);
        sqlx::query(AssertSqlSafe(format!("alter sequence guest_numbers restart with {numbers}")))
            .execute(&house.app.core.db)
            .await?;
        house.person("provider@example.com", Some(StaffRole::Admin)).await?;
        house.person("customer@example.com", None).await?;
        let provider = house.login("provider@example.com").await?;
        let post = async |path: &str, body: Value| house.post(path, Some(&provider), &body).await;
        let host = post(
            "/api/hosts",
            json!({ "name": "bench", "kind": "incus", "memoryOvercommit": 10.0, "diskOvercommit": 10.0,
                    "config": { "socket": lab.socket, "project": lab.project, "storagePool": lab.pool } }),
        )
        .await?;
        let image = post(
            "/api/images",
            json!({ "name": "Debian", "type": "linux", "kind": "lxc",
                    "sources": [{ "hostId": host["id"], "source": lab.image }] }),
        )
        .await?;
        post(
            "/api/address-pools",
            json!({ "hostId": host["id"], "name": "bench", "cidr": lab.subnet.to_string(),
                    "gateway": lab.gateway.to_string(), "first": lab.address(OURS.0).to_string(),
                    "last": lab.address(OURS.1).to_string(), "bridge": lab.bridge }),
        )
        .await?;
        let tariff = post(
            "/api/tariffs",
            json!({ "name": "Bench", "kind": "lxc", "cores": 1, "memory": 256, "disk": 1, "price": 300 }),
        )
        .await?;
        let customer = house.login("customer@example.com").await?;
        Ok(Self { customer, order: json!({ "osId": image["id"], "tariffId": tariff["id"] }) })
    }

    /// Orders a server, waits for it, and deletes it; returns the milliseconds that the order took and its operation.
    async fn order(&self, house: &House) -> anyhow::Result<(f64, Uuid)> {
        let start = Instant::now();
        let (server, operation) = self.buy(house).await?;
        let took = millis(start);
        self.give_back(house, &server).await?;
        Ok((took, operation))
    }

    /// Orders a server, waits for it, and returns it with its operation.
    pub(crate) async fn buy(&self, house: &House) -> anyhow::Result<(Value, Uuid)> {
        let server = house.post("/api/server/create", Some(&self.customer), &self.order).await?;
        let operation = succeeded(house, &server).await?;
        Ok((server, operation))
    }

    /// Deletes a server and waits for the operation.
    pub(crate) async fn give_back(&self, house: &House, server: &Value) -> anyhow::Result<()> {
        let deleted = house.delete(&format!("/api/server/{}", server["id"]), &self.customer).await?;
        succeeded(house, &deleted).await.map(drop)
    }
}

/// Waits for an operation as the API does: notified by the database, without polling.
async fn succeeded(house: &House, answer: &Value) -> anyhow::Result<Uuid> {
    let id: Uuid = answer["operationId"].as_str().context("no operation in the answer")?.parse()?;
    let ended =
        |p: &operations::service::WaitedOperation| p.view.state.is_ended() || p.view.state == OperationState::Stuck;
    let view = operations::service::wait(&house.app.core, id, Duration::from_mins(2), ended).await?.view;
    anyhow::ensure!(view.state == OperationState::Succeeded, "the operation did not succeed: {view:?}");
    Ok(id)
}

/// Creates the same guest with the driver alone, and removes it.
async fn alone(house: &House, lab: &Lab, spec: &hypervisor::GuestSpec) -> anyhow::Result<Peer> {
    let driver = lab.driver()?;
    house.remember(&spec.guest);
    let at = Instant::now();
    lab::finish(&*driver, driver.create(spec).await).await?;
    let create = millis(at);
    // Preparing comes in between so that the same guest is started.
    let at = Instant::now();
    driver.prepare(spec).await?;
    let prepare = millis(at);
    let at = Instant::now();
    lab::finish(&*driver, driver.start(&spec.guest).await).await?;
    let start = millis(at);
    let at = Instant::now();
    driver.set_password(&spec.guest, &spec.password).await?;
    let password = millis(at);
    lab::remove(&*driver, &spec.guest).await?;
    Ok(Peer { create, prepare, start, password })
}

/// Time spent per step, from the operations' log: from the end of one step to the end of the next.
async fn steps(house: &House, operations: &[Uuid]) -> anyhow::Result<String> {
    let rows: Vec<(Uuid, String, f64)> = sqlx::query_as(
        "select l.operation_id, l.step,
                (extract(epoch from l.at - lag(l.at, 1, o.created_at)
                     over (partition by l.operation_id order by l.id)) * 1000)::float8
         from operation_log l join operations o on o.id = l.operation_id
         where o.id = any($1) and l.level = 'info' order by o.id, l.id",
    )
    .bind(operations)
    .fetch_all(&house.app.core.db)
    .await?;
    let mut order: Vec<String> = Vec::new();
    let mut by_step: HashMap<String, Vec<f64>> = HashMap::new();
    for (_, step, ms) in rows {
        if !order.contains(&step) {
            order.push(step.clone());
        }
        by_step.entry(step).or_default().push(ms);
    }
    let words: Vec<String> = order.iter().map(|step| format!("{step} {:.0}", median(&by_step[step]))).collect();
    Ok(words.join(", "))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
