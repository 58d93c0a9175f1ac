//! Why settings are refused.

use std::fmt;
use std::path::PathBuf;

/// The first thing wrong with the settings: always the user's to change, never worth a retry.
///
/// `at` is the setting as the user wrote it: a flag, a variable, or a key and its file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The settings file cannot be read.
    #[error("cannot read the settings file {}: {source}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The settings file is not TOML, or a value in it has the wrong form.
    #[error("{}:{line}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong; without the line's text, which may hold the token.
        reason: String,
    },
    /// The settings file has a key that is no setting.
    #[error("{}: unknown setting `{key}`{suggestion}; `otlake serve --help` lists the settings", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key as written.
        key: String,
        /// The nearest setting.
        suggestion: Suggestion,
    },
    /// The environment has an `OTLAKE_*` variable that no command knows.
    #[error(
        "unknown environment variable {name}{suggestion}; `otlake serve --help` lists the settings"
    )]
    UnknownVariable {
        /// The variable's name.
        name: String,
        /// The nearest variable.
        suggestion: Suggestion,
    },
    /// A value has the wrong form.
    #[error("{at}: {reason}")]
    Value {
        /// Where it was set.
        at: String,
        /// What is wrong and which form is right.
        reason: String,
    },
    /// A value is outside its range.
    #[error("{at} is {value}: it can be from {min} to {max}")]
    OutOfRange {
        /// Where it was set.
        at: String,
        /// The value.
        value: String,
        /// The least allowed.
        min: String,
        /// The most allowed.
        max: String,
    },
    /// Two settings cannot both be so.
    #[error("{0}")]
    Conflict(String),
}

/// The nearest known name, if one is near: prints as `, did you mean ...?`, or as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggestion(pub Option<String>);

impl Suggestion {
    /// The candidate with the fewest single-letter changes, if those are at most a third of the word.
    #[must_use]
    pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Suggestion {
        let near_max = word.chars().count().div_ceil(3);
        let nearest = candidates
            .into_iter()
            .map(|candidate| (edits(word, candidate), candidate))
            .min()
            .filter(|(edits, _)| *edits <= near_max);
        Suggestion(nearest.map(|(_, candidate)| candidate.to_owned()))
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(f, ", did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// Letters to insert, delete or replace until `from` is `to` (Levenshtein), one row of the table at a time.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let above = *cell;
            let replaced = diagonal + usize::from(letter != *other);
            left = replaced.min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}
