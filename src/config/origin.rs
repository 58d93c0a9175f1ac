//! Where a setting came from, for messages that name the place to change.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where one setting came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A flag on the command line.
    Flag,
    /// An environment variable, by name.
    Environment(String),
    /// The settings file.
    File(PathBuf),
    /// A variable of duckdb-otlp's, by name.
    Foreign(&'static str),
    /// Nobody set it.
    #[default]
    Default,
    /// Nobody set it, and its default follows from another setting, by key.
    DefaultFrom(&'static str),
}

/// The origin of each setting by its key, such as `grpc-listen`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    /// Where the setting came from; [`Origin::Default`] for one that was never noted.
    #[must_use]
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// Whether anybody set it.
    #[must_use]
    pub fn is_set(&self, key: &str) -> bool {
        !matches!(self.of(key), Origin::Default | Origin::DefaultFrom(_))
    }

    /// The setting as the user wrote it: `--grpc-listen`, `OTLAKE_GRPC_LISTEN` or ``"`grpc-listen` in otlake.toml"``.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        match self.of(key) {
            Origin::Flag | Origin::Default | Origin::DefaultFrom(_) => format!("--{key}"),
            Origin::Environment(name) => name,
            Origin::File(path) => format!("`{key}` in {}", path.display()),
            Origin::Foreign(name) => name.to_owned(),
        }
    }

    /// A few words for the comment beside the setting in the effective settings.
    pub(super) fn comment(&self, key: &str) -> String {
        match self.of(key) {
            Origin::Flag => format!("flag --{key}"),
            Origin::Environment(name) => format!("environment {name}"),
            // Escaped: a line break in the path would end the comment.
            Origin::File(path) => format!("file {}", path.display().to_string().escape_debug()),
            Origin::Foreign(name) => format!("duckdb-otlp's {name}"),
            Origin::Default => "default".to_owned(),
            Origin::DefaultFrom(other) => format!("default that follows from {other}"),
        }
    }

    pub(super) fn note(&mut self, key: &'static str, origin: Origin) {
        self.0.insert(key, origin);
    }
}
