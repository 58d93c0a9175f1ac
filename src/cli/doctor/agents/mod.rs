//! The settings of coding agents, where they are on this machine.

mod claude;
mod codex;
mod gemini;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub(super) use self::claude::claude;
pub(super) use self::codex::codex;
pub(super) use self::gemini::gemini;
use super::environment::Variables;
use super::exporter::Exporter;
use super::report::Section;

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

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
