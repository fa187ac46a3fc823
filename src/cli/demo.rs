//! `innkeeper demo`: sample data to explore and order from. Items that already exist, by name, are left unchanged.

mod env_file;

use std::net::IpAddr;
use std::path::PathBuf;

use ::accounts::model::NewApiToken;
use ::accounts::service as accounts;
use clap::Args as ClapArgs;
use compute::addresses;
use compute::addresses::model::NewPool;
use compute::hosts;
use compute::hosts::kinds::incus::{IncusSettings, default_processes};
use compute::hosts::model::NewHost;
use compute::hosts::settings::HostSettings;
use compute::ids::{HostId, UserId};
use compute::images;
use compute::images::model::{ImageSource, NewImage, RootLogin};
use compute::tariffs;
use compute::tariffs::model::{NewTariff, ServerKind};
use innkeeper::run::Service;
use ipnet::IpNet;
use kernel::auth::StaffRole;
use kernel::error::{Code, Error};
use kernel::idempotency::Once;
use kernel::secrets::readable_password;
use secrecy::ExposeSecret;

use super::checked;
use super::output::plain;

/// Name of the host, and prefix of its pools' names.
const HOST: &str = "demo";
/// Name of the accounts' API tokens.
const TOKEN: &str = "demo";

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// File for the credentials of the demo accounts, readable only by you
    #[arg(long, default_value = "data/demo.env")]
    env_file: PathBuf,
    /// Unix socket of the Incus daemon
    #[arg(long)]
    incus_socket: String,
    /// Incus project for the guests
    #[arg(long)]
    incus_project: String,
    /// Storage pool for the guests' root disks
    #[arg(long)]
    incus_pool: String,
    /// Don't let Incus filter the guests' addresses: for kernels that don't support it
    #[arg(long)]
    no_address_filters: bool,
    /// Network bridge of the host
    #[arg(long)]
    bridge: String,
    /// Image in Incus, by alias or fingerprint
    #[arg(long)]
    image_source: String,
    /// Name of the image for customers
    #[arg(long, default_value = "Debian 12")]
    image_name: String,
    /// IPv4 network, such as 10.0.0.0/24
    #[arg(long)]
    ipv4_cidr: IpNet,
    /// IPv4 gateway
    #[arg(long)]
    ipv4_gateway: Option<IpAddr>,
    /// First IPv4 address to assign
    #[arg(long)]
    ipv4_first: Option<IpAddr>,
    /// Last IPv4 address to assign
    #[arg(long)]
    ipv4_last: Option<IpAddr>,
    /// IPv6 network, such as `fd00:1::/64`
    #[arg(long)]
    ipv6_cidr: Option<IpNet>,
    /// IPv6 gateway
    #[arg(long, requires = "ipv6_cidr")]
    ipv6_gateway: Option<IpAddr>,
}

pub(super) async fn run(service: &Service, args: Args) -> anyhow::Result<()> {
    for (name, cores, memory, disk, price) in
        [("Базовый", 1, 512, 5, 300), ("Standard", 2, 1024, 10, 600), ("Pro", 2, 2048, 20, 1200)]
    {
        tariff(service, name, cores, memory, disk, price).await?;
    }
    let host = host(service, &args).await?;
    image(service, &args, host).await?;
    pool(service, &args, host, "v4", Some(args.ipv4_cidr), args.ipv4_gateway, [args.ipv4_first, args.ipv4_last])
        .await?;
    pool(service, &args, host, "v6", args.ipv6_cidr, args.ipv6_gateway, [None, None]).await?;
    people(service, &args).await
}

async fn tariff(service: &Service, name: &str, cores: i32, memory: i64, disk: i64, price: i64) -> anyhow::Result<()> {
    let new = checked(NewTariff {
        name: name.to_owned(),
        kind: ServerKind::Lxc,
        cores,
        memory,
        disk,
        traffic: None,
        bandwidth: None,
        price,
        currency: "EUR".to_owned(),
        enabled: true,
        // Resizing single resources up to twice their size, which fits on any current machine.
        max_cores: Some(cores * 2),
        max_memory: Some(memory * 2),
        max_disk: Some(disk * 2),
        snapshots: 5,
    })?;
    ok_if_exists(tariffs::service::create(&service.core, &Once::default(), new).await)
}

/// Treats an item that already exists as created.
fn ok_if_exists<T>(made: Result<T, Error>) -> anyhow::Result<()> {
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.code == Code::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn host(service: &Service, args: &Args) -> anyhow::Result<HostId> {
    let config = IncusSettings {
        socket: args.incus_socket.clone(),
        project: args.incus_project.clone(),
        storage_pool: args.incus_pool.clone(),
        address_filters: !args.no_address_filters,
        search_domain: None,
        processes_per_gib: default_processes(),
    };
    let known = hosts::service::all(&service.core).await?.into_iter().find(|h| h.name == HOST);
    if let Some(known) = known {
        if known.config.as_ref().and_then(HostSettings::get::<IncusSettings>) != Some(&config) {
            eprintln!("warning: the host {HOST} already exists with other settings, which are left unchanged");
        }
        return Ok(known.id);
    }
    let added = hosts::service::add(
        &service.core,
        &Once::default(),
        checked(NewHost::new(HOST.to_owned(), &HostSettings::of(config))?)?,
    )
    .await?;
    for problem in &added.problems {
        eprintln!("warning: {}", plain(problem));
    }
    Ok(added.host.id)
}

async fn image(service: &Service, args: &Args, host: HostId) -> anyhow::Result<()> {
    let name = args.image_name.trim().to_lowercase();
    let is_it = |i: &images::model::Image| i.kind == ServerKind::Lxc && i.name.to_lowercase() == name;
    if images::service::all(&service.core).await?.iter().any(|view| is_it(&view.image)) {
        return Ok(());
    }
    let new = checked(NewImage {
        name: args.image_name.clone(),
        family: "linux".to_owned(),
        kind: ServerKind::Lxc,
        // Set by the image's build recipe.
        root_login: RootLogin::Password,
        enabled: true,
        sources: vec![ImageSource { host_id: host, source: args.image_source.clone() }],
        verify: true,
    })?;
    ok_if_exists(images::service::create(&service.features.hosts, &Once::default(), new).await)
}

async fn pool(
    service: &Service,
    args: &Args,
    host: HostId,
    family: &str,
    cidr: Option<IpNet>,
    gateway: Option<IpAddr>,
    [first, last]: [Option<IpAddr>; 2],
) -> anyhow::Result<()> {
    let Some(cidr) = cidr else { return Ok(()) };
    let name = format!("{HOST}-{family}");
    let pools = &service.features.addresses;
    if addresses::service::all(&service.core.db, pools.settings.rest()).await?.iter().any(|pool| pool.name == name) {
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
    ok_if_exists(addresses::service::create(pools, &Once::default(), new).await)
}

/// Creates the accounts and the file with their credentials, or leaves both unchanged. If one of them is missing, the
/// accounts get new passwords and tokens: the old ones can't be read anywhere.
async fn people(service: &Service, args: &Args) -> anyhow::Result<()> {
    let people = [
        ("PROVIDER", "provider@demo.example", "Demo provider", Some(StaffRole::Admin)),
        ("CUSTOMER", "customer@demo.example", "Demo customer", None),
    ];
    let mut known = Vec::new();
    for (_, email, ..) in people {
        known.push(::accounts::store::user_by_email(&service.core.db, email).await.map_err(Error::from)?);
    }
    let file = &args.env_file;
    if file.exists() && known.iter().all(Option::is_some) {
        println!("The demo data already exists; its accounts are in {}.", file.display());
        return Ok(());
    }
    if known.iter().any(Option::is_some) {
        println!(
            "{} is missing or belongs to another database: the accounts get new passwords and tokens.",
            file.display()
        );
    }
    // Removed first, so that an interrupted run leaves no file with wrong passwords.
    env_file::remove(file)?;
    let url = service.features.accounts.settings.public_url.trim_end_matches('/');
    let mut values = vec![("INNKEEPER_URL".to_owned(), url.to_owned())];
    println!("Demo accounts (their passwords are shown only once):");
    for ((prefix, email, name, staff), known) in people.into_iter().zip(known) {
        let password = readable_password();
        let user = match known {
            Some(user) => {
                accounts::reset_password(&service.features.accounts, user.id, password.clone(), true).await?;
                revoke_old_tokens(service, user.id).await?;
                user
            }
            None => accounts::add_user(&service.features.accounts, email, name, staff, password.clone()).await?,
        };
        let new = NewApiToken { name: TOKEN.to_owned(), scopes: vec!["write".to_owned()], expires_at: None };
        let (all, who) = (&service.features.accounts, (user.id, user.account_id));
        let token = accounts::create_api_token(all, &Once::default(), who, None, checked(new)?).await?.token;
        println!("  {email}  {}", password.expose_secret());
        values.push((format!("INNKEEPER_{prefix}_EMAIL"), email.to_owned()));
        values.push((format!("INNKEEPER_{prefix}_PASSWORD"), password.expose_secret().to_owned()));
        values.push((format!("INNKEEPER_{prefix}_TOKEN"), token));
    }
    env_file::write(file, &values)?;
    println!("The passwords and API tokens are in {}.", file.display());
    Ok(())
}

async fn revoke_old_tokens(service: &Service, user: UserId) -> anyhow::Result<()> {
    for token in accounts::api_tokens(&service.features.accounts, user).await?.into_iter().filter(|t| t.name == TOKEN) {
        accounts::revoke_api_token(&service.features.accounts, user, token.id).await?;
    }
    Ok(())
}
