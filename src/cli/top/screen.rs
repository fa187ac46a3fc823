//! The layout: a summary line, the servers, a line of keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table};
use watch::monitoring::model::FleetServer;

use super::view::{HEADINGS, SORTS, View, cells};

const KEYS: &str =
    "q quit  / filter  r reverse  sort: c cpu m memory d disk t traffic u up a age i id n name h host s status";

pub(super) fn draw(frame: &mut Frame, view: &mut View) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(2), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Line::from(view.summary()).bold(), head);

    let rows = view.rows();
    let shown = usize::from(body.height.saturating_sub(1));
    // No further than the last page.
    view.first = view.first.min(rows.len().saturating_sub(shown));
    let heading = HEADINGS.iter().zip(SORTS).map(|(text, sort)| {
        let arrow = if sort == view.sort { if view.reversed { "^" } else { "v" } } else { "" };
        Cell::from(format!("{text}{arrow}"))
    });
    let table = Table::new(rows.iter().skip(view.first).take(shown).map(row), WIDTHS)
        .header(Row::new(heading).style(Style::new().add_modifier(Modifier::REVERSED)))
        .column_spacing(1);
    frame.render_widget(table, body);

    let foot_line = match (&view.complaint, view.typing || !view.filter.is_empty()) {
        (Some(why), _) => Line::from(format!("no new data: {why}")).red(),
        (None, true) => Line::from(vec![
            Span::from(format!("filter: {}", view.filter)).bold(),
            Span::from(if view.typing { "_  (Enter: keep, Esc: clear)" } else { "  (Esc: clear)" }),
        ]),
        (None, false) => Line::from(KEYS).dim(),
    };
    frame.render_widget(foot_line, foot);
}

const WIDTHS: [Constraint; 12] = [
    Constraint::Length(7),
    Constraint::Fill(3),
    Constraint::Fill(2),
    Constraint::Fill(2),
    Constraint::Length(10),
    Constraint::Length(6),
    Constraint::Length(6),
    Constraint::Length(6),
    Constraint::Length(6),
    Constraint::Length(6),
    Constraint::Length(5),
    Constraint::Length(5),
];

fn row(server: &FleetServer) -> Row<'static> {
    let texts = cells(server);
    let cells = texts.into_iter().enumerate().map(|(column, text)| {
        let style = match column {
            // Only the percentages are coloured, by the default thresholds of alerts.
            5..=7 => match text.parse::<f64>() {
                Ok(share) if share > 95.0 => Style::new().fg(Color::Red),
                Ok(share) if share > 90.0 => Style::new().fg(Color::Yellow),
                _ => Style::new(),
            },
            _ => Style::new(),
        };
        Cell::from(text).style(style)
    });
    let style = match server.status.as_str() {
        "running" => Style::new(),
        "unknown" | "failed" => Style::new().fg(Color::Red),
        _ => Style::new().add_modifier(Modifier::DIM),
    };
    Row::new(cells.collect::<Vec<_>>()).style(style)
}
