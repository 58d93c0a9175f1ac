//! The environment of duckdb-otlp's daemon, for those who come from there.
//!
//! Its names are general ones (`DRY_RUN`, `OTEL_HTTP_ADDR`), so they are taken only where `DUCKDB_MODE` says that the
//! environment is meant for it. They come below everything of our own. As there, an empty variable counts as unset.
//!
//! | its variable | our setting |
//! |---|---|
//! | `DUCKDB_MODE` | must be `local-ducklake` or `ducklake-local` |
//! | `DUCKLAKE_NAME` | `lake-name` |
//! | `DUCKLAKE_CATALOG_PATH` | `catalog`, as `duckdb:PATH` |
//! | `DUCKLAKE_DATA_PATH` | `data-path` |
//! | `DUCKDB_SCHEMA` | `schema` |
//! | `OTEL_AUTH_TOKEN`, else `DUCKDB_OTLP_TOKEN` | `token` |
//! | `OTEL_HTTP_ADDR`, `OTEL_GRPC_ADDR` | `http-listen`, `grpc-listen` |
//! | `DUCKDB_QUACK_ENABLED`, `_ADDR`, `_TOKEN` | `quack-listen`, `quack-token` |
//! | `DUCKDB_OTLP_MAX_BODY_BYTES`, `_MAX_BUFFERED_BYTES`, `_SEAL_TARGET_BYTES` | the settings of these names, bytes |
//! | `DUCKDB_OTLP_SEAL_MAX_AGE_MS` | `seal-max-age` |
//! | `DUCKDB_OTLP_TARGET_FILE_SIZE` | `target-file-size`, bytes |
//! | `DUCKDB_OTLP_MAINTENANCE_RETENTION_MS` | `snapshot-retention` |
//! | `DRY_RUN` | the flag `--check` |
//!
//! Source: duckdb-otlp's documentation and configuration tests.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::error::ConfigError;
use super::origin::{Origin, Origins};
use super::raw::RawSettings;
use super::sources::{settings_of, variable_text};

const MODE: &str = "DUCKDB_MODE";
const QUACK_ENABLED: &str = "DUCKDB_QUACK_ENABLED";
const QUACK_ADDRESS: &str = "DUCKDB_QUACK_ADDR";
const QUACK_TOKEN: &str = "DUCKDB_QUACK_TOKEN";
const DRY_RUN: &str = "DRY_RUN";

/// The address of quack where it is on and none is named.
const QUACK_ADDRESS_DEFAULT: &str = "127.0.0.1";

/// How a variable's text becomes that of our setting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is.
    Text,
    /// As it is, and never shown.
    Secret,
    /// A DuckDB file.
    DuckDbFile,
    /// A positive number of bytes.
    Bytes,
    /// A positive number of milliseconds.
    Milliseconds,
}

/// Variable, our key, form. Of two with the same key the first that is set counts.
const TAKEN: [(&str, &str, Form); 15] = [
    ("DUCKLAKE_NAME", "lake-name", Form::Text),
    ("DUCKLAKE_CATALOG_PATH", "catalog", Form::DuckDbFile),
    ("DUCKLAKE_DATA_PATH", "data-path", Form::Text),
    ("DUCKDB_SCHEMA", "schema", Form::Text),
    ("OTEL_AUTH_TOKEN", "token", Form::Secret),
    ("DUCKDB_OTLP_TOKEN", "token", Form::Secret),
    ("OTEL_HTTP_ADDR", "http-listen", Form::Text),
    ("OTEL_GRPC_ADDR", "grpc-listen", Form::Text),
    ("DUCKDB_OTLP_MAX_BODY_BYTES", "max-body-bytes", Form::Bytes),
    (
        "DUCKDB_OTLP_MAX_BUFFERED_BYTES",
        "max-buffered-bytes",
        Form::Bytes,
    ),
    (
        "DUCKDB_OTLP_SEAL_TARGET_BYTES",
        "seal-target-bytes",
        Form::Bytes,
    ),
    (
        "DUCKDB_OTLP_SEAL_MAX_AGE_MS",
        "seal-max-age",
        Form::Milliseconds,
    ),
    (
        "DUCKDB_OTLP_TARGET_FILE_SIZE",
        "target-file-size",
        Form::Bytes,
    ),
    (
        "DUCKDB_OTLP_MAINTENANCE_RETENTION_MS",
        "snapshot-retention",
        Form::Milliseconds,
    ),
    (QUACK_TOKEN, "quack-token", Form::Secret),
];

/// What the names of duckdb-otlp's variables begin with; more general ones are not listed as left alone.
const PREFIXES: [&str; 3] = ["DUCKDB_OTLP_", "DUCKDB_QUACK_", "DUCKLAKE_"];

/// Modes of duckdb-otlp's, with what they would need of otlake.
const OTHER_MODES: [(&[&str], &str); 4] = [
    (
        &[
            "aws-ducklake",
            "ducklake-s3",
            "s3-ducklake",
            "r2-local-ducklake",
            "r2-neon-ducklake",
            "gcp-ducklake",
        ],
        "keeps the lake's files in an object store, or its catalog in PostgreSQL",
    ),
    (
        &["r2-data-catalog", "cloudflare", "s3-tables", "s3tables"],
        "writes to an Iceberg catalog",
    ),
    (
        &["parquet", "plain-s3", "s3-parquet", "s3"],
        "writes Parquet files without a catalog",
    ),
    (&["motherduck"], "writes to MotherDuck"),
];

/// What duckdb-otlp's environment said, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Its variables that set something: name, our key, and the value where it may be shown.
    found: Vec<(&'static str, &'static str, Option<String>)>,
    /// Variables of its that otlake does not take, by name.
    left: Vec<String>,
    /// Only what is in [`Foreign::found`] and not overridden was taken.
    overridden: BTreeMap<&'static str, String>,
    mode: Option<String>,
    /// It asks to check the settings and to exit.
    pub dry_run: bool,
}

impl Foreign {
    /// Where a setting of this key came from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let name = self.found.iter().find(|(_, of, _)| *of == key);
        Origin::Foreign(name.map_or(MODE, |(name, ..)| name))
    }

    /// With what our own settings override.
    pub(super) fn settled(mut self, origins: &Origins) -> Foreign {
        for (name, key, _) in &self.found {
            if !matches!(origins.of(key), Origin::Foreign(_)) {
                self.overridden.insert(name, origins.place(key));
            }
        }
        self
    }

    /// What was taken and what was not, a line each; none without such an environment. No secrets.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(mode) = &self.mode else {
            if !self.left.is_empty() {
                lines.push(format!(
                    "not taken, since {MODE} is not set: {}",
                    self.left.join(", ")
                ));
            }
            return lines;
        };
        lines.push(format!("took {MODE}={mode} from duckdb-otlp's environment"));
        for (name, key, value) in &self.found {
            let value = value.as_deref().unwrap_or("********");
            match self.overridden.get(name) {
                None => lines.push(format!("took {name}={value} as {key}")),
                Some(place) => lines.push(format!("{name} is overridden by {place}")),
            }
        }
        if self.dry_run {
            lines.push(format!("took {DRY_RUN} as --check"));
        }
        if !self.left.is_empty() {
            let left = self.left.join(", ");
            lines.push(format!("not taken, otlake has nothing like it: {left}"));
        }
        if !self.found.iter().any(|(_, key, _)| *key == "catalog") {
            lines.push(
                "DUCKLAKE_CATALOG_PATH is not set: the lake is where otlake's own settings say, not in duckdb-otlp's folder"
                    .to_owned(),
            );
        }
        lines
    }
}

/// Reads duckdb-otlp's variables.
///
/// # Errors
/// A mode that otlake does not have, and a value of the wrong form.
pub(super) fn read(
    variables: &[(OsString, OsString)],
) -> Result<(RawSettings, Foreign), ConfigError> {
    let mut set = BTreeMap::new();
    for (name, value) in variables {
        // A name that is not UTF-8 is none of its.
        if let Some(name) = name.to_str()
            && !value.is_empty()
        {
            set.insert(name, value);
        }
    }
    let text = |name: &str| -> Result<Option<String>, ConfigError> {
        let value = set.get(name).map(|value| (*value).clone());
        value.map(|value| variable_text(name, value)).transpose()
    };
    let mut foreign = Foreign {
        mode: text(MODE)?,
        ..Foreign::default()
    };
    let is_ours = |name: &&&str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let Some(mode) = &foreign.mode else {
        foreign.left = set
            .keys()
            .filter(is_ours)
            .map(|name| (*name).to_owned())
            .collect();
        return Ok((RawSettings::default(), foreign));
    };
    check_mode(mode)?;
    foreign.dry_run = text(DRY_RUN)?.is_some_and(|value| is_truthy(&value));
    let quack_enabled = text(QUACK_ENABLED)?.is_some_and(|value| is_truthy(&value));
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for (name, key, form) in TAKEN {
        if name == QUACK_TOKEN && !quack_enabled {
            continue;
        }
        let Some(value) = text(name)? else { continue };
        let is_set = pairs.iter().any(|(known, _)| *known == key);
        if !is_set {
            pairs.push((key, form.translate(name, &value)?));
            let shown = (form != Form::Secret).then_some(value);
            foreign.found.push((name, key, shown));
        }
    }
    if quack_enabled {
        let address = text(QUACK_ADDRESS)?;
        let name = address.as_ref().map_or(QUACK_ENABLED, |_| QUACK_ADDRESS);
        let shown = address.clone().unwrap_or_else(|| "1".to_owned());
        let address = address.unwrap_or_else(|| QUACK_ADDRESS_DEFAULT.to_owned());
        pairs.push(("quack-listen", address));
        foreign.found.push((name, "quack-listen", Some(shown)));
    }
    let is_known = |name: &&&str| {
        let names = [QUACK_ENABLED, QUACK_ADDRESS, QUACK_TOKEN];
        names.contains(*name) || TAKEN.iter().any(|(known, ..)| known == *name)
    };
    let left = set.keys().filter(is_ours).filter(|name| !is_known(name));
    foreign.left = left.map(|name| (*name).to_owned()).collect();
    let name_of = |key: &str| foreign.origin(key);
    let settings = settings_of(&pairs, |key| match name_of(key) {
        Origin::Foreign(name) => name.to_owned(),
        _ => key.to_owned(),
    })?;
    Ok((settings, foreign))
}

fn check_mode(mode: &str) -> Result<(), ConfigError> {
    if ["local-ducklake", "ducklake-local"].contains(&mode) {
        return Ok(());
    }
    let known = OTHER_MODES.iter().find(|(names, _)| names.contains(&mode));
    let why = match known {
        Some((_, what)) => format!("{mode} {what}, which otlake does not"),
        None => format!("`{mode}` is no mode of duckdb-otlp's that otlake knows"),
    };
    Err(ConfigError::Value {
        at: MODE.to_owned(),
        reason: format!(
            "{why}: it writes to a DuckLake on this machine. Set {MODE}=local-ducklake for that, or unset {MODE}, and otlake takes its own settings alone (docs/FROM-DUCKDB-OTLP.md)"
        ),
    })
}

impl Form {
    fn translate(self, name: &str, value: &str) -> Result<String, ConfigError> {
        let number = || match value.parse::<u64>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(ConfigError::Value {
                at: name.to_owned(),
                reason: format!("`{value}` is not a positive whole number"),
            }),
        };
        Ok(match self {
            Form::Text | Form::Secret => value.to_owned(),
            Form::DuckDbFile => format!("duckdb:{value}"),
            Form::Bytes => number()?.to_string(),
            Form::Milliseconds => format!("{}ms", number()?),
        })
    }
}

/// What duckdb-otlp takes for yes.
fn is_truthy(value: &str) -> bool {
    ["1", "true", "TRUE", "yes", "YES", "on", "ON"].contains(&value)
}
