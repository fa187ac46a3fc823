//! What can be done to a server besides power: size, snapshots, reinstallation, suspension; on real containers, checked
//! from the inside.

use std::sync::Arc;
use std::time::Duration;

use hypervisor::{Driver, GuestKind, GuestRef};
use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::lab::{Catalogue, output_of};
use crate::support::wait::PATIENCE;
use crate::support::{Client, Lab, TestApp, ended, wait_for};

/// A running server, and what is needed to reach it.
struct Made {
    app: TestApp,
    lab: Lab,
    catalogue: Catalogue,
    path: String,
    password: String,
    guest: GuestRef,
    driver: Arc<dyn Driver>,
}

impl Made {
    async fn new() -> Self {
        let app = TestApp::new().await;
        let lab = Lab::new(&app.db).await;
        let catalogue = lab.register(&app.provider).await;
        let limits = json!({ "maxCores": 2, "maxMemory": 512, "maxDisk": 3, "snapshots": 2 });
        app.provider.put(&format!("/api/tariffs/{}", catalogue.tariff), limits).await.expect(200);
        let made = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
        assert_eq!(ended(&app.customer, &made["operationId"]).await["state"], "succeeded");
        let (marker, vmid, node): (uuid::Uuid, i64, String) =
            sqlx::query_as("select uuid, guest_number, node from servers").fetch_one(&app.db.pool).await.unwrap();
        Self {
            path: format!("/api/server/{}", made["id"]),
            password: made["rootPassword"].as_str().unwrap().to_owned(),
            guest: GuestRef { marker, vmid, kind: GuestKind::Lxc, node },
            driver: lab.incus.driver(),
            app,
            lab,
            catalogue,
        }
    }

    fn at(&self, rest: &str) -> String {
        format!("{}{rest}", self.path)
    }

    async fn sh(&self, script: &str) -> String {
        let argv = ["sh", "-c", script];
        let out = self.driver.exec(&self.guest, &argv, b"", PATIENCE).await.unwrap();
        assert_eq!(out.status, 0, "{script}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// The output of a script that must print something.
    async fn said(&self, script: &str) -> String {
        output_of(&*self.driver, &self.guest, &["sh", "-c", script]).await
    }

    /// A journal on a full disk makes room for itself.
    async fn keep_journal_in_memory(&self) {
        let script = "mkdir -p /etc/systemd/journald.conf.d && rm -rf /var/log/journal && \
                      printf '[Journal]\\nStorage=volatile\\n' > /etc/systemd/journald.conf.d/memory.conf && \
                      systemctl restart systemd-journald";
        // Just after its start a guest has no systemd to ask.
        wait_for("a journal in memory", async || {
            let out = self.driver.exec(&self.guest, &["sh", "-c", script], b"", PATIENCE).await.unwrap();
            if out.status == 0 { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
        })
        .await;
    }

    /// Fills the guest's disk of this size. While the kernel is not counting disks (scripts/incus.sh has it count
    /// again), too much fits: then it is emptied and filled once more.
    async fn fill_disk(&self, gib: u32) {
        // Processes in the guest may free space meanwhile. Bounded, in case the disk has no limit.
        let fill = format!(
            "at=$(date +%s%N); for mib in 2048 1024 512 256 128 64 32 16 8 4 2 1 1; do \
             fallocate -l ${{mib}}M /big-$at-$mib 2>/dev/null; done; sync; for try in 1 2 3; do \
             dd if=/dev/zero bs=64k count=512 of=/rest-$at-$try 2>/dev/null; sync; \
             sh -c 'echo more > /more' 2>/dev/null && continue; \
             [ \"$(cat /big-* /rest-* | wc -c)\" -gt {} ] || exit 0; done; rm -f /big-* /rest-* /more; sync; exit 1",
            u64::from(gib) << 30
        );
        wait_for("a full disk", async || {
            let out = self.driver.exec(&self.guest, &["sh", "-c", &fill], b"", PATIENCE).await.unwrap();
            if out.status == 0 { Ok(()) } else { Err("more fits on the disk than its size") }
        })
        .await;
    }

    /// Fills what [`Self::fill_disk`] leaves: too little for a new file, but enough to rewrite a small one.
    async fn fill_rest(&self) {
        self.sh("at=$(ls /big-* | head -n 1); for n in $(seq 256); do \
                 dd if=/dev/zero bs=4k count=1 oflag=append,sync conv=notrunc of=$at 2>/dev/null || exit 0; \
                 done; exit 1")
            .await;
    }

    /// Fails the test unless the guest has this much memory, in MiB; its lxcfs may need a moment on a busy machine.
    async fn has_memory(&self, mib: u64) {
        wait_for("the guest's memory", async || {
            let memory = self.sh("awk '/MemTotal/{print $2}' /proc/meminfo").await;
            if memory == (mib * 1024).to_string() { Ok(()) } else { Err(memory) }
        })
        .await;
    }

    /// Waits until the operation that an answer started has succeeded, and returns the answer.
    async fn done(&self, client: &Client, answer: Response) -> Value {
        if answer.status != 200 {
            let told: Vec<Option<String>> =
                sqlx::query_scalar("select error_detail from operations where error_detail is not null")
                    .fetch_all(&self.app.db.pool)
                    .await
                    .unwrap();
            eprintln!("what the host said: {told:?}");
        }
        let body = answer.expect(200).body;
        assert_eq!(body["status"], "success", "{body}");
        let operation = ended(client, &body["operationId"]).await;
        assert_eq!(operation["state"], "succeeded", "{operation}");
        body
    }

    async fn view(&self) -> Value {
        self.app.customer.get(&self.path).await.expect(200).body
    }
}

fn size(view: &Value) -> [i64; 3] {
    ["cores", "memory", "disk"].map(|part| view[part].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_grows_by_resource_or_by_tariff_and_its_disk_never_shrinks() {
    let made = Made::new().await;
    let me = &made.app.customer;
    let resize = async |client: &Client, wish: Value| client.put(&made.at("/resize"), wish).await;
    let pid = made.said("stat -c %Y /proc/1").await;
    let answer = resize(me, json!({ "cores": 2, "memory": 384, "disk": 2 })).await;
    assert_eq!(made.done(me, answer).await["restart"], false);
    assert_eq!(size(&made.view().await), [2, 384, 2]);
    made.has_memory(384).await;
    assert_eq!(made.said("stat -c %Y /proc/1").await, pid, "it was not restarted");
    assert_eq!(made.view().await["status"], "running");

    let fields = async |client: &Client, wish: Value| {
        let answer = resize(client, wish).await.expect(422);
        answer.body["details"]["fields"].clone()
    };
    assert_eq!(fields(me, json!({ "disk": 1 })).await["disk"], "The disk has 2 GiB and can't shrink to 1.");
    let over = fields(me, json!({ "cores": 3, "memory": 513, "disk": 4 })).await;
    assert_eq!(over.as_object().unwrap().len(), 3, "{over}");
    assert!(over["memory"].as_str().unwrap().contains("512"), "{over}");
    assert_eq!(fields(me, json!({ "cores": 0 })).await.as_object().unwrap().len(), 1);
    assert!(fields(me, json!({ "tariffId": 9999 })).await["tariffId"].is_string());
    assert!(fields(me, json!({ "tariffId": made.catalogue.tariff, "cores": 1 })).await["tariffId"].is_string());
    // A size that it already has starts no operation.
    let same = resize(me, json!({ "cores": 2 })).await.expect(200).body;
    assert_eq!((&same["data"], &same["operationId"]), (&json!("unchanged"), &Value::Null));
    resize(&made.app.other, json!({ "cores": 1 })).await.expect(404);

    // Another tariff sets its size and its name. A tariff with a smaller disk is refused.
    let tariff = async |name: &str, cores: i64, memory: i64, disk: i64| {
        let tariff =
            json!({ "name": name, "kind": "lxc", "cores": cores, "memory": memory, "disk": disk, "price": 900 });
        made.app.provider.post("/api/tariffs", tariff).await.expect(201).body["id"].clone()
    };
    let (small, large) = (tariff("Small", 1, 128, 1).await, tariff("Large", 1, 320, 3).await);
    assert!(fields(me, json!({ "tariffId": small })).await["tariffId"].as_str().unwrap().contains("2 GiB"));
    let answer = resize(me, json!({ "tariffId": large })).await;
    made.done(me, answer).await;
    let view = made.view().await;
    assert_eq!((size(&view), &view["tariff"]["name"]), ([1, 320, 3], &json!("Large")));
    made.has_memory(320).await;
    // Only the provider can go beyond the tariff's limits, and nobody beyond the host's capacity.
    fields(me, json!({ "memory": 400 })).await;
    let answer = resize(&made.app.provider, json!({ "memory": 400 })).await;
    made.done(&made.app.provider, answer).await;
    let none = resize(&made.app.provider, json!({ "memory": 16_000_000 })).await.expect(507);
    assert_eq!(none.code(), "RESOURCE_UNAVAILABLE");
    assert_eq!(size(&made.view().await), [1, 400, 3]);
}

/// A full disk must not trap a server: the error says whose disk is full, what would take the server down for good is
/// refused while it is up, and a bigger disk helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_full_disk_gets_a_clear_error_stays_up_and_can_grow() {
    let made = Made::new().await;
    let me = &made.app.customer;
    made.keep_journal_in_memory().await;
    made.fill_disk(1).await;
    let pid = made.said("stat -c %Y /proc/1").await;
    let refused = async |answer: Response, what: &str| {
        // Sometimes in the answer, sometimes in the operation.
        let (code, words) = match answer.status {
            200 => {
                let operation = ended(me, &answer.body["operationId"]).await;
                assert_eq!(operation["state"], "failed", "{what}: {operation}");
                (operation["error"]["code"].clone(), operation["error"]["message"].clone())
            }
            _ => (json!(answer.code()), answer.body["error"].clone()),
        };
        assert_eq!(code, "CONFLICT", "{what}: {words}");
        assert!(words.as_str().unwrap().starts_with("The server's own disk is full"), "{what}: {words}");
    };
    refused(me.post(&made.at("/restart"), None).await, "restart").await;
    assert_eq!(made.view().await["status"], "running");
    made.fill_rest().await;
    refused(me.post(&made.at("/restart"), None).await, "restart").await;
    refused(me.post(&made.at("/password"), None).await, "password").await;
    refused(me.post(&made.at("/snapshots"), json!({ "snapname": "one" })).await, "snapshot").await;
    // More cores alone don't help, and are undone.
    refused(me.put(&made.at("/resize"), json!({ "cores": 2 })).await, "cores").await;
    assert_eq!(size(&made.view().await), [1, 256, 1]);
    assert_eq!(made.said("stat -c %Y /proc/1").await, pid, "it was up all the time");

    let large =
        json!({ "name": "Large", "kind": "lxc", "cores": 2, "memory": 320, "disk": 2, "maxDisk": 3, "price": 900 });
    let large = made.app.provider.post("/api/tariffs", large).await.expect(201).body["id"].clone();
    let answer = me.put(&made.at("/resize"), json!({ "tariffId": large })).await;
    made.done(me, answer).await;
    assert_eq!(size(&made.view().await), [2, 320, 2]);
    made.has_memory(320).await;
    let answer = me.post(&made.at("/restart"), None).await;
    made.done(me, answer).await;

    // A stopped server with a full disk says why it does not start, and starts with a bigger one. What shuts down may
    // free space for once: then it is filled again.
    wait_for("a server whose disk is still full when it is stopped", async || {
        made.fill_disk(2).await;
        made.fill_rest().await;
        let answer = me.post(&made.at("/stop"), None).await;
        made.done(me, answer).await;
        let answer = me.post(&made.at("/start"), None).await;
        let started = answer.status == 200 && ended(me, &answer.body["operationId"]).await["state"] == "succeeded";
        if started {
            return Err("it had room to start");
        }
        refused(answer, "start").await;
        Ok(())
    })
    .await;
    assert_eq!(made.view().await["status"], "stopped");
    let answer = me.put(&made.at("/resize"), json!({ "disk": 3, "cores": 1 })).await;
    made.done(me, answer).await;
    let answer = me.post(&made.at("/start"), None).await;
    made.done(me, answer).await;
    assert_eq!(size(&made.view().await), [1, 320, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_limited_named_and_rolled_back_to() {
    let made = Made::new().await;
    let me = &made.app.customer;
    let take = async |name: &str| me.post(&made.at("/snapshots"), json!({ "snapname": name })).await;
    made.sh("echo first > /root/f; sync").await;
    let answer = take("one").await;
    made.done(me, answer).await;
    assert_eq!(take("one").await.expect(409).code(), "ALREADY_EXISTS");
    for bad in ["", "1st", "../x", "a b", "current", "новый"] {
        assert!(take(bad).await.expect(422).body["details"]["fields"]["snapname"].is_string(), "{bad:?}");
    }
    made.sh("echo second > /root/f; sync").await;
    let back = |safety: bool| json!({ "snapname": "one", "safetySnapshot": safety });
    let rollback = made.at("/snapshots/rollback");
    let answer = me.post(&rollback, back(true)).await;
    let rolled = made.done(me, answer).await;
    assert_eq!(made.sh("cat /root/f").await, "first");
    assert_eq!(made.view().await["status"], "running");
    // What the rollback discarded is in the safety snapshot.
    let safety = rolled["safetySnapshot"].as_str().unwrap();
    let list = me.get(&made.at("/snapshots")).await.expect(200).body;
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!((names, &list["limit"]), (vec!["one", safety], &json!(2)));
    let full = take("three").await.expect(507);
    assert!(full.body["error"].as_str().unwrap().contains("2 of at most 2"), "{}", full.text);
    me.post(&rollback, back(true)).await.expect(507);
    let answer = me.post(&rollback, json!({ "snapname": safety })).await;
    made.done(me, answer).await;
    assert_eq!(made.sh("cat /root/f").await, "second");

    me.post(&rollback, json!({ "snapname": "none" })).await.expect(404);
    let delete = async |name: &str| {
        me.send(reqwest::Method::DELETE, &made.at("/snapshots"), Some(json!({ "snapname": name }))).await
    };
    delete("none").await.expect(404);
    let answer = delete(safety).await;
    made.done(me, answer).await;
    // A stopped server stays stopped.
    let answer = me.post(&made.at("/stop"), None).await;
    made.done(me, answer).await;
    let answer = me.post(&rollback, back(false)).await;
    made.done(me, answer).await;
    assert_eq!(made.view().await["status"], "stopped");
    assert_eq!(me.get(&made.at("/snapshots")).await.expect(200).body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reinstalled_with_its_old_address_unless_it_is_protected() {
    let made = Made::new().await;
    let me = &made.app.customer;
    let before = made.view().await;
    made.sh("echo mine > /root/f; sync").await;
    let answer = me.post(&made.at("/snapshots"), json!({ "snapname": "one" })).await;
    made.done(me, answer).await;
    let patch = async |change: Value| me.send(reqwest::Method::PATCH, &made.path, Some(change)).await.expect(200).body;
    assert_eq!(patch(json!({ "deletionProtection": true, "name": "anew" })).await["deletionProtection"], true);
    let wish = json!({ "osId": made.catalogue.image, "sshKeys": [] });
    for refused in [me.post(&made.at("/reinstall"), wish.clone()).await, me.delete(&made.path).await] {
        assert!(refused.expect(409).body["error"].as_str().unwrap().contains("protection"));
    }
    patch(json!({ "deletionProtection": false })).await;
    me.post(&made.at("/reinstall"), json!({ "osId": 9999 })).await.expect(422);

    // Names and keys stored before the checks became stricter are refused before anything is lost.
    let rename = json!({ "name": format!("{}.example.com", "c".repeat(60)) });
    me.send(reqwest::Method::PATCH, &made.path, Some(rename)).await.expect(422);
    let store = async |sql: &'static str| sqlx::query(sql).execute(&made.app.db.pool).await.unwrap();
    store("update servers set name = repeat('c', 60) || '.example.com'").await;
    let refused = me.post(&made.at("/reinstall"), wish.clone()).await.expect(409);
    assert!(refused.body["error"].as_str().unwrap().contains("64 characters"), "{}", refused.text);
    store("update servers set name = 'anew', ssh_keys = array['ssh-ed25519 AAAAAAAAAAAAAAAAAAAAAAA= old']").await;
    let keep = json!({ "osId": made.catalogue.image });
    let refused = me.post(&made.at("/reinstall"), keep).await.expect(422);
    assert!(refused.body["details"]["fields"]["sshKeys"].is_string(), "{}", refused.text);
    assert_eq!(made.sh("cat /root/f").await, "mine");

    let answer = me.post(&made.at("/reinstall"), wish).await;
    let anew = made.done(me, answer).await;
    let view = made.view().await;
    assert_eq!((&view["status"], &view["ipAddress"]), (&json!("running"), &before["ipAddress"]));
    assert_eq!(view["proxmoxId"], before["proxmoxId"]);
    assert_eq!(made.sh("test -e /root/f || hostname").await, "anew");
    assert_eq!(me.get(&made.at("/snapshots")).await.expect(200).body["data"], json!([]));
    let password = anew["rootPassword"].as_str().unwrap();
    assert_ne!(password, made.password);
    let check = "my $h = (getpwnam('root'))[1]; my $p = <STDIN>; exit(crypt($p, $h) eq $h ? 0 : 1)";
    let argv = ["perl", "-e", check];
    let out = made.driver.exec(&made.guest, &argv, password.as_bytes(), Duration::from_secs(20)).await.unwrap();
    assert_eq!(out.status, 0, "the new password is root's");
    assert_eq!(made.lab.guests().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_server_is_stopped_and_read_only_for_its_owner() {
    let made = Made::new().await;
    let (me, provider) = (&made.app.customer, &made.app.provider);
    let suspended = provider.post(&made.at("/suspend"), json!({ "reason": "unpaid" })).await;
    made.done(provider, suspended).await;
    let view = made.view().await;
    assert_eq!((&view["status"], &view["suspendReason"]), (&json!("stopped"), &json!("unpaid")));
    assert!(view["suspendedAt"].is_string());
    for (method, rest, body) in [
        ("POST", "/start", Value::Null),
        ("POST", "/password", Value::Null),
        ("DELETE", "", Value::Null),
        ("PATCH", "", json!({ "name": "mine" })),
        ("PUT", "/resize", json!({ "cores": 2 })),
        ("POST", "/reinstall", json!({ "osId": made.catalogue.image })),
        ("POST", "/snapshots", json!({ "snapname": "one" })),
    ] {
        let body = (!body.is_null()).then_some(body);
        let refused = me.send(method.parse().unwrap(), &made.at(rest), body).await.expect(409);
        assert!(refused.body["error"].as_str().unwrap().ends_with("unpaid"), "{method} {rest}: {}", refused.text);
    }
    me.post(&made.at("/unsuspend"), None).await.expect(403);
    let back = provider.post(&made.at("/unsuspend"), None).await;
    made.done(provider, back).await;
    assert_eq!(made.view().await["status"], "running");
    provider.post(&made.at("/unsuspend"), None).await.expect(409);
    let answer = me.post(&made.at("/stop"), None).await;
    made.done(me, answer).await;
    // A server that was stopped before stays stopped.
    let suspended = provider.post(&made.at("/suspend"), json!({ "reason": "again" })).await.expect(200).body;
    assert_eq!(suspended["operationId"], Value::Null);
    assert_eq!(provider.post(&made.at("/unsuspend"), None).await.expect(200).body["operationId"], Value::Null);
    assert_eq!(made.view().await["status"], "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_reverse_dns_and_ssh_keys_are_stored_as_sent() {
    let made = Made::new().await;
    let me = &made.app.customer;
    let labels = json!({ "env": "production", "example.com/team": "" });
    let patch = async |change: Value| me.send(reqwest::Method::PATCH, &made.path, Some(change)).await;
    assert_eq!(patch(json!({ "labels": labels })).await.expect(200).body["labels"], labels);
    assert_eq!(patch(json!({ "name": "web-1" })).await.expect(200).body["labels"], labels, "the labels are unchanged");
    for bad in [json!({ "labels": { "a b": "" } }), json!({ "labels": { "ключ": "1" } }), json!({ "name": "a b" })]
    {
        patch(bad).await.expect(422);
    }
    assert_eq!(made.view().await["labels"], labels);

    for (selector, found) in [
        ("env=production", 1),
        ("env%3Dproduction,example.com/team", 1),
        ("example.com/team=", 1),
        ("env=test", 0),
        ("env!=test,!old", 1),
        ("env!=production", 0),
        ("!env", 0),
        ("owner", 0),
    ] {
        let list = me.get(&format!("/api/server?labels={selector}")).await.expect(200).body;
        assert_eq!(list.as_array().unwrap().len(), found, "{selector}");
    }
    me.get("/api/server?labels=a%20b").await.expect(422);

    let address = made.lab.first.to_string();
    let at = made.at(&format!("/addresses/{address}"));
    let named = me.put(&at, json!({ "reverseDns": "mail.example.com" })).await.expect(200).body;
    assert_eq!(named, json!([{ "address": address, "reverseDns": "mail.example.com" }]));
    // Other people's domains can't be used, unless the provider sets the name or allows the domain.
    let refused = me.put(&at, json!({ "reverseDns": "mail.example.org" })).await.expect(422);
    assert!(refused.text.contains("example.com"), "{}", refused.text);
    me.put(&at, json!({ "reverseDns": "badexample.com" })).await.expect(422);
    made.app.provider.put(&at, json!({ "reverseDns": "mail.example.org" })).await.expect(200);
    compute::addresses::reverse::allow(&made.app.core, made.app.customer_account, "Example.org", true).await.unwrap();
    me.put(&at, json!({ "reverseDns": "mail.example.org" })).await.expect(200);
    compute::addresses::reverse::allow(&made.app.core, made.app.customer_account, "example.org", false).await.unwrap();
    me.put(&at, json!({ "reverseDns": "mail.example.org" })).await.expect(422);
    me.put(&at, json!({ "reverseDns": "a b" })).await.expect(422);
    me.put(&made.at("/addresses/10.0.0.1"), json!({ "reverseDns": "a.example.com" })).await.expect(404);
    me.put(&made.at("/addresses/x"), json!({ "reverseDns": "a.example.com" })).await.expect(400);
    let nameless = me.put(&at, json!({ "reverseDns": null })).await.expect(200).body;
    assert_eq!(nameless[0]["reverseDns"], Value::Null);

    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me@there";
    let key = me.post("/api/ssh-keys", json!({ "name": "Ключ", "publicKey": line })).await.expect(201).body;
    me.post("/api/ssh-keys", json!({ "name": "again", "publicKey": line })).await.expect(409);
    assert_eq!(me.get("/api/ssh-keys").await.expect(200).body, json!([key]));
    assert_eq!(made.app.other.get("/api/ssh-keys").await.expect(200).body, json!([]));
    let mut order = made.catalogue.order();
    order["sshKeyIds"] = json!([key["id"]]);
    made.app.other.post("/api/server/create", order.clone()).await.expect(422);
    let wish = json!({ "osId": made.catalogue.image, "sshKeyIds": [key["id"]] });
    let answer = me.post(&made.at("/reinstall"), wish).await;
    made.done(me, answer).await;
    assert_eq!(made.sh("cat /root/.ssh/authorized_keys").await, line);
    me.delete(&format!("/api/ssh-keys/{}", key["id"])).await.expect(204);
    me.delete(&format!("/api/ssh-keys/{}", key["id"])).await.expect(404);
    me.post("/api/server/create", order).await.expect(422);
}
