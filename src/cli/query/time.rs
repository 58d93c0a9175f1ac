//! Dates, times and intervals as DuckDB writes them, with every digit.
//!
//! Units: days since 1970-01-01, and nanoseconds unless the name says otherwise. `i128` because a count of seconds up to
//! DuckDB's last year does not fit `i64` in nanoseconds.

use std::fmt::Write as _;

const SECOND_NS: i128 = 1_000_000_000;
const DAY_NS: i128 = 86_400 * SECOND_NS;

/// DuckDB's `infinity` and `-infinity` for dates and timestamps of any unit.
fn infinity(value: i64, max: i64) -> Option<&'static str> {
    match value {
        _ if value == max => Some("infinity"),
        _ if value == -max => Some("-infinity"),
        _ => None,
    }
}

/// A `DATE`: `2026-01-31`, `0045-03-15 (BC)`.
pub(super) fn date(days: i32, out: &mut String) {
    match infinity(i64::from(days), i64::from(i32::MAX)) {
        Some(word) => out.push_str(word),
        None => calendar_date(i128::from(days), out),
    }
}

/// A timestamp in units of `unit_ns` nanoseconds: `2026-01-31 01:02:03.5`, the fraction without trailing zeros.
pub(super) fn timestamp(value: i64, unit_ns: i128, out: &mut String) {
    if let Some(word) = infinity(value, i64::MAX) {
        out.push_str(word);
        return;
    }
    let ns = i128::from(value) * unit_ns;
    calendar_date(ns.div_euclid(DAY_NS), out);
    out.push(' ');
    clock(ns.rem_euclid(DAY_NS), out);
}

/// As [`timestamp`], with the offset of UTC behind it; an infinity has none.
pub(super) fn timestamp_utc(value: i64, unit_ns: i128, out: &mut String) {
    timestamp(value, unit_ns, out);
    if infinity(value, i64::MAX).is_none() {
        out.push_str("+00");
    }
}

/// A `TIME`: `01:02:03.5`; `24:00:00` is one too.
pub(super) fn time(value: i64, unit_ns: i128, out: &mut String) {
    clock(i128::from(value) * unit_ns, out);
}

/// An `INTERVAL`: `1 year 2 months 3 days 04:05:06.789`; nothing at all is `00:00:00`.
pub(super) fn interval(months: i32, days: i32, ns: i64, out: &mut String) {
    let start = out.len();
    let mut part = |count: i32, unit: &str| {
        if count != 0 {
            let plural = if count.abs() == 1 { "" } else { "s" };
            let _ = write!(out, "{count} {unit}{plural} "); // Writing to a String cannot fail.
        }
    };
    part(months / 12, "year");
    part(months % 12, "month");
    part(days, "day");
    if ns != 0 || out.len() == start {
        if ns < 0 {
            out.push('-');
        }
        clock(i128::from(ns).abs(), out);
    } else {
        out.pop(); // The space behind the last part.
    }
}

/// `hh:mm:ss` and the fraction, if there is one; more hours than a day has are written as they are.
fn clock(ns: i128, out: &mut String) {
    let seconds = ns / SECOND_NS;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, "{hour:02}:{minute:02}:{second:02}");
    let fraction = ns % SECOND_NS;
    if fraction != 0 {
        let digits = format!("{fraction:09}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

/// The day in the Gregorian calendar, extended to all times; the year before 1 is 1 BC.
fn calendar_date(days: i128, out: &mut String) {
    let (year, month, day) = civil_from_days(days);
    let (year, era) = if year > 0 {
        (year, "")
    } else {
        (1 - year, " (BC)")
    };
    let _ = write!(out, "{year:04}-{month:02}-{day:02}{era}");
}

/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_from_days(days: i128) -> (i128, i128, i128) {
    let days = days + 719_468; // Since 0000-03-01: so the leap day is the last of its year.
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year, month, day)
}
