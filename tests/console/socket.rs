//! The socket's own rules, without a page.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::House;
use crate::support::{Client, ended};

const WHILE: Duration = Duration::from_secs(60);

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn connect(house: &House, origin: Option<&str>) -> Result<Self, u16> {
        let mut request = format!("ws://{}/console/socket", house.to()).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// With a ticket shown.
    async fn with(house: &House, ticket: &str) -> Self {
        let origin = format!("http://127.0.0.1:{}", house.port.number());
        let mut socket = Self::connect(house, Some(&origin)).await.unwrap();
        socket.say(json!({ "type": "open", "ticket": ticket, "columns": 80, "rows": 24 })).await;
        socket
    }

    /// Open, with the ticket to come back with.
    async fn open(house: &House, client: &Client) -> (Self, String) {
        Self::opened(house, &ticket(house, client).await).await
    }

    async fn opened(house: &House, ticket: &str) -> (Self, String) {
        let mut socket = Self::with(house, ticket).await;
        let next = socket.hear("ticket").await["ticket"].as_str().unwrap().to_owned();
        let ready = socket.hear("ready").await;
        assert_eq!((&ready["kind"], &ready["server"]["vmid"]), (&json!("text"), &json!(house.vmid)));
        (socket, next)
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Option<Message> {
        tokio::time::timeout(WHILE, self.0.next()).await.expect("something comes").and_then(Result::ok)
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
                other => panic!("{kind} was to come, not {other:?}"),
            }
        }
    }

    /// Reads to the close frame.
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

async fn ticket(house: &House, client: &Client) -> String {
    house.url(client).await.split_once('#').unwrap().1.to_owned()
}

async fn run(house: &House, sql: &'static str) {
    sqlx::query(sql).execute(&house.app.db.pool).await.unwrap();
}

/// An API token of the customer's with this scope: its client and its id.
async fn token(house: &House, scope: &str) -> (Client, String) {
    let new = json!({ "name": "t", "scopes": [scope] });
    let made = house.app.customer.post("/api/auth/tokens", new).await.expect(201).body;
    (house.app.nobody.with_token(made["token"].as_str().unwrap()), made["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_ends_with_the_rights_to_it() {
    let house = House::new(|_| {}).await;
    let customer = &house.app.customer;

    // The token.
    let (client, id) = token(&house, &format!("write:server:{}", house.id)).await;
    let (socket, next) = Socket::open(&house, &client).await;
    customer.delete(&format!("/api/auth/tokens/{id}")).await.expect(204);
    assert_eq!(socket.closed().await.0, 4402);
    assert_eq!(Socket::with(&house, &next).await.closed().await.0, 4401, "nor may it come back");

    // A token that is revoked before its ticket is used.
    let (client, id) = token(&house, "write").await;
    let unused = ticket(&house, &client).await;
    customer.delete(&format!("/api/auth/tokens/{id}")).await.expect(204);
    assert_eq!(Socket::with(&house, &unused).await.closed().await.0, 4402);

    // The role.
    let (socket, _) = Socket::open(&house, &house.app.provider).await;
    run(&house, "update users set role = 'customer' where role = 'provider'").await;
    assert_eq!(socket.closed().await.0, 4404);
    run(&house, "update users set role = 'provider' where email like 'provider%'").await;

    // The account.
    let (socket, _) = Socket::open(&house, &house.app.provider).await;
    run(&house, "update users set disabled_at = now() where email like 'provider%'").await;
    assert_eq!(socket.closed().await.0, 4402);

    // The owner.
    let (socket, _) = Socket::open(&house, customer).await;
    run(&house, "update servers set user_id = (select id from users where email like 'other%')").await;
    assert_eq!(socket.closed().await, (4404, "This server was deleted or is no longer yours.".to_owned()));
    run(&house, "update servers set user_id = (select id from users where email like 'customer%')").await;

    // The guest: it may be taken up again when it runs again.
    let (socket, next) = Socket::open(&house, customer).await;
    let stopped = customer.post(&format!("/api/server/{}/stop", house.id), None).await.expect(200).body;
    assert!(matches!(socket.closed().await.0, 4000 | 4001));
    ended(customer, &stopped["operationId"]).await;
    let mut socket = Socket::with(&house, &next).await;
    let next = socket.hear("ticket").await["ticket"].as_str().unwrap().to_owned();
    assert_eq!(socket.closed().await.0, 4001);
    let started = customer.post(&format!("/api/server/{}/start", house.id), None).await.expect(200).body;
    ended(customer, &started["operationId"]).await;
    let (socket, _) = Socket::opened(&house, &next).await;

    // The server.
    let deleted = customer.delete(&format!("/api/server/{}", house.id)).await.expect(200).body;
    assert_eq!(socket.closed().await.0, 4404);
    ended(customer, &deleted["operationId"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_keeps_to_its_limits() {
    let house = House::new(|c| {
        c.console_limit_account = 2;
        c.console_limit_server = 2;
    })
    .await;
    let customer = &house.app.customer;
    let ours = format!("http://127.0.0.1:{}", house.port.number());

    // From our own page only.
    let evil = format!("http://127.0.0.1:{}.example.com", house.port.number());
    for origin in [None, Some("https://evil.example.com"), Some("null"), Some(evil.as_str())] {
        assert_eq!(Socket::connect(&house, origin).await.err(), Some(403), "{origin:?}");
    }
    // A ticket first.
    for first in [json!({ "type": "resize", "columns": 80, "rows": 24 }), json!({}), json!({ "type": "open" })] {
        let mut socket = Socket::connect(&house, Some(&ours)).await.unwrap();
        socket.say(first).await;
        assert_eq!(socket.closed().await.0, 4400);
    }
    // Of many who show one ticket at one time, one gets in.
    let one = ticket(&house, customer).await;
    let tries = futures_util::future::join_all((0..8).map(|_| Socket::with(&house, &one))).await;
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
    // What is too large is not taken, nor what makes no sense.
    let (mut socket, _) = Socket::open(&house, customer).await;
    socket.0.send(Message::binary(vec![b'x'; 70_000])).await.unwrap();
    assert_eq!(socket.closed().await.0, 1009);
    let (mut socket, _) = Socket::open(&house, customer).await;
    socket.say(json!({ "type": "resize", "columns": 0, "rows": 24 })).await;
    assert_eq!(socket.closed().await.0, 4400);
    // No more than so many of an account and of a server, whoever serves them.
    run(
        &house,
        "insert into consoles (id, server_id, user_id, token_id, address, alive_until)
         select gen_random_uuid(), s.id, s.user_id, gen_random_uuid(), '::1', now() + interval '1 minute'
         from servers s, generate_series(1, 2)",
    )
    .await;
    assert_eq!(Socket::with(&house, &ticket(&house, customer).await).await.closed().await.0, 4429);
    assert_eq!(Socket::with(&house, &ticket(&house, &house.app.provider).await).await.closed().await.0, 4429);
    run(&house, "delete from consoles").await;
    // Tickets that nobody uses are no way to fill the database.
    for _ in 0..50 {
        ticket(&house, customer).await;
    }
    let refused = customer.post("/api/server/console", json!({ "vmid": house.vmid })).await.expect(429);
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_that_nobody_uses_is_closed_and_so_is_one_that_is_used_for_too_long() {
    let house = House::new(|c| {
        c.console_idle_seconds = 3;
        c.console_total_seconds = 8;
    })
    .await;
    let customer = &house.app.customer;
    // Not everything that comes is somebody's doing.
    let (socket, next) = Socket::open(&house, customer).await;
    let (mut sink, mut stream) = socket.0.split();
    let resizing = tokio::spawn(async move {
        let resize = json!({ "type": "resize", "columns": 90, "rows": 30 }).to_string();
        while sink.send(Message::text(resize.clone())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let code = loop {
        match tokio::time::timeout(WHILE, stream.next()).await.expect("something comes") {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4408);
    drop(stream);
    resizing.await.unwrap();
    assert_eq!(Socket::with(&house, &next).await.closed().await.0, 4401, "nobody else finds it open");

    // Typing keeps it open; a new connection does not begin its time anew.
    let (mut socket, mut next) = Socket::open(&house, customer).await;
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
        socket = Socket::with(&house, &next).await;
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

/// Connections are counted one after the other; who has no ticket is not among those that are waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_is_none_waits_for_nobody_and_is_limited() {
    let house = House::new(|c| c.rate_limit_address = 40).await;
    let mut held = innkeeper::db::begin(&house.app.db.pool).await.unwrap();
    sqlx::query("select pg_advisory_xact_lock($1)").bind(0x696e_6b63_6f6e_736f_i64).execute(&mut *held).await.unwrap();
    assert_eq!(Socket::with(&house, "ink_c_made_up").await.closed().await.0, 4401);
    held.rollback().await.unwrap();
    let origin = format!("http://127.0.0.1:{}", house.port.number());
    let mut ends = vec![];
    for n in 0..45 {
        match Socket::connect(&house, Some(&origin)).await {
            Ok(mut socket) => {
                socket.say(json!({ "type": "open", "ticket": format!("ink_c_made_up_{n}") })).await;
                ends.push(socket.closed().await.0);
            }
            Err(refused) => ends.push(refused),
        }
    }
    // Tickets are looked at so often, and so many sockets are opened; whichever comes first.
    assert!(ends[0] == 4401 && matches!(ends[44], 4429 | 429), "{ends:?}");
}

/// The limit of tickets holds however many are asked for at one time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_no_more_tickets_than_it_may_however_many_are_asked_for_at_once() {
    let house = House::new(|_| {}).await;
    let asked = (0..80).map(|_| {
        let (client, vmid) = (house.app.customer.clone(), house.vmid);
        tokio::spawn(async move { client.post("/api/server/console", json!({ "vmid": vmid })).await.status })
    });
    let mut given = 0;
    for one in asked.collect::<Vec<_>>() {
        given += usize::from(one.await.unwrap() == 200);
    }
    assert_eq!(given, 50);
}
