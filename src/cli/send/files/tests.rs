use super::*;

fn read(
    name: &str,
    content: &'static str,
    signal: Option<Signal>,
) -> anyhow::Result<Vec<FileRequest>> {
    let path = Path::new(name);
    requests(
        path,
        format_of(path)?,
        Bytes::from_static(content.as_bytes()),
        signal,
    )
}

/// Scenario: names with known and unknown endings.
/// Guarantees: the ending decides, whatever its case; others are asked about.
#[test]
fn the_ending_tells_the_format() {
    for (name, format) in [
        ("a.binpb", Format::Protobuf),
        ("a.PB", Format::Protobuf),
        ("a.bin", Format::Protobuf),
        ("a.json", Format::Json),
        ("a.ndjson", Format::Ndjson),
        ("a.jsonl", Format::Ndjson),
    ] {
        assert_eq!(format_of(Path::new(name)).unwrap(), format, "{name}");
    }
    for name in ["a", "a.txt", "json"] {
        assert!(format_of(Path::new(name)).is_err(), "{name}");
    }
}

/// Scenario: NDJSON with empty lines, Windows line ends, and a broken line.
/// Guarantees: one request a line, named by its number; a broken line refuses the file and is named.
#[test]
fn ndjson_is_one_request_a_line() {
    let requests = read(
        "x.ndjson",
        "\n{\"resourceLogs\":[]}\r\n\n{\"resourceSpans\":[]}",
        None,
    )
    .unwrap();
    let names: Vec<&str> = requests
        .iter()
        .map(|request| request.name.as_str())
        .collect();
    assert_eq!(names, ["x.ndjson:2", "x.ndjson:4"]);
    assert_eq!(requests[0].body, "{\"resourceLogs\":[]}");

    let error = read("x.ndjson", "{\"resourceLogs\":[]}\n{", None).unwrap_err();
    assert!(
        format!("{error:#}").starts_with("line 2: is not OTLP/JSON"),
        "{error:#}"
    );
    assert!(read("x.ndjson", "\n\n", None).is_err());
}

/// Scenario: `--signal` beside documents that name their own.
/// Guarantees: agreement passes, contradiction is an error, protobuf believes the flag.
#[test]
fn a_given_signal_must_agree_with_json() {
    let logs = "{\"resourceLogs\":[]}";
    assert!(read("x.json", logs, Some(Signal::Logs)).is_ok());
    let error = read("x.json", logs, Some(Signal::Traces)).unwrap_err();
    assert_eq!(error.to_string(), "holds logs, but --signal says traces");
    let requests = read("x.pb", "", Some(Signal::Metrics)).unwrap();
    assert_eq!(requests[0].signal, Signal::Metrics);
}
