//! Gemini CLI: `telemetry` in `settings.json`, and variables that go before it.

use super::{Found, Places, json, parsed};
use crate::cli::doctor::environment::{Variables, exporters};
use crate::cli::doctor::exporter::Exporter;
use crate::cli::doctor::report::Section;
use crate::signal::Signal;

/// Looks at Gemini CLI.
pub(in crate::cli::doctor) fn gemini(places: &Places<'_>) -> Found {
    let path = places.home.join(".gemini/settings.json");
    let mut section = Section::new(format!("Gemini CLI, {}", path.display()));
    let settings = parsed(&path, &mut section, json);
    let variables = places.variables;
    let telemetry = |name: &str| settings.as_ref()?.get("telemetry")?.get(name);
    let text = |variable: &str, name: &str| {
        let set = variables.get(variable).map(str::to_owned);
        set.or_else(|| telemetry(name)?.as_str().map(str::to_owned))
    };
    let is_on = match variables.get("GEMINI_TELEMETRY_ENABLED") {
        Some(_) => variables.is_true("GEMINI_TELEMETRY_ENABLED"),
        None => telemetry("enabled").and_then(serde_json::Value::as_bool) == Some(true),
    };
    if !is_on {
        if settings.is_none() && section.findings.is_empty() {
            return None;
        }
        if telemetry("otlpEndpoint").is_some() {
            section.change(
                "telemetry has an otlpEndpoint, and is not enabled: nothing is exported",
                "write \"enabled\": true in telemetry",
            );
        } else if section.findings.is_empty() {
            section.note("telemetry is not enabled: nothing is exported");
        }
        return Some((section, Vec::new()));
    }
    if text("GEMINI_TELEMETRY_TARGET", "target").is_some_and(|target| target == "gcp") {
        section.note("target is gcp: everything goes to Google Cloud");
        return Some((section, Vec::new()));
    }
    if let Some(file) = text("GEMINI_TELEMETRY_OUTFILE", "outfile") {
        section.change(
            format!(
                "outfile is {file}: everything goes into that file, and nothing to an endpoint"
            ),
            "remove outfile",
        );
        return Some((section, Vec::new()));
    }
    let exporters = gemini_exporters(&settings, variables, &mut section);
    Some((section, exporters))
}

/// The exporters below Gemini CLI take headers and certificates from the usual variables.
fn gemini_exporters(
    settings: &Option<serde_json::Value>,
    variables: &Variables,
    section: &mut Section,
) -> Vec<Exporter> {
    const DEFAULT: &str = "http://localhost:4317";
    let written = |name: &'static str| {
        let value = settings.as_ref()?.get("telemetry")?.get(name)?;
        Some(("telemetry", name, value.as_str()?.to_owned()))
    };
    let set = |name: &'static str| Some(("variable", name, variables.get(name)?.to_owned()));
    let endpoint = set("GEMINI_TELEMETRY_OTLP_ENDPOINT")
        .or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"))
        .or_else(|| written("otlpEndpoint"));
    let (kind, name, endpoint) =
        endpoint.unwrap_or_else(|| ("default", "otlpEndpoint", DEFAULT.to_owned()));
    let protocol = set("GEMINI_TELEMETRY_OTLP_PROTOCOL").or_else(|| written("otlpProtocol"));
    let protocol = match protocol.as_ref().map(|(_, _, value)| value.as_str()) {
        None => "grpc",
        Some("http") => "http/protobuf",
        Some(other) => other,
    };
    let is_usual = |name: &str| {
        let ends = ["_HEADERS", "CERTIFICATE", "_CLIENT_KEY"];
        ends.iter().any(|end| name.ends_with(end))
    };
    let usual = variables.0.iter().filter(|(name, _)| is_usual(name));
    let own = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let usual = usual.map(|(name, value)| (name.clone(), value.clone()));
    let all = Variables(usual.chain(own).collect());
    let exporters = exporters(&all, &Signal::ALL, section);
    let named = exporters.into_iter().map(|exporter| Exporter {
        place: format!("{name} ({kind})"),
        ..exporter
    });
    named.collect()
}
