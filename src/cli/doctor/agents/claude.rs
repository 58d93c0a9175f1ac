//! Claude Code: variables, of the shell or of `env` in `settings.json`.

use super::{Found, Places, json, parsed};
use crate::cli::doctor::environment::{Variables, exporters, upper};
use crate::cli::doctor::report::Section;
use crate::signal::Signal;

/// Turns telemetry on.
const ENABLE: &str = "CLAUDE_CODE_ENABLE_TELEMETRY";

/// Turns traces on.
const TRACES: &str = "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA";

/// Looks at Claude Code.
pub(in crate::cli::doctor) fn claude(places: &Places<'_>) -> Found {
    let path = places
        .folder("CLAUDE_CONFIG_DIR", ".claude")
        .join("settings.json");
    let mut section = Section::new(format!("Claude Code, {}", path.display()));
    let settings = parsed(&path, &mut section, json);
    let own = own_variables(settings.as_ref());
    let mut all = places.variables.clone();
    all.0.extend(own.0.clone());
    if !all.is_true(ENABLE) {
        if own.has_exporter() {
            section.change(
                format!("{ENABLE} is not set: nothing is exported, whatever else is"),
                format!("set {ENABLE}=1"),
            );
        } else if settings.is_some() {
            section.note(format!("{ENABLE} is not set: nothing is exported"));
        } else if section.findings.is_empty() {
            return None;
        }
        return Some((section, Vec::new()));
    }
    let signals = signals(&all, &mut section);
    // Those of the shell alone are looked at with the shell.
    let exporters = match own.has_exporter() {
        true => exporters(&all, &signals, &mut section),
        false => Vec::new(),
    };
    if section.changes() == 0 {
        section.fine("its switches are set");
    }
    Some((section, exporters))
}

/// The variables that the settings set.
fn own_variables(settings: Option<&serde_json::Value>) -> Variables {
    let env = settings.and_then(|settings| settings.get("env")?.as_object());
    let pairs = env.into_iter().flatten().filter_map(|(name, value)| {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
            _ => return None,
        };
        Some((name.clone(), text))
    });
    Variables(pairs.collect())
}

/// The signals that are exported, and what is missing for the others.
fn signals(all: &Variables, section: &mut Section) -> Vec<Signal> {
    if all.get("OTEL_EXPORTER_OTLP_PROTOCOL").is_none() {
        section.change(
            "OTEL_EXPORTER_OTLP_PROTOCOL is not set, and Claude Code takes no default",
            "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc (port 4317) or http/protobuf (port 4318)",
        );
    }
    let mut signals = Vec::new();
    for signal in Signal::ALL {
        let name = format!("OTEL_{}_EXPORTER", upper(signal));
        let value = all.get(&name).unwrap_or_default();
        let is_otlp = value.split(',').any(|one| one.trim() == "otlp");
        if signal == Signal::Traces && !is_otlp && !all.is_true(TRACES) {
            section.note(format!(
                "traces are a beta of Claude Code, and not turned on: {name}=otlp and {TRACES}=1 do"
            ));
        } else if !is_otlp {
            section.change(
                format!("{name} is not otlp: Claude Code exports no {signal}"),
                format!("set {name}=otlp"),
            );
        } else if signal == Signal::Traces && !all.is_true(TRACES) {
            section.change(
                format!("{TRACES} is not set: Claude Code exports no traces"),
                format!("set {TRACES}=1"),
            );
        } else {
            signals.push(signal);
        }
    }
    if !all.has_exporter() {
        section.change(
            "OTEL_EXPORTER_OTLP_ENDPOINT is not set",
            "set it to http://HOST:PORT",
        );
    }
    signals
}
