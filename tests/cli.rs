//! The command line as a process: its output and its exit codes.

mod repairs;

use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;

use crate::support::app::account_of;
use crate::support::child::command;
use crate::support::{Client, TestApp, TestDb, revoked};

async fn run(db: &TestDb, data: &std::path::Path, line: &str, stdin: &str) -> Output {
    let mut child = command(db, data)
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A command that does not read its input may have exited already.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    child.wait_with_output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_tokens_and_the_catalogue_are_managed_on_the_command_line() {
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
    bad("user add --email x@[192.0.2.1]", 1, "not an IP address").await;
    bad("user add --email x@пример.example", 1, "xn--").await;
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
    revoked(&token, "/api/tariffs").await;
    good("user disable a@example.com", "").await;
    login("a@example.com", password).await.expect(401);
    good("user enable a@example.com", "").await;
    login("a@example.com", password).await.expect(200);
    good("user end-sessions a@example.com", "").await;

    let id = account_of(&app.db, "a@example.com").await;
    good(&format!("account limit {id} 7"), "").await;
    bad("account limit 999999 7", 1, "account").await;
    assert!(good("account list", "").await.lines().any(|l| l.contains("a@example.com") && l.contains(" 7 ")));
    good(&format!("account suspend {id} --reason unpaid"), "").await;
    assert!(good("account list", "").await.contains("unpaid"));
    good(&format!("account unsuspend {id}"), "").await;
    good(&format!("account add-member {id} other@example.com --role viewer"), "").await;
    assert!(good(&format!("account members {id}"), "").await.contains("other@example.com"));
    good(&format!("account remove-member {id} other@example.com"), "").await;
    let said = good("user link a@example.com --as provider@example.com --reason question", "").await;
    let link = said.split_whitespace().find(|word| word.contains("/login-link/#")).unwrap();
    let opened = serde_json::json!({ "token": link.rsplit('#').next().unwrap() });
    app.nobody.post("/api/auth/login-link", opened).await.expect(200);

    good("tariff add --name Базовый --cores 1 --memory 512 --disk 5 --price 300", "").await;
    assert!(good("tariff list", "").await.contains("Базовый"));
    bad("tariff add --name x --cores 0 --memory 512 --disk 5 --price 300", 1, "cores").await;
    bad("host add --name h --socket /nowhere/socket", 1, "/nowhere/socket").await;
    good("host add --name h --socket /nowhere/socket --force", "").await;
    bad("host check h", 1, "can't be").await;
    assert!(good("host list", "").await.contains('h'));
    good("image add --name Debian --source h=debian --no-verify", "").await;
    bad("image add --name Other --source nowhere=debian", 1, "nowhere").await;
    good("image add --name Other --source h=other --root-login password --no-verify", "").await;
    let images = good("image list", "").await;
    assert!(images.lines().any(|l| l.contains("=debian") && l.contains(" key ")), "{images}");
    assert!(images.lines().any(|l| l.contains("Other") && l.contains(" password ")), "{images}");
    assert!(good("pool add --name p --host h --cidr 10.0.0.0/24 --bridge b", "").await.contains("254"));
    assert!(good("pool list", "").await.contains("10.0.0.0/24"));
    bad("host remove h", 1, "pools").await;
}

/// Stands in for Proxmox VE's own: what exists can't be added, what does not exist can't be modified.
const PVEUM: &str = r#"#!/bin/sh
set -e
case "$1 $2" in
    "user token") what="$1-$2-$4-$5"; verb=$3 ;;
    *) what="$1-$3"; verb=$2 ;;
esac
test "$1" != acl || exit 0
case $verb in
    add) test ! -e "$PVEUM_STATE/$what" || { echo "$what already exists" >&2; exit 255; } ;;
    modify) test -e "$PVEUM_STATE/$what" || { echo "no $what" >&2; exit 255; } ;;
    *) exit 0 ;;
esac
echo "$@" > "$PVEUM_STATE/$what"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pveum_commands_need_no_database_and_can_be_repeated() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let stub = folder.path().join("pveum");
    std::fs::write(&stub, PVEUM).unwrap();
    std::fs::set_permissions(&stub, std::fs::Permissions::from_mode(0o755)).unwrap();
    // An empty environment, as on a machine where Innkeeper is not set up yet.
    let lines = async |arguments: &str| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_innkeeper"))
            .env_clear()
            .current_dir(folder.path())
            .args(arguments.split_whitespace())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let paste = async |lines: &str| {
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let output = tokio::process::Command::new("sh")
            .args(["-ec", lines])
            .env("PATH", path)
            .env("PVEUM_STATE", folder.path())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{lines}{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
    };
    let role = || std::fs::read_to_string(folder.path().join("role-InnkeeperGuests")).unwrap();
    let eight = lines("host pveum --version 8 --pool ink --templates local --templates nfs").await;
    assert!(eight.contains("pveum acl modify /storage/nfs "), "{eight}");
    paste(&eight).await;
    assert!(role().contains("VM.Monitor"), "{}", role());
    paste(&eight).await;
    // After an upgrade.
    paste(&lines("host pveum --version 9 --pool ink").await).await;
    assert!(role().contains("VM.GuestAgent.Unrestricted") && !role().contains("VM.Monitor"), "{}", role());
}

/// The commands printed with a problem suit the host that has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suggested_pveum_commands_match_the_host_s_version_and_storages() {
    let app = TestApp::new().await;
    let pve = crate::support::Pve::new(&app.db).await;
    let settings = pve.settings();
    pve.run("setattr(pve, 'version', '8.4.21')").await;
    pve.run("pve.storages.update({'isos': dict(pve.storages['local'], volumes={}, content='vztmpl,iso')})").await;
    let lacking = async || {
        for _ in 0..2 {
            pve.canned("GET", "/access/permissions", 200, "OK", r#"{"data":{"/":{"Sys.Audit":1}}}"#).await;
        }
    };
    lacking().await;
    let line = format!(
        "host add --kind proxmox --name pve --endpoint {} --token-id {} --fingerprint {}",
        settings["endpoints"][0].as_str().unwrap(),
        settings["tokenId"].as_str().unwrap(),
        settings["fingerprint"].as_str().unwrap()
    );
    let secret = format!("{}\n", settings["tokenSecret"].as_str().unwrap());
    let said = text(&run(&app.db, app.data.path(), &line, &secret).await.stderr);
    let is_right =
        |said: &str| said.contains("VM.Monitor") && said.contains("/storage/isos ") && !said.contains("GuestAgent");
    assert!(said.contains(" lacks ") && is_right(&said), "{said}");
    lacking().await;
    let said = text(&run(&app.db, app.data.path(), "host check pve", "").await.stderr);
    assert!(is_right(&said), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_are_listed_and_retried_on_the_command_line() {
    let app = TestApp::new().await;
    let ids: Vec<String> = sqlx::query_scalar(
        "insert into mails (id, event, recipient, subject, text_body, html_body, state, last_error)
         select gen_random_uuid(), s, s || '@example.com', 'About ' || s, 'inside', 'inside', s, 'because'
         from unnest(array['failed', 'sent']) s returning id::text",
    )
    .fetch_all(&app.db.pool)
    .await
    .unwrap();
    let run = async |line: &str| run(&app.db, app.data.path(), line, "").await;
    let said = text(&run("mail list --state failed").await.stdout);
    assert!(said.contains(&ids[0]) && said.contains("About failed") && said.contains("because"), "{said}");
    assert!(!said.contains(&ids[1]) && !said.contains("inside"), "{said}");
    assert!(text(&run("mail list --to SENT@example.com").await.stdout).contains(&ids[1]));
    let again = run(&format!("mail retry {}", ids[0])).await;
    assert!(again.status.success() && text(&again.stdout).contains("failed@example.com"), "{again:?}");
    let refused = run(&format!("mail retry {}", ids[1])).await;
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("already been sent"), "{refused:?}");
    let audit = app.provider.get("/api/audit?action=mail%20retry&order=asc").await.expect(200).body;
    assert_eq!((&audit["data"][0]["subjectId"], audit["total"].as_i64()), (&ids[0].clone().into(), Some(2)), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_settings_are_named() {
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
    assert!(said("INNKEEPER_CONSOLE_IDLE_SECONDS", "0").await.contains("INNKEEPER_CONSOLE_IDLE_SECONDS"));
    for host in ["mail.example.com:465", "https://mail.example.com", "a mail server", ""] {
        assert!(said("SMTP_HOST", host).await.contains("SMTP_HOST"), "{host}");
    }
    for (proxies, words) in
        [("10.0.0.1/8", "10.0.0.0/8"), ("0.0.0.0/0", "every address"), ("proxy.example.com", "neither")]
    {
        let line = said("INNKEEPER_TRUSTED_PROXIES", proxies).await;
        assert!(line.contains(words), "{proxies}: {line}");
    }
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(said("INNKEEPER_LISTEN", &address).await.contains(&address));
    // The settings file is read, but the environment takes precedence.
    std::fs::write(data.path().join(".env"), "INNKEEPER_LEASE_SECONDS=0\nINNKEEPER_WORKERS=0\n").unwrap();
    let line = said("INNKEEPER_LEASE_SECONDS", "5").await;
    assert!(line.contains("INNKEEPER_WORKERS"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_needs_incus_and_says_so() {
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
async fn the_demo_is_set_up_once() {
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
    let image = customer.get("/api/images").await.expect(200).body[0].clone();
    assert_eq!((image["name"].as_str(), image["rootLogin"].as_str()), (Some("Debian 12"), Some("password")));
    assert_eq!(provider.get("/api/address-pools").await.expect(200).body.as_array().unwrap().len(), 2);
    assert_eq!(provider.get("/api/hosts").await.expect(200).body[0]["name"], "demo");

    std::fs::remove_file(&file).unwrap();
    assert!(demo().await.contains("new passwords"));
    let second = std::fs::read_to_string(&file).unwrap();
    revoked(&provider, "/api/hosts").await;
    let provider = Client::new(&service.base, Some(&value(&second, "INNKEEPER_PROVIDER_TOKEN")));
    provider.get("/api/hosts").await.expect(200);
}
