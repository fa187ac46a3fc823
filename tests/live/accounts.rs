//! The live view for members of several accounts.

use serde_json::json;

use super::{server, swept, token};
use crate::support::app::account_of;
use crate::support::{Live, TestApp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_one_login_act_each_for_its_account() {
    let app = TestApp::new().await;
    let (mine, theirs) = (server(&app, "customer@example.com").await, server(&app, "other@example.com").await);
    let other = account_of(&app.db, "other@example.com").await;
    sqlx::query("insert into account_members (account_id, user_id, role) values ($1, $2, 'viewer')")
        .bind(other.0)
        .bind(app.customer_id.0)
        .execute(&app.db.pool)
        .await
        .unwrap();
    let (mut own, mut acting) = (Live::new(&app.base), Live::new(&app.base));
    let token = token(&app.customer);
    own.tell(json!({ "do": "connect", "token": token })).await;
    own.next("connect").await;
    acting.tell(json!({ "do": "connect", "auth": { "token": token, "account": other.0 } })).await;
    acting.next("connect").await;
    own.subscribe(mine).await;
    acting.subscribe(theirs).await;
    // Both are checked again: each still sees its own, and then the member leaves.
    sqlx::query("update users set staff_role = staff_role").execute(&app.db.pool).await.unwrap();
    swept(&app, mine, 0.5).await;
    swept(&app, theirs, 0.5).await;
    for live in [&mut own, &mut acting] {
        live.find("server-stats", |stats| stats["stats"]["data"]["cpu"].as_f64() == Some(0.5)).await;
    }
    sqlx::query("delete from account_members").execute(&app.db.pool).await.unwrap();
    acting.next("session-ended").await;
    swept(&app, mine, 0.6).await;
    own.find("server-stats", |stats| stats["stats"]["data"]["cpu"].as_f64() == Some(0.6)).await;
}
