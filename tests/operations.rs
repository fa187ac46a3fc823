//! Lists of operations: whose they show, how they are filtered and continued.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::live::server;
use crate::support::client::Response;
use crate::support::{Client, TestApp};

/// An operation that has ended, on what this account owns.
async fn ended_operation(app: &TestApp, subject: &str, account: i64, kind: &str, state: &str) -> Uuid {
    let (subject_kind, subject_id) = subject.split_once(':').unwrap();
    sqlx::query_scalar(
        "insert into operations (id, subject_kind, subject_id, lane, account_id, kind, state, data, deadline, ended_at,
                                 error_code, error_message, error_detail)
         values (gen_random_uuid(), $1, $2, 'host:' || $2, $3, $4, $5, 'null', now(), now(), 'HOST_ERROR', 'words',
                 'the host''s own words') returning id",
    )
    .bind(subject_kind)
    .bind(subject_id)
    .bind(account)
    .bind(kind)
    .bind(state)
    .fetch_one(&app.db.pool)
    .await
    .unwrap()
}

fn ids(answer: &Response) -> Vec<String> {
    answer.body["data"].as_array().unwrap().iter().map(|o| o["id"].as_str().unwrap().to_owned()).collect()
}

/// Two servers of a customer and one of another, with an operation each, oldest first.
async fn three(app: &TestApp) -> ([i64; 3], [String; 3]) {
    let (mut servers, mut operations) = (vec![], vec![]);
    for (email, account, kind) in [
        ("customer@example.com", app.customer_account.0, "start"),
        ("customer@example.com", app.customer_account.0, "stop"),
        ("other@example.com", other_account(app).await, "start"),
    ] {
        let id = server(app, email).await;
        servers.push(id);
        operations.push(ended_operation(app, &format!("server:{id}"), account, kind, "failed").await.to_string());
    }
    (servers.try_into().unwrap(), operations.try_into().unwrap())
}

async fn other_account(app: &TestApp) -> i64 {
    crate::support::app::account_of(&app.db, "other@example.com").await.0
}

async fn get(client: &Client, query: &str) -> Response {
    client.get(&format!("/api/operations{query}")).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_lists_the_operations_on_what_they_own_and_staff_list_all() {
    let app = TestApp::new().await;
    let (_, [first, second, third]) = three(&app).await;
    let own = get(&app.customer, "").await;
    assert_eq!(ids(&own), [second.clone(), first.clone()], "newest first");
    assert_eq!(own.body["total"], 2);
    assert_eq!(own.body["data"][0]["error"], json!({ "code": "HOST_ERROR", "message": "words" }));
    let all = get(&app.provider, "").await;
    assert_eq!(ids(&all), [third, second, first]);
    assert_eq!(all.body["data"][0]["error"]["detail"], "the host's own words");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_are_filtered_by_what_they_do_and_what_they_work_on() {
    let app = TestApp::new().await;
    let ([one, ..], [first, second, third]) = three(&app).await;
    let ran = ended_operation(&app, &format!("server:{one}"), app.customer_account.0, "start", "succeeded").await;
    let ran = ran.to_string();
    let account = app.customer_account;
    for (query, found) in [
        ("?kind=stop".to_owned(), vec![&second]),
        ("?state=succeeded".to_owned(), vec![&ran]),
        (format!("?subject=server:{one}"), vec![&ran, &first]),
        (format!("?subject=server:{one}&state=failed"), vec![&first]),
        (format!("?lane=host:{one}&kind=start"), vec![&ran, &first]),
        (format!("?accountId={account}&state=failed"), vec![&second, &first]),
        ("?subject=server".to_owned(), vec![]),
        ("?from=2100-01-01T00:00:00Z".to_owned(), vec![]),
        ("?to=2100-01-01T00:00:00Z&kind=start&state=failed".to_owned(), vec![&third, &first]),
    ] {
        let answer = get(&app.provider, &query).await;
        assert_eq!(ids(&answer).iter().collect::<Vec<_>>(), found, "{query}");
        assert_eq!(answer.body["total"], found.len(), "{query}");
    }
    for staff_only in [format!("?lane=host:{one}"), format!("?accountId={account}")] {
        app.customer.get(&format!("/api/operations{staff_only}")).await.expect(403);
    }
    app.customer.get("/api/operations?sort=kind").await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_operations_is_continued_where_it_ended() {
    let app = TestApp::new().await;
    let (_, [first, second, third]) = three(&app).await;
    // Of the same moment.
    sqlx::query("update operations set created_at = now()").execute(&app.db.pool).await.unwrap();
    let mut expected = [first, second, third];
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let (mut found, mut after) = (vec![], String::new());
    for _ in 0..3 {
        let page = get(&app.provider, &format!("?limit=1{after}")).await;
        found.extend(ids(&page));
        after = format!("&after={}", page.body["next"].as_str().unwrap());
    }
    assert_eq!(found, expected);
    let end = get(&app.provider, &format!("?limit=1{after}")).await;
    assert_eq!((ids(&end), &end.body["next"]), (vec![], &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_server_lists_its_operations_only() {
    let app = TestApp::new().await;
    let ([_, two, other], [_, second, _]) = three(&app).await;
    let scopes = [format!("read:server:{two}"), format!("write:server:{other}")];
    let made = app.customer.post("/api/auth/tokens", json!({ "name": "t", "scopes": scopes[..1] })).await.expect(201);
    let token = app.nobody.with_token(made.body["token"].as_str().unwrap());
    assert_eq!(ids(&get(&token, "").await), [second]);
    assert_eq!(get(&token, "").await.body["total"], 1);
}
