//! What commands say on standard output: JSON if asked, else aligned text on a terminal and tab-separated text
//! elsewhere.
//!
//! Text from other members is shown with its control characters escaped, so that it cannot steer a terminal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use countersign_api::admin::MadeInfo;
use serde::Serialize;

use crate::duration::roughly;
use crate::failure::{Exit, Failure, chain};

/// How to speak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) terminal: bool,
}

impl Output {
    /// To standard output.
    pub(crate) fn stdout(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() }
    }

    /// Shows a value: as JSON if asked, else as the text that `write` makes of it.
    pub(crate) fn show<T: Serialize>(self, value: &T, write: impl FnOnce(&mut Text)) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(value).map_err(|error| {
                Failure::new(Exit::Unreachable, format!("answer cannot be written: {error}"), "report this as a bug")
            })?;
            return print(&format!("{json}\n"));
        }
        let mut text = Text { written: String::new(), aligned: self.terminal };
        write(&mut text);
        print(&text.written)
    }
}

/// Writes to standard output. A reader that has seen enough and closed the pipe is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// The same of bytes, which must not be shown on a terminal as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::unreachable(
            format!("standard output cannot be written: {}", chain(&error)),
            "look at where standard output leads",
        )),
        _ => Ok(()),
    }
}

/// Text for people, or for `cut` and `awk`.
pub(crate) struct Text {
    written: String,
    aligned: bool,
}

impl Text {
    pub(crate) fn line(&mut self, line: &str) {
        self.written.push_str(&printable(line));
        self.written.push('\n');
    }

    /// Names and what they stand for.
    pub(crate) fn fields(&mut self, fields: &[(&str, String)]) {
        let rows = fields.iter().map(|(name, value)| vec![format!("{name}:"), value.clone()]);
        self.rows(&rows.collect::<Vec<_>>());
    }

    /// A table with its header.
    pub(crate) fn table(&mut self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let header = header.iter().map(|&name| name.to_owned()).collect();
        let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
        self.rows(&rows);
    }

    fn rows(&mut self, rows: &[Vec<String>]) {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
        let widths = widths(&rows);
        for row in &rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let last = at + 1 == row.len();
                line.push_str(cell);
                if !last && self.aligned {
                    let width = widths.get(at).copied().unwrap_or_default();
                    let padding = width.saturating_sub(cell.chars().count()) + 2;
                    line.extend(std::iter::repeat_n(' ', padding));
                } else if !last {
                    line.push('\t');
                }
            }
            self.written.push_str(line.trim_end_matches(' '));
            self.written.push('\n');
        }
    }
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max();
    (0..columns).map(|column| width(column).unwrap_or_default()).collect()
}

/// The text with its control characters escaped.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if escape(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// A value that may be absent.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The labels of a principal, as a table shows them.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if labels.is_empty() { "-".to_owned() } else { labels.join(",") }
}

/// Who made something, and which member took the request.
pub(crate) fn by(made: &MadeInfo) -> String {
    let MadeInfo { by, taken_by, .. } = made;
    if *by == format!("node/{taken_by}") { by.clone() } else { format!("{by} at node {taken_by}") }
}

/// A point in time: RFC 3339 in UTC, and how far away it is.
pub(crate) fn at_secs(secs: u64, now: u64) -> String {
    let (away, ahead) = (secs.abs_diff(now), secs >= now);
    let away = roughly(away);
    let relative = if ahead { format!("in {away}") } else { format!("{away} ago") };
    format!("{} ({relative})", rfc3339(secs))
}

/// The same to the millisecond: for moments that are compared with each other.
pub(crate) fn at_millis(millis: u64, now_millis: u64) -> String {
    let (away, ahead) = (millis.abs_diff(now_millis), millis >= now_millis);
    let away = if away < 1000 { format!("{away}ms") } else { roughly(away / 1000) };
    let relative = if ahead { format!("in {away}") } else { format!("{away} ago") };
    let whole = rfc3339(millis / 1000);
    format!("{}.{:03}Z ({relative})", whole.trim_end_matches('Z'), millis % 1000)
}

/// Seconds since the Unix epoch as RFC 3339 in UTC. Days to a civil date: Hinnant, "chrono-compatible low-level date
/// algorithms" (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn rfc3339(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Milliseconds since the Unix epoch, by this host's clock.
pub(crate) fn now_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Seconds since the Unix epoch, by this host's clock.
pub(crate) fn now_secs() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (secs, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(secs), expected);
        }
        assert_eq!(at_secs(60, 0), "1970-01-01T00:01:00Z (in 1m)");
        assert_eq!(at_secs(0, 7200), "1970-01-01T00:00:00Z (2h ago)");
        assert_eq!(at_millis(60_007, 59_000), "1970-01-01T00:01:00.007Z (in 1s)");
        assert_eq!(at_millis(0, 999), "1970-01-01T00:00:00.000Z (999ms ago)");
    }

    #[test]
    fn tables_are_aligned_for_people_and_tabbed_for_tools() {
        let written = |aligned| {
            let mut text = Text { written: String::new(), aligned };
            text.table(
                &["ID", "NAME"],
                [vec!["12".to_owned(), "a\u{1b}[2Jb".to_owned()], vec!["345".to_owned(), String::new()]],
            );
            text.written
        };
        assert_eq!(written(true), "ID   NAME\n12   a\\u{1b}[2Jb\n345\n");
        assert_eq!(written(false), "ID\tNAME\n12\ta\\u{1b}[2Jb\n345\t\n");
    }
}
