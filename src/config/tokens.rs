//! The token file: several tokens, each with a name and what it is for.
//!
//! ```text
//! # NAME    ROLES          TOKEN
//! agents    ingest         6f1d0c...
//! grafana   query          91ab44...
//! operator  ingest,admin   c07e2b...
//! ```
//! A line each; `#` begins a comment, at the start of a line or after a blank.

use std::fmt;
use std::path::{Path, PathBuf};

use super::secret_file;
use super::validate::check_token;
use super::value::Secret;

/// Tokens of one file. Each request is compared with all of them.
pub const TOKENS_MAX: usize = 1000;

/// The longest name of a token, characters.
const NAME_CHARS_MAX: usize = 64;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To send telemetry.
    Ingest,
    /// To see status and seals, and to flush.
    Query,
    /// To stop the server; what is [`Role::Query`]'s too.
    Admin,
}

impl Role {
    const ALL: [Role; 3] = [Role::Ingest, Role::Query, Role::Admin];

    /// The role in one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Ingest => "ingest",
            Role::Query => "query",
            Role::Admin => "admin",
        }
    }
}

/// What a token may be used for: one role or more. Prints as in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    ingest: bool,
    query: bool,
    admin: bool,
}

impl Roles {
    /// Everything: the roles of `--token`.
    pub const ALL: Roles = Roles {
        ingest: true,
        query: true,
        admin: true,
    };

    /// Whether a role is among them, or is part of one.
    #[must_use]
    pub fn allow(self, role: Role) -> bool {
        match role {
            Role::Ingest => self.ingest,
            Role::Query => self.query || self.admin,
            Role::Admin => self.admin,
        }
    }

    fn parse(text: &str) -> Result<Roles, String> {
        let mut roles = Roles::default();
        for word in text.split(',') {
            match word {
                "ingest" => roles.ingest = true,
                "query" => roles.query = true,
                "admin" => roles.admin = true,
                // The word may be a token, where the columns are mixed up: it is not shown.
                _ => return Err(
                    "the second column is not a list of roles: write ingest, query or admin, joined by commas without blanks"
                        .to_owned(),
                ),
            }
        }
        Ok(roles)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |role: &Role| match role {
            Role::Ingest => self.ingest,
            Role::Query => self.query,
            Role::Admin => self.admin,
        };
        let names: Vec<&str> = Role::ALL.into_iter().filter(has).map(Role::name).collect();
        f.write_str(&names.join(","))
    }
}

/// One token.
#[derive(Clone, Debug)]
pub struct NamedToken {
    /// What logs and counters call it.
    pub name: String,
    /// What it is for.
    pub roles: Roles,
    /// The token itself.
    pub token: Secret,
}

/// Why a token file is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("cannot read the token file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not as it should be.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what to write; never a token.
        reason: String,
    },
    /// A token is quack's too.
    #[error(
        "the token {name} in {} is quack's too: who has it could read the lake and stop the server; make another token",
        path.display()
    )]
    Quack {
        /// The file.
        path: PathBuf,
        /// What the token is called there.
        name: String,
    },
    /// Nobody would be let in.
    #[error("the token file {} holds no token: write a line NAME ROLES TOKEN", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a token file, and warns when every user of the machine can read it.
///
/// # Errors
/// [`TokenFileError`] for the first thing that is wrong; never repeats a token.
pub fn read(path: &Path) -> Result<Vec<NamedToken>, TokenFileError> {
    let text = secret_file::read(path)
        .and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| std::io::Error::other("the file is not UTF-8"))
        })
        .map_err(|source| TokenFileError::Read {
            path: path.to_owned(),
            source,
        })?;
    let tokens = parse(path, &text)?;
    secret_file::warn_if_open(path, "the tokens");
    Ok(tokens)
}

fn parse(path: &Path, text: &str) -> Result<Vec<NamedToken>, TokenFileError> {
    let mut tokens: Vec<NamedToken> = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let wrong = |reason: String| TokenFileError::Line {
            path: path.to_owned(),
            line: place + 1,
            reason,
        };
        let Some(token) = parse_line(line).map_err(wrong)? else {
            continue;
        };
        if tokens.iter().any(|before| before.name == token.name) {
            let name = token.name;
            return Err(wrong(format!("there is a token `{name}` already")));
        }
        let is_same = |before: &&NamedToken| before.token.expose() == token.token.expose();
        if let Some(before) = tokens.iter().find(is_same) {
            let (name, before) = (token.name, &before.name);
            return Err(wrong(format!("`{name}` has the same token as `{before}`")));
        }
        if tokens.len() == TOKENS_MAX {
            return Err(wrong(format!("there are more than {TOKENS_MAX} tokens")));
        }
        tokens.push(token);
    }
    if tokens.is_empty() {
        let path = path.to_owned();
        return Err(TokenFileError::Empty { path });
    }
    Ok(tokens)
}

/// One line's token; `None` for an empty one.
fn parse_line(line: &str) -> Result<Option<NamedToken>, String> {
    let mut words = line
        .split_whitespace()
        .take_while(|word| !word.starts_with('#'));
    let Some(name) = words.next() else {
        return Ok(None);
    };
    let (Some(roles), Some(token), None) = (words.next(), words.next(), words.next()) else {
        return Err(
            "a line has three words, NAME ROLES TOKEN, such as `agents ingest 0123456789abcdef`"
                .to_owned(),
        );
    };
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.len() > NAME_CHARS_MAX || !name.chars().all(is_name_char) {
        return Err(format!(
            "the name has up to {NAME_CHARS_MAX} letters, digits, dots, dashes and underscores"
        ));
    }
    let roles = Roles::parse(roles)?;
    let token = Secret::from(token.to_owned());
    check_token(&token)?;
    Ok(Some(NamedToken {
        name: name.to_owned(),
        roles,
        token,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn parse(text: &str) -> Result<Vec<NamedToken>, String> {
        super::parse(Path::new("tokens"), text).map_err(|error| error.to_string())
    }

    /// Scenario: a file with comments, blank lines, tabs and each kind of roles.
    /// Guarantees: each line is one token; admin's includes query's, and nothing else includes another's.
    #[test]
    fn each_line_is_a_token() {
        let text = format!(
            "# who\tmay what\n\n  agents ingest\t{TOKEN}1 # laptops\nboard query {TOKEN}2\r\nops admin {TOKEN}#3\nall query,admin,ingest {TOKEN}4\n"
        );
        let tokens = parse(&text).unwrap();
        let told: Vec<_> = tokens
            .iter()
            .map(|token| (token.name.as_str(), token.roles.to_string()))
            .collect();
        let roles = ["ingest", "query", "admin", "ingest,query,admin"].map(str::to_owned);
        let names = ["agents", "board", "ops", "all"];
        assert_eq!(told, names.into_iter().zip(roles).collect::<Vec<_>>());
        assert_eq!(tokens[2].token.expose(), format!("{TOKEN}#3"));
        let allowed: Vec<_> = tokens
            .iter()
            .map(|token| Role::ALL.map(|role| token.roles.allow(role)))
            .collect();
        assert_eq!(
            allowed,
            [
                [true, false, false],
                [false, true, false],
                [false, true, true],
                [true, true, true]
            ]
        );
        assert_eq!(tokens[3].roles, Roles::ALL);
    }

    /// Scenario: lines that are not right, each after a right one.
    /// Guarantees: the error names file and line and what to write, and repeats no word that may be a token.
    #[test]
    fn a_wrong_line_is_named_without_its_token() {
        for (line, part) in [
            (format!("b ingest {TOKEN}2 {TOKEN}"), "three words"),
            (format!("b {TOKEN}2"), "three words"),
            (format!("b {TOKEN}2 ingest"), "list of roles"),
            (format!("b ingest,{TOKEN} {TOKEN}2"), "list of roles"),
            (format!("b/{TOKEN} ingest {TOKEN}2"), "the name has"),
            (
                "b ingest ${TOKEN_0123456789abcdef}".to_owned(),
                "not expanded",
            ),
            ("b ingest 0123456789abcde".to_owned(), "15 characters"),
            (format!("a ingest {TOKEN}2"), "`a` already"),
            (format!("b query {TOKEN}1"), "the same token as `a`"),
        ] {
            let error = parse(&format!("a ingest {TOKEN}1\n{line}\n")).unwrap_err();
            assert!(error.starts_with("tokens:2: "), "{error}");
            assert!(error.contains(part), "{error}");
            // The example in one message is no token of anybody's.
            let example = format!("`agents ingest {TOKEN}`");
            assert!(!error.replace(&example, "").contains(TOKEN), "{error}");
        }
        assert!(parse("# nobody\n").unwrap_err().contains("holds no token"));
    }
}
