//! `innkeeper image …`: operating system images.

use clap::{Args, Subcommand};
use compute::images::model::{ImageSource, NewImage, RootLogin};
use compute::images::service;
use compute::tariffs::ServerKind;
use innkeeper::run::Service;
use kernel::audit;
use kernel::idempotency::Once;

use super::output::{table, yes};
use super::{checked, find_host};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an image, after checking that the hosts have it
    Add(Add),
    /// List all images
    List,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Name, in any script
    #[arg(long)]
    name: String,
    /// Kind of guest that it installs
    #[arg(long, value_enum, default_value_t = ServerKind::Lxc)]
    kind: ServerKind,
    /// Operating system family
    #[arg(long = "type", default_value = "linux")]
    family: String,
    /// Where the image is available, as HOST=SOURCE (an Incus alias or fingerprint); may be repeated
    #[arg(long = "source", value_name = "HOST=SOURCE", value_parser = source)]
    sources: Vec<(String, String)>,
    /// How root signs in over SSH to servers with this image
    #[arg(long, value_enum, default_value_t = RootLogin::Key)]
    root_login: RootLogin,
    /// Don't check that the hosts have it
    #[arg(long)]
    no_verify: bool,
    /// Don't make it available yet
    #[arg(long)]
    disabled: bool,
}

fn source(text: &str) -> Result<(String, String), String> {
    let (host, source) = text.split_once('=').ok_or("must be HOST=SOURCE, such as main=debian-12")?;
    Ok((host.to_owned(), source.to_owned()))
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add(add) => {
            let mut sources = Vec::new();
            for (host, source) in add.sources {
                sources.push(ImageSource { host_id: find_host(service, &host).await?.id, source });
            }
            let new = checked(NewImage {
                name: add.name,
                family: add.family,
                kind: add.kind,
                root_login: add.root_login,
                enabled: !add.disabled,
                sources,
                verify: !add.no_verify,
            })?;
            let made = service::create(&service.features.hosts, &Once::default(), new).await?.image;
            audit::subject(made.id);
            println!("The image {} has the id {}.", made.name, made.id);
        }
        Command::List => {
            let images = service::all(&service.core).await?;
            table(
                ["ID", "NAME", "TYPE", "KIND", "ROOT LOGIN", "ENABLED", "SOURCES"],
                images.into_iter().map(|view| {
                    let sources = view.sources.unwrap_or_default();
                    let sources: Vec<_> = sources.into_iter().map(|s| format!("{}={}", s.host_id, s.source)).collect();
                    let image = view.image;
                    [
                        image.id.to_string(),
                        image.name,
                        image.family,
                        image.kind.to_string(),
                        image.root_login.as_str().to_owned(),
                        yes(image.enabled),
                        sources.join(" "),
                    ]
                }),
            );
        }
    }
    Ok(())
}
