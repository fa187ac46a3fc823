use ::watch::monitoring::model::{FleetHost, FleetServer};
use chrono::Utc;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

fn server(id: i64, name: &str, cpu: Option<f64>) -> FleetServer {
    FleetServer {
        id,
        name: name.into(),
        host: "pve".into(),
        node: "n1".into(),
        status: if cpu.is_some() { "running" } else { "unknown" }.into(),
        power: cpu.map(|_| "running".into()),
        taken_at: cpu.map(|_| Utc::now()),
        uptime_s: cpu.map(|_| 7200),
        cpu,
        memory_used: cpu.map(|_| 512),
        memory_max: cpu.map(|_| 1024),
        net_in_rate: cpu.map(|_| 2048.0),
        net_out_rate: cpu.map(|_| 10.0),
        ..FleetServer::default()
    }
}

fn view() -> View {
    let mut view = View::new(TopSort::Cpu, String::new());
    let host = |name: &str, up| FleetHost { name: name.into(), up, seen_at: None };
    let servers = vec![server(1, "web", Some(0.25)), server(2, "lost", None), server(3, "db\u{1b}[2J", Some(0.975))];
    view.show(vec![host("pve", true), host("old", false)], servers);
    view
}

fn picture(view: &mut View) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(100, 6)).unwrap();
    terminal.draw(|frame| screen::draw(frame, view)).unwrap();
    let text = terminal.backend().to_string();
    text.lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect()
}

fn press(view: &mut View, keys: &str) -> bool {
    keys.chars().all(|key| {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            key => KeyCode::Char(key),
        };
        handle_key(view, &Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    })
}

fn ids(view: &View) -> Vec<i64> {
    view.rows().iter().map(|s| s.id).collect()
}

#[test]
fn the_busiest_come_first_and_what_is_down_is_named() {
    let lines = picture(&mut view());
    assert_eq!(lines[0], "hosts 1/2 up   servers 2/3 running   in 4.0K/s   out 20B/s   DOWN: old");
    assert!(lines[1].contains("CPU%v") && lines[1].contains("AGE"), "{}", lines[1]);
    assert!(lines[2].contains("db [2J") && lines[2].contains("97.5") && lines[2].contains("50.0"), "{}", lines[2]);
    assert!(lines[2].contains("2h") && lines[2].contains("0s"), "{}", lines[2]);
    assert!(lines[4].starts_with("2 ") && lines[4].contains("unknown"), "{}", lines[4]);
    assert!(lines[5].starts_with("q quit"));
}

#[test]
fn keys_sort_filter_and_leave() {
    let mut view = view();
    assert_eq!(ids(&view), [3, 1, 2]);
    press(&mut view, "i");
    assert_eq!(ids(&view), [1, 2, 3]);
    press(&mut view, "i");
    assert_eq!(ids(&view), [3, 2, 1], "the same key again reverses the order");
    press(&mut view, "n");
    assert_eq!(ids(&view), [3, 2, 1]);
    press(&mut view, "/WEq");
    assert_eq!(ids(&view), Vec::<i64>::new());
    assert!(picture(&mut view)[5].starts_with("filter: WEq_"));
    handle_key(&mut view, &Event::Key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE)));
    press(&mut view, "\n");
    assert_eq!(ids(&view), [1]);
    press(&mut view, "\u{1b}");
    assert_eq!(ids(&view).len(), 3);
    view.scroll(isize::MAX);
    picture(&mut view);
    assert_eq!(view.first, 0, "three rows fit");
    view.scroll(-5);
    assert!(!press(&mut view, "q"));
    assert!(!handle_key(&mut view, &Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))));
}

#[test]
fn an_old_look_says_why_it_is_old() {
    let mut view = view();
    view.complain("the database is unreachable".into());
    assert!(picture(&mut view)[5].contains("the database is unreachable"));
    assert_eq!(view.rows().len(), 3);
}
