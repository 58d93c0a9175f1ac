//! How the client commands lay out what they print: columns without lines, counts, sizes and times.

use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Writes the text and the end of its line to standard output. A reader that went away (`| head`) has what it wanted.
///
/// # Errors
/// Everything else that the system says.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Columns without lines, two blanks in; those after the first `text_columns` are numbers and end below each other.
pub(super) fn columns(header: &[&str], rows: &[Vec<String>], text_columns: usize) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied())
        .add_rows(rows.iter().cloned());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 2 } else { 1 }, 1));
        if index >= text_columns {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A name and a value a line, two blanks in.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = facts
        .iter()
        .map(|(name, value)| format!("  {name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A count with commas between the thousands.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "1 row", "2 rows".
pub(super) fn rows(number: u64) -> String {
    counted(number, "row")
}

/// "1 sync", "2 syncs": a count with its noun.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A size in the largest binary unit, with one decimal.
pub(super) fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A length of time in one or two units: `17ms`, `3s`, `2h 5m`.
pub(super) fn duration(duration: Duration) -> String {
    let rounded = match duration.as_secs() {
        0 => Duration::from_millis(u64::from(duration.subsec_millis())),
        seconds @ 1..3600 => Duration::from_secs(seconds),
        seconds @ 3600..86_400 => Duration::from_secs(seconds / 60 * 60),
        seconds => Duration::from_secs(seconds / 3600 * 3600),
    };
    humantime::format_duration(rounded).to_string()
}

/// How long ago a moment was; "never" for 0.
pub(super) fn ago(unix_ms: i64, now: SystemTime) -> String {
    match moment(unix_ms) {
        None => "never".to_owned(),
        Some(then) => format!(
            "{} ago",
            duration(now.duration_since(then).unwrap_or_default())
        ),
    }
}

/// A moment in UTC with milliseconds; "-" for 0.
pub(super) fn utc(unix_ms: i64) -> String {
    match moment(unix_ms) {
        None => "-".to_owned(),
        Some(then) => humantime::format_rfc3339_millis(then).to_string(),
    }
}

/// A moment in UTC for JSON; null for 0.
pub(super) fn utc_json(unix_ms: i64) -> serde_json::Value {
    moment(unix_ms)
        .map(|then| humantime::format_rfc3339_millis(then).to_string())
        .into()
}

fn moment(unix_ms: i64) -> Option<SystemTime> {
    let since = Duration::from_millis(u64::try_from(unix_ms).ok().filter(|ms| *ms > 0)?);
    // The last year that the format has room for.
    UNIX_EPOCH
        .checked_add(since)
        .filter(|_| since.as_secs() < 253_402_300_800)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: numbers and times of all sizes.
    /// Guarantees: thousands are separated, sizes are binary, times have no more digits than one reads.
    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(rows(1), "1 row");
        assert_eq!(rows(1234), "1,234 rows");
        assert_eq!(counted(0, "sync"), "0 syncs");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(duration(Duration::ZERO), "0s");
        assert_eq!(duration(Duration::from_micros(17_900)), "17ms");
        assert_eq!(duration(Duration::from_millis(3999)), "3s");
        assert_eq!(duration(Duration::from_secs(7505)), "2h 5m");
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(ago(97_000, now), "3s ago");
        assert_eq!(ago(0, now), "never");
        assert_eq!(ago(200_000, now), "0s ago"); // The server's clock is ahead.
        assert_eq!(utc(1_767_225_600_123), "2026-01-01T00:00:00.123Z");
        assert_eq!(utc(0), "-");
        assert_eq!(utc(i64::MAX), "-");
    }

    /// Scenario: a small table.
    /// Guarantees: text to the left, numbers to the right, no blanks at the ends of lines.
    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "1"], ["bcd", "1,000"]].map(|row| row.map(str::to_owned).to_vec());
        let text = columns(&["name", "rows"], &rows, 1);
        assert_eq!(text, "  name   rows\n  a         1\n  bcd   1,000");
    }
}
