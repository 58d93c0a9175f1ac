//! What the usual `OTEL_*` variables say, of this shell or of an agent's settings.
//!
//! Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and "Environment Variable Specification".

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::exporter::{Exporter, Speaks};
use super::report::Section;
use crate::signal::Signal;

/// Variables by name. Empty ones count as unset, as the specification says.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(pub(super) BTreeMap<String, String>);

impl Variables {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default().to_ascii_lowercase();
        ["1", "true", "yes", "on"].contains(&value.as_str())
    }

    /// Whether any of OTLP's exporter is set.
    pub(super) fn has_exporter(&self) -> bool {
        let mut names = self.0.keys();
        names.any(|name| name.starts_with("OTEL_EXPORTER_OTLP_") && self.get(name).is_some())
    }

    /// A setting of a signal's exporter, and its variable; the signal's own goes before that of all.
    fn setting(&self, signal: Signal, name: &str) -> Option<(String, &str)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{name}", upper(signal));
        let all = format!("OTEL_EXPORTER_OTLP_{name}");
        let found = [own, all]
            .into_iter()
            .find(|variable| self.get(variable).is_some())?;
        let value = self.get(&found)?;
        Some((found, value))
    }
}

pub(super) fn upper(signal: Signal) -> String {
    signal.name().to_ascii_uppercase()
}

/// The exporters that the variables make; those of several signals that have the same settings are one.
pub(super) fn exporters(
    variables: &Variables,
    signals: &[Signal],
    section: &mut Section,
) -> Vec<Exporter> {
    let mut exporters: Vec<Exporter> = Vec::new();
    for signal in signals {
        let Some(exporter) = exporter(variables, *signal, section) else {
            continue;
        };
        let same = exporters.iter_mut().find(|known| {
            let signals = exporter.signals.clone();
            Exporter {
                signals,
                ..(**known).clone()
            } == exporter
        });
        match same {
            Some(known) => known.signals.extend(exporter.signals),
            None => exporters.push(exporter),
        }
    }
    exporters
}

fn exporter(variables: &Variables, signal: Signal, section: &mut Section) -> Option<Exporter> {
    let (place, endpoint) = variables.setting(signal, "ENDPOINT")?;
    let (speaks, is_protocol_guessed) = match variables.setting(signal, "PROTOCOL") {
        None => (Speaks::Http, true),
        Some((_, "grpc")) => (Speaks::Grpc, false),
        Some((_, "http/protobuf")) => (Speaks::Http, false),
        Some((_, "http/json")) => (Speaks::HttpJson, false),
        Some((variable, other)) => {
            section.change(
                format!("{variable}: there is no protocol {other}"),
                "write grpc, http/protobuf or http/json",
            );
            return None;
        }
    };
    let headers = variables.setting(signal, "HEADERS");
    let headers = headers.map(|(variable, text)| headers_of(&variable, text, section));
    let file = |name| {
        variables
            .setting(signal, name)
            .map(|(_, path)| PathBuf::from(path))
    };
    Some(Exporter {
        appends_path: place == "OTEL_EXPORTER_OTLP_ENDPOINT",
        place,
        signals: vec![signal],
        speaks,
        is_protocol_guessed,
        endpoint: endpoint.to_owned(),
        headers: headers.unwrap_or_default(),
        ca: file("CERTIFICATE"),
        cert: file("CLIENT_CERTIFICATE"),
        key: file("CLIENT_KEY"),
    })
}

/// `name=value,name=value`, where values may be percent-encoded.
fn headers_of(variable: &str, text: &str, section: &mut Section) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (place, pair) in text.split(',').enumerate() {
        match pair.split_once('=') {
            Some((name, value)) => {
                headers.push((name.trim().to_owned(), percent_decoded(value.trim())));
            }
            // It may be a token: it is not shown.
            None => section.change(
                format!(
                    "{variable}: entry {} has no = between name and value",
                    place + 1
                ),
                "write authorization=Bearer TOKEN",
            ),
        }
    }
    headers
}

/// What is no encoding stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| *first == b'%');
        let byte = hex
            .and_then(|hex| str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is turned off, by the SDK's own switches; the signals that are left.
pub(super) fn switched_on(variables: &Variables, section: &mut Section) -> Vec<Signal> {
    if variables.is_true("OTEL_SDK_DISABLED") {
        section.change(
            "OTEL_SDK_DISABLED is set: SDKs export nothing",
            "unset OTEL_SDK_DISABLED",
        );
        return Vec::new();
    }
    let is_on = |signal: &Signal| {
        let name = format!("OTEL_{}_EXPORTER", upper(*signal));
        match variables.get(&name) {
            None => true,
            Some(exporters) if exporters.split(',').any(|one| one.trim() == "otlp") => true,
            Some(other) => {
                section.note(format!("{name}={other}: {signal} are not sent over OTLP"));
                false
            }
        }
    };
    Signal::ALL.into_iter().filter(is_on).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::cli::doctor) fn variables(pairs: &[(&str, &str)]) -> Variables {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Variables(pairs.collect())
    }

    /// Scenario: one endpoint for all; one for a signal beside it; headers with and without encoding, and a broken one.
    /// Guarantees: signals with the same settings are one exporter; a signal's own variable goes first and is taken as it is;
    /// headers are decoded, and a broken one is told without its text.
    #[test]
    fn variables_make_exporters() {
        let variables = variables(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", " http://localhost:4318 "),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://localhost:4317",
            ),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", ""),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20a%zz, x = y ,secret",
            ),
        ]);
        let mut section = Section::new("");
        let made = exporters(&variables, &Signal::ALL, &mut section);
        let [both, traces] = &made[..] else {
            panic!("{made:?}");
        };
        assert_eq!(both.signals, [Signal::Logs, Signal::Metrics]);
        assert_eq!(
            (both.speaks, both.is_protocol_guessed),
            (Speaks::Http, true)
        );
        assert_eq!(both.endpoint, "http://localhost:4318");
        assert!(both.appends_path && !traces.appends_path);
        assert_eq!(
            (traces.speaks, traces.is_protocol_guessed),
            (Speaks::Grpc, false)
        );
        let headers = [("authorization", "Bearer a%zz"), ("x", "y")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(both.headers, headers);
        assert_eq!(section.changes(), 1);
        assert!(!format!("{section:?}").contains("secret"));
    }

    /// Scenario: the switches of SDKs, and a protocol that there is not.
    /// Guarantees: signals that are not sent are told and left out; the protocols are named.
    #[test]
    fn switches_are_seen() {
        let mut section = Section::new("");
        let some = variables(&[
            ("OTEL_LOGS_EXPORTER", "console"),
            ("OTEL_TRACES_EXPORTER", "otlp,console"),
        ]);
        assert_eq!(
            switched_on(&some, &mut section),
            [Signal::Traces, Signal::Metrics]
        );
        assert_eq!((section.changes(), section.findings.len()), (0, 1));
        let none = variables(&[("OTEL_SDK_DISABLED", "true")]);
        assert!(switched_on(&none, &mut section).is_empty());
        assert_eq!(section.changes(), 1);
        let odd = variables(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http"),
        ]);
        assert!(exporters(&odd, &[Signal::Logs], &mut section).is_empty());
        assert_eq!(section.changes(), 2);
    }
}
