//! `innkeeper demo`: something to look at and to order. What is there already, by name, is left as it is.

mod env_file;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use innkeeper::accounts::model::{NewApiToken, Role};
use innkeeper::accounts::service as accounts;
use innkeeper::addresses::model::NewPool;
use innkeeper::app::App;
use innkeeper::error::{Code, Error};
use innkeeper::hosts::kinds::incus::{IncusSettings, default_processes};
use innkeeper::hosts::model::NewHost;
use innkeeper::hosts::settings::HostSettings;
use innkeeper::idempotency::Once;
use innkeeper::ids::{HostId, UserId};
use innkeeper::images::model::{ImageSource, NewImage, RootLogin};
use innkeeper::secrets::readable_password;
use innkeeper::tariffs::model::{Kind, NewTariff};
use innkeeper::{addresses, hosts, images, tariffs};
use ipnet::IpNet;
use secrecy::ExposeSecret;

use super::checked;
use super::output::plain;

/// The name of the host, and what the names of its pools begin with.
const HOST: &str = "demo";
/// The name of the accounts' API tokens.
const TOKEN: &str = "demo";

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Where the demonstration's accounts are written to, readable for you alone
    #[arg(long, default_value = "data/demo.env")]
    env_file: PathBuf,
    /// The Incus daemon's unix socket
    #[arg(long)]
    incus_socket: String,
    /// The Incus project that the guests live in
    #[arg(long)]
    incus_project: String,
    /// The storage pool of the guests' root disks
    #[arg(long)]
    incus_pool: String,
    /// Don't let Incus filter the guests' addresses: for kernels that can't
    #[arg(long)]
    no_address_filters: bool,
    /// The host's bridge
    #[arg(long)]
    bridge: String,
    /// The image in Incus, an alias or fingerprint
    #[arg(long)]
    image_source: String,
    /// The image's name for customers
    #[arg(long, default_value = "Debian 12")]
    image_name: String,
    /// The IPv4 network, such as 10.0.0.0/24
    #[arg(long)]
    ipv4_cidr: IpNet,
    /// Its gateway
    #[arg(long)]
    ipv4_gateway: Option<IpAddr>,
    /// The first address to give out
    #[arg(long)]
    ipv4_first: Option<IpAddr>,
    /// The last address to give out
    #[arg(long)]
    ipv4_last: Option<IpAddr>,
    /// The IPv6 network, such as `fd00:1::/64`
    #[arg(long)]
    ipv6_cidr: Option<IpNet>,
    /// Its gateway
    #[arg(long, requires = "ipv6_cidr")]
    ipv6_gateway: Option<IpAddr>,
}

pub(super) async fn run(app: &App, args: Args) -> anyhow::Result<()> {
    for (name, cores, memory, disk, price) in
        [("Базовый", 1, 512, 5, 300), ("Standard", 2, 1024, 10, 600), ("Pro", 2, 2048, 20, 1200)]
    {
        tariff(app, name, cores, memory, disk, price).await?;
    }
    let host = host(app, &args).await?;
    image(app, &args, host).await?;
    pool(app, &args, host, "v4", Some(args.ipv4_cidr), args.ipv4_gateway, [args.ipv4_first, args.ipv4_last]).await?;
    pool(app, &args, host, "v6", args.ipv6_cidr, args.ipv6_gateway, [None, None]).await?;
    people(app, &args).await
}

async fn tariff(app: &App, name: &str, cores: i32, memory: i64, disk: i64, price: i64) -> anyhow::Result<()> {
    let new = checked(NewTariff {
        name: name.to_owned(),
        kind: Kind::Lxc,
        cores,
        memory,
        disk,
        traffic: None,
        bandwidth: None,
        price,
        currency: "EUR".to_owned(),
        enabled: true,
        // Up to twice of everything by parts, which is what any of today's machines has room for.
        max_cores: Some(cores * 2),
        max_memory: Some(memory * 2),
        max_disk: Some(disk * 2),
        snapshots: 5,
    })?;
    there(tariffs::service::create(app, &Once::default(), new).await)
}

/// What exists already is as good as made.
fn there<T>(made: Result<T, Error>) -> anyhow::Result<()> {
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.code == Code::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn host(app: &App, args: &Args) -> anyhow::Result<HostId> {
    let config = IncusSettings {
        socket: args.incus_socket.clone(),
        project: args.incus_project.clone(),
        storage_pool: args.incus_pool.clone(),
        address_filters: !args.no_address_filters,
        search_domain: None,
        processes_per_gib: default_processes(),
    };
    let known = hosts::service::all(app).await?.into_iter().find(|h| h.name == HOST);
    if let Some(known) = known {
        if known.config.as_ref().and_then(HostSettings::get::<IncusSettings>) != Some(&config) {
            eprintln!("warning: the host {HOST} is there with other settings, and keeps them");
        }
        return Ok(known.id);
    }
    let added =
        hosts::service::add(app, &Once::default(), checked(NewHost::new(HOST.to_owned(), &HostSettings::of(config))?)?)
            .await?;
    for problem in &added.problems {
        eprintln!("warning: {}", plain(problem));
    }
    Ok(added.host.id)
}

async fn image(app: &App, args: &Args, host: HostId) -> anyhow::Result<()> {
    let name = args.image_name.trim().to_lowercase();
    let is_it = |i: &images::model::Image| i.kind == Kind::Lxc && i.name.to_lowercase() == name;
    if images::service::all(app).await?.iter().any(|view| is_it(&view.image)) {
        return Ok(());
    }
    let new = checked(NewImage {
        name: args.image_name.clone(),
        family: "linux".to_owned(),
        kind: Kind::Lxc,
        // The recipe of the image says so.
        root_login: RootLogin::Password,
        enabled: true,
        sources: vec![ImageSource { host_id: host, source: args.image_source.clone() }],
        verify: true,
    })?;
    there(images::service::create(app, &Once::default(), new).await)
}

async fn pool(
    app: &App,
    args: &Args,
    host: HostId,
    family: &str,
    cidr: Option<IpNet>,
    gateway: Option<IpAddr>,
    [first, last]: [Option<IpAddr>; 2],
) -> anyhow::Result<()> {
    let Some(cidr) = cidr else { return Ok(()) };
    let name = format!("{HOST}-{family}");
    if addresses::service::all(&app.db, app.config.address_rest()).await?.iter().any(|pool| pool.name == name) {
        return Ok(());
    }
    let new = checked(NewPool {
        name,
        host_id: host,
        cidr,
        gateway,
        first,
        last,
        bridge: args.bridge.clone(),
        vlan: None,
        dns: Vec::new(),
        enabled: true,
    })?;
    there(addresses::service::create(app, &Once::default(), new).await)
}

/// Makes the accounts and the file that names them, or leaves both as they are. Where one of them is missing, both
/// get new passwords and tokens: the old ones are nowhere to be read.
async fn people(app: &App, args: &Args) -> anyhow::Result<()> {
    let people = [
        ("PROVIDER", "provider@demo.example", "Demo provider", Role::Provider),
        ("CUSTOMER", "customer@demo.example", "Demo customer", Role::Customer),
    ];
    let mut known = Vec::new();
    for (_, email, ..) in people {
        known.push(innkeeper::accounts::store::user_by_email(&app.db, email).await.map_err(Error::from)?);
    }
    let file = &args.env_file;
    if file.exists() && known.iter().all(Option::is_some) {
        println!("The demonstration is there already; its accounts are in {}.", file.display());
        return Ok(());
    }
    if known.iter().any(Option::is_some) {
        println!("{} is not there or not of this database: the accounts get new passwords and tokens.", file.display());
    }
    // First of all, so that a run that dies in between leaves no file with passwords that are not right.
    env_file::remove(file)?;
    let mut values = vec![("INNKEEPER_URL".to_owned(), app.config.public_url.trim_end_matches('/').to_owned())];
    println!("Accounts of the demonstration (their passwords are shown this once):");
    for ((prefix, email, name, role), known) in people.into_iter().zip(known) {
        let password = readable_password();
        let id = match known {
            Some(user) => {
                accounts::reset_password(app, user.id, password.clone(), true).await?;
                revoke_old_tokens(app, user.id).await?;
                user.id
            }
            None => accounts::add_user(app, email, name, role, password.clone()).await?.id,
        };
        let new = NewApiToken { name: TOKEN.to_owned(), scopes: vec!["write".to_owned()], expires_at: None };
        let token = accounts::create_api_token(app, &Once::default(), id, checked(new)?).await?.token;
        println!("  {email}  {}", password.expose_secret());
        values.push((format!("INNKEEPER_{prefix}_EMAIL"), email.to_owned()));
        values.push((format!("INNKEEPER_{prefix}_PASSWORD"), password.expose_secret().to_owned()));
        values.push((format!("INNKEEPER_{prefix}_TOKEN"), token));
    }
    env_file::write(file, &values)?;
    println!("They and their API tokens are in {}.", file.display());
    Ok(())
}

async fn revoke_old_tokens(app: &App, user: UserId) -> anyhow::Result<()> {
    for token in accounts::api_tokens(app, user).await?.into_iter().filter(|t| t.name == TOKEN) {
        accounts::revoke_api_token(app, user, token.id).await?;
    }
    Ok(())
}
