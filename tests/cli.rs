//! The command line as a process: what it says, and how it ends.

use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;

use crate::support::child::command;
use crate::support::{Client, TestApp, TestDb};

async fn run(db: &TestDb, data: &std::path::Path, line: &str, stdin: &str) -> Output {
    let mut child = command(db, data)
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A command that does not read its input may have ended by now.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    child.wait_with_output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_tokens_and_the_catalogue_are_made_on_the_command_line() {
    let app = TestApp::new().await;
    let run = async |line: &str, stdin: &str| run(&app.db, app.data.path(), line, stdin).await;
    let good = async |line: &str, stdin: &str| {
        let output = run(line, stdin).await;
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let bad = async |line: &str, code: i32, words: &str| {
        let output = run(line, "").await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(words), "{line}: {said}");
        if code == 1 {
            assert!(said.starts_with("error: ") && said.lines().count() == 1, "{line}: {said}");
        }
    };
    let login = async |email: &str, password: &str| {
        let body = serde_json::json!({ "email": email, "password": password });
        app.nobody.post("/api/auth/login", body).await
    };
    good("migrate", "").await;
    good("user add --email a@example.com --password-stdin", "ten letters or more\n").await;
    login("a@example.com", "ten letters or more").await.expect(200);
    bad("user add --email A@example.com", 1, "already").await;
    bad("user add --email nonsense", 1, "email").await;
    bad("user add", 2, "--email").await;
    bad("nonsense", 2, "Usage").await;
    let said = good("user password a@example.com", "").await;
    let password = said.lines().last().unwrap().rsplit(' ').next().unwrap();
    login("a@example.com", "ten letters or more").await.expect(401);
    login("a@example.com", password).await.expect(200);

    let said = good("token create --user a@example.com --name cron --scope read", "").await;
    let token = app.nobody.with_token(said.lines().last().unwrap().rsplit(' ').next().unwrap());
    token.get("/api/tariffs").await.expect(200);
    bad("token create --user a@example.com --name cron --scope admin", 1, "scopes").await;
    let list = good("token list --user a@example.com", "").await;
    let id = list.lines().last().unwrap().split(' ').next().unwrap().to_owned();
    good(&format!("token revoke --user a@example.com {id}"), "").await;
    token.get("/api/tariffs").await.expect(401);
    good("user disable a@example.com", "").await;
    login("a@example.com", password).await.expect(401);
    assert!(good("user list", "").await.contains("a@example.com"));

    good("tariff add --name Базовый --cores 1 --memory 512 --disk 5 --price 300", "").await;
    assert!(good("tariff list", "").await.contains("Базовый"));
    bad("tariff add --name x --cores 0 --memory 512 --disk 5 --price 300", 1, "cores").await;
    bad("host add --name h --socket /nowhere/socket", 1, "/nowhere/socket").await;
    good("host add --name h --socket /nowhere/socket --force", "").await;
    bad("host check h", 1, "can't be").await;
    assert!(good("host list", "").await.contains('h'));
    good("image add --name Debian --source h=debian --no-verify", "").await;
    bad("image add --name Other --source nowhere=debian", 1, "nowhere").await;
    assert!(good("image list", "").await.contains("debian"));
    assert!(good("pool add --name p --host h --cidr 10.0.0.0/24 --bridge b", "").await.contains("254"));
    assert!(good("pool list", "").await.contains("10.0.0.0/24"));
    bad("host remove h", 1, "pools").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_are_wrong_are_named() {
    let db = TestDb::new().await;
    let data = tempfile::tempdir().unwrap();
    let said = async |name: &str, value: &str| {
        let output = command(&db, data.path()).arg("serve").env(name, value).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    assert!(said("INNKEEPER_SECRET_KEY", "short").await.contains("INNKEEPER_SECRET_KEY"));
    assert!(said("DATABASE_URL", "").await.contains("DATABASE_URL"));
    assert!(said("INNKEEPER_LOG", "a=b=c").await.contains("INNKEEPER_LOG"));
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(said("INNKEEPER_LISTEN", &address).await.contains(&address));
    // The file of settings: read, but second to the environment.
    std::fs::write(data.path().join(".env"), "INNKEEPER_LEASE_SECONDS=0\nINNKEEPER_WORKERS=0\n").unwrap();
    let line = said("INNKEEPER_LEASE_SECONDS", "5").await;
    assert!(line.contains("INNKEEPER_WORKERS"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demonstration_needs_its_incus_and_says_so() {
    let db = TestDb::new().await;
    let data = tempfile::tempdir().unwrap();
    let line = "demo --env-file demo.env --incus-socket /nowhere/socket --incus-project p --incus-pool p --bridge b \
                --image-source i --ipv4-cidr 10.0.0.0/24";
    let output = run(&db, data.path(), line, "").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/socket"), "{}", text(&output.stderr));
    assert!(!data.path().join("demo.env").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demonstration_is_made_once() {
    let db = TestDb::new().await;
    let data = tempfile::tempdir().unwrap();
    let lab = crate::support::lab::Incus::from_env();
    let line = format!(
        "demo --env-file sub/demo.env --incus-socket {} --incus-project {} --incus-pool {} --bridge {} \
         --image-source {} --ipv4-cidr {} --ipv4-gateway {} --ipv6-cidr fd00:1::/64 --ipv6-gateway fd00:1::1",
        lab.socket, lab.project, lab.pool, lab.bridge, lab.image, lab.subnet, lab.gateway
    );
    let demo = async || {
        let output = run(&db, data.path(), &line, "").await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let file = data.path().join("sub/demo.env");
    let said = demo().await;
    let first = std::fs::read_to_string(&file).unwrap();
    let value = |file: &str, key: &str| {
        file.lines().find_map(|l| l.strip_prefix(&format!("{key}="))).unwrap_or_else(|| panic!("{key}")).to_owned()
    };
    assert!(said.contains(&value(&first, "INNKEEPER_PROVIDER_PASSWORD")));
    assert!(!demo().await.contains(&value(&first, "INNKEEPER_PROVIDER_PASSWORD")));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first, "a second run changes nothing");

    let service = crate::support::child::Service::start(&db, data.path(), "").await;
    let provider = Client::new(&service.base, Some(&value(&first, "INNKEEPER_PROVIDER_TOKEN")));
    let customer = Client::new(&service.base, Some(&value(&first, "INNKEEPER_CUSTOMER_TOKEN")));
    assert_eq!(customer.get("/api/tariffs").await.expect(200).body.as_array().unwrap().len(), 3);
    assert_eq!(customer.get("/api/images").await.expect(200).body[0]["name"], "Debian 12");
    assert_eq!(provider.get("/api/address-pools").await.expect(200).body.as_array().unwrap().len(), 2);
    assert_eq!(provider.get("/api/hosts").await.expect(200).body[0]["name"], "demo");

    std::fs::remove_file(&file).unwrap();
    assert!(demo().await.contains("new passwords"));
    let second = std::fs::read_to_string(&file).unwrap();
    provider.get("/api/hosts").await.expect(401);
    let provider = Client::new(&service.base, Some(&value(&second, "INNKEEPER_PROVIDER_TOKEN")));
    provider.get("/api/hosts").await.expect(200);
}
