//! The settings in effect as text.

use std::fmt::Write;

use super::value::{Size, Span};
use super::{Auth, Config, OpenReason, Tokens};

/// The comments stand below each other up to this column; a setting that is longer pushes its own to the right.
const COMMENT_COLUMN_MAX: usize = 72;

/// One `key = value # origin` line a setting, in the order of the help.
pub(super) fn render(config: &Config) -> String {
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut line = |key: &str, value: toml::Value| {
        settings.push((format!("{key} = {value}"), config.origins.comment(key)));
    };
    let text = |text: &dyn std::fmt::Display| toml::Value::String(text.to_string());
    let count = |count: u64| toml::Value::Integer(i64::try_from(count).unwrap_or(i64::MAX));
    line("grpc-listen", text(&config.grpc_listen));
    line("http-listen", text(&config.http_listen));
    if let Auth::Token(Tokens {
        file: Some(file), ..
    }) = &config.auth
    {
        line("token-file", text(&file.display()));
    }
    let no_auth = matches!(
        config.auth,
        Auth::Open {
            because: OpenReason::NoAuth
        }
    );
    line("no-auth", toml::Value::Boolean(no_auth));
    line(
        "cors-origin",
        toml::Value::from(config.cors_origins.as_list()),
    );
    line(
        "allowed-host",
        toml::Value::from(config.allowed_hosts.as_list()),
    );
    if let Some(tls) = &config.tls {
        line("tls-cert", text(&tls.cert.display()));
        line("tls-key", text(&tls.key.display()));
        if let Some(ca) = &tls.client_ca {
            line("tls-client-ca", text(&ca.path.display()));
            line("tls-client-auth", text(&ca.auth.name()));
        }
    }
    if let Some(quack) = &config.quack {
        line("quack-listen", text(&quack.listen));
        line("lake-name", text(&quack.lake_name));
    }
    line("data-dir", text(&config.data_dir.display()));
    line("catalog", text(&config.lake.catalog));
    line("data-path", text(&config.lake.data_path.display()));
    line("schema", text(&config.lake.schema));
    if let Some(folder) = &config.lake.extension_dir {
        line("extension-dir", text(&folder.display()));
    }
    line(
        "target-file-size",
        text(&Size(config.lake.target_file_size_bytes)),
    );
    line(
        "snapshot-retention",
        text(&Span(config.lake.snapshot_retention)),
    );
    line(
        "lake-group-readable",
        toml::Value::Boolean(config.lake.is_group_readable),
    );
    line("durability", text(&config.durability));
    line("dedup-window", text(&Span(config.dedup_window)));
    line("journal-max-bytes", text(&Size(config.journal_max_bytes)));
    line("seal-target-bytes", text(&Size(config.seal.target_bytes)));
    line("seal-max-age", text(&Span(config.seal.max_age)));
    line(
        "max-body-bytes",
        text(&Size(
            u64::try_from(config.max_body_bytes).unwrap_or(u64::MAX),
        )),
    );
    line("max-buffered-bytes", text(&Size(config.max_buffered_bytes)));
    line(
        "max-connections",
        count(u64::try_from(config.max_connections).unwrap_or(u64::MAX)),
    );
    line(
        "max-concurrent-streams",
        count(u64::from(config.max_concurrent_streams)),
    );
    line("shutdown-grace", text(&Span(config.shutdown_grace)));
    line("log-format", text(&config.log.format));
    line("log-level", text(&config.log.level));
    aligned(&settings) + &unset(config)
}

/// The settings with their comments below each other.
fn aligned(settings: &[(String, String)]) -> String {
    let mut out =
        String::from("# Settings in effect. `otlake serve --config FILE` takes this file back.\n");
    let widths = settings.iter().map(|(setting, _)| setting.chars().count());
    let width = widths.max().unwrap_or(0).min(COMMENT_COLUMN_MAX);
    for (setting, comment) in settings {
        let _ = writeln!(out, "{setting:<width$} # {comment}"); // Writing to a String cannot fail.
    }
    out
}

/// Comments for what has no value to write, or none that may be written.
fn unset(config: &Config) -> String {
    let token = match &config.auth {
        Auth::Token(Tokens {
            token: Some(token), ..
        }) => format!("{token} ({}; masked)", config.origins.comment("token")),
        _ => "none".to_owned(),
    };
    let mut out = format!("# token: {token}\n");
    let quack_token = match &config.quack {
        Some(quack) => {
            let comment = config.origins.comment("quack-token");
            format!("{} ({comment}; masked)", quack.token)
        }
        None => "none, no other DuckDB queries here".to_owned(),
    };
    out += &format!("# quack-token: {quack_token}\n");
    for line in config.foreign.told() {
        out += &format!("# {line}\n");
    }
    if config.tls.is_none() {
        out += "# tls-cert: none, both listeners speak plain HTTP\n";
    }
    if config.lake.extension_dir.is_none() {
        out += "# extension-dir: none, looked for where scripts/setup and DuckDB put extensions\n";
    }
    out
}
