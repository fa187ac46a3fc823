//! Tenants who share a host: what one of them does affects only them, and the provider's requests take effect at once.

use hypervisor::{GuestKind, GuestRef};
use kernel::operations::failpoints::Action;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::lab::Catalogue;
use crate::support::notes::Notes;
use crate::support::wait::{PATIENCE, within};
use crate::support::{Client, Lab, Pve, TestApp, ended, eventually, wait_for};

async fn lab() -> (TestApp, Lab, Catalogue) {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    (app, lab, catalogue)
}

/// A running server of this customer's: its path in the API.
async fn server(client: &Client, catalogue: &Catalogue) -> String {
    let made = client.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(client, &made["operationId"]).await["state"], "succeeded");
    format!("/api/server/{}", made["id"])
}

async fn operation(client: &Client, id: &Value) -> Value {
    client.get(&format!("/api/operations/{}", id.as_str().unwrap())).await.expect(200).body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_takes_effect_at_once_though_the_owner_keeps_sending_requests() {
    let (app, _lab, catalogue) = lab().await;
    let (path, provider) = (server(&app.customer, &catalogue).await, &app.provider);
    let points = &app.core.engine.failpoints;
    points.arm("restart:restart_guest:before", Action::Hold);
    // Each loop ends with the first answer that is neither a restart nor `LOCKED`.
    let loops: Vec<_> = (0..4)
        .map(|_| {
            let (me, path) = (app.customer.clone(), format!("{path}/restart"));
            let refused = async move {
                loop {
                    let answer = me.post(&path, None).await;
                    if answer.status != 200 && answer.code() != "LOCKED" {
                        return answer;
                    }
                }
            };
            tokio::spawn(within("a restart that is refused for good", refused))
        })
        .collect();
    wait_for("the restart in progress", async || points.all_fired().then_some(())).await;

    let suspended = provider.post(&format!("{path}/suspend"), json!({ "reason": "abuse" })).await.expect(200).body;
    let stop = operation(provider, &suspended["operationId"]).await;
    assert_eq!(
        (&stop["kind"], &stop["state"], &stop["error"]["code"]),
        (&json!("suspend"), &json!("waiting"), &json!("LOCKED"))
    );
    assert!(stop["error"]["message"].as_str().unwrap().contains("(restart)"), "{stop}");
    let again = provider.post(&format!("{path}/suspend"), json!({ "reason": "abuse" })).await.expect(200).body;
    assert_eq!(again["operationId"], suspended["operationId"], "only one waits");
    for refused in loops {
        let refused = refused.await.unwrap().expect(409);
        assert!(refused.body["error"].as_str().unwrap().ends_with("abuse"), "{}", refused.text);
    }
    points.let_go();
    let stopped = ended(provider, &suspended["operationId"]).await;
    assert_eq!((&stopped["state"], &stopped["error"]), (&json!("succeeded"), &Value::Null), "{stopped}");
    assert_eq!(app.customer.get(&path).await.expect(200).body["status"], "stopped");
    let after: i64 = sqlx::query_scalar(
        "select count(*) from operations o join servers s on s.id::text = o.subject_id
         where o.kind = 'restart' and o.created_at > s.suspended_at",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(after, 0, "no request of the owner's was accepted since");
    let back = provider.post(&format!("{path}/unsuspend"), None).await.expect(200).body;
    assert_eq!(ended(provider, &back["operationId"]).await["state"], "succeeded");
    assert_eq!(app.customer.get(&path).await.expect(200).body["status"], "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_s_request_comes_next_and_the_latest_one_counts() {
    let (app, lab, catalogue) = lab().await;
    let (me, provider, points) = (&app.customer, &app.provider, &app.core.engine.failpoints);
    let path = server(me, &catalogue).await;

    // Behind a stuck operation it waits for the provider, and says so.
    let stuck: uuid::Uuid = sqlx::query_scalar(
        "insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline)
         select gen_random_uuid(), 'server', id::text, 'host', 'unknown', 'stuck', 'null', now() from servers
         returning id",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    let suspended = provider.post(&format!("{path}/suspend"), json!({ "reason": "unpaid" })).await.expect(200).body;
    let waits = operation(provider, &suspended["operationId"]).await;
    assert_eq!(waits["state"], "waiting", "{waits}");
    assert!(waits["error"]["message"].as_str().unwrap().contains("stuck"), "{waits}");
    let back = provider.post(&format!("{path}/unsuspend"), None).await.expect(200).body;
    let replaced = operation(provider, &suspended["operationId"]).await;
    assert_eq!((&replaced["state"], &replaced["error"]["code"]), (&json!("failed"), &json!("CONFLICT")), "{replaced}");
    // The owner has access again, and waits like everybody else.
    assert_eq!(me.post(&format!("{path}/restart"), None).await.expect(409).code(), "LOCKED");
    sqlx::query("update operations set state = 'failed', ended_at = now() where id = $1")
        .bind(stuck)
        .execute(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(ended(provider, &back["operationId"]).await["state"], "succeeded");
    assert_eq!(me.get(&path).await.expect(200).body["status"], "running");

    // A deletion, whatever else waits, and whatever becomes of the operation that it waits for.
    points.arm("create:start_guest:before", Action::Hold);
    points.arm("create:set_password:before", Action::Fail);
    let made = me.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let other = format!("/api/server/{}", made["id"]);
    eventually(me, &format!("/api/operations/{}", made["operationId"].as_str().unwrap()), |o| {
        o["step"] == "start_guest"
    })
    .await;
    let suspended = provider.post(&format!("{other}/suspend"), json!({ "reason": "fraud" })).await.expect(200).body;
    let deleted = provider.delete(&other).await.expect(200).body;
    assert_eq!(operation(provider, &suspended["operationId"]).await["state"], "failed");
    assert_eq!(operation(provider, &deleted["operationId"]).await["state"], "waiting");
    let again = provider.post(&format!("{other}/suspend"), json!({ "reason": "fraud" })).await.expect(200).body;
    assert_eq!(again["operationId"], deleted["operationId"], "what is deleted need not be stopped");
    points.let_go();
    assert_eq!(ended(provider, &made["operationId"]).await["state"], "failed");
    assert_eq!(ended(provider, &deleted["operationId"]).await["state"], "succeeded");
    provider.get(&other).await.expect(404);

    // And behind one that is already deleting.
    points.arm("delete:delete_guest:before", Action::Hold);
    let first = me.delete(&path).await.expect(200).body;
    let second = provider.delete(&path).await.expect(200).body;
    assert_ne!(first["operationId"], second["operationId"]);
    points.let_go();
    assert_eq!(ended(provider, &first["operationId"]).await["state"], "succeeded");
    assert_eq!(ended(provider, &second["operationId"]).await["state"], "succeeded");
    assert_eq!(lab.guests().await, 0);
}

/// The guest of a server, by its path in the API.
async fn guest(app: &TestApp, path: &str) -> GuestRef {
    let id: i64 = path.rsplit('/').next().unwrap().parse().unwrap();
    let (marker, vmid, node): (uuid::Uuid, i64, String) =
        sqlx::query_as("select uuid, guest_number, node from servers where id = $1")
            .bind(id)
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
    GuestRef { marker, vmid, kind: GuestKind::Lxc, node }
}

async fn inside(lab: &Lab, guest: &GuestRef, script: &str) {
    let out = lab.incus.driver().exec(guest, &["sh", "-c", script], b"", PATIENCE).await.unwrap();
    assert_eq!(out.status, 0, "{script}: {}", String::from_utf8_lossy(&out.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_guests_delay_only_their_owner() {
    // Four worker slots: three of them for one host, and one of these for one account.
    let app = TestApp::with(|c| c.workers = 4).await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let (hostile, normal) = (&app.customer, &app.other);
    let (path, first, second) =
        tokio::join!(server(normal, &catalogue), server(hostile, &catalogue), server(hostile, &catalogue));
    let hanging = [&first, &second];
    for path in hanging {
        let chpasswd = "printf '#!/bin/sh\nexec sleep 1000\n' > /usr/sbin/chpasswd && chmod 755 /usr/sbin/chpasswd";
        inside(&lab, &guest(&app, path).await, chpasswd).await;
    }
    // It can't start more processes than its memory allows.
    let forks = "my @p; while (@p < 3000) { my $p = fork; last unless defined $p; if (!$p) { sleep 60; exit } \
                 push @p, $p } \
                 kill 'KILL', @p; print scalar @p";
    let out = lab.incus.driver().exec(&guest(&app, &first).await, &["perl", "-e", forks], b"", PATIENCE).await.unwrap();
    let forks: u32 = String::from_utf8(out.stdout).unwrap().parse().unwrap();
    assert!(forks < 750, "{forks} processes in 256 MiB");
    let asked = hanging.map(|path| {
        let (me, path) = (hostile.clone(), format!("{path}/password"));
        tokio::spawn(async move { me.post(&path, None).await })
    });
    let at_work = "select count(*) from operations where kind = 'password' and lease_until >= now()";
    let begun = "select count(*) from operations where kind = 'password' and started_at is not null";
    let count = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&app.db.pool).await.unwrap();
    wait_for("the first hanging operation", async || (count(begun).await > 0).then_some(())).await;
    wait_for("the second one", async || {
        (count("select count(*) from operations where kind = 'password'").await == 2).then_some(())
    })
    .await;
    let restarted = normal.post(&format!("{path}/restart"), None).await.expect(200).body;
    wait_for("the other customer's restart", async || {
        let most = count(at_work).await;
        assert!(most <= 1, "one account's guests hold {most} slots");
        let restart = operation(normal, &restarted["operationId"]).await;
        if restart["state"] == "succeeded" { Ok(()) } else { Err(restart) }
    })
    .await;
    // Hanging operations are reported once, and are not retried.
    for asked in asked {
        let answer = asked.await.unwrap();
        // One that did not start in time for its answer is reported by its operation.
        if answer.status != 200 {
            assert_eq!(answer.code(), "CONFLICT", "{}", answer.text);
            assert!(answer.body["error"].as_str().unwrap().contains("operating system"), "{}", answer.text);
        }
    }
    app.all_ended(PATIENCE).await;
    let ends: Vec<(String, String, i64)> = sqlx::query_as(
        "select o.state, o.error_code, count(l.id) from operations o
         left join operation_log l on l.operation_id = o.id and l.message like '%; retrying'
         where o.kind = 'password' group by o.id",
    )
    .fetch_all(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(ends, vec![("failed".to_owned(), "CONFLICT".to_owned(), 0); 2]);
    assert_eq!(hostile.get(&first).await.expect(200).body["status"], "running");
}

/// The customer's operations are in lanes of their own, as on many hosts, and hang while they are saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_account_s_hanging_operations_leave_slots_for_others_whatever_their_lanes() {
    let (app, _) = TestApp::adding(Notes::new).await;
    for sql in [
        "create function own_lane() returns trigger language plpgsql as
         $$ begin new.lane = 'host:' || new.subject_id; return new; end $$",
        "create trigger own_lane before insert on operations for each row execute function own_lane()",
        "create function hang() returns trigger language plpgsql set lock_timeout = 0 as
         $$ begin perform pg_advisory_xact_lock_shared(4711); return new; end $$",
        "create trigger hang before update on operations for each row
         when (old.account_id = (CUSTOMER) and new.step_index > old.step_index) execute function hang()",
    ] {
        let sql = sql.replace("(CUSTOMER)", &app.customer_account.0.to_string());
        sqlx::query(AssertSqlSafe(sql)).execute(&app.db.pool).await.unwrap();
    }
    let mut hold = kernel::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(4711)").execute(&mut *hold).await.unwrap();
    let note = async |by: &Client| by.post("/api/notes", json!({ "text": "milk" })).await.expect(201).body;
    for _ in 0..12 {
        note(&app.customer).await;
    }
    let at_work = async || {
        let sql = "select count(*) from operations where account_id = $1 and lease_until >= now()";
        sqlx::query_scalar::<_, i64>(sql).bind(app.customer_account.0).fetch_one(&app.db.pool).await.unwrap()
    };
    let workers = app.core.config.workers as i64;
    let most = workers * 3 / 4;
    wait_for("the account's share of slots", async || (at_work().await >= most).then_some(())).await;
    let others = note(&app.other).await;
    wait_for("the other customer's note", async || {
        let held = at_work().await;
        assert!(held <= most, "one account holds {held} of {workers} slots");
        let other = operation(&app.other, &others["operationId"]).await;
        if other["state"] == "succeeded" { Ok(()) } else { Err(other) }
    })
    .await;
    hold.rollback().await.unwrap();
    app.all_ended(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_count_against_storage_and_can_t_fill_it() {
    let (app, _lab, catalogue) = lab().await;
    let (me, points) = (&app.customer, &app.core.engine.failpoints);
    // Room for 4 GiB in all; a server of 1 GiB uses less than that, which counts as 1 GiB per snapshot.
    let set = async |sql: &'static str| sqlx::query(sql).execute(&app.db.pool).await.unwrap();
    set("update hosts set disk_overcommit = 1").await;
    set("update nodes set disk_gib = 4").await;
    let path = server(me, &catalogue).await;
    let at = format!("{path}/snapshots");
    let take = async |name: &str| me.post(&at, json!({ "snapname": name })).await;
    let done = async |answer: Value| assert_eq!(ended(me, &answer["operationId"]).await["state"], "succeeded");
    let reserved = async || {
        let host = app.provider.get(&format!("/api/hosts/{}", catalogue.host)).await.expect(200).body;
        host["nodes"][0]["reserved"]["disk"].as_i64().unwrap()
    };
    for (name, held) in [("one", 2), ("two", 3), ("three", 4)] {
        done(take(name).await.expect(200).body).await;
        assert_eq!(reserved().await, held, "{name}");
    }
    let refused = take("four").await.expect(507);
    assert_eq!(refused.code(), "RESOURCE_UNAVAILABLE");
    assert!(refused.body["error"].as_str().unwrap().contains("no space for another snapshot"), "{}", refused.text);
    let safely = json!({ "snapname": "one", "safetySnapshot": true });
    me.post(&format!("{at}/rollback"), safely).await.expect(507);
    app.other.post("/api/server/create", catalogue.order()).await.expect(507);
    me.put(&format!("{path}/resize"), json!({ "disk": 2 })).await.expect(422);
    app.provider.put(&format!("{path}/resize"), json!({ "disk": 2 })).await.expect(507);

    // Deleted snapshots, and those that could not be taken, hold no room.
    let gone = me.send(reqwest::Method::DELETE, &at, Some(json!({ "snapname": "two" }))).await.expect(200).body;
    done(gone).await;
    assert_eq!(reserved().await, 3);
    points.arm("snapshot:take_snapshot:acted", Action::Fail);
    let failed = take("four").await;
    if failed.status == 200 {
        assert_eq!(ended(me, &failed.body["operationId"]).await["state"], "failed");
    }
    app.all_ended(PATIENCE).await;
    assert_eq!(reserved().await, 3);
    server(&app.other, &catalogue).await;

    // Whatever room is left on paper, a storage that is nearly full takes no snapshots, bigger disks or servers.
    set("update nodes set disk_gib = 40, disk_used = 37::bigint << 30").await;
    let refused = take("four").await.expect(507);
    assert!(refused.body["error"].as_str().unwrap().contains("nearly full"), "{}", refused.text);
    app.provider.put(&format!("{path}/resize"), json!({ "disk": 2 })).await.expect(507);
    app.other.post("/api/server/create", catalogue.order()).await.expect(507);
    set("update nodes set disk_used = 35::bigint << 30").await;
    done(take("four").await.expect(200).body).await;
}

/// A node of Proxmox VE knows what a container uses, but not what a machine does: its whole disk counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_on_proxmox_ve_count_what_a_container_uses_and_a_machine_s_whole_disk() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    for tariff in [catalogue.lxc.1, catalogue.vm.1] {
        app.provider.put(&format!("/api/tariffs/{tariff}"), json!({ "snapshots": 9 })).await.expect(200);
    }
    // Room for 16 GiB in all; each server has a disk of 3.
    for sql in ["update hosts set disk_overcommit = 1", "update nodes set disk_gib = 16, disk_used = null"] {
        sqlx::query(sql).execute(&app.db.pool).await.unwrap();
    }
    let me = &app.customer;
    let done = async |answer: Value| assert_eq!(ended(me, &answer["operationId"]).await["state"], "succeeded");
    let make = async |order: Value| {
        let made = me.post("/api/server/create", order).await.expect(200).body;
        let guest = format!("guest({})", made["proxmoxId"]);
        let path = format!("/api/server/{}", made["id"]);
        done(made).await;
        (path, guest)
    };
    let take = async |path: &str, name: &str| me.post(&format!("{path}/snapshots"), json!({ "snapname": name })).await;
    let reserved = async || {
        let host = app.provider.get(&format!("/api/hosts/{}", catalogue.host)).await.expect(200).body;
        host["nodes"][0]["reserved"]["disk"].as_i64().unwrap()
    };
    let (container, inside) = make(catalogue.container()).await;
    let (machine, disk) = make(catalogue.machine()).await;
    let uses = async |mib: u64| pve.run(&format!("{inside}.stats.update(disk={mib} << 20)")).await;
    assert_eq!(reserved().await, 6);
    for (path, name, used, held) in [
        (&container, "one", 1536, 8),
        (&container, "two", 900, 9),
        (&machine, "one", 900, 12),
        (&machine, "two", 900, 15),
    ] {
        uses(used).await;
        done(take(path, name).await.expect(200).body).await;
        assert_eq!(reserved().await, held, "{path} {name}");
    }
    // One more GiB: too little for what the container uses now, for the machine's disk, and for another server.
    uses(1536).await;
    for refused in [take(&container, "three").await.expect(507), take(&machine, "three").await.expect(507)] {
        assert!(refused.body["error"].as_str().unwrap().contains("no space for another snapshot"), "{}", refused.text);
    }
    let safely = json!({ "snapname": "one", "safetySnapshot": true });
    me.post(&format!("{container}/snapshots/rollback"), safely).await.expect(507);
    app.other.post("/api/server/create", catalogue.container()).await.expect(507);
    let there = pve.run(&format!("[sorted(g.snapshots) for g in ({inside}, {disk})]")).await;
    assert_eq!(there, json!([["one", "two"], ["one", "two"]]), "nothing was taken on the host");
    uses(900).await;
    done(take(&container, "three").await.expect(200).body).await;
    assert_eq!(reserved().await, 16);

    // Deleted snapshots hold no room, nor do those of a deleted server.
    let gone = json!({ "snapname": "one" });
    let gone = me.send(reqwest::Method::DELETE, &format!("{machine}/snapshots"), Some(gone)).await.expect(200).body;
    done(gone).await;
    assert_eq!(reserved().await, 13);
    done(me.delete(&container).await.expect(200).body).await;
    assert_eq!(reserved().await, 6);
}
