//! The tokens that are taken now, and whose each is.

use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::tokens::{self, NamedToken, Role, Roles, TokenFileError};
use crate::config::{Secret, Tokens};
use crate::telemetry::{Counters, TokenUse};

/// What logs and counters call the token of `--token`.
const OWN_NAME: &str = "--token";

/// The longest token there can be, bytes: a longer text is none.
const GIVEN_BYTES_MAX: usize = 1024;

/// All tokens. Shared by the gates and by whoever looks after the token file.
///
/// Tokens are kept as digests alone: what is compared has the same length whatever was given, every entry is compared,
/// and the time that takes tells nothing of any token.
#[derive(Debug)]
pub struct TokenBook {
    source: Tokens,
    counters: Arc<Counters>,
    entries: RwLock<Arc<[Entry]>>,
}

#[derive(Debug)]
struct Entry {
    digest: [u8; 32],
    roles: Roles,
    holder: Arc<TokenUse>,
}

/// A token that was recognised.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Whose it is.
    pub holder: Arc<TokenUse>,
    roles: Roles,
}

impl Pass {
    /// Whether the token is for this.
    #[must_use]
    pub fn allows(&self, role: Role) -> bool {
        self.roles.allow(role)
    }

    /// What the token is for.
    #[must_use]
    pub fn roles(&self) -> Roles {
        self.roles
    }
}

impl TokenBook {
    /// The tokens of the settings and, if they name one, of their file, as [`TokenBook::read`] had it.
    #[must_use]
    pub fn new(source: Tokens, named: &[NamedToken], counters: &Arc<Counters>) -> TokenBook {
        let book = TokenBook {
            source,
            counters: Arc::clone(counters),
            entries: RwLock::new(Arc::new([])),
        };
        book.replace(named);
        book
    }

    /// Reads the token file of the settings; without one there are no named tokens.
    ///
    /// # Errors
    /// [`TokenFileError`] for the first thing that is wrong with it.
    pub fn read(source: &Tokens) -> Result<Vec<NamedToken>, TokenFileError> {
        let Some(path) = &source.file else {
            return Ok(Vec::new());
        };
        let named = tokens::read(path)?;
        let quack = source.quack.as_ref().map(Secret::expose);
        match named.iter().find(|it| Some(it.token.expose()) == quack) {
            None => Ok(named),
            Some(same) => Err(TokenFileError::Quack {
                path: path.clone(),
                name: same.name.clone(),
            }),
        }
    }

    /// Where the tokens come from.
    #[must_use]
    pub fn source(&self) -> &Tokens {
        &self.source
    }

    /// Takes these named tokens from now on, and none of the earlier ones. A name's counts go on.
    pub fn replace(&self, named: &[NamedToken]) {
        let own = self.source.token.as_ref();
        let own = own.map(|token| (OWN_NAME, Roles::ALL, token));
        let named = named
            .iter()
            .map(|named| (named.name.as_str(), named.roles, &named.token));
        let entries = own
            .into_iter()
            .chain(named)
            .map(|(name, roles, token)| Entry {
                digest: digest(token.expose().as_bytes()),
                roles,
                holder: self.counters.token(name),
            });
        let entries: Arc<[Entry]> = entries.collect();
        let mut current = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        *current = entries;
    }

    /// Whose token this is.
    #[must_use]
    pub fn recognise(&self, given: &[u8]) -> Option<Pass> {
        // The bound is in the documentation: nothing is told by it.
        if given.len() > GIVEN_BYTES_MAX {
            return None;
        }
        let given = digest(given);
        let entries = Arc::clone(&self.entries.read().unwrap_or_else(PoisonError::into_inner));
        let mut found = None;
        for entry in entries.iter() {
            if entry.digest.ct_eq(&given).into() {
                found = Some(entry);
            }
        }
        found.map(|entry| Pass {
            holder: Arc::clone(&entry.holder),
            roles: entry.roles,
        })
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, token: &str) -> NamedToken {
        NamedToken {
            name: name.to_owned(),
            roles: Roles::ALL,
            token: Secret::from(token.to_owned()),
        }
    }

    /// Scenario: texts that are a token, part of one, more than one, or nothing; then other tokens under the same names.
    /// Guarantees: a token is recognised whole or not at all, by its name; replaced tokens are not taken any more, and
    /// the token of the settings stays.
    #[test]
    fn tokens_are_recognised_whole_and_by_name() {
        let source = Tokens {
            token: Some(Secret::from("of-the-settings!".to_owned())),
            file: None,
            quack: None,
        };
        let counters = Arc::new(Counters::default());
        let tokens = [
            named("a", "0123456789abcdef"),
            named("b", "fedcba9876543210"),
        ];
        let book = TokenBook::new(source, &tokens, &counters);
        let name = |given: &str| {
            let pass = book.recognise(given.as_bytes());
            pass.map(|pass| pass.holder.name().to_owned())
        };
        assert_eq!(name("0123456789abcdef").as_deref(), Some("a"));
        assert_eq!(name("fedcba9876543210").as_deref(), Some("b"));
        assert_eq!(name("of-the-settings!").as_deref(), Some("--token"));
        for none in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            &"0".repeat(2000),
        ] {
            assert_eq!(name(none), None, "{none}");
        }
        book.replace(&[named("b", "0123456789abcdef")]);
        assert_eq!(name("0123456789abcdef").as_deref(), Some("b"));
        assert_eq!(name("fedcba9876543210"), None);
        assert_eq!(name("of-the-settings!").as_deref(), Some("--token"));
    }
}
