//! The table for humans and the file for programs.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// One comparison. `ratio` is a cost: smaller is better, whatever the unit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    /// What was measured.
    pub name: String,
    /// Unit of both values.
    pub unit: &'static str,
    /// Our value.
    pub ours: f64,
    /// The peer's value.
    pub peer: f64,
    /// Name of the peer.
    pub peer_name: String,
    /// For times, ours over the peer's; for rates, the peer's over ours.
    pub ratio: f64,
    /// Target for the ratio.
    pub aim: Option<f64>,
    /// A remark for the table.
    #[serde(skip)]
    pub remark: String,
}

impl Row {
    /// A time, or anything else where less is better.
    pub(crate) fn cost(name: &str, unit: &'static str, ours: f64, peer: f64, peer_name: &str) -> Self {
        Self::new(name, unit, ours, peer, peer_name, ours / peer)
    }

    /// A rate, or anything else where more is better.
    pub(crate) fn rate(name: &str, unit: &'static str, ours: f64, peer: f64, peer_name: &str) -> Self {
        Self::new(name, unit, ours, peer, peer_name, peer / ours)
    }

    fn new(name: &str, unit: &'static str, ours: f64, peer: f64, peer_name: &str, ratio: f64) -> Self {
        let (name, peer_name) = (name.to_owned(), peer_name.to_owned());
        Self { name, unit, ours, peer, peer_name, ratio, aim: None, remark: String::new() }
    }
}

/// All measurements of a run.
#[derive(Debug)]
pub(crate) struct Report {
    /// Machine and database that were used.
    setting: String,
    rows: Vec<Row>,
    notes: Vec<String>,
    /// Measurements that failed, and why.
    failures: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn new(setting: String) -> Self {
        Self { setting, rows: Vec::new(), notes: Vec::new(), failures: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a line below the table, for example a breakdown of the time.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Records a failure in the table, under the name of the measurement. Returns whether there was none.
    pub(crate) fn keep(&mut self, name: &str, measured: anyhow::Result<()>) -> bool {
        if let Err(error) = &measured {
            say(&format!("{name} FAILED: {error:#}"));
            self.failures.push((name.to_owned(), format!("{error:#}")));
        }
        measured.is_ok()
    }

    /// An error if any measurement failed.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        let names: Vec<&str> = self.failures.iter().map(|(name, _)| name.as_str()).collect();
        anyhow::ensure!(names.is_empty(), "{} failed; the other rows were measured", names.join(", "));
        Ok(())
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        self.write_table(&mut std::io::stdout().lock())
    }

    fn write_table(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let head = ["", "unit", "ours", "peer", "peer's name", "ratio", "aim", ""].map(str::to_owned);
        let lines: Vec<[String; 8]> = std::iter::once(head)
            .chain(self.rows.iter().map(|row| {
                [
                    row.name.clone(),
                    row.unit.to_owned(),
                    figure(row.ours),
                    figure(row.peer),
                    row.peer_name.clone(),
                    format!("{:.2}", row.ratio),
                    row.aim.map_or_else(|| "-".to_owned(), |aim| format!("{aim:.2}")),
                    row.remark.clone(),
                ]
            }))
            .chain(self.failures.iter().map(|(name, why)| {
                let nothing = String::new;
                // Error messages may have several lines.
                let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
                let failed = format!("FAILED: {why}");
                [name.clone(), nothing(), nothing(), nothing(), nothing(), nothing(), nothing(), failed]
            }))
            .collect();
        let widths: Vec<usize> =
            (0..8).map(|i| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or_default()).collect();
        writeln!(out, "{}\n", self.setting)?;
        for line in &lines {
            let mut text = String::new();
            for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                // Align numbers right and text left.
                let (first, second) = if [2, 3, 5, 6].contains(&i) { (&pad, cell) } else { (cell, &pad) };
                text.extend([first.as_str(), second.as_str(), "  "]);
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        writeln!(out, "\nratio is a cost: smaller is better, for rates too.")?;
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        Ok(())
    }

    /// Writes the file. It contains this run only.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.rows)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// Logs progress to stderr.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_failed_is_named_beside_the_others() {
        let mut report = Report::new("here".to_owned());
        assert!(report.keep("whole", Ok(())));
        report.verdict().unwrap();
        assert!(!report.keep("broken", Err(anyhow::anyhow!("a line\nand another").context("no answer"))));
        report.add(Row::cost("measured", "ms", 1.0, 2.0, "peer"));
        let mut table = Vec::new();
        report.write_table(&mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert!(line("measured").contains("0.50"), "{table}");
        assert!(line("broken").ends_with("FAILED: no answer: a line and another"), "{table}");
        assert_eq!(line("whole"), "");
        assert!(report.verdict().unwrap_err().to_string().starts_with("broken failed"));
        let path = std::env::temp_dir().join(format!("innkeeper-bench-{}.json", std::process::id()));
        report.write(&path).unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(rows.iter().map(|row| &row["name"]).collect::<Vec<_>>(), ["measured"]);
    }
}
