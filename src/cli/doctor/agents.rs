//! The settings of coding agents, where they are on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::environment::{Variables, exporters, upper};
use super::exporter::{Exporter, Speaks};
use super::report::Section;
use crate::signal::Signal;

/// A settings file is not longer than this, bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What of an agent's settings is there to be checked.
pub(super) type Found = Option<(Section, Vec<Exporter>)>;

/// Where the agents' settings are.
pub(super) struct Places<'a> {
    pub(super) home: &'a Path,
    pub(super) variables: &'a Variables,
}

impl Places<'_> {
    /// A folder that a variable names, else one in the home.
    fn folder(&self, variable: &str, name: &str) -> PathBuf {
        let named = self.variables.get(variable).map(PathBuf::from);
        named.unwrap_or_else(|| self.home.join(name))
    }
}

/// The text of a settings file; none where there is no such file.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            return Err(io::Error::other("it is far too long for a settings file"));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some)
}

/// A settings file, parsed; its trouble goes into the section.
fn parsed<T: DeserializeOwned>(
    path: &Path,
    section: &mut Section,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let shown = path.display();
    let text = match read(path) {
        Ok(text) => text?,
        Err(error) => {
            section.change(
                format!("{shown} cannot be read: {error}"),
                "see to its rights",
            );
            return None;
        }
    };
    match parse(&text) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            section.change(
                format!("{shown} cannot be understood: {error}"),
                "correct it",
            );
            None
        }
    }
}

/// Codex: `[otel]` in `config.toml` has an exporter for each signal.
pub(super) fn codex(places: &Places<'_>) -> Found {
    let folder = places.folder("CODEX_HOME", ".codex");
    let path = folder.join("config.toml");
    let mut section = Section::new(format!("Codex, {}", path.display()));
    let toml = |text: &str| {
        toml::from_str::<toml::Table>(text).map_err(|error| error.message().to_owned())
    };
    let Some(config) = parsed(&path, &mut section, toml) else {
        return (section.changes() > 0).then(|| (section, Vec::new()));
    };
    let Some(otel) = config.get("otel").and_then(toml::Value::as_table) else {
        section.note("there is no [otel]: Codex exports nothing");
        return Some((section, Vec::new()));
    };
    let keys = [
        ("exporter", Signal::Logs),
        ("trace_exporter", Signal::Traces),
        ("metrics_exporter", Signal::Metrics),
    ];
    let mut exporters = Vec::new();
    let mut missing = Vec::new();
    for (key, signal) in keys {
        match otel
            .get(key)
            .map(|value| codex_exporter(key, signal, value, &folder))
        {
            Some(Ok(exporter)) => exporters.push(exporter),
            Some(Err(Some((what, advice)))) => section.change(what, advice),
            Some(Err(None)) | None => missing.push((key, signal)),
        }
    }
    if exporters.is_empty() && section.changes() == 0 {
        section.note("[otel] has no OTLP exporter: Codex exports nothing");
        return Some((section, exporters));
    }
    for (key, signal) in missing {
        section.change(
            format!("there is no {key} for OTLP: {signal} are not exported, each exporter carries one signal"),
            format!("add {key}, with the settings that the others have"),
        );
    }
    Some((section, exporters))
}

/// An exporter of Codex, or what is wrong with it; `Err(None)` when it is none for OTLP.
fn codex_exporter(
    key: &str,
    signal: Signal,
    value: &toml::Value,
    folder: &Path,
) -> Result<Exporter, Option<(String, String)>> {
    let Some((kind, settings)) = value.as_table().and_then(|table| table.iter().next()) else {
        return Err(None);
    };
    let speaks = match kind.as_str() {
        "otlp-grpc" => Speaks::Grpc,
        "otlp-http" => match settings.get("protocol").and_then(toml::Value::as_str) {
            Some("json") => Speaks::HttpJson,
            _ => Speaks::Http,
        },
        other => {
            return Err(Some((
                format!("{key}: there is no exporter {other}"),
                "write otlp-grpc or otlp-http".to_owned(),
            )));
        }
    };
    let text = |name: &str| settings.get(name).and_then(toml::Value::as_str);
    let Some(endpoint) = text("endpoint") else {
        return Err(Some((
            format!("{key}: {kind} has no endpoint"),
            "add endpoint = \"http://HOST:PORT\"".to_owned(),
        )));
    };
    let headers = settings.get("headers").and_then(toml::Value::as_table);
    let headers = headers.into_iter().flatten().filter_map(|(name, value)| {
        let value = value.as_str()?;
        Some((name.clone(), value.to_owned()))
    });
    let tls = |name: &str| {
        let path = settings.get("tls")?.get(name)?.as_str()?;
        Some(folder.join(path))
    };
    Ok(Exporter {
        place: key.to_owned(),
        signals: vec![signal],
        speaks,
        is_protocol_guessed: false,
        endpoint: endpoint.to_owned(),
        appends_path: false,
        headers: headers.collect(),
        ca: tls("ca-certificate"),
        cert: tls("client-certificate"),
        key: tls("client-private-key"),
    })
}

/// Claude Code: variables, of the shell or of `env` in `settings.json`.
pub(super) fn claude(places: &Places<'_>) -> Found {
    const ENABLE: &str = "CLAUDE_CODE_ENABLE_TELEMETRY";
    const TRACES: &str = "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA";
    let path = places
        .folder("CLAUDE_CONFIG_DIR", ".claude")
        .join("settings.json");
    let mut section = Section::new(format!("Claude Code, {}", path.display()));
    let json = |text: &str| {
        serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())
    };
    let settings = parsed(&path, &mut section, json);
    let env = settings
        .as_ref()
        .and_then(|settings| settings.get("env")?.as_object());
    let env: BTreeMap<String, String> = env
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            Some((
                name.clone(),
                text.or_else(|| (!value.is_object()).then(|| value.to_string()))?,
            ))
        })
        .collect();
    let own = Variables(env);
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

/// Gemini CLI: `telemetry` in `settings.json`, and variables that go before it.
pub(super) fn gemini(places: &Places<'_>) -> Found {
    let path = places.home.join(".gemini/settings.json");
    let mut section = Section::new(format!("Gemini CLI, {}", path.display()));
    let json = |text: &str| {
        serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())
    };
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
