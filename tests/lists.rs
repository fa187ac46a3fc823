//! Lists: pages, sorting and filters.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::{Client, TestApp, TestDb};

fn names(answer: &Response) -> Vec<&str> {
    answer.body.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_sorted_filtered_and_paged() {
    let app = TestApp::new().await;
    let ids: (i64, i64, i64) = sqlx::query_as(
        "with h as (insert into hosts (name, kind, config_sealed, enabled) values ('h', 'incus', '', false)
                    returning id),
              i as (insert into images (name, kind) values ('i', 'lxc'), ('j', 'lxc') returning id),
              t as (insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
                    values ('a', 'lxc', 1, 64, 1, 1), ('b', 'lxc', 1, 64, 1, 1) returning id)
         select (select id from h), (select min(id) from i), (select min(id) from t)",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    for (n, (name, status)) in
        [("web-2", "running"), ("db-1", "stopped"), ("Web-1", "running"), ("mail", "stopped"), ("web-10", "failed")]
            .into_iter()
            .enumerate()
    {
        sqlx::query(
            "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                                  status, cores, memory_mib, disk_gib, created_at, updated_at)
             values (gen_random_uuid(), $1, $2, $3, $4, 'n', nextval('guest_numbers'), 'lxc', $5, $6, 1, 64, 1,
                     now() + make_interval(mins => $7), now() - make_interval(mins => $7))",
        )
        .bind(app.customer_account.0)
        .bind(ids.2 + (n as i64) % 2)
        .bind(ids.1 + (n as i64) / 3)
        .bind(ids.0)
        .bind(name)
        .bind(status)
        .bind(n as i32)
        .execute(&app.db.pool)
        .await
        .unwrap();
    }
    let get = async |query: &str| app.customer.get(&format!("/api/server?{query}")).await.expect(200);
    let all = ["web-2", "db-1", "Web-1", "mail", "web-10"];
    let reversed: Vec<&str> = all.iter().rev().copied().collect();
    assert_eq!(names(&get("").await), all);
    assert_eq!(names(&get("order=desc").await), reversed);
    assert_eq!(names(&get("sort=createdAt").await), all);
    assert_eq!(names(&get("sort=updatedAt").await), reversed);
    assert_eq!(names(&get("sort=status").await), ["web-10", "web-2", "Web-1", "db-1", "mail"]);
    assert_eq!(names(&get("sort=name&name=web&status=running&order=desc").await).len(), 2);
    assert_eq!(names(&get("name=WEB-1").await), ["Web-1", "web-10"]);
    assert_eq!(names(&get("status=stopped").await), ["db-1", "mail"]);
    assert_eq!(names(&get(&format!("tariffId={}", ids.2 + 1)).await), ["db-1", "mail"]);
    assert_eq!(names(&get(&format!("osId={}&status=failed", ids.1 + 1)).await), ["web-10"]);
    assert_eq!(names(&get("name=%25").await), Vec::<&str>::new(), "literal text, not a pattern");
    let page = get("name=web&limit=2&page=2").await;
    assert_eq!((names(&page), page.headers["x-total-count"].to_str().unwrap()), (vec!["web-10"], "3"));
    let past = get("name=web&limit=2&page=9").await;
    assert_eq!((names(&past).len(), past.headers["x-total-count"].to_str().unwrap()), (0, "3"));
    assert_eq!(app.other.get("/api/server?name=web").await.expect(200).body, json!([]));
    for order in ["asc", "desc"] {
        let (mut after, mut seen) = (String::new(), vec![]);
        loop {
            let page = get(&format!("name=w&limit=2&order={order}{after}")).await;
            assert_eq!(page.headers["x-total-count"], "3");
            seen.extend(names(&page).into_iter().map(str::to_owned));
            let Some(last) = page.body.as_array().unwrap().last() else { break };
            after = format!("&after={}", last["id"]);
        }
        let mut all = vec!["web-2", "Web-1", "web-10"];
        if order == "desc" {
            all.reverse();
        }
        assert_eq!(seen, all);
    }
    for query in ["after=1&page=1", "after=1&sort=name", "after=x"] {
        let refused = app.customer.get(&format!("/api/server?{query}")).await.expect(422);
        assert!(refused.body["details"]["fields"]["after"].is_string(), "{query}: {}", refused.text);
    }
    let fleet = app.provider.get("/api/server?all=true&status=running&sort=id&order=desc").await.expect(200);
    assert_eq!(names(&fleet), ["Web-1", "web-2"]);
}

/// Three servers: the customer's `web-x` and `db-x`, and the other's `shop-x`, on two hosts. Their ids, and the hosts'.
async fn three_servers(app: &TestApp) -> ([i64; 3], [i64; 2]) {
    let (first, second, third) = (
        crate::live::server(app, "customer@example.com").await,
        crate::live::server(app, "customer@example.com").await,
        crate::live::server(app, "other@example.com").await,
    );
    let hosts: (i64, i64) = sqlx::query_as(
        "with h as (insert into hosts (name, kind, config_sealed, enabled) values ('second', 'incus', '', false)
                    returning id)
         select (select host_id from servers where id = $1), (select id from h)",
    )
    .bind(first)
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    for (id, name, host, node, number, address) in [
        (first, "web-x", hosts.0, "n1", 7001, "10.1.2.3"),
        (second, "db-x", hosts.1, "n2", 7002, "10.1.2.30"),
        (third, "shop-x", hosts.1, "n1", 7003, "2001:db8::5"),
    ] {
        sqlx::query(
            "with p as (insert into address_pools (host_id, name, cidr, bridge, first_address, last_address)
                        values ($3, $1::text, '10.1.2.0/24', 'b', '10.1.2.1', '10.1.2.9') returning id),
                  a as (insert into addresses (pool_id, address, server_id) select id, $6::inet, $1 from p)
             update servers set name = $2, host_id = $3, node = $4, guest_number = $5 where id = $1",
        )
        .bind(id)
        .bind(name)
        .bind(host)
        .bind(node)
        .bind(number)
        .bind(address)
        .execute(&app.db.pool)
        .await
        .unwrap();
    }
    ([first, second, third], [hosts.0, hosts.1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_finds_a_server_by_any_of_its_names() {
    let app = TestApp::new().await;
    let ([first, ..], [host, second_host]) = three_servers(&app).await;
    let get = async |query: &str| app.provider.get(&format!("/api/server?all=true&{query}")).await.expect(200);
    for (query, found) in [
        ("q=WEB", &["web-x"][..]),
        ("q=customer@", &["web-x", "db-x"]),
        ("q=other@example.com", &["shop-x"]),
        ("q=7002", &["db-x"]),
        ("q=700", &[]),
        ("q=10.1.2.3", &["web-x"]),
        ("q=10.1.2.", &["web-x", "db-x"]),
        ("q=2001:DB8:0::5", &["shop-x"]),
        ("q=2001:db8:", &["shop-x"]),
        ("q=%25", &[]),
        ("node=n1", &["web-x", "shop-x"]),
        ("q=-X&node=n1&sort=name&order=desc", &["web-x", "shop-x"]),
    ] {
        let list = get(query).await;
        assert_eq!(names(&list), found, "{query}");
        assert_eq!(list.headers["x-total-count"].to_str().unwrap(), found.len().to_string(), "{query}");
    }
    assert_eq!(names(&get(&format!("hostId={second_host}")).await), ["db-x", "shop-x"]);
    assert_eq!(names(&get(&format!("q={first}")).await), ["web-x"]);
    let account = app.customer_account;
    assert_eq!(names(&get(&format!("accountId={account}&hostId={host}")).await), ["web-x"]);
    let found = get("q=web-x").await.body[0].clone();
    assert_eq!(
        (&found["hostId"], &found["node"], &found["ownerEmail"]),
        (&json!(host), &json!("n1"), &json!("customer@example.com"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_search_shows_a_customer_where_a_server_is_or_whose_else_there_are() {
    let app = TestApp::new().await;
    let ([first, _, third], [host, _]) = three_servers(&app).await;
    let get = async |query: &str| app.customer.get(&format!("/api/server?{query}")).await;
    for query in ["q=example.com", "q=-x", "q=1", &format!("accountId={}", app.customer_account)] {
        let names = get(query).await.expect(200);
        assert!(!names.text.contains("shop-x"), "{query}");
    }
    for query in ["q=shop", &format!("q={third}"), "q=7003", "q=2001:db8::5", "accountId=1"] {
        assert_eq!(get(query).await.expect(200).body, json!([]), "{query}");
    }
    for query in [format!("hostId={host}"), "node=n1".to_owned(), "all=true".to_owned()] {
        get(&query).await.expect(403);
    }
    for path in [format!("/api/server/{first}"), "/api/server?q=web-x".to_owned()] {
        let answer = app.customer.get(&path).await.expect(200).body;
        let server = answer.get(0).unwrap_or(&answer);
        assert_eq!((&server["hostId"], &server["node"]), (&Value::Null, &Value::Null), "{path}");
        assert_eq!(server["ownerEmail"], "customer@example.com");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catalogues_are_sorted_filtered_and_paged() {
    let app = TestApp::new().await;
    for (name, enabled) in [("b", true), ("a", true), ("C", false), ("ab", true)] {
        let tariff =
            json!({ "name": name, "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1, "enabled": enabled });
        app.provider.post("/api/tariffs", tariff).await.expect(201);
        app.provider.post("/api/images", json!({ "name": name, "kind": "lxc", "enabled": enabled })).await.expect(201);
    }
    for list in ["/api/tariffs", "/api/images"] {
        let get = async |query: &str| app.provider.get(&format!("{list}?{query}")).await.expect(200);
        assert_eq!(names(&get("").await), ["b", "a", "C", "ab"]);
        assert_eq!(names(&get("sort=name").await), ["a", "ab", "b", "C"]);
        assert_eq!(names(&get("sort=name&order=desc&enabled=true").await), ["b", "ab", "a"]);
        assert_eq!(names(&get("sort=createdAt&order=desc").await), ["ab", "C", "a", "b"]);
        let page = get("name=A&limit=1&page=2").await;
        assert_eq!((names(&page), page.headers["x-total-count"].to_str().unwrap()), (vec!["ab"], "2"));
        // A filter can't reveal what a customer may not see.
        assert_eq!(names(&app.customer.get(&format!("{list}?enabled=false")).await.expect(200)), Vec::<&str>::new());
    }
}

/// Every sortable list refuses unknown sort fields.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_list_parameters_are_422() {
    let app = TestApp::new().await;
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let mut lists = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        let has = |name: &str| {
            item["get"]["parameters"].as_array().is_some_and(|p| p.iter().any(|p: &Value| p["name"] == name))
        };
        if !has("sort") {
            continue;
        }
        assert!(has("order") && has("page") && has("limit"), "{path}");
        for (query, field) in [
            ("sort=nonsense", "sort"),
            ("order=up", "order"),
            ("limit=101", "limit"),
            ("page=0", "page"),
            ("no=1", "no"),
        ] {
            let answer = app.provider.get(&format!("{path}?{query}")).await.expect(422);
            let fields = answer.body["details"]["fields"].as_object().unwrap();
            assert!(fields.contains_key(field) || fields.contains_key(""), "{path}?{query}: {}", answer.text);
        }
        lists.push(path.as_str());
    }
    let want =
        ["/api/address-pools", "/api/alerts", "/api/audit", "/api/hosts", "/api/images", "/api/server", "/api/tariffs"];
    assert_eq!(lists, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stuck_operations_are_paged_and_their_logs_show_the_last_lines() {
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    for _ in 0..23 {
        let server = crate::live::server(&app, "customer@example.com").await;
        sqlx::query(
            "with o as (insert into operations (id, subject_kind, subject_id, lane, kind, state, step, data, deadline)
                        values (gen_random_uuid(), 'server', $1::bigint::text, 'host', 'delete', 'stuck', 's', '{}',
                                now()) returning id)
             insert into operation_log (operation_id, level, step, message)
             select id, 'info', 's', 'line ' || n from o, generate_series(1, 1005) n",
        )
        .bind(server)
        .execute(&app.db.pool)
        .await
        .unwrap();
    }
    let get = async |query: &str| app.provider.get(&format!("/api/operations?state=stuck{query}")).await.expect(200);
    let ids = |answer: &Response| -> Vec<String> {
        answer.body["data"].as_array().unwrap().iter().map(|o| o["id"].as_str().unwrap().to_owned()).collect()
    };
    let (first, second) = (get("").await, get("&page=2").await);
    assert_eq!((&first.body["total"], &first.body["pages"]), (&json!(23), &json!(2)));
    assert_eq!((ids(&first).len(), ids(&second).len()), (20, 3));
    assert_eq!([ids(&first), ids(&second)].concat(), ids(&get("&limit=100").await), "newest first");
    app.provider.get("/api/operations?limit=101").await.expect(422);
    app.provider.get("/api/operations?state=unknown").await.expect(422);

    // Its last lines say why it is stuck.
    let log = app.provider.get(&format!("/api/operations/{}/log", ids(&first)[0])).await.expect(200).body;
    let log = log.as_array().unwrap();
    assert_eq!((log.len(), &log[0]["message"], &log[999]["message"]), (1000, &json!("line 6"), &json!("line 1005")));
}

/// A year of entries is not counted for every page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_log_counting_and_paging_are_capped() {
    let app = TestApp::new().await;
    sqlx::query(
        "insert into audit (id, role, action) select gen_random_uuid(), 'cli', 'x' from generate_series(1, 10020)",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    let get = async |query: &str| app.provider.get(&format!("/api/audit?action=x&{query}")).await;
    let last = get("page=100&limit=100").await.expect(200).body;
    assert_eq!((&last["total"], &last["pages"]), (&json!(10_000), &json!(100)));
    assert_eq!(last["data"].as_array().unwrap().len(), 100);
    let beyond = get("page=101&limit=100").await.expect(422);
    assert!(beyond.body["details"]["fields"]["page"].as_str().unwrap().contains("filter"), "{}", beyond.text);
    let few = app.provider.get("/api/audit?action=y").await.expect(200).body;
    assert_eq!(few["total"], 0);
    let long = app.provider.get(&format!("/api/audit?subjectId={}", "x".repeat(201))).await.expect(422).body;
    assert!(long["details"]["fields"]["subjectId"].is_string(), "named as it was sent: {long}");
    for (order, first) in [("desc", &last), ("asc", &get("page=100&limit=100&order=asc").await.expect(200).body)] {
        let rest = get(&format!("order={order}&limit=100&after={}", first["next"].as_str().unwrap())).await;
        let rest = rest.expect(200).body;
        assert_eq!(
            (rest["data"].as_array().unwrap().len(), rest.get("next")),
            (20, None),
            "{order}: the 10,020th is the last"
        );
        let seen = |page: &Value| {
            page["data"].as_array().unwrap().iter().map(|e| e["id"].to_string()).collect::<BTreeSet<_>>()
        };
        assert!(seen(first).is_disjoint(&seen(&rest)), "{order}");
    }
}

/// Follows `next` from the first page to the last, and returns the ids of all rows.
async fn continued(client: &Client, list: &str, total: i64) -> Vec<Value> {
    let (mut seen, mut after) = (vec![], String::new());
    loop {
        let page = client.get(&format!("{list}&limit=3{after}")).await.expect(200).body;
        assert_eq!((&page["total"], &page["page"]), (&json!(total), &json!(1)), "{list}{after}");
        seen.extend(page["data"].as_array().unwrap().iter().map(|row| row["id"].clone()));
        let Some(next) = page["next"].as_str() else { break seen };
        after = format!("&after={next}");
    }
}

/// Rows of the same time are neither repeated nor left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_by_time_are_continued_after_any_row() {
    let app = TestApp::new().await;
    for sql in [
        "insert into mails (id, event, recipient, subject, text_body, html_body, state, created_at)
         select gen_random_uuid(), n::text, 'a@example.com', n::text, '', '', 'sent',
                now() - make_interval(secs => n / 3)
         from generate_series(1, 7) n",
        "insert into alerts (kind, subject, level, value, raised_at, resolved_at, ended)
         select 'mail_held', 'mail', 'warning', 1, now() - make_interval(secs => n / 3), now(), 'recovered'
         from generate_series(1, 7) n",
    ] {
        sqlx::query(sql).execute(&app.db.pool).await.unwrap();
    }
    for list in ["/api/mails", "/api/alerts"] {
        for order in ["asc", "desc"] {
            let get = async |more: &str| app.provider.get(&format!("{list}?order={order}{more}")).await;
            let all = get("").await.expect(200).body;
            let all: Vec<Value> = all["data"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
            assert_eq!(all.len(), 7);
            assert_eq!(continued(&app.provider, &format!("{list}?order={order}"), 7).await, all, "{list} {order}");
            get("&page=1&after=1-00000000-0000-0000-0000-000000000000").await.expect(422);
            for bad in ["1", "x-1", "-1-1", "99999999999999999999-1", "1-x"] {
                let refused = get(&format!("&after={bad}")).await.expect(422);
                assert!(refused.body["details"]["fields"]["after"].is_string(), "{list} {bad}: {}", refused.text);
            }
        }
    }
    app.provider.get("/api/alerts?sort=level&after=1-1").await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_accounts_and_operations_are_continued_after_any_row() {
    let app = TestApp::new().await;
    for n in 0..5 {
        app.provider
            .post("/api/users", json!({ "email": format!("user-{n}@example.com"), "name": "" }))
            .await
            .expect(201);
    }
    let server = crate::live::server(&app, "customer@example.com").await;
    sqlx::query(
        "insert into operations (id, subject_kind, subject_id, lane, kind, state, step, data, deadline, created_at)
         select gen_random_uuid(), 'server', $1::bigint::text, 'host', 'start', 'succeeded', 's', '{}', now(),
                now() - make_interval(secs => n / 3)
         from generate_series(1, 7) n",
    )
    .bind(server)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let operations = format!("/api/server/{server}/operations");
    for (list, total) in [("/api/users", 8), ("/api/accounts", 8), (&operations, 7)] {
        let all = app.provider.get(&format!("{list}?limit=100")).await.expect(200).body;
        let all: Vec<Value> = all["data"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
        assert_eq!(continued(&app.provider, &format!("{list}?"), total).await, all, "{list}");
        for query in ["after=x", "after=1&page=1"] {
            app.provider.get(&format!("{list}?{query}")).await.expect(422);
        }
    }
}

/// A list that takes too long is given up, and its client is told to filter it, long before the request's own limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_takes_too_long_is_given_up() {
    let db = TestDb::new().await;
    let name = &db.name;
    for sql in [
        "create schema slow".to_owned(),
        "create view slow.servers as select * from public.servers where pg_sleep(3) is not null".to_owned(),
        "create view slow.audit_entries as select * from public.audit_entries where pg_sleep(3) is not null".to_owned(),
        format!("alter database {name} set search_path = slow, public"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&db.pool).await.unwrap();
    }
    let app = TestApp::on(db, |_| {}).await;
    crate::live::server(&app, "customer@example.com").await;
    app.customer.post("/api/auth/tokens", json!({ "name": "noted", "scopes": ["read"] })).await.expect(201);
    for path in ["/api/server", "/api/audit"] {
        let refused = app.customer.get(path).await.expect(422);
        assert!(refused.text.contains("takes too long"), "{path}: {}", refused.text);
    }
    app.customer.get("/api/server?page=101&limit=100").await.expect(422);
}

/// Long lists are expensive: an account reads a few at a time, and others read theirs meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_reads_only_a_few_long_lists_at_once() {
    let app = TestApp::new().await;
    let mut held = vec![];
    for _ in 0..3 {
        held.push(app.core.turns.take(app.customer_account).await.unwrap());
    }
    let lists = ["/api/server", "/api/alerts", "/api/audit", "/api/audit/refused"];
    let asked = lists.map(|path| app.customer.get(path));
    for (path, answer) in lists.iter().zip(futures_util::future::join_all(asked).await) {
        assert_eq!(answer.status, 429, "{path}: {}", answer.text);
    }
    app.other.get("/api/server").await.expect(200);
    drop(held);
    app.customer.get("/api/server").await.expect(200);
}
