//! Codex: `[otel]` in `config.toml` has an exporter for each signal.

use std::path::Path;

use super::{Found, Places, parsed};
use crate::cli::doctor::exporter::{Exporter, Speaks};
use crate::cli::doctor::report::Section;
use crate::signal::Signal;

/// Looks at Codex.
pub(in crate::cli::doctor) fn codex(places: &Places<'_>) -> Found {
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
