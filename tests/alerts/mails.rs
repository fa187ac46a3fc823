//! Who is mailed: once, in one mail, at the right time.

use std::collections::BTreeSet;

use accounts::service::add_user;
use chrono::{DateTime, TimeDelta, Utc};
use kernel::auth::StaffRole;
use secrecy::SecretString;
use serde_json::json;
use watch::alerts::notify;

use super::world::{World, busy, immediate_rule, notifier};
use crate::support::{Client, PASSWORD};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_host_with_500_servers_makes_one_mail_per_affected_user() {
    let world = World::new().await;
    sqlx::query(
        "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                              status, cores, memory_mib, disk_gib)
         select gen_random_uuid(), (select a.id from accounts a where a.owner_id = u.id), t.id, i.id, h.id, 'n',
                nextval('guest_numbers'), 'lxc', 'web-' || n, 'running', 1, 1024, 10
         from generate_series(1, 500) n, tariffs t, images i, hosts h, users u
         where u.email = (array['customer', 'other', 'third'])[1 + n % 3] || '@example.com'",
    )
    .execute(world.db())
    .await
    .unwrap();
    // One of them is being stopped on purpose: its owner gets no alert for it.
    sqlx::query("update servers set status = 'stopping' where name = 'web-3'").execute(world.db()).await.unwrap();
    world.silent(0).await;
    world.silent(30).await;
    assert_eq!(world.notify().await, 0, "not for long enough");
    world.silent(60).await;
    world.silent(90).await;

    // Several processes at once, and then once more.
    let other = notifier(&world.app.core.config, |alerts| alerts.alert_settle_seconds = 0);
    let now = Utc::now();
    let told = tokio::join!(
        notify::send_due(&world.notifier, now),
        notify::send_due(&other, now),
        notify::send_due(&world.notifier, now),
        notify::send_due(&other, now)
    );
    let told: usize = [told.0, told.1, told.2, told.3].into_iter().filter_map(|told| told.unwrap()).sum();
    assert_eq!(told + world.notify().await, 4);
    assert_eq!(world.notify().await, 0);
    let mails = world.mails().await;
    let recipients: Vec<&str> = mails.iter().map(|m| m.recipient.as_str()).collect();
    assert_eq!(recipients, ["customer@example.com", "other@example.com", "provider@example.com", "third@example.com"]);
    assert_eq!(mails[2].subject, "Alert: rack-1: The host can't be reached; affected servers: 499, customers: 3");
    let names = |text: &str| -> BTreeSet<String> {
        text.lines().filter_map(|l| l.strip_prefix("- web-")).map(|l| l.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(mails[0].subject, "165 alerts", "{}", mails[0].text_body);
    let (mine, theirs) = (names(&mails[0].text_body), names(&mails[1].text_body));
    assert_eq!((mine.len(), theirs.len()), (165, 167));
    assert!(mine.is_disjoint(&theirs) && !mine.contains("3"));
    assert!(!mails[0].text_body.contains("rack-1"), "a host's name is for the provider only");

    let guests: Vec<uuid::Uuid> = sqlx::query_scalar("select uuid from servers").fetch_all(world.db()).await.unwrap();
    for seconds in [120, 150, 180] {
        world.swept(seconds, guests.iter().map(|marker| busy(*marker, 0.1)).collect()).await;
        let told = world.notify().await;
        assert_eq!(told, if seconds == 180 { 4 } else { 0 }, "{seconds}");
    }
    let mails = world.mails().await;
    assert_eq!(mails.iter().map(|m| m.recipient.as_str()).collect::<Vec<_>>(), recipients);
    assert_eq!(mails[2].subject, "Resolved: rack-1: The host is reachable again; affected servers: 499, customers: 3");
    assert_eq!((mails[0].subject.as_str(), names(&mails[0].text_body)), ("165 alerts resolved", mine));
    assert_eq!(world.notify().await, 0);
}

/// A process dies at an arbitrary moment: another one completes what it had not committed, and nothing is mailed twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_while_notifying_leaves_one_mail() {
    let world = World::new().await;
    let (_, marker) = world.server("customer@example.com", "web-1").await;
    for round in 0..12_u64 {
        let at = i64::try_from(round).unwrap() * 600;
        world.lasts(at, marker, 0.99).await;
        for tries in 0..4 {
            // Dropped at some await point, as by a kill.
            let limit = std::time::Duration::from_micros(300 * (round * 4 + tries));
            let _ = tokio::time::timeout(limit, notify::send_due(&world.notifier, Utc::now())).await;
        }
        // A dropped connection rolls back asynchronously, and holds the lock until then.
        world.notify().await;
        assert_eq!(world.mails().await.len(), 1, "round {round}");
        world.lasts(at + 120, marker, 0.1).await;
        assert_eq!(world.notify().await, 1);
        assert_eq!(world.mails().await.len(), 1, "the end of round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_raised_together_go_out_in_one_mail() {
    let world = World::new().await;
    let mut guests = vec![];
    for name in ["web-1", "web-2"] {
        guests.push(world.server("customer@example.com", name).await);
    }
    world.app.provider.put("/api/alert-rules/cpu", immediate_rule()).await.expect(200);
    world.swept(0, guests.iter().map(|(_, marker)| busy(*marker, 0.99)).collect()).await;
    let patient = notifier(&world.app.core.config, |alerts| alerts.alert_settle_seconds = 100);
    for (first, second, mails) in [(50, 50, 0), (200, 50, 0), (590, 90, 0), (610, 50, 1), (610, 610, 0)] {
        for ((id, _), age) in guests.iter().zip([first, second]) {
            sqlx::query("update alerts set changed_at = now() - make_interval(secs => $2) where server_id = $1")
                .bind(id)
                .bind(f64::from(age))
                .execute(world.db())
                .await
                .unwrap();
        }
        assert_eq!(super::world::notify(&patient, Utc::now()).await, mails, "{first} s and {second} s ago");
    }
    assert_eq!(world.mails().await[0].subject, "2 alerts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resource_warnings_are_mailed_and_mailed_again_when_they_become_critical() {
    let world = World::new().await;
    let (_, marker) = world.server("customer@example.com", "web-1").await;
    let figures = |cpu: f64, memory: u64, disk: u64| monitor::Sample {
        memory_used: Some(memory),
        disk_used: Some(disk),
        ..busy(marker, cpu)
    };
    let mut at = 0;
    let mut lasts = async |sample: monitor::Sample| {
        for _ in 0..3 {
            world.swept(at, vec![sample.clone()]).await;
            at += 30;
        }
        world.notify().await
    };
    assert_eq!(lasts(figures(0.9, 900, 900)).await, 0, "at the contract's thresholds, not above");
    assert_eq!(lasts(figures(0.92, 930, 940)).await, 1);
    let mails = world.mails().await;
    assert_eq!((mails[0].recipient.as_str(), mails[0].subject.as_str()), ("customer@example.com", "3 alerts"));
    for line in ["CPU usage is at 92%", "Memory usage is at 93%", "Disk usage is at 94%"] {
        assert!(mails[0].text_body.contains(line), "{}", mails[0].text_body);
    }
    assert_eq!(lasts(figures(0.93, 930, 940)).await, 0, "mailed once");
    assert_eq!(lasts(figures(0.93, 980, 940)).await, 1, "it got worse");
    assert!(world.mails().await[0].subject.contains("Memory usage is at 98%"));
    assert_eq!((lasts(figures(0.93, 930, 940)).await, lasts(figures(0.93, 980, 940)).await), (0, 0));
    assert_eq!(lasts(figures(0.1, 100, 100)).await, 1);
    assert_eq!(world.mails().await[0].subject, "3 alerts resolved");
    assert_eq!(world.notify().await, 0);
}

/// Hosts have no owner: their warnings are mailed to providers, as far as they want warnings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_warnings_are_mailed_to_the_providers_who_want_them() {
    let world = World::new().await;
    let accounts = &world.app.service.features.accounts;
    let password = SecretString::from(PASSWORD);
    add_user(accounts, "calm@example.com", "", Some(StaffRole::Admin), password).await.unwrap();
    sqlx::query("update users set alert_mails = 'critical' where email = 'calm@example.com'")
        .execute(world.db())
        .await
        .unwrap();
    world.app.provider.put("/api/alert-rules/storage_low", immediate_rule()).await.expect(200);
    let told = async |seconds: i64, used: u64| {
        world.stored(seconds, &[used]).await;
        world.notify().await;
        let mails = world.mails().await;
        mails.into_iter().map(|m| (m.recipient, m.subject)).collect::<Vec<_>>()
    };
    let mail =
        |to: &str, subject: &str| (format!("{to}@example.com"), format!("{subject} of the guests' storage is in use"));
    assert_eq!(told(0, 92).await, [mail("provider", "Alert: rack-1: 92%")]);
    assert_eq!(told(30, 20).await, [mail("provider", "Resolved: rack-1: 20%")]);
    assert_eq!(told(60, 92).await, [mail("provider", "Alert: rack-1: 92%")]);
    let both = |subject| [mail("calm", subject), mail("provider", subject)];
    assert_eq!(told(90, 97).await, both("Alert: rack-1: 97%"));
    assert_eq!(told(120, 20).await, both("Resolved: rack-1: 20%"));

    sqlx::query("update users set alert_mails = 'critical' where staff_role = 'admin'")
        .execute(world.db())
        .await
        .unwrap();
    assert_eq!(told(150, 92).await, []);
    assert_eq!(told(180, 97).await, both("Alert: rack-1: 97%"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_can_choose_critical_alerts_only_and_acknowledged_ones_are_not_mailed() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    let me = async |choice: &str| {
        let change = json!({ "alertMails": choice });
        world.app.customer.send(reqwest::Method::PATCH, "/api/auth/me", Some(change)).await
    };
    assert_eq!(world.app.customer.get("/api/auth/me").await.expect(200).body["alertMails"], "all");
    me("few").await.expect(422);
    assert_eq!(me("critical").await.expect(200).body["alertMails"], "critical");
    world.rule(id, "cpu", immediate_rule()).await;
    world.swept(0, vec![busy(marker, 0.92)]).await;
    assert_eq!(world.notify().await, 0);
    let path = format!("/api/alerts/{}/acknowledge", world.only().await["id"]);
    world.app.customer.post(&path, None).await.expect(200);
    world.swept(30, vec![busy(marker, 0.99)]).await;
    assert_eq!(world.open().await, [("cpu".to_owned(), "critical".to_owned())]);
    assert_eq!(world.notify().await, 0, "somebody acknowledged it");
    world.swept(60, vec![busy(marker, 0.1)]).await;
    assert_eq!(world.notify().await, 0, "what was not mailed has no end to mail");

    // Mailed first, then acknowledged: its end is mailed.
    world.swept(90, vec![busy(marker, 0.99)]).await;
    assert_eq!(world.notify().await, 1);
    let open = world.app.provider.get("/api/alerts?open=true").await.expect(200).body["data"][0].clone();
    assert!(open["mailedAt"].is_string(), "{open}");
    world.app.customer.post(&format!("/api/alerts/{}/acknowledge", open["id"]), None).await.expect(200);
    world.swept(120, vec![busy(marker, 0.1)]).await;
    assert_eq!(world.notify().await, 1);
    let mails = world.mails().await;
    let mut subjects: Vec<&str> = mails.iter().map(|m| m.subject.as_str()).collect();
    subjects.sort_unstable();
    let name = format!("web-1 (server {id})");
    let expected = [("Alert", 99), ("Resolved", 10)];
    assert_eq!(subjects, expected.map(|(word, share)| format!("{word}: {name}: CPU usage is at {share}%")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_no_mail_gets_none_but_the_end_of_what_was_mailed() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    world.rule(id, "cpu", immediate_rule()).await;
    let choose = async |client: &Client, choice: &str| {
        let change = json!({ "alertMails": choice });
        client.send(reqwest::Method::PATCH, "/api/auth/me", Some(change)).await.expect(200)
    };
    choose(&world.app.customer, "none").await;
    world.swept(0, vec![busy(marker, 0.99)]).await;
    assert_eq!(world.notify().await, 0);
    let open = world.only().await;
    assert_eq!((&open["level"], &open["mailedAt"]), (&json!("critical"), &json!(null)));
    world.swept(30, vec![busy(marker, 0.1)]).await;
    assert_eq!(world.notify().await, 0);

    choose(&world.app.customer, "all").await;
    world.swept(60, vec![busy(marker, 0.92)]).await;
    assert_eq!(world.notify().await, 1);
    choose(&world.app.customer, "none").await;
    world.swept(90, vec![busy(marker, 0.99)]).await;
    assert_eq!(world.notify().await, 0, "it is critical now");
    world.swept(120, vec![busy(marker, 0.1)]).await;
    assert_eq!(world.notify().await, 1, "its beginning was mailed");

    // Somebody has to know when a host fails.
    choose(&world.app.provider, "none").await;
    let unreachable = "insert into alerts (kind, subject, level, value, raised_at)
                       values ('mail_held', 'mail', 'critical', 1, now() - interval '1 hour')";
    sqlx::query(unreachable).execute(world.db()).await.unwrap();
    assert_eq!(world.notify().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn muted_alerts_wait_and_are_mailed_later_if_they_last() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    world.rule(id, "cpu", immediate_rule()).await;
    let mute = format!("/api/server/{id}/mute");
    let until = json!({ "until": Utc::now() + TimeDelta::hours(1) });
    let (customer, other, provider) = (&world.app.customer, &world.app.other, &world.app.provider);
    for bad in [Utc::now() - TimeDelta::hours(1), Utc::now() + TimeDelta::days(800)] {
        customer.post(&mute, json!({ "until": bad })).await.expect(422);
    }
    other.post(&mute, until.clone()).await.expect(404);
    let muted = customer.post(&mute, until.clone()).await.expect(200).body;
    assert_eq!(muted["type"], json!(null));
    let rules = customer.get(&format!("/api/server/{id}/alert-rules")).await.expect(200).body;
    assert!(rules.as_array().unwrap().iter().all(|r| r["mutedUntil"].is_string()), "{rules}");
    world.swept(0, vec![busy(marker, 0.99)]).await;
    assert_eq!(world.notify().await, 0);
    assert!(world.only().await["mutedUntil"].is_string());
    customer.delete(&mute).await.expect(204);
    customer.delete(&mute).await.expect(404);
    assert_eq!(world.notify().await, 1, "it is still open");

    // Its end waits as well; another server's alerts do not.
    customer.post(&mute, json!({ "until": until["until"], "type": "cpu" })).await.expect(200);
    world.swept(30, vec![busy(marker, 0.1)]).await;
    assert_eq!(world.notify().await, 0);
    customer.delete(&format!("{mute}?type=disk")).await.expect(404);
    customer.delete(&format!("{mute}?type=cpu")).await.expect(204);
    assert_eq!(world.notify().await, 1);

    // A whole kind of alert muted for everybody; one that ends while it is muted is not mailed.
    customer.post("/api/alert-rules/cpu/mute", until.clone()).await.expect(403);
    provider.post("/api/alert-rules/cpu/mute", until.clone()).await.expect(200);
    world.swept(60, vec![busy(marker, 0.99)]).await;
    assert_eq!(world.notify().await, 0);
    world.swept(90, vec![busy(marker, 0.1)]).await;
    provider.delete("/api/alert-rules/cpu/mute").await.expect(204);
    assert_eq!(world.notify().await, 0);
    assert_eq!(world.mails().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_hours_delay_mails_about_beginnings_and_ends() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    let mut rule = immediate_rule();
    rule["quietHours"] = json!({ "from": "22:00", "to": "07:00", "timeZone": "Europe/Berlin" });
    world.rule(id, "cpu", rule).await;
    let at = |time: &str| format!("2027-01-10T{time}:00Z").parse::<DateTime<Utc>>().unwrap();
    let (night, morning, day) = (at("02:00"), at("06:00"), at("12:00"));
    // Began and ended at night: no mail. Seven o'clock in Berlin is six o'clock UTC.
    world.swept(0, vec![busy(marker, 0.99)]).await;
    assert_eq!(world.tell_at(night).await, 0);
    world.swept(30, vec![busy(marker, 0.1)]).await;
    assert_eq!((world.tell_at(night).await, world.tell_at(morning).await), (0, 0));
    // Began at night, and lasts.
    world.swept(60, vec![busy(marker, 0.99)]).await;
    assert_eq!((world.tell_at(at("05:59")).await, world.tell_at(morning).await), (0, 1));
    // It ends the next night, and that is mailed in the morning, once.
    world.swept(90, vec![busy(marker, 0.1)]).await;
    assert_eq!((world.tell_at(night).await, world.tell_at(morning).await, world.tell_at(day).await), (0, 1, 0));
    let mails = world.mails().await;
    assert_eq!(mails.len(), 2);
    assert!(mails.iter().all(|m| m.recipient == "customer@example.com"));
}

/// A whole fleet can raise alerts at once: they are mailed in batches, and muted ones hold up nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_numbers_of_alerts_are_mailed_in_batches() {
    let world = World::new().await;
    let (loud, _) = world.server("customer@example.com", "loud").await;
    let (other, _) = world.server("other@example.com", "other").await;
    let raise = "insert into alerts (kind, subject, server_id, level, value, raised_at, changed_at)
                 select 'cpu', 'server:' || $1 || ':' || n, $1, 'critical', 0.99, now(), now() - interval '1 hour'
                 from generate_series(1, $2) n";
    for (server, count) in [(loud, 2_100), (other, 1)] {
        sqlx::query(raise).bind(server).bind(count).execute(world.db()).await.unwrap();
    }
    sqlx::query("insert into alert_mutes (server_id, kind, until) values ($1, 'cpu', now() + interval '1 hour')")
        .bind(loud)
        .execute(world.db())
        .await
        .unwrap();
    assert_eq!((world.notify().await, world.notify().await), (1, 0));
    assert_eq!(world.mails().await[0].recipient, "other@example.com");

    sqlx::query("delete from alert_mutes").execute(world.db()).await.unwrap();
    for alerts in [2_000, 100] {
        assert_eq!(world.notify().await, 1);
        assert_eq!(world.mails().await[0].subject, format!("{alerts} alerts"));
    }
    assert_eq!(world.notify().await, 0);
}

/// Unconfirmed addresses get no mail: the alert waits until the user has confirmed the address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_alert_is_mailed_to_an_unconfirmed_address() {
    let world = World::new().await;
    let confirmed = async |sql: &'static str| {
        sqlx::query(sql).execute(world.db()).await.unwrap();
    };
    confirmed("update users set confirmed_at = null where email = 'customer@example.com'").await;
    let (_, theirs) = world.server("customer@example.com", "web-1").await;
    let (_, others) = world.server("other@example.com", "web-2").await;
    for n in 0..3 {
        world.swept(n * 30, vec![busy(theirs, 0.99), busy(others, 0.99)]).await;
    }
    world.notify().await;
    let recipients: Vec<String> = world.mails().await.into_iter().map(|mail| mail.recipient).collect();
    assert_eq!(recipients, ["other@example.com"]);
    confirmed("update users set confirmed_at = now() where email = 'customer@example.com'").await;
    assert_eq!(world.notify().await, 1);
    assert_eq!(world.mails().await[0].recipient, "customer@example.com");
}

/// However low the owner sets a rule, alerts of one kind about one server are mailed at a limited rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flapping_alerts_are_mailed_only_now_and_then() {
    let mut world = World::new().await;
    world.notifier = notifier(&world.app.core.config, |alerts| {
        (alerts.alert_settle_seconds, alerts.alert_floor_seconds) = (0, 900);
    });
    let (_, marker) = world.server("customer@example.com", "web-1").await;
    let mut mailed = 0;
    for round in 0..5 {
        world.lasts(round * 300, marker, 0.99).await;
        mailed += world.notify().await;
        world.lasts(round * 300 + 120, marker, 0.1).await;
        mailed += world.notify().await;
    }
    assert_eq!(mailed, 2, "its beginning and its end");
    let told = "update alerts set told_at = told_at - interval '15 minutes' where told_at is not null";
    sqlx::query(told).execute(world.db()).await.unwrap();
    world.lasts(3000, marker, 0.99).await;
    assert_eq!(world.notify().await, 1);
}
