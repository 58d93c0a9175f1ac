use super::*;

const TOOK: Duration = Duration::from_millis(2);

fn refused(message: &str) -> Outcome {
    Outcome::Refused {
        reason: "UNAVAILABLE".to_owned(),
        message: message.to_owned(),
    }
}

fn accepted(rejected: u64, message: &str) -> Outcome {
    Outcome::Accepted {
        rejected,
        message: message.to_owned(),
    }
}

fn report(tally: Tally) -> Report<'static> {
    Report {
        run: "3f9a1c07",
        signals: &[Signal::Logs, Signal::Metrics],
        planned: 50,
        elapsed: Duration::from_secs(2),
        ended_early: None,
        hint: None,
        tally,
    }
}

/// Scenario: two connections with every kind of outcome.
/// Guarantees: each record is counted once, and the report names reasons and the first distinct messages.
#[test]
fn outcomes_are_counted_by_reason() {
    let mut tally = Tally::new();
    tally.count(Signal::Logs, 10, 2500, TOOK, accepted(0, ""));
    tally.count(Signal::Logs, 10, 2500, TOOK, accepted(3, "bad ids"));
    tally.count(Signal::Metrics, 10, 2500, TOOK, refused("full"));
    let mut other = Tally::new();
    for message in ["full", "two", "three", "four\x1b[2J"] {
        other.count(Signal::Metrics, 5, 100, TOOK, refused(message));
    }
    tally.merge(other);
    let report = report(tally);
    assert!(!report.is_complete());
    let text = report.to_string();
    for line in [
        "sent           20 log records, 30 data points in 7 requests, 7.9 kB",
        "acknowledged   17",
        "refused        30",
        "  UNAVAILABLE: 30 records in 5 requests",
        "    full\n    two\n    three\nrejected       3 (single records, in requests that were accepted)\n    bad ids",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("four") && !text.contains('\x1b'));
}

/// Scenario: everything acknowledged.
/// Guarantees: complete; the SQL covers the tables of the signals that were sent and stands inside a shell's double quotes.
#[test]
fn the_sql_covers_what_was_sent() {
    let mut tally = Tally::new();
    tally.count(Signal::Logs, 50, 2500, TOOK, accepted(0, ""));
    let report = report(tally);
    assert!(report.is_complete());
    let sql = report.sql();
    assert!(sql.contains("50 - count(DISTINCT seq)) AS lost"), "{sql}");
    assert_eq!(sql.matches("UNION ALL").count(), 5);
    assert!(sql.contains("FROM otlp_logs WHERE (log_attributes ->> 'otlake.run') = '3f9a1c07'"));
    assert!(!sql.contains("otlp_traces"));
    assert!(!sql.contains(['"', '$', '`', '\\']), "{sql}");
}

/// Scenario: answers between microseconds and an hour, over two connections.
/// Guarantees: quantiles and maximum are right to three digits, however slow; an auto-sized histogram that saturates would
/// have counted every answer above 2 ms as 2 microseconds.
#[test]
fn slow_answers_are_measured_as_slow() {
    let mut sum = Tally::new();
    for connection in [[5, 2_100, 43_700], [44_000, 48_000, 2_000_000]] {
        let mut tally = Tally::new();
        for micros in connection {
            let took = Duration::from_micros(micros);
            tally.count(Signal::Logs, 1, 1, took, accepted(0, ""));
        }
        sum.merge(tally);
    }
    let near = |found: u64, micros: u64| {
        assert!(found.abs_diff(micros) * 1000 <= micros, "{found} {micros}");
    };
    near(sum.ack_us.value_at_quantile(0.5), 43_700);
    near(sum.ack_us.max(), 2_000_000);
    assert_eq!(sum.ack_us.len(), 6);

    let mut tally = Tally::new();
    tally.count(
        Signal::Logs,
        1,
        1,
        Duration::from_secs(3600),
        accepted(0, ""),
    );
    tally.count(Signal::Logs, 1, 1, Duration::MAX, accepted(0, ""));
    near(tally.ack_us.value_at_quantile(0.5), 3_600_000_000);
    near(tally.ack_us.max(), ACK_US_MAX);
}
