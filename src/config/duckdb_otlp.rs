//! The environment of duckdb-otlp's daemon, for those who come from there.
//!
//! Its names are general ones (`DRY_RUN`, `OTEL_HTTP_ADDR`), so they are taken only where `DUCKDB_MODE` says that the
//! environment is meant for it. They come below everything of our own. As there, an empty variable counts as unset.
//!
//! | its variable | our setting |
//! |---|---|
//! | `DUCKDB_MODE` | must be `local-ducklake` or `ducklake-local` |
//! | `DUCKLAKE_NAME` | `lake-name` |
//! | `DUCKLAKE_CATALOG_PATH` | `catalog`, as `duckdb:PATH` where it is a path alone |
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
/// The token of quack.
pub(super) const QUACK_TOKEN: &str = "DUCKDB_QUACK_TOKEN";

/// What quack is switched on and set up by.
const QUACK: [&str; 3] = [QUACK_ENABLED, QUACK_ADDRESS, QUACK_TOKEN];
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
    /// What DuckLake attaches: a DuckDB file, or a catalog with its kind before it.
    Catalog,
    /// A positive number of bytes.
    Bytes,
    /// A positive number of milliseconds.
    Milliseconds,
}

/// The variable that most have their token in.
pub(super) const TOKEN: &str = "DUCKDB_OTLP_TOKEN";

/// Variable, our key, form. Of two with the same key the first that is set counts.
const TAKEN: [(&str, &str, Form); 15] = [
    ("DUCKLAKE_NAME", "lake-name", Form::Text),
    ("DUCKLAKE_CATALOG_PATH", "catalog", Form::Catalog),
    ("DUCKLAKE_DATA_PATH", "data-path", Form::Text),
    ("DUCKDB_SCHEMA", "schema", Form::Text),
    ("OTEL_AUTH_TOKEN", "token", Form::Secret),
    (TOKEN, "token", Form::Secret),
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

/// The mode that otlake has, and its other name. duckdb-otlp tells small letters from capital ones.
const MODES: [&str; 2] = ["local-ducklake", "ducklake-local"];

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
    /// Only what is in [`Foreign::found`] and not overridden was taken: by another of theirs, or by a setting of ours.
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
        let (quack, left): (Vec<&str>, Vec<&str>) = self
            .left
            .iter()
            .map(String::as_str)
            .partition(|name| QUACK.contains(name));
        if !left.is_empty() {
            let left = left.join(", ");
            lines.push(format!("not taken, otlake has nothing like it: {left}"));
        }
        if !quack.is_empty() {
            let quack = quack.join(", ");
            lines.push(format!(
                "not taken, quack is off without {QUACK_ENABLED}=1: {quack}"
            ));
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
    let switch = |name: &str| -> Result<bool, ConfigError> {
        text(name)?.map_or(Ok(false), |value| switch(name, &value))
    };
    foreign.dry_run = switch(DRY_RUN)?;
    let quack_enabled = switch(QUACK_ENABLED)?;
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for (name, key, form) in TAKEN {
        if name == QUACK_TOKEN && !quack_enabled {
            continue;
        }
        let Some(value) = text(name)? else { continue };
        let before = foreign.found.iter().find(|(_, known, _)| *known == key);
        if let Some((first, ..)) = before {
            foreign.overridden.insert(name, (*first).to_owned());
        } else {
            pairs.push((key, form.translate(name, &value)?));
        }
        let shown = (form != Form::Secret).then_some(value);
        foreign.found.push((name, key, shown));
    }
    if quack_enabled {
        let address = text(QUACK_ADDRESS)?;
        let name = address.as_ref().map_or(QUACK_ENABLED, |_| QUACK_ADDRESS);
        let shown = address.clone().unwrap_or_else(|| "1".to_owned());
        let address = address.unwrap_or_else(|| QUACK_ADDRESS_DEFAULT.to_owned());
        pairs.push(("quack-listen", address));
        foreign.found.push((name, "quack-listen", Some(shown)));
    }
    let is_left = |name: &&&str| match QUACK.contains(*name) {
        true => !quack_enabled,
        false => !TAKEN.iter().any(|(known, ..)| known == *name),
    };
    let left = set.keys().filter(is_ours).filter(is_left);
    foreign.left = left.map(|name| (*name).to_owned()).collect();
    let name_of = |key: &str| foreign.origin(key);
    let settings = settings_of(&pairs, |key| match name_of(key) {
        Origin::Foreign(name) => name.to_owned(),
        _ => key.to_owned(),
    })?;
    Ok((settings, foreign))
}

fn check_mode(mode: &str) -> Result<(), ConfigError> {
    if MODES.contains(&mode) {
        return Ok(());
    }
    let known = OTHER_MODES
        .iter()
        .find(|(names, _)| names.iter().any(|name| name.eq_ignore_ascii_case(mode)));
    let why = match known {
        Some((_, what)) => format!("{mode} {what}, which otlake does not"),
        None if MODES.iter().any(|name| name.eq_ignore_ascii_case(mode)) => {
            format!("`{mode}` is written in small letters, there as here")
        }
        None => format!("`{mode}` is no mode of duckdb-otlp's that otlake knows"),
    };
    let [mode, alias] = MODES;
    Err(ConfigError::Value {
        at: MODE.to_owned(),
        reason: format!(
            "{why}: it writes to a DuckLake on this machine. Set {MODE}={mode} (or {alias}, which is the same) for that, or unset {MODE}, and otlake takes its own settings alone (docs/FROM-DUCKDB-OTLP.md)"
        ),
    })
}

impl Form {
    fn translate(self, name: &str, value: &str) -> Result<String, ConfigError> {
        let wrong = |reason| ConfigError::Value {
            at: name.to_owned(),
            reason,
        };
        let number = || match value.parse::<u64>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(wrong(format!("`{value}` is not a positive whole number"))),
        };
        Ok(match self {
            Form::Text | Form::Secret => value.to_owned(),
            Form::Catalog => catalog(value).map_err(wrong)?,
            Form::Bytes => number()?.to_string(),
            Form::Milliseconds => format!("{}ms", number()?),
        })
    }
}

/// Kinds of catalog that DuckLake has and otlake has not, by what stands before the colon.
const OTHER_CATALOGS: [(&[&str], &str); 5] = [
    (&["postgres", "postgresql"], "in PostgreSQL"),
    (&["mysql"], "in MySQL"),
    (&["md", "motherduck"], "in MotherDuck"),
    (&["quack"], "in another DuckDB"),
    (
        &["s3", "gs", "gcs", "r2", "http", "https"],
        "on another machine",
    ),
];

/// The catalog as `--catalog` takes it. DuckDB takes a word before a colon for the kind of what is attached, so a file
/// cannot be meant; what follows it may hold a password, and is not repeated.
fn catalog(value: &str) -> Result<String, String> {
    let advice =
        "write the path of a DuckDB file, duckdb:FILE or sqlite:FILE (docs/FROM-DUCKDB-OTLP.md)";
    if value == ":memory:" {
        return Err(format!(
            "the lake's catalog must outlast the server: {advice}"
        ));
    }
    let is_word = |text: &str| {
        let mut letters = text.chars();
        text.len() > 1 && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let Some((kind, rest)) = value.split_once(':').filter(|(kind, _)| is_word(kind)) else {
        return Ok(format!("duckdb:{value}"));
    };
    let kind = kind.to_ascii_lowercase();
    if ["sqlite", "duckdb"].contains(&kind.as_str()) {
        return Ok(format!("{kind}:{rest}"));
    }
    let known = OTHER_CATALOGS
        .iter()
        .find(|(kinds, _)| kinds.contains(&kind.as_str()));
    Err(match known {
        Some((_, place)) => {
            format!("`{kind}:` is a catalog {place}, which otlake does not have: {advice}")
        }
        None => format!(
            "`{kind}:` is no kind of catalog that otlake has: {advice}; a file that is called so is ./{kind}:..."
        ),
    })
}

/// What a switch says. duckdb-otlp takes what it does not know, `True` among it, for no; here nothing is guessed.
fn switch(name: &str, value: &str) -> Result<bool, ConfigError> {
    let is_one_of = |words: [&str; 4]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    match value {
        _ if is_one_of(["1", "true", "yes", "on"]) => Ok(true),
        _ if is_one_of(["0", "false", "no", "off"]) => Ok(false),
        _ => Err(ConfigError::Value {
            at: name.to_owned(),
            reason: format!(
                "`{value}` is neither yes nor no: write 1, true, yes or on, or 0, false, no or off"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auth, Config};
    use crate::lake::Catalog;

    /// As in duckdb-otlp's `.env.example`, with every variable that otlake takes.
    const ENVIRONMENT: [(&str, &str); 17] = [
        ("DUCKDB_MODE", "local-ducklake"),
        ("DUCKLAKE_NAME", "otel"),
        ("DUCKLAKE_CATALOG_PATH", "/data/ducklake/catalog.duckdb"),
        ("DUCKLAKE_DATA_PATH", "/data/ducklake/storage"),
        ("DUCKDB_OTLP_TOKEN", "dev-otlp-token-123456"),
        ("OTEL_HTTP_ADDR", "0.0.0.0:4318"),
        ("DUCKDB_SCHEMA", "telemetry"),
        ("DUCKDB_QUACK_ENABLED", "1"),
        ("DUCKDB_QUACK_ADDR", "0.0.0.0:9494"),
        ("DUCKDB_QUACK_TOKEN", "dev-quack-token-123456"),
        ("DUCKDB_OTLP_MAX_BODY_BYTES", "2097152"),
        ("DUCKDB_OTLP_MAX_BUFFERED_BYTES", "2147483648"),
        ("DUCKDB_OTLP_SEAL_TARGET_BYTES", "134217728"),
        ("DUCKDB_OTLP_SEAL_MAX_AGE_MS", "3000"),
        ("DUCKDB_OTLP_TARGET_FILE_SIZE", "268435456"),
        ("DUCKDB_OTLP_MAINTENANCE_RETENTION_MS", "600000"),
        ("DRY_RUN", "0"),
    ];

    fn load(variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        Config::load(RawSettings::default(), None, variables).map_err(|error| error.to_string())
    }

    fn with(more: &[(&'static str, &'static str)]) -> Result<Config, String> {
        let mut variables = ENVIRONMENT.to_vec();
        variables.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        variables.extend(more);
        load(&variables)
    }

    /// Scenario: the whole environment of duckdb-otlp's daemon.
    /// Guarantees: each variable has become our setting, in our units; what was taken is told, without the tokens.
    #[test]
    fn every_variable_is_taken() {
        let config = with(&[]).unwrap();
        let quack = config.quack.as_ref().unwrap();
        let catalog = Catalog::DuckDb("/data/ducklake/catalog.duckdb".into());
        assert_eq!(config.lake.catalog, catalog);
        assert_eq!(
            config.lake.data_path.to_str(),
            Some("/data/ducklake/storage")
        );
        assert_eq!(config.lake.schema, "telemetry");
        assert_eq!(config.http_listen.to_string(), "0.0.0.0:4318");
        assert_eq!(config.grpc_listen.to_string(), "127.0.0.1:4317");
        assert_eq!(quack.listen.to_string(), "0.0.0.0:9494");
        assert_eq!(quack.token.expose(), "dev-quack-token-123456");
        assert_eq!(quack.lake_name, "otel");
        assert_eq!(config.max_body_bytes, 2 << 20);
        assert_eq!(config.max_buffered_bytes, 2 << 30);
        assert_eq!(config.seal.target_bytes, 128 << 20);
        assert_eq!(config.seal.max_age.as_millis(), 3000);
        assert_eq!(config.lake.target_file_size_bytes, 256 << 20);
        assert_eq!(config.lake.snapshot_retention.as_secs(), 600);
        assert!(!config.foreign.dry_run);
        let Auth::Token(tokens) = &config.auth else {
            panic!("a token was set")
        };
        let token = tokens.token.as_ref().unwrap();
        assert_eq!(token.expose(), "dev-otlp-token-123456");

        let told = config.foreign.told().join("\n");
        for (name, _) in &ENVIRONMENT[..16] {
            let is_told = told.contains(&format!("took {name}="));
            assert_eq!(is_told, *name != "DUCKDB_QUACK_ENABLED", "{name} in {told}");
        }
        assert!(told.contains("took DUCKLAKE_NAME=otel as lake-name"));
        assert!(told.contains("took DUCKDB_OTLP_TOKEN=******** as token"));
        let effective = config.effective();
        assert!(effective.contains("# took DUCKDB_SCHEMA=telemetry as schema"));
        assert!(effective.contains("# duckdb-otlp's DUCKDB_SCHEMA"));
        for shown in [told, effective, format!("{config:?}")] {
            assert!(!shown.contains("dev-"), "{shown}");
        }
    }

    /// Scenario: settings of our own beside theirs, and two of theirs that mean the same.
    /// Guarantees: ours win, which is told; of theirs the one that wins there.
    #[test]
    fn our_own_settings_come_first() {
        let config = with(&[
            ("OTLAKE_SEAL_MAX_AGE", "7s"),
            ("OTEL_AUTH_TOKEN", "another-token-123456"),
        ])
        .unwrap();
        assert_eq!(config.seal.max_age.as_secs(), 7);
        let Auth::Token(tokens) = &config.auth else {
            panic!("a token was set")
        };
        let token = tokens.token.as_ref().unwrap();
        assert_eq!(token.expose(), "another-token-123456");
        let told = config.foreign.told();
        for line in [
            "DUCKDB_OTLP_SEAL_MAX_AGE_MS is overridden by OTLAKE_SEAL_MAX_AGE",
            "took OTEL_AUTH_TOKEN=******** as token",
            "DUCKDB_OTLP_TOKEN is overridden by OTEL_AUTH_TOKEN",
        ] {
            assert!(told.iter().any(|told| told == line), "{line} in {told:?}");
        }
        let ours = with(&[
            ("OTEL_AUTH_TOKEN", "another-token-123456"),
            ("OTLAKE_TOKEN", "our-own-token-123456"),
        ]);
        let told = ours.unwrap().foreign.told();
        for name in ["OTEL_AUTH_TOKEN", "DUCKDB_OTLP_TOKEN"] {
            let line = format!("{name} is overridden by OTLAKE_TOKEN");
            assert!(told.contains(&line), "{line} in {told:?}");
        }
    }

    /// Scenario: the same names without `DUCKDB_MODE`, and with an empty one.
    /// Guarantees: nothing is taken; those that can only be duckdb-otlp's are named.
    #[test]
    fn nothing_is_taken_without_a_mode() {
        for mode in [None, Some("")] {
            let mut variables = ENVIRONMENT[1..].to_vec();
            variables.extend(mode.map(|mode| ("DUCKDB_MODE", mode)));
            variables.retain(|(name, _)| *name != "DRY_RUN");
            variables.push(("DRY_RUN", "1"));
            let config = load(&variables).unwrap();
            assert!(config.quack.is_none() && !config.foreign.dry_run);
            assert_eq!(config.lake.schema, "main");
            assert_eq!(config.http_listen.to_string(), "127.0.0.1:4318");
            let told = config.foreign.told();
            assert_eq!(told.len(), 1);
            assert!(told[0].starts_with("not taken, since DUCKDB_MODE is not set: DUCKDB_OTLP_"));
            assert!(!told[0].contains("DUCKDB_SCHEMA"));
        }
        assert!(load(&[]).unwrap().foreign.told().is_empty());
    }

    /// Scenario: modes that otlake does not have, known and unknown.
    /// Guarantees: each is refused, with what it would need and what to do.
    #[test]
    fn other_modes_are_refused() {
        for (mode, why) in [
            ("r2-neon-ducklake", "object store"),
            ("cloudflare", "Iceberg"),
            ("parquet", "without a catalog"),
            ("motherduck", "MotherDuck"),
            ("MotherDuck", "MotherDuck"),
            ("Local-DuckLake", "is written in small letters"),
            ("DUCKLAKE-LOCAL", "is written in small letters"),
            ("local", "is no mode"),
        ] {
            let error = load(&[("DUCKDB_MODE", mode)]).unwrap_err();
            assert!(error.starts_with("DUCKDB_MODE: "), "{error}");
            assert!(error.contains(mode) && error.contains(why), "{error}");
            let accepted = "Set DUCKDB_MODE=local-ducklake (or ducklake-local, which is the same)";
            assert!(error.contains(accepted), "{error}");
        }
        assert!(load(&[("DUCKDB_MODE", "ducklake-local")]).is_ok());
    }

    /// Scenario: values of the wrong form, or that contradict each other.
    /// Guarantees: the error names the variable, and shows no token.
    #[test]
    fn wrong_values_are_named_by_their_variable() {
        for (name, value) in [
            ("DUCKDB_OTLP_SEAL_MAX_AGE_MS", "5s"),
            ("DUCKDB_OTLP_SEAL_MAX_AGE_MS", "0"),
            ("DUCKDB_OTLP_MAX_BODY_BYTES", "16MiB"),
            ("DUCKDB_OTLP_TARGET_FILE_SIZE", "-1"),
            ("DUCKDB_OTLP_SEAL_TARGET_BYTES", "2147483648"),
            ("OTEL_HTTP_ADDR", "4318"),
            ("DUCKLAKE_NAME", "memory"),
            ("DUCKLAKE_NAME", "my lake"),
            ("DUCKDB_QUACK_ADDR", "nowhere"),
            ("DUCKDB_QUACK_TOKEN", "short-secret"),
            ("DUCKDB_QUACK_TOKEN", "dev-otlp-token-123456"),
            ("DUCKLAKE_DATA_PATH", "s3://bucket/lake"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name), "{error}");
            assert!(
                !error.contains("secret") && !error.contains("dev-"),
                "{error}"
            );
        }
        let error = with(&[("DUCKDB_QUACK_TOKEN", "")]).unwrap_err();
        assert!(
            error.starts_with("DUCKDB_QUACK_ADDR needs a token"),
            "{error}"
        );
        let error = with(&[("DUCKDB_OTLP_TOKEN", "")]).unwrap_err();
        assert!(
            error.contains("set a token (DUCKDB_OTLP_TOKEN, 16 char"),
            "{error}"
        );
    }

    /// Scenario: catalogs as DuckLake takes them: paths, files with their kind, and what is no file.
    /// Guarantees: files are taken, those with a colon in their name too; the others are refused with what they are and what to
    /// write, and nothing of what follows the kind is shown.
    #[test]
    fn catalogs_that_are_no_files_are_refused() {
        for (value, catalog) in [
            ("/d/catalog.ducklake", "duckdb:/d/catalog.ducklake"),
            ("duckdb:/d/c", "duckdb:/d/c"),
            ("sqlite:/d/c.sqlite", "sqlite:/d/c.sqlite"),
            ("SQLite:/d/c", "sqlite:/d/c"),
            ("/d/my:catalog", "duckdb:/d/my:catalog"),
        ] {
            let config = with(&[("DUCKLAKE_CATALOG_PATH", value)]).unwrap();
            assert_eq!(config.lake.catalog.to_string(), catalog);
        }
        for (value, why) in [
            (
                "postgres:dbname=otel password=secret",
                "a catalog in PostgreSQL",
            ),
            (
                "postgresql://me:secret@host/otel",
                "a catalog in PostgreSQL",
            ),
            ("mysql:db=otel password=secret", "a catalog in MySQL"),
            ("md:secret", "a catalog in MotherDuck"),
            ("s3://secret/catalog", "on another machine"),
            ("mssql:secret", "no kind of catalog"),
            (":memory:", "must outlast the server"),
            ("sqlite:", "sqlite:<file>"),
        ] {
            let error = with(&[("DUCKLAKE_CATALOG_PATH", value)]).unwrap_err();
            assert!(
                error.starts_with("DUCKLAKE_CATALOG_PATH: ") && error.contains(why),
                "{error}"
            );
            assert!(
                error.contains("write ") && !error.contains("secret"),
                "{error}"
            );
        }
        let error =
            with(&[("OTLAKE_CATALOG", "postgres:dbname=otel password=secret")]).unwrap_err();
        assert!(
            error.starts_with("OTLAKE_CATALOG: ") && !error.contains("secret"),
            "{error}"
        );
    }

    /// Scenario: both switches with every word for yes and no, in small and capital letters, and with others.
    /// Guarantees: each is taken for what it says; what says neither is refused, by the variable's name.
    #[test]
    fn switches_are_yes_or_no() {
        for (words, is_on) in [
            (["1", "true", "yes", "on", "True", "ON"], true),
            (["0", "false", "no", "off", "False", "OFF"], false),
        ] {
            for word in words {
                let config = with(&[("DUCKDB_QUACK_ENABLED", word), ("DRY_RUN", word)]).unwrap();
                assert_eq!(
                    (config.quack.is_some(), config.foreign.dry_run),
                    (is_on, is_on),
                    "{word}"
                );
            }
        }
        for name in ["DUCKDB_QUACK_ENABLED", "DRY_RUN"] {
            for word in ["maybe", "2", "y", " 1"] {
                let error = with(&[(name, word)]).unwrap_err();
                assert!(
                    error.starts_with(&format!("{name}: `{word}` is neither yes nor no")),
                    "{error}"
                );
            }
        }
    }

    /// Scenario: quack switched off, on without an address, a dry run, and variables that otlake has nothing for.
    /// Guarantees: each does what it says, and what is left alone is named.
    #[test]
    fn switches_switch_and_the_rest_is_named() {
        let off = with(&[("DUCKDB_QUACK_ENABLED", "0")]).unwrap();
        assert!(off.quack.is_none());
        let told = off.foreign.told().join("\n");
        assert!(
            told.contains("quack is off without DUCKDB_QUACK_ENABLED=1: DUCKDB_QUACK_ADDR, DUCKDB_QUACK_ENABLED, DUCKDB_QUACK_TOKEN"),
            "{told}"
        );
        let on = with(&[("DUCKDB_QUACK_ENABLED", "true"), ("DUCKDB_QUACK_ADDR", "")]).unwrap();
        let listen = on.quack.as_ref().unwrap().listen;
        assert_eq!(listen.to_string(), "127.0.0.1:9494");
        let told = on.foreign.told().join("\n");
        assert!(
            told.contains("took DUCKDB_QUACK_ENABLED=1 as quack-listen"),
            "{told}"
        );
        let dry = with(&[("DRY_RUN", "yes"), ("DUCKDB_OTLP_HTTP_THREADS", "4")]).unwrap();
        assert!(dry.foreign.dry_run);
        let told = dry.foreign.told().join("\n");
        assert!(told.contains("took DRY_RUN as --check"), "{told}");
        assert!(
            told.contains("nothing like it: DUCKDB_OTLP_HTTP_THREADS"),
            "{told}"
        );
        let elsewhere = with(&[("DUCKLAKE_CATALOG_PATH", "")]).unwrap();
        let told = elsewhere.foreign.told().join("\n");
        assert!(told.contains("DUCKLAKE_CATALOG_PATH is not set"), "{told}");
    }
}
