//! The command line: one file per noun. Commands call the same functions as the REST API.
#![allow(clippy::print_stdout, reason = "a command line prints to standard output")]
#![allow(clippy::print_stderr, reason = "and reports problems on standard error")]

mod account;
mod audit;
mod database;
mod demo;
mod host;
mod image;
mod key;
mod mail;
mod operation;
mod output;
mod pool;
mod serve;
mod tariff;
mod token;
mod top;
mod user;

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use compute::hosts;
use garde::Validate;
use innkeeper::run::Service;
use kernel::config::Config;
use kernel::db;
use kernel::error::{Code, Error};
use kernel::keyring;
use secrecy::SecretString;

/// Innkeeper turns Proxmox-style hosts into a provider's cloud.
///
/// Settings come from the environment and from the file .env in the current directory; .env.example lists them all.
#[derive(Debug, Parser)]
#[command(name = "innkeeper", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and run operations, until SIGTERM or SIGINT
    Serve,
    /// Migrate the database schema to this version
    Migrate,
    /// Manage users, who sign in
    #[command(subcommand)]
    User(user::Command),
    /// Manage accounts, which own things, and their members
    #[command(subcommand)]
    Account(account::Command),
    /// Manage API tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Manage hosts
    #[command(subcommand)]
    Host(host::Command),
    /// Manage tariffs
    #[command(subcommand)]
    Tariff(tariff::Command),
    /// Manage operating system images
    #[command(subcommand)]
    Image(image::Command),
    /// Manage address pools
    #[command(subcommand)]
    Pool(pool::Command),
    /// Manage stuck operations
    #[command(subcommand)]
    Operation(operation::Command),
    /// List and retry emails
    #[command(subcommand)]
    Mail(mail::Command),
    /// Manage the master key that seals secrets
    #[command(subcommand)]
    Key(key::Command),
    /// Declare that the database was restored, if this was not detected: operations in progress become stuck
    Restored,
    /// Watch the fleet live in this terminal
    Top(top::Args),
    /// Show the audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Create demo data: users, tariffs, an image, a host, address pools
    Demo(demo::Args),
}

/// Runs the command of this process. Exit code 0: done; 1: it failed, for the reason printed on standard error; 2:
/// wrong usage.
pub(crate) fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let started = Cli::from_arg_matches(&matches).map_err(Into::into);
    match started.and_then(|cli| start(cli.command, &called(&matches))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The command's name without its arguments, such as `user add`.
fn called(matches: &ArgMatches) -> String {
    let names = std::iter::successors(matches.subcommand(), |(_, matches)| matches.subcommand());
    names.map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

/// Whether a command only reads. All others are recorded in the audit log.
fn is_read_only(called: &str) -> bool {
    called.ends_with(" list") || matches!(called, "account members" | "operation log" | "host unknown" | "top")
}

fn start(command: Command, called: &str) -> anyhow::Result<()> {
    if let Command::Host(host::Command::Pveum(rights)) = &command {
        // Needs no configuration, and is often run before there is any.
        host::pveum(rights);
        return Ok(());
    }
    load_env_file(Path::new(".env"))?;
    let config = Config::from_env()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        match command {
            Command::Serve => serve::run(config).await,
            Command::Migrate => {
                // Built for its check of all settings.
                let db = &Service::new(config)?.core.db;
                database::wait_briefly(db).await?;
                db::migrate(db).await?;
                println!("The database schema is up to date.");
                Ok(())
            }
            command => {
                let service = Service::new(config)?;
                if matches!(command, Command::Demo(_)) {
                    database::wait_briefly(&service.core.db).await?;
                    db::migrate(&service.core.db).await?;
                }
                if !matches!(command, Command::Key(_)) {
                    keyring::service::check(&service.core, service.features.all()).await?;
                }
                match is_read_only(called) {
                    true => work(&service, command).await,
                    false => {
                        kernel::audit::service::command(&service.core, called, Box::pin(work(&service, command))).await
                    }
                }
            }
        }
    })
}

async fn work(service: &Service, command: Command) -> anyhow::Result<()> {
    match command {
        Command::User(command) => user::run(service, command).await,
        Command::Account(command) => account::run(service, command).await,
        Command::Token(command) => token::run(service, command).await,
        Command::Host(command) => host::run(service, command).await,
        Command::Tariff(command) => tariff::run(service, command).await,
        Command::Image(command) => image::run(service, command).await,
        Command::Pool(command) => pool::run(service, command).await,
        Command::Operation(command) => operation::run(service, command).await,
        Command::Mail(command) => mail::run(service, command).await,
        Command::Audit(command) => audit::run(service, command).await,
        Command::Key(command) => key::run(service, command).await,
        Command::Restored => operation::declare_restored(service).await,
        Command::Top(args) => top::run(service, args).await,
        Command::Demo(args) => demo::run(service, args).await,
        Command::Serve | Command::Migrate => Ok(()),
    }
}

/// Loads settings from a file, if there is one. The environment takes precedence.
fn load_env_file(path: &Path) -> anyhow::Result<()> {
    if let Ok(about) = std::fs::metadata(path) {
        // Anyone who can write to it chooses the database we use and, if we run as root, perhaps the programs.
        let (owner, me) = (about.uid(), rustix::process::geteuid().as_raw());
        anyhow::ensure!(
            (owner == me || owner == 0) && about.mode() & 0o002 == 0,
            "{} is ignored: users other than you and root can write to it (owner {owner}, mode {:o})",
            path.display(),
            about.mode() & 0o777
        );
    }
    match dotenvy::from_path(path) {
        Ok(()) => Ok(()),
        Err(error) if error.not_found() => Ok(()),
        // The line may contain a secret.
        Err(dotenvy::Error::LineParse(..)) => {
            anyhow::bail!("{} has a line that is not KEY=value (quote values that contain spaces or #)", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Formats an error as one line of plain text.
fn one_line(error: &anyhow::Error) -> String {
    let text = match error.downcast_ref::<Error>() {
        // For an internal error the reason is in the cause; its message is for clients that can't read our log.
        Some(Error { code: Code::Internal, cause: Some(cause), .. }) => chain(cause),
        Some(error) => error.message.clone(),
        None => chain(error),
    };
    output::plain(&text)
}

/// An error with its causes, each mentioned once.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, reason| match said.as_str() {
        "" => reason,
        _ if said.contains(&reason) => said,
        _ => format!("{said}: {reason}"),
    })
}

/// Validates command line input like API requests.
fn checked<T: Validate<Context = ()>>(value: T) -> anyhow::Result<T> {
    value.validate().map_err(|report| {
        let problems: Vec<String> = report.iter().map(|(path, error)| format!("{path}: {error}")).collect();
        anyhow::anyhow!("{}", problems.join("; "))
    })?;
    Ok(value)
}

/// Finds a host by name or id.
async fn find_host(service: &Service, text: &str) -> anyhow::Result<hosts::model::Host> {
    let hosts = hosts::service::all(&service.core).await?;
    let lower = text.to_lowercase();
    let by_name = hosts.iter().position(|h| h.name.to_lowercase() == lower);
    let found = by_name.or_else(|| hosts.iter().position(|h| h.id.to_string() == text));
    found
        .and_then(|index| hosts.into_iter().nth(index))
        .with_context(|| format!("there is no host called {text}; see `innkeeper host list`"))
}

/// A password from the first line of standard input, or a generated one. True if it was generated and must be shown.
fn password(from_stdin: bool) -> anyhow::Result<(SecretString, bool)> {
    if !from_stdin {
        return Ok((kernel::secrets::readable_password(), true));
    }
    Ok((secret("The password")?, false))
}

/// Reads the next line of standard input.
fn secret(what: &str) -> anyhow::Result<SecretString> {
    if std::io::stdin().is_terminal() {
        eprintln!("{what}:");
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).with_context(|| format!("reading from standard input: {what}"))?;
    Ok(SecretString::from(line.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_takes_a_password_as_an_argument() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments().filter(|a| a.get_id().as_str().contains("password")) {
                assert!(!argument.get_action().takes_values(), "{} {argument}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn errors_are_one_line() {
        let error = anyhow::Error::from(Error::new(Code::HostUnreachable, "The host a can't\nbe used."));
        assert_eq!(one_line(&error), "The host a can't be used.");
        let error = anyhow::anyhow!("no such file").context("reading it");
        assert_eq!(one_line(&error), "reading it: no such file");
        let error = anyhow::anyhow!("refused").context("the database said: refused");
        assert_eq!(one_line(&anyhow::Error::from(Error::internal(error))), "the database said: refused");
    }

    #[test]
    fn a_file_of_settings_may_be_missing_and_must_be_readable() {
        let folder = std::env::temp_dir().join(format!("innkeeper-env-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(load_env_file(&folder.join(".env")).is_ok());
        std::fs::write(folder.join(".env"), "secret text\n").unwrap();
        let error = load_env_file(&folder.join(".env")).unwrap_err().to_string();
        assert!(error.contains("KEY=value") && !error.contains("secret text"), "{error}");
        std::fs::write(folder.join(".env"), "A=b\n").unwrap();
        std::fs::set_permissions(folder.join(".env"), std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(load_env_file(&folder.join(".env")).unwrap_err().to_string().contains("other than you"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
