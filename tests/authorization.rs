//! Who may call what: every route × every method × every role. The features say whom their routes admit
//! (`Feature::access`); a route without a row fails a test, and so does a row without a route.

mod fields;
mod matrix;
mod world;

use std::collections::BTreeSet;

use kernel::auth::AccessRow;
use matrix::{EXCEPTIONS, ROLES, To, expected, rows};
use serde_json::json;
use world::{Others, Tokens, World, host};

use crate::support::app::signed_in;
use crate::support::{Client, TestApp};

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
/// Open to everybody; their 401 is about what is sent to sign in with.
const SIGN_IN: [&str; 5] = [
    "/api/auth/login",
    "/api/auth/login-link",
    "/api/auth/refresh",
    "/api/auth/browser/login",
    "/api/auth/browser/refresh",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_in_the_matrix() {
    let app = TestApp::new().await;
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let mut routes = vec![];
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|m| *m != "parameters") {
            routes.push((method.to_uppercase(), path.clone()));
        }
    }
    let rows = rows(&app.service);
    let all = rows.values().copied().flatten();
    let mut listed: Vec<_> = all.map(|(method, path, _)| (method.to_string(), path.to_string())).collect();
    routes.sort();
    listed.sort();
    assert_eq!(routes, listed, "every route has a row in its feature, and every row a route");
    for &(method, path, _) in EXCEPTIONS {
        assert!(listed.contains(&(method.to_owned(), path.to_owned())), "{method} {path} is no exception any more");
    }
    let walked = every_route_admits_only_the_right_callers::FEATURES;
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), walked, "every feature with routes has a test");
}

/// Makes one test per feature, in the order of their names.
macro_rules! walk_features {
    ($($name:ident)*) => {
        pub(super) const FEATURES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let app = super::TestApp::new().await;
                let rows = super::rows(&app.service)[stringify!($name)];
                super::walk(&app, rows).await;
            }
        )*
    };
}

mod every_route_admits_only_the_right_callers {
    walk_features! {
        accounts addresses alerts audit console history hosts http images mail members monitoring operations resize
        servers snapshots ssh_keys tariffs unknown_guests users
    }
}

/// Calls each of these routes as everybody.
pub(crate) async fn walk(app: &TestApp, rows: &[AccessRow]) {
    // Only the answers matter, not what becomes of the operations.
    app.db.allow_unfinished();
    let host = host(app).await;
    let (tokens, others) = (Tokens::new(app).await, Others::new(app).await);
    let [admin, member, billing, viewer] = &others.members;
    for row @ (method, path, _) in rows {
        let expected = expected(*row);
        let mut world = World::new(app, host).await;
        for (n, to) in expected.iter().enumerate() {
            if *method != "GET" && n > 0 && expected[n - 1] == To::Ok {
                // The previous cell may have deleted or locked something.
                world = World::new(app, host).await;
            }
            let callers: [&Client; ROLES] = [
                &app.nobody,
                &app.customer,
                &app.other,
                &app.provider,
                &tokens.read_only,
                &tokens.elsewhere,
                &world.here,
                &tokens.revoked,
                &tokens.ended,
                admin,
                member,
                billing,
                viewer,
                &others.reseller,
                &others.support,
                &others.billing,
            ];
            let logs_out = path.ends_with("/logout");
            let fresh;
            let caller = if logs_out && (matches!(n, 1..=3) || n > 8) {
                const WHO: [&str; ROLES] = [
                    "", "customer", "other", "provider", "", "", "", "", "", "admin", "member", "billing", "viewer",
                    "reseller", "support", "ledger",
                ];
                let own = signed_in(&app.db, &app.nobody, &format!("{}@example.com", WHO[n])).await;
                fresh = Client { account: callers[n].account, ..own };
                &fresh
            } else {
                callers[n]
            };
            let answer = caller.send(method.parse().unwrap(), &world.fill(path), world.body(method, path)).await;
            let got = match answer.status {
                401 if !SIGN_IN.contains(path) => To::SignIn,
                403 => To::Forbidden,
                404 => To::Hidden,
                status => {
                    assert!(status < 500 || matches!(status, 503 | 507), "{method} {path} as {n}: {}", answer.text);
                    To::Ok
                }
            };
            assert_eq!(got, *to, "{method} {path} as {n}: {} {}", answer.status, answer.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_methods_are_405_and_unknown_paths_are_404() {
    let app = TestApp::new().await;
    let rows = rows(&app.service);
    let known: BTreeSet<_> = rows.values().copied().flatten().map(|(method, path, _)| (*path, *method)).collect();
    let paths: BTreeSet<_> = known.iter().map(|(path, _)| *path).collect();
    for path in paths {
        for method in METHODS.into_iter().filter(|method| !known.contains(&(path, *method))) {
            let filled = path.replace("{id}", "1").replace("{address}", "10.0.0.1").replace("{type}", "cpu");
            let answer = app.provider.send(method.parse().unwrap(), &filled, None).await.expect(405);
            assert_eq!(answer.code(), "METHOD_NOT_ALLOWED", "{method} {path}");
            assert!(answer.headers.contains_key("allow"), "{method} {path}");
        }
    }
    for path in ["/", "/api", "/api/servers", "/api/server/1/nothing", "/admin"] {
        let answer = app.provider.get(path).await.expect(404);
        assert_eq!(answer.code(), "NOT_FOUND");
        assert!(answer.body["requestId"].is_string(), "{}", answer.text);
    }
}

/// A customer's token for one server shows only that server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_server_sees_one_server() {
    let app = TestApp::new().await;
    let host = host(&app).await;
    let (first, second) = (World::new(&app, host).await, World::new(&app, host).await);
    let scope = format!("write:server:{}", second.server);
    let made = app.customer.post("/api/auth/tokens", json!({ "name": "one", "scopes": [scope] })).await.expect(201);
    let token = app.nobody.with_token(made.body["token"].as_str().unwrap());
    let list = token.get("/api/server").await.expect(200).body;
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|s| s["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [second.server]);
    token.get(&format!("/api/server/{}", first.server)).await.expect(404);
    assert_eq!(app.other.get("/api/server").await.expect(200).body, json!([]));
    app.customer.get("/api/server?all=true").await.expect(403);
    let all = app.provider.get("/api/server?all=true&limit=1&page=2").await.expect(200);
    assert_eq!(all.headers["x-total-count"], "2");
    assert_eq!(all.body[0]["id"], second.server);
}
