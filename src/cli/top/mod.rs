//! `innkeeper top`: the fleet as of the last sweeps, live in a terminal.

mod screen;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use ::watch::monitoring;
use anyhow::Context;
use innkeeper::run::Service;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use view::{TopSort, View};

use super::output::table;

/// Options of `top`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Sort key; in the terminal, press the key in brackets
    #[arg(long, value_enum, default_value_t = TopSort::Cpu)]
    sort: TopSort,
    /// Seconds between refreshes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Only servers with this text in their name, host, node or status
    #[arg(long, default_value = "")]
    filter: String,
    /// Print the current state once and exit: for scripts, and without a terminal
    #[arg(long)]
    once: bool,
}

/// How often the keyboard is polled.
const KEYS: Duration = Duration::from_millis(100);

pub(super) async fn run(service: &Service, args: Args) -> anyhow::Result<()> {
    let mut view = View::new(args.sort, args.filter);
    let (hosts, servers) = monitoring::service::fleet(&service.core).await?;
    view.show(hosts, servers);
    if args.once {
        println!("{}", view.summary());
        let rows = view.rows();
        table(view::HEADINGS, rows.iter().map(view::cells));
        return Ok(());
    }
    if !std::io::stdout().is_terminal() {
        anyhow::bail!("standard output is not a terminal; use --once");
    }
    let (looks, seen) = watch::channel(view);
    let drawing = tokio::task::spawn_blocking(move || draw(seen));
    tokio::pin!(drawing);
    let mut ended = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut tick = tokio::time::interval(Duration::from_secs(args.every));
    tick.reset();
    loop {
        tokio::select! {
            drawn = &mut drawing => return drawn.context("drawing failed")?.context("drawing"),
            _ = ended.recv() => break,
            _ = tick.tick() => {}
        }
        // The last state stays on the screen, with the reason why it is outdated.
        let looked = monitoring::service::fleet(&service.core).await;
        looks.send_modify(|view| match looked {
            Ok((hosts, servers)) => view.show(hosts, servers),
            Err(error) => view.complain(error.to_string()),
        });
    }
    // Closing the channel ends the drawing, which restores the terminal.
    drop(looks);
    drawing.await.context("drawing failed")?.context("drawing")
}

/// Draws and reads keys until the user quits. Restores the terminal, also after a panic.
fn draw(mut seen: watch::Receiver<View>) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let drawn = drawn(&mut terminal, &mut seen);
    ratatui::restore();
    drawn
}

fn drawn(terminal: &mut ratatui::DefaultTerminal, seen: &mut watch::Receiver<View>) -> std::io::Result<()> {
    let mut view = seen.borrow_and_update().clone();
    loop {
        terminal.draw(|frame| screen::draw(frame, &mut view))?;
        // Wait for a key or new data.
        loop {
            match seen.has_changed() {
                Ok(true) => break view.take(&seen.borrow_and_update()),
                Ok(false) => {}
                Err(_) => return Ok(()),
            }
            if event::poll(KEYS)? {
                match handle_key(&mut view, &event::read()?) {
                    true => break,
                    false => return Ok(()),
                }
            }
        }
    }
}

/// Handles a key; false to quit.
fn handle_key(view: &mut View, event: &Event) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return true };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return false,
        code if view.typing => match code {
            KeyCode::Enter => view.typing = false,
            KeyCode::Esc => view.stop_filtering(),
            KeyCode::Backspace => drop(view.filter.pop()),
            KeyCode::Char(c) if !modifiers.contains(KeyModifiers::CONTROL) => view.filter.push(*c),
            _ => {}
        },
        KeyCode::Char('q') => return false,
        KeyCode::Esc => view.stop_filtering(),
        KeyCode::Char('/') => view.typing = true,
        KeyCode::Char('r') => view.reversed = !view.reversed,
        KeyCode::Up | KeyCode::Char('k') => view.scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => view.scroll(1),
        KeyCode::PageUp => view.scroll(-20),
        KeyCode::PageDown => view.scroll(20),
        KeyCode::Home => view.scroll(isize::MIN),
        KeyCode::End => view.scroll(isize::MAX),
        KeyCode::Char(key) => view.sort_by(*key),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests;
