//! The rules of the socket itself, without a page.

use std::time::Duration;

use compute::console::ConsoleSettings;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::ConsoleFixture;
use crate::support::{Client, ended};

const SOCKET_TIMEOUT: Duration = Duration::from_secs(60);

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn connect(fixture: &ConsoleFixture, origin: Option<&str>) -> Result<Self, u16> {
        let mut request = format!("ws://{}/console/socket", fixture.to()).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects and shows a ticket.
    async fn with(fixture: &ConsoleFixture, ticket: &str) -> Self {
        let origin = format!("http://127.0.0.1:{}", fixture.port.number());
        let mut socket = Self::connect(fixture, Some(&origin)).await.unwrap();
        socket.say(json!({ "type": "open", "ticket": ticket, "columns": 80, "rows": 24 })).await;
        socket
    }

    /// An open console, with the ticket for reconnecting.
    async fn open(fixture: &ConsoleFixture, client: &Client) -> (Self, String) {
        Self::opened(fixture, &ticket(fixture, client).await).await
    }

    async fn opened(fixture: &ConsoleFixture, ticket: &str) -> (Self, String) {
        let mut socket = Self::with(fixture, ticket).await;
        let next = socket.hear("ticket").await["ticket"].as_str().unwrap().to_owned();
        let ready = socket.hear("ready").await;
        assert_eq!((&ready["kind"], &ready["server"]["vmid"]), (&json!("text"), &json!(fixture.vmid)));
        (socket, next)
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Option<Message> {
        tokio::time::timeout(SOCKET_TIMEOUT, self.0.next()).await.expect("something comes").and_then(Result::ok)
    }

    async fn hear(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Some(Message::Text(text)) => {
                    let said: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(said["type"], kind);
                    return said;
                }
                Some(Message::Binary(_) | Message::Ping(_)) => {}
                other => panic!("expected {kind}, got {other:?}"),
            }
        }
    }

    /// Reads up to the close frame.
    async fn closed(mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Message::Close(None)) | None => panic!("no reason was given"),
                Some(_) => {}
            }
        }
    }
}

async fn ticket(fixture: &ConsoleFixture, client: &Client) -> String {
    fixture.url(client).await.split_once('#').unwrap().1.to_owned()
}

async fn run(fixture: &ConsoleFixture, sql: &'static str) {
    sqlx::query(sql).execute(&fixture.app.db.pool).await.unwrap();
}

/// An API token of the customer's with this scope: its client and its id.
async fn token(fixture: &ConsoleFixture, scope: &str) -> (Client, String) {
    let new = json!({ "name": "t", "scopes": [scope] });
    let made = fixture.app.customer.post("/api/auth/tokens", new).await.expect(201).body;
    (fixture.app.nobody.with_token(made["token"].as_str().unwrap()), made["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_ends_when_the_right_to_it_ends() {
    let fixture = ConsoleFixture::new(|_| {}).await;
    let customer = &fixture.app.customer;

    // The token.
    let (client, id) = token(&fixture, &format!("write:server:{}", fixture.id)).await;
    let (socket, next) = Socket::open(&fixture, &client).await;
    customer.delete(&format!("/api/auth/tokens/{id}")).await.expect(204);
    assert_eq!(socket.closed().await.0, 4402);
    assert_eq!(Socket::with(&fixture, &next).await.closed().await.0, 4401, "and it can't reconnect");

    // A token that is revoked before its ticket is used.
    let (client, id) = token(&fixture, "write").await;
    let unused = ticket(&fixture, &client).await;
    customer.delete(&format!("/api/auth/tokens/{id}")).await.expect(204);
    assert_eq!(Socket::with(&fixture, &unused).await.closed().await.0, 4402);

    // The role.
    let (socket, _) = Socket::open(&fixture, &fixture.app.provider).await;
    run(&fixture, "update users set staff_role = null where staff_role = 'admin'").await;
    assert_eq!(socket.closed().await.0, 4404);
    run(&fixture, "update users set staff_role = 'admin' where email like 'provider%'").await;

    // The account.
    let (socket, _) = Socket::open(&fixture, &fixture.app.provider).await;
    run(&fixture, "update users set disabled_at = now() where email like 'provider%'").await;
    assert_eq!(socket.closed().await.0, 4402);

    // The owner.
    let give_to = async |who: &str| {
        sqlx::query(
            "update servers set account_id = (select a.id from accounts a join users u on u.id = a.owner_id
                                              where u.email like $1 || '%')",
        )
        .bind(who)
        .execute(&fixture.app.db.pool)
        .await
        .unwrap();
    };
    let (socket, _) = Socket::open(&fixture, customer).await;
    give_to("other").await;
    assert_eq!(socket.closed().await, (4404, "This server was deleted or is no longer yours.".to_owned()));
    give_to("customer").await;

    // Its account: at once, whatever becomes of the guest.
    let (socket, _) = Socket::open(&fixture, customer).await;
    run(&fixture, "update accounts set suspended_at = now(), suspend_reason = 'unpaid' where name like 'customer%'")
        .await;
    assert_eq!(socket.closed().await, (4403, "This account is suspended: unpaid".to_owned()));
    run(&fixture, "update accounts set suspended_at = null, suspend_reason = null").await;

    // The guest: the console can be resumed when it runs again.
    let (socket, next) = Socket::open(&fixture, customer).await;
    let stopped = customer.post(&format!("/api/server/{}/stop", fixture.id), None).await.expect(200).body;
    assert!(matches!(socket.closed().await.0, 4000 | 4001));
    ended(customer, &stopped["operationId"]).await;
    let mut socket = Socket::with(&fixture, &next).await;
    let next = socket.hear("ticket").await["ticket"].as_str().unwrap().to_owned();
    assert_eq!(socket.closed().await.0, 4001);
    let started = customer.post(&format!("/api/server/{}/start", fixture.id), None).await.expect(200).body;
    ended(customer, &started["operationId"]).await;
    let (socket, _) = Socket::opened(&fixture, &next).await;

    // The server.
    let deleted = customer.delete(&format!("/api/server/{}", fixture.id)).await.expect(200).body;
    assert_eq!(socket.closed().await.0, 4404);
    ended(customer, &deleted["operationId"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_socket_enforces_its_limits() {
    let fixture = ConsoleFixture::new(|c| {
        let consoles = c.of::<ConsoleSettings>();
        (consoles.console_limit_account, consoles.console_limit_server) = (2, 2);
    })
    .await;
    let customer = &fixture.app.customer;
    let ours = format!("http://127.0.0.1:{}", fixture.port.number());

    // Only from our own page.
    let evil = format!("http://127.0.0.1:{}.example.com", fixture.port.number());
    for origin in [None, Some("https://evil.example.com"), Some("null"), Some(evil.as_str())] {
        assert_eq!(Socket::connect(&fixture, origin).await.err(), Some(403), "{origin:?}");
    }
    // The ticket must come first.
    for first in [json!({ "type": "resize", "columns": 80, "rows": 24 }), json!({}), json!({ "type": "open" })] {
        let mut socket = Socket::connect(&fixture, Some(&ours)).await.unwrap();
        socket.say(first).await;
        assert_eq!(socket.closed().await.0, 4400);
    }
    // Of many connections that show the same ticket at once, one gets in.
    let one = ticket(&fixture, customer).await;
    let tries = futures_util::future::join_all((0..8).map(|_| Socket::with(&fixture, &one))).await;
    let mut inside = Vec::new();
    for mut socket in tries {
        match socket.next().await {
            Some(Message::Text(_)) => inside.push(socket),
            Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 4401),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(inside.len(), 1);
    inside.remove(0).hear("ready").await;
    // Oversized and invalid messages are refused.
    let (mut socket, _) = Socket::open(&fixture, customer).await;
    socket.0.send(Message::binary(vec![b'x'; 70_000])).await.unwrap();
    assert_eq!(socket.closed().await.0, 1009);
    let (mut socket, _) = Socket::open(&fixture, customer).await;
    socket.say(json!({ "type": "resize", "columns": 0, "rows": 24 })).await;
    assert_eq!(socket.closed().await.0, 4400);
    // The limits per account and per server hold across all processes.
    run(
        &fixture,
        "insert into consoles (id, server_id, user_id, account_id, token_id, address, alive_until)
         select gen_random_uuid(), s.id, a.owner_id, a.id, gen_random_uuid(), '::1', now() + interval '1 minute'
         from servers s join accounts a on a.id = s.account_id, generate_series(1, 2)",
    )
    .await;
    assert_eq!(Socket::with(&fixture, &ticket(&fixture, customer).await).await.closed().await.0, 4429);
    assert_eq!(Socket::with(&fixture, &ticket(&fixture, &fixture.app.provider).await).await.closed().await.0, 4429);
    run(&fixture, "delete from consoles").await;
    // Unused tickets can't fill the database.
    for _ in 0..50 {
        ticket(&fixture, customer).await;
    }
    let refused = customer.post("/api/server/console", json!({ "vmid": fixture.vmid })).await.expect(429);
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_consoles_and_consoles_open_too_long_are_closed() {
    let fixture = ConsoleFixture::new(|c| {
        let consoles = c.of::<ConsoleSettings>();
        (consoles.console_idle_seconds, consoles.console_total_seconds) = (3, 8);
    })
    .await;
    let customer = &fixture.app.customer;
    // Not every message counts as activity.
    let (socket, next) = Socket::open(&fixture, customer).await;
    let (mut sink, mut stream) = socket.0.split();
    let resizing = tokio::spawn(async move {
        let resize = json!({ "type": "resize", "columns": 90, "rows": 30 }).to_string();
        while sink.send(Message::text(resize.clone())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let code = loop {
        match tokio::time::timeout(SOCKET_TIMEOUT, stream.next()).await.expect("something comes") {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4408);
    drop(stream);
    resizing.await.unwrap();
    assert_eq!(Socket::with(&fixture, &next).await.closed().await.0, 4401, "and nobody can reconnect");

    // Typing keeps it open; reconnecting does not restart its total time.
    let (mut socket, mut next) = Socket::open(&fixture, customer).await;
    let mut connections = 1;
    let code = 'over: loop {
        for _ in 0..20 {
            let _ = socket.0.send(Message::binary(b" ".to_vec())).await;
            if let Ok(Some(Ok(Message::Close(Some(frame))))) =
                tokio::time::timeout(Duration::from_millis(100), socket.0.next()).await
            {
                break 'over u16::from(frame.code);
            }
        }
        socket = Socket::with(&fixture, &next).await;
        match socket.next().await {
            Some(Message::Text(text)) => {
                next = serde_json::from_str::<Value>(&text).unwrap()["ticket"].as_str().unwrap().to_owned();
                connections += 1;
            }
            Some(Message::Close(Some(frame))) => break u16::from(frame.code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4410);
    assert!(connections > 1);
}

/// Connections are counted one at a time, under a lock that a client without a ticket does not take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_ticket_waits_for_no_lock_and_is_limited() {
    let fixture = ConsoleFixture::new(|c| c.rate_limit_address = 40).await;
    let mut held = kernel::db::begin(&fixture.app.db.pool).await.unwrap();
    sqlx::query("select pg_advisory_xact_lock($1)").bind(0x696e_6b63_6f6e_736f_i64).execute(&mut *held).await.unwrap();
    assert_eq!(Socket::with(&fixture, "ink_c_made_up").await.closed().await.0, 4401);
    held.rollback().await.unwrap();
    let origin = format!("http://127.0.0.1:{}", fixture.port.number());
    let mut ends = vec![];
    for n in 0..45 {
        match Socket::connect(&fixture, Some(&origin)).await {
            Ok(mut socket) => {
                socket.say(json!({ "type": "open", "ticket": format!("ink_c_made_up_{n}") })).await;
                ends.push(socket.closed().await.0);
            }
            Err(refused) => ends.push(refused),
        }
    }
    // Ticket lookups and new sockets are both limited; either limit may come first.
    assert!(ends[0] == 4401 && matches!(ends[44], 4429 | 429), "{ends:?}");
}

/// The limit of tickets holds however many are requested at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_tickets_holds_under_parallel_requests() {
    let fixture = ConsoleFixture::new(|_| {}).await;
    let asked = (0..80).map(|_| {
        let (client, vmid) = (fixture.app.customer.clone(), fixture.vmid);
        tokio::spawn(async move { client.post("/api/server/console", json!({ "vmid": vmid })).await.status })
    });
    let mut given = 0;
    for one in asked.collect::<Vec<_>>() {
        given += usize::from(one.await.unwrap() == 200);
    }
    assert_eq!(given, 50);
}
