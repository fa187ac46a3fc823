//! The command line: one file a noun. Commands call the same functions as the REST API.
#![allow(clippy::print_stdout, reason = "a command line speaks on standard output")]
#![allow(clippy::print_stderr, reason = "and complains on standard error")]

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
use garde::Validate;
use innkeeper::app::App;
use innkeeper::config::Config;
use innkeeper::error::{Code, Error};
use innkeeper::{db, hosts, keyring};
use secrecy::SecretString;

/// Innkeeper turns Proxmox-style hosts into a provider's cloud.
///
/// Settings come from the environment and from the file .env in the working folder; .env.example lists them all.
#[derive(Debug, Parser)]
#[command(name = "innkeeper", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and work on operations, until SIGTERM or SIGINT
    Serve,
    /// Bring the database schema up to date
    Migrate,
    /// Accounts
    #[command(subcommand)]
    User(user::Command),
    /// API tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Hosts
    #[command(subcommand)]
    Host(host::Command),
    /// Tariffs
    #[command(subcommand)]
    Tariff(tariff::Command),
    /// Operating system images
    #[command(subcommand)]
    Image(image::Command),
    /// Address pools
    #[command(subcommand)]
    Pool(pool::Command),
    /// Operations that wait for a person
    #[command(subcommand)]
    Operation(operation::Command),
    /// Mails: what became of them, and sending them again
    #[command(subcommand)]
    Mail(mail::Command),
    /// The master key that seals secrets
    #[command(subcommand)]
    Key(key::Command),
    /// Say that the database was restored, where that was not noticed: what is under way waits for a person
    Restored,
    /// The fleet in this terminal, live
    Top(top::Args),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Seed a demonstration: accounts, tariffs, an image, a host, address pools
    Demo(demo::Args),
}

/// Runs the command of this process. 0: done; 1: it failed, and a line on standard error says why; 2: wrong usage.
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

/// The command's name without its arguments, as `user add`.
fn called(matches: &ArgMatches) -> String {
    let names = std::iter::successors(matches.subcommand(), |(_, matches)| matches.subcommand());
    names.map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

/// Whether a command only looks. Every other one is written down in the audit log.
fn looks(called: &str) -> bool {
    called.ends_with(" list") || matches!(called, "operation log" | "host unknown" | "top")
}

fn start(command: Command, called: &str) -> anyhow::Result<()> {
    if let Command::Host(host::Command::Pveum(rights)) = &command {
        // Needs nothing that is set up, and often comes before it.
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
                let db = db::pool(&config)?;
                database::wait_a_while(&db).await?;
                db::migrate(&db).await?;
                println!("The database schema is up to date.");
                Ok(())
            }
            command => {
                let app = App::new(config)?;
                if matches!(command, Command::Demo(_)) {
                    database::wait_a_while(&app.db).await?;
                    db::migrate(&app.db).await?;
                }
                if !matches!(command, Command::Key(_)) {
                    keyring::service::check(&app).await?;
                }
                match looks(called) {
                    true => work(&app, command).await,
                    false => innkeeper::audit::service::command(&app, called, Box::pin(work(&app, command))).await,
                }
            }
        }
    })
}

async fn work(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::User(command) => user::run(app, command).await,
        Command::Token(command) => token::run(app, command).await,
        Command::Host(command) => host::run(app, command).await,
        Command::Tariff(command) => tariff::run(app, command).await,
        Command::Image(command) => image::run(app, command).await,
        Command::Pool(command) => pool::run(app, command).await,
        Command::Operation(command) => operation::run(app, command).await,
        Command::Mail(command) => mail::run(app, command).await,
        Command::Audit(command) => audit::run(app, command).await,
        Command::Key(command) => key::run(app, command).await,
        Command::Restored => operation::restored(app).await,
        Command::Top(args) => top::run(app, args).await,
        Command::Demo(args) => demo::run(app, args).await,
        Command::Serve | Command::Migrate => Ok(()),
    }
}

/// Takes settings from a file, where there is one. What is in the environment comes first.
fn load_env_file(path: &Path) -> anyhow::Result<()> {
    if let Ok(about) = std::fs::metadata(path) {
        // Whoever can write it says which database we use, and as root perhaps which programs.
        let (owner, me) = (about.uid(), rustix::process::geteuid().as_raw());
        anyhow::ensure!(
            (owner == me || owner == 0) && about.mode() & 0o002 == 0,
            "{} is not read: it can be changed by others than you and root (owner {owner}, mode {:o})",
            path.display(),
            about.mode() & 0o777
        );
    }
    match dotenvy::from_path(path) {
        Ok(()) => Ok(()),
        Err(error) if error.not_found() => Ok(()),
        // The line itself may be a secret.
        Err(dotenvy::Error::LineParse(..)) => {
            anyhow::bail!("{} has a line that is not KEY=value (values with spaces or # want quotes)", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// An error as one plain line.
fn one_line(error: &anyhow::Error) -> String {
    let text = match error.downcast_ref::<Error>() {
        // What is our own failure has its reason in the cause; the message is for those who can't read our log.
        Some(Error { code: Code::Internal, cause: Some(cause), .. }) => chain(cause),
        Some(error) => error.message.clone(),
        None => chain(error),
    };
    output::plain(&text)
}

/// An error with its reasons, each said once.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, reason| match said.as_str() {
        "" => reason,
        _ if said.contains(&reason) => said,
        _ => format!("{said}: {reason}"),
    })
}

/// Checks what was typed like what is sent to the API.
fn checked<T: Validate<Context = ()>>(value: T) -> anyhow::Result<T> {
    value.validate().map_err(|report| {
        let problems: Vec<String> = report.iter().map(|(path, error)| format!("{path}: {error}")).collect();
        anyhow::anyhow!("{}", problems.join("; "))
    })?;
    Ok(value)
}

/// A host by its name or id.
async fn host_called(app: &App, text: &str) -> anyhow::Result<hosts::model::Host> {
    let hosts = hosts::service::all(app).await?;
    let lower = text.to_lowercase();
    let by_name = hosts.iter().position(|h| h.name.to_lowercase() == lower);
    let found = by_name.or_else(|| hosts.iter().position(|h| h.id.to_string() == text));
    found
        .and_then(|index| hosts.into_iter().nth(index))
        .with_context(|| format!("there is no host called {text}; `innkeeper host list` shows those there are"))
}

/// A password from the first line of standard input, or a new one. True: it is new, so it must be shown.
fn password(from_stdin: bool) -> anyhow::Result<(SecretString, bool)> {
    if !from_stdin {
        return Ok((innkeeper::secrets::readable_password(), true));
    }
    Ok((secret("The password")?, false))
}

/// The next line of standard input.
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
        assert!(load_env_file(&folder.join(".env")).unwrap_err().to_string().contains("others than you"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
