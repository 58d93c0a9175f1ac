//! Reads the three sources, each into its own [`RawSettings`], and picks from them in order of precedence.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde::de::value::{Error as TextError, MapDeserializer};

use super::duckdb_otlp::{self, Foreign};
use super::error::{ConfigError, Suggestion};
use super::origin::{Origin, Origins};
use super::raw::RawSettings;

const PREFIX: &str = "OTLAKE_";
const CONFIG_VARIABLE: &str = "OTLAKE_CONFIG";
const RUST_LOG: &str = "RUST_LOG";

/// Variables beside those of the settings that otlake's commands read.
pub const OTHER_VARIABLES: [&str; 7] = [
    CONFIG_VARIABLE,
    "OTLAKE_CA",
    "OTLAKE_CERT",
    "OTLAKE_KEY",
    "OTLAKE_ENDPOINT",
    "OTLAKE_SEND_ENDPOINT",
    "OTLAKE_BIN",
];

/// The environment variable of a setting: `grpc-listen` is `OTLAKE_GRPC_LISTEN`.
#[must_use]
pub fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('-', "_").to_ascii_uppercase())
}

/// The key of every setting, as clap derived them from the fields' names.
pub(super) fn keys() -> Vec<String> {
    RawSettings::augment_args(clap::Command::new("serve"))
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect()
}

/// What each source sets, and a note of which source each value was taken from.
pub(super) struct Sources {
    flags: RawSettings,
    environment: RawSettings,
    file: RawSettings,
    file_path: PathBuf,
    /// What duckdb-otlp's variables set, below everything else.
    foreign: RawSettings,
    /// Those variables.
    pub(super) foreign_variables: Foreign,
    /// `RUST_LOG`, for the log level when no source of ours sets it.
    pub(super) rust_log: Option<String>,
    pub(super) origins: Origins,
}

impl Sources {
    /// Takes the setting from the first source that has it, and notes which; `None` when nobody set it.
    pub(super) fn pick<T>(
        &mut self,
        key: &'static str,
        take: impl Fn(&mut RawSettings) -> Option<T>,
    ) -> Option<T> {
        let (value, origin) = if let Some(value) = take(&mut self.flags) {
            (value, Origin::Flag)
        } else if let Some(value) = take(&mut self.environment) {
            (value, Origin::Environment(variable_name(key)))
        } else if let Some(value) = take(&mut self.file) {
            (value, Origin::File(self.file_path.clone()))
        } else {
            let value = take(&mut self.foreign)?;
            (value, self.foreign_variables.origin(key))
        };
        self.origins.note(key, origin);
        Some(value)
    }

    /// An error about the setting's form that names where it was set.
    pub(super) fn bad_value(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            at: self.origins.place(key),
            reason: reason.into(),
        }
    }
}

/// Reads the environment, then the file it or `config_file` names.
pub(super) fn gather(
    flags: RawSettings,
    config_file: Option<PathBuf>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Sources, ConfigError> {
    let variables: Vec<(OsString, OsString)> = variables.into_iter().collect();
    let (foreign, foreign_variables) = duckdb_otlp::read(&variables)?;
    let environment = Environment::read(variables)?;
    let (file, file_path) = match config_file.or(environment.config_file) {
        Some(path) => (read_file(&path)?, path),
        None => (RawSettings::default(), PathBuf::new()),
    };
    Ok(Sources {
        flags,
        environment: environment.settings,
        file,
        file_path,
        foreign,
        foreign_variables,
        rust_log: environment.rust_log,
        origins: Origins::default(),
    })
}

#[derive(Default)]
struct Environment {
    settings: RawSettings,
    config_file: Option<PathBuf>,
    rust_log: Option<String>,
}

impl Environment {
    fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Environment, ConfigError> {
        let keys = keys();
        let mut found = Vec::new();
        let mut environment = Environment::default();
        for (name, value) in variables {
            // A name that is not UTF-8 is none of ours.
            let Some(name) = name.to_str() else { continue };
            if name == RUST_LOG {
                environment.rust_log = value.into_string().ok().filter(|text| !text.is_empty());
            } else if name == CONFIG_VARIABLE {
                environment.config_file = Some(PathBuf::from(value));
            } else if name.starts_with(PREFIX)
                && !OTHER_VARIABLES.contains(&name)
                && !is_service_link(name, &value)
            {
                let Some(key) = keys.iter().find(|key| variable_name(key) == name) else {
                    return Err(unknown_variable(name, &keys));
                };
                found.push((key.as_str(), variable_text(name, value)?));
            }
        }
        environment.settings = settings_of(&found, variable_name)?;
        Ok(environment)
    }
}

/// The settings of variables, by key; `name` is how the user knows a key.
pub(super) fn settings_of(
    found: &[(&str, String)],
    name: impl Fn(&str) -> String,
) -> Result<RawSettings, ConfigError> {
    // One by one first, because only so an error can name its variable.
    for (key, value) in found {
        settings_from(&[(*key, value.clone())]).map_err(|error| ConfigError::Value {
            at: name(key),
            reason: error.to_string(),
        })?;
    }
    settings_from(found).map_err(|error| ConfigError::Value {
        at: "environment".to_owned(),
        reason: error.to_string(),
    })
}

fn settings_from(pairs: &[(&str, String)]) -> Result<RawSettings, TextError> {
    RawSettings::deserialize(MapDeserializer::new(
        pairs.iter().map(|(key, value)| (*key, value.as_str())),
    ))
}

pub(super) fn variable_text(name: &str, value: OsString) -> Result<String, ConfigError> {
    value.into_string().map_err(|_| ConfigError::Value {
        at: name.to_owned(),
        reason: "the value is not UTF-8".to_owned(),
    })
}

fn unknown_variable(name: &str, keys: &[String]) -> ConfigError {
    let mut known: Vec<String> = keys.iter().map(|key| variable_name(key)).collect();
    known.extend(OTHER_VARIABLES.map(str::to_owned));
    ConfigError::UnknownVariable {
        name: name.to_owned(),
        // Without the prefix that all share, which would make everything look near.
        suggestion: Suggestion(
            Suggestion::nearest(
                name.trim_start_matches(PREFIX),
                known.iter().map(|known| known.trim_start_matches(PREFIX)),
            )
            .0
            .map(|nearest| format!("{PREFIX}{nearest}")),
        ),
    }
}

/// Whether the variable is one of those Kubernetes puts into every container for a service called `otlake` or
/// `otlake-...`: nobody typed it, so it is no mistake.
///
/// Source: Kubernetes, "Discovering services", environment variables.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let is_url = value
        .to_str()
        .is_some_and(|value| value.starts_with("tcp://") || value.starts_with("udp://"));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_url)
        || name.contains("_TCP")
        || name.contains("_UDP")
}

fn read_file(path: &Path) -> Result<RawSettings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::ReadFile {
        path: path.to_owned(),
        source,
    })?;
    parse_file(path, &text)
}

pub(super) fn parse_file(path: &Path, text: &str) -> Result<RawSettings, ConfigError> {
    // The error's own text shows the line it is about, and that line may hold the token.
    let in_file = |error: toml::de::Error| ConfigError::File {
        path: path.to_owned(),
        line: line_at(text, error.span().map_or(0, |span| span.start)),
        reason: error.message().trim().to_owned(),
    };
    let table: toml::Table = text.parse().map_err(in_file)?;
    let keys = keys();
    if let Some(key) = table.keys().find(|key| !keys.contains(key)) {
        return Err(ConfigError::UnknownKey {
            path: path.to_owned(),
            key: key.clone(),
            suggestion: Suggestion::nearest(key, keys.iter().map(String::as_str)),
        });
    }
    toml::from_str(text).map_err(in_file)
}

/// The line, from 1, of a byte of the text.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}
