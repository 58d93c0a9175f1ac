//! Who may send: the token and the browser's origin, checked before a body is read.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};

use super::refusal::Refusal;
use super::tokens::{Pass, TokenBook};
use crate::config::CorsOrigins;
use crate::config::tokens::Role;
use crate::telemetry::{Reason, TokenUse};

/// The header that carries the bare token, for clients that cannot set `authorization`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Admits requests by their headers.
#[derive(Clone, Debug)]
pub struct Gate {
    tokens: Option<Arc<TokenBook>>,
    cors_origins: CorsOrigins,
}

impl Gate {
    /// A gate that asks for one of these tokens; without any it asks for none.
    #[must_use]
    pub fn new(tokens: Option<Arc<TokenBook>>, cors_origins: CorsOrigins) -> Gate {
        Gate {
            tokens,
            cors_origins,
        }
    }

    /// Whether a token is asked for.
    #[must_use]
    pub fn wants_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// Refuses browser requests from pages that were not allowed to send: an open loopback port is reachable from
    /// every page its user visits.
    ///
    /// # Errors
    /// [`Refusal`] when the request has an `Origin` that is not allowed.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(());
        };
        if origin
            .to_str()
            .is_ok_and(|origin| self.cors_origins.allows(origin))
        {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::ForbiddenOrigin,
            "requests from this browser origin are not allowed; start otlake with --cors-origin to allow it",
        ))
    }

    /// Whether a token is asked for and the request has none at all: where it may still come in another way.
    #[must_use]
    pub fn lacks_token(&self, headers: &HeaderMap) -> bool {
        self.wants_token() && given_token(headers).is_none()
    }

    /// Checks that a request may send telemetry; says whose token it has.
    ///
    /// # Errors
    /// As [`Gate::pass`] and [`permit`].
    pub fn check_token(&self, headers: &HeaderMap) -> Result<Option<Arc<TokenUse>>, Refusal> {
        let Some(pass) = self.pass(headers)? else {
            return Ok(None);
        };
        permit(&pass, Role::Ingest)?;
        Ok(Some(pass.holder))
    }

    /// Recognises the token, in constant time; `None` where none is asked for.
    ///
    /// # Errors
    /// [`Refusal`] when it is missing or wrong; the message never repeats it.
    pub fn pass(&self, headers: &HeaderMap) -> Result<Option<Pass>, Refusal> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        let Some(given) = given_token(headers) else {
            return Err(Refusal::new(
                Reason::Unauthenticated,
                "a token is needed: send it as 'authorization: Bearer TOKEN' or 'x-api-key: TOKEN'",
            ));
        };
        if let Some(pass) = tokens.recognise(given) {
            return Ok(Some(pass));
        }
        Err(Refusal::new(
            Reason::Unauthenticated,
            if given.starts_with(b"${") {
                "the token is a literal ${...}: the client did not expand its variable"
            } else {
                "the token is wrong"
            },
        ))
    }
}

/// Checks that a token is for this.
///
/// # Errors
/// [`Refusal`] that names the token and what it is for.
pub fn permit(pass: &Pass, role: Role) -> Result<(), Refusal> {
    if pass.allows(role) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::NotPermitted,
        format!(
            "the token {} is for {}, and this needs one for {}",
            pass.holder.name(),
            pass.roles(),
            role.name()
        ),
    ))
}

/// The token a request carries, from `authorization: Bearer` or else `x-api-key`.
fn given_token(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
    });
    let token = bearer.or_else(|| Some(headers.get(API_KEY)?.as_bytes()));
    token.map(<[u8]>::trim_ascii)
}
