use bytes::BytesMut;

use super::super::generate::{Catalog, Encoder, Plan};
use super::*;

fn request(signal: Signal) -> Vec<u8> {
    let now = 1_760_000_000_000_000_000;
    let plan = Plan::new(60, 60, vec![signal]);
    let mut out = BytesMut::new();
    let catalog = Catalog::new(7, "3f9a1c07", now);
    Encoder::default().encode(&catalog, &plan.request(0).unwrap(), now, &mut out);
    out.to_vec()
}

/// Scenario: requests in files whose names say nothing.
/// Guarantees: the bytes tell the signal.
#[test]
fn bytes_tell_the_signal() {
    for signal in Signal::ALL {
        let found = protobuf_signal(Path::new("captured/001.binpb"), &request(signal)).unwrap();
        assert_eq!(found, signal);
    }
}

/// Scenario: names that speak of a signal, of none and of two.
/// Guarantees: one signal in the name is believed, and only in the file's own name.
#[test]
fn names_tell_the_signal_when_they_name_one() {
    for (name, signal) in [
        ("003-logs-grpc.binpb", Some(Signal::Logs)),
        ("My-Traces.pb", Some(Signal::Traces)),
        ("spans.pb", Some(Signal::Traces)),
        ("metrics.bin", Some(Signal::Metrics)),
        ("logs/7.bin", None),
        ("logs-and-metrics.bin", None),
        ("catalogue.bin", None),
    ] {
        assert_eq!(name_signal(Path::new(name)), signal, "{name}");
    }
}

/// Scenario: bytes that fit every signal, and bytes that fit none.
/// Guarantees: the user is asked for the signal, or told that it is no OTLP.
#[test]
fn doubt_is_an_error() {
    let error = protobuf_signal(Path::new("x.pb"), b"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("--signal"), "{error}");
    let error = protobuf_signal(Path::new("x.pb"), b"\xff\xff")
        .unwrap_err()
        .to_string();
    assert!(error.contains("not an OTLP"), "{error}");
}

/// Scenario: JSON documents of each signal, of none, of two, and none at all.
/// Guarantees: the top key tells, wherever it stands.
#[test]
fn the_top_key_tells_the_signal() {
    let signal = |text: &str| json_signal(text.as_bytes());
    assert_eq!(
        signal("{\n  \"resourceLogs\": []\n}").unwrap(),
        Signal::Logs
    );
    assert_eq!(
        signal(r#"{"x":{"resourceLogs":1},"resourceSpans":[{}]}"#).unwrap(),
        Signal::Traces
    );
    assert_eq!(
        signal(r#"{"resourceMetrics":[]}"#).unwrap(),
        Signal::Metrics
    );
    assert!(signal("{}").unwrap_err().to_string().contains("neither"));
    let several = signal(r#"{"resourceMetrics":[],"resourceLogs":[]}"#);
    assert!(several.unwrap_err().to_string().contains("several"));
    assert!(
        signal("{\"resourceLogs\":")
            .unwrap_err()
            .to_string()
            .contains("not OTLP/JSON")
    );
}
