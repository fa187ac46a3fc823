//! Output of the commands.

/// Prints rows in aligned columns under a heading.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    for line in lines(heading, rows.into_iter().collect()) {
        println!("{line}");
    }
}

fn lines<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> Vec<String> {
    let rows: Vec<[String; N]> =
        std::iter::once(heading.map(str::to_owned)).chain(rows.into_iter().map(|row| row.map(|c| plain(&c)))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

/// External text on one line, without control characters that the terminal would act on.
pub(super) fn plain(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `yes` or `no`.
pub(super) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// A value, or a hyphen.
pub(super) fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// A time, to the second.
pub(super) fn time(at: chrono::DateTime<chrono::Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_in_any_script_and_nothing_steers_the_terminal() {
        let rows = vec![
            ["1".to_owned(), "Базовый".to_owned(), "lxc".to_owned()],
            ["22".to_owned(), "a\u{1b}[31m\nb".to_owned(), String::new()],
        ];
        assert_eq!(lines(["ID", "NAME", "KIND"], rows), ["ID  NAME      KIND", "1   Базовый   lxc", "22  a [31m b"]);
    }
}
