//! How a command that failed says so.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::daemon::StartError;

/// Exit code for wrong usage or settings, the same as clap's.
pub(super) const USAGE: u8 = 2;

/// What the user wrote cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// Writes the error to stderr, in one line with its causes; 2 for wrong usage or settings, else 1.
#[must_use]
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", one_line(error));
    code(error)
}

/// 2 for wrong usage or settings, else 1.
#[must_use]
pub(super) fn code(error: &anyhow::Error) -> ExitCode {
    let is_setting = matches!(error.downcast_ref(), Some(StartError::Secrets(_)));
    if is_setting || error.is::<UsageError>() || error.is::<ConfigError>() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// The error with the causes that its own text does not tell already.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    /// Scenario: an error whose text has its cause in it, below one that has not.
    /// Guarantees: each cause is told once.
    #[test]
    fn causes_are_told_once() {
        let cause = std::io::Error::other("disk full");
        let inner = anyhow::Error::new(cause).context("cannot write: disk full");
        let error = Err::<(), _>(inner).context("cannot stop").unwrap_err();
        assert_eq!(one_line(&error), "cannot stop: cannot write: disk full");
    }
}
