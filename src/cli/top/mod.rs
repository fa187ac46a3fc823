//! `innkeeper top`: the fleet as the last sweeps saw it, live in a terminal.

mod screen;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use innkeeper::monitoring;
use innkeeper::run::Service;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::output::table;
use view::{Sort, View};

/// What to show.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to sort by; in the terminal the key that stands in brackets does so as well
    #[arg(long, value_enum, default_value_t = Sort::Cpu)]
    sort: Sort,
    /// Seconds between looks at the database
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Only servers with this text in their name, host, node or status
    #[arg(long, default_value = "")]
    filter: String,
    /// Print one look and end: for scripts, and where there is no terminal
    #[arg(long)]
    once: bool,
}

/// How often keys are looked for.
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
        anyhow::bail!("standard output is no terminal; --once prints one look");
    }
    let (looks, seen) = watch::channel(view);
    let drawing = tokio::task::spawn_blocking(move || draw(seen));
    tokio::pin!(drawing);
    let mut ended = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut tick = tokio::time::interval(Duration::from_secs(args.every));
    tick.reset();
    loop {
        tokio::select! {
            drawn = &mut drawing => return drawn.context("drawing ended badly")?.context("drawing"),
            _ = ended.recv() => break,
            _ = tick.tick() => {}
        }
        // What was seen last stays on the screen, with the reason why it is old.
        let looked = monitoring::service::fleet(&service.core).await;
        looks.send_modify(|view| match looked {
            Ok((hosts, servers)) => view.show(hosts, servers),
            Err(error) => view.complain(error.to_string()),
        });
    }
    // Without news to come the picture ends, and the terminal is given back.
    drop(looks);
    drawing.await.context("drawing ended badly")?.context("drawing")
}

/// Draws and listens to keys until somebody leaves. The terminal is given back as it was, also after a panic.
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
        // Until a key or a new look.
        loop {
            match seen.has_changed() {
                Ok(true) => break view.take(&seen.borrow_and_update()),
                Ok(false) => {}
                Err(_) => return Ok(()),
            }
            if event::poll(KEYS)? {
                match heard(&mut view, &event::read()?) {
                    true => break,
                    false => return Ok(()),
                }
            }
        }
    }
}

/// Does what a key asks for; false: to leave.
fn heard(view: &mut View, event: &Event) -> bool {
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
