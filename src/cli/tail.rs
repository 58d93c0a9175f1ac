//! `otlake tail`: what arrives, while it does.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::bail;
use serde_json::{Value, json};
use tonic::{Code, Status, Streaming};

use super::args::{TailArgs, TailSignal};
use super::client::{ANSWER_TIMEOUT, Client, Target};
use super::table;
use crate::proto::admin::{TailRecord, TailRequest, TailResponse};
use crate::signal::Signal;

/// As much of a body as a line shows, characters.
const SHOWN_CHARS_MAX: usize = 300;

/// Services up to this length stand below each other.
const SERVICE_WIDTH: usize = 16;

/// Runs `otlake tail`.
///
/// # Errors
/// One line, when there is no server, or it ends.
pub(super) async fn run(args: TailArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.client)?;
    let mut client = Client::connect(&target, args.client.token.as_ref(), ANSWER_TIMEOUT).await?;
    let request = TailRequest {
        services: args.service.clone(),
        signals: args.signal.iter().map(|signal| name(*signal)).collect(),
    };
    let mut interrupted =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let messages = match client.admin.tail(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Err(client.explain(&status)),
    };
    tokio::select! {
        shown = show(messages, &args, &target.url) => shown,
        _ = interrupted.recv() => Ok(ExitCode::SUCCESS),
    }
}

fn name(signal: TailSignal) -> String {
    let signal = match signal {
        TailSignal::Logs => Signal::Logs,
        TailSignal::Traces => Signal::Traces,
        TailSignal::Metrics => Signal::Metrics,
    };
    signal.name().to_owned()
}

async fn show(
    mut messages: Streaming<TailResponse>,
    args: &TailArgs,
    url: &str,
) -> anyhow::Result<ExitCode> {
    eprintln!("watching what {url} accepts; Ctrl-C ends it");
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) => bail!("the server at {url} has ended the tail"),
            Err(status) => bail!("{}", ended(&status, url)),
        };
        let lines: String = message
            .records
            .iter()
            .map(|record| match args.json {
                true => format!("{}\n", as_json(record)),
                false => format!("{}\n", as_line(record)),
            })
            .collect();
        if !is_printed(&lines)? {
            return Ok(ExitCode::SUCCESS);
        }
        if message.skipped > 0 {
            let skipped = table::counted(message.skipped, "record");
            eprintln!("{skipped} skipped: they come faster than they can be shown");
        }
    }
}

/// What the end of a tail means, in one line.
fn ended(status: &Status, url: &str) -> String {
    match status.code() {
        Code::Unavailable if !status.message().is_empty() => {
            format!("the tail has ended: {}", status.message())
        }
        _ => format!("the connection to {url} broke: has the server ended?"),
    }
}

/// Writes lines to standard output; `false` when nobody reads it any more, as after `| head`.
fn is_printed(lines: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

fn as_line(record: &TailRecord) -> String {
    let service = match record.service.as_str() {
        "" => "-",
        service => service,
    };
    let line = format!(
        "{}  {:7}  {service:SERVICE_WIDTH$}  {}",
        time(record.time_unix_nano),
        record.signal,
        what(record)
    );
    printable(&line)
}

/// A record's name, and what is most telling beside it.
fn what(record: &TailRecord) -> String {
    let TailRecord { name, body, .. } = record;
    if record.signal == Signal::Logs.name() {
        let severity = match record.severity.as_str() {
            "" => String::new(),
            severity => format!("[{severity}] "),
        };
        let text = match (name.as_str(), body.as_str()) {
            ("", "") => shown(&record.attributes),
            ("", body) => shown(body),
            (name, "") => name.to_owned(),
            (name, body) => format!("{name}: {}", shown(body)),
        };
        return severity + &text;
    }
    let mut text = name.clone();
    if let Some(nanoseconds) = record.duration_nano {
        let ns = u64::try_from(nanoseconds).unwrap_or(0);
        let us =
            Duration::from_micros(Duration::from_nanos(ns).as_micros().try_into().unwrap_or(0));
        text += &format!(" ({})", humantime::format_duration(us));
    }
    if record.is_error {
        text += " [error]";
    }
    match (record.value, record.count) {
        (Some(value), None) => text += &format!(" = {value}"),
        (Some(sum), Some(count)) => text += &format!(" = {sum} in {count}"),
        (None, Some(count)) => text += &format!(" = {count}"),
        (None, None) => {}
    }
    if !record.unit.is_empty() && record.unit != "1" {
        text += &format!(" {}", record.unit);
    }
    text
}

fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// One line that does nothing to a terminal, whatever was sent.
fn printable(text: &str) -> String {
    let is_harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if is_harmful(c) { ' ' } else { c })
        .collect()
}

fn time(unix_nano: i64) -> String {
    let since = Duration::from_nanos(u64::try_from(unix_nano).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// All that is known of a record: what it has not is left out.
fn as_json(record: &TailRecord) -> Value {
    let since = Duration::from_nanos(u64::try_from(record.time_unix_nano).unwrap_or(0));
    let time = humantime::format_rfc3339_nanos(UNIX_EPOCH + since).to_string();
    // What was cut is not JSON any more.
    let attributes = serde_json::from_str(&record.attributes)
        .unwrap_or_else(|_| Value::from(record.attributes.as_str()));
    let mut object = json!({
        "time": time,
        "signal": record.signal,
        "service": record.service,
        "name": record.name,
        "body": record.body,
        "severity": record.severity,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "duration_ns": record.duration_nano,
        "is_error": record.is_error.then_some(true),
        "value": record.value,
        "count": record.count,
        "unit": record.unit,
        "attributes": attributes,
    });
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && *value != "");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> TailRecord {
        TailRecord {
            time_unix_nano: 1_770_000_000_123_456_789,
            signal: "logs".to_owned(),
            service: "shop".to_owned(),
            ..TailRecord::default()
        }
    }

    /// Scenario: records of every kind, with and without what they may have.
    /// Guarantees: one line each, of time, signal, service, and name or body.
    #[test]
    fn a_record_is_a_line() {
        let start = "2026-02-02T02:40:00.123Z  logs     shop              ";
        let line = |record: TailRecord| as_line(&record);
        let body = TailRecord {
            body: "two\nlines".to_owned(),
            severity: "WARN".to_owned(),
            ..log()
        };
        assert_eq!(line(body.clone()), format!("{start}[WARN] two lines"));
        let event = TailRecord {
            name: "paid".to_owned(),
            ..body
        };
        assert_eq!(line(event), format!("{start}[WARN] paid: two lines"));
        let bare = TailRecord {
            attributes: r#"{"a":1}"#.to_owned(),
            ..log()
        };
        assert_eq!(line(bare), format!("{start}{{\"a\":1}}"));
        let span = TailRecord {
            signal: "traces".to_owned(),
            service: String::new(),
            name: "GET /".to_owned(),
            duration_nano: Some(1_500_999),
            is_error: true,
            ..log()
        };
        let told = line(span);
        assert!(
            told.ends_with("traces   -                 GET / (1ms 500us) [error]"),
            "{told}"
        );
        let sum = TailRecord {
            signal: "metrics".to_owned(),
            name: "latency".to_owned(),
            value: Some(2.5),
            count: Some(4),
            unit: "ms".to_owned(),
            ..log()
        };
        assert!(line(sum).ends_with("latency = 2.5 in 4 ms"));
    }

    /// Scenario: a service and a body with sequences that a terminal would obey, and a body that is very long.
    /// Guarantees: nothing of it reaches the terminal but text, and no more than a line's worth.
    #[test]
    fn what_is_sent_does_nothing_to_a_terminal() {
        let record = TailRecord {
            service: "a\u{1b}[2J".to_owned(),
            body: format!("\u{202e}\r\u{9b}\u{7}{}", "é".repeat(1000)),
            ..log()
        };
        let line = as_line(&record);
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'));
        assert!(line.ends_with("é…") && line.chars().count() < 400);
    }

    /// Scenario: a log record with attributes, and one whose attributes were cut.
    /// Guarantees: an object with the time to the nanosecond and what the record has; what is no JSON any more is text.
    #[test]
    fn a_record_is_an_object() {
        let record = TailRecord {
            body: "a \"b\"\n".to_owned(),
            attributes: r#"{"n":1}"#.to_owned(),
            ..log()
        };
        let expected = json!({
            "time": "2026-02-02T02:40:00.123456789Z", "signal": "logs", "service": "shop", "body": "a \"b\"\n",
            "attributes": {"n": 1},
        });
        assert_eq!(as_json(&record), expected);
        let cut = TailRecord {
            attributes: r#"{"n":"#.to_owned(),
            ..log()
        };
        assert_eq!(as_json(&cut)["attributes"], r#"{"n":"#);
    }
}
