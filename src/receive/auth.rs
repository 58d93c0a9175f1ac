//! Who may send: the host that was asked for, the browser's origin and the token, checked before a body is read.

use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri, header};

use super::refusal::Refusal;
use super::tokens::{Pass, TokenBook};
use crate::config::tokens::Role;
use crate::config::{AllowedHosts, CorsOrigins};
use crate::telemetry::{Reason, TokenUse};

/// The header that carries the bare token, for clients that cannot set `authorization`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Admits requests by their headers.
#[derive(Clone, Debug)]
pub struct Gate {
    tokens: Option<Arc<TokenBook>>,
    cors_origins: CorsOrigins,
    hosts: Option<AllowedHosts>,
}

impl Gate {
    /// A gate that asks for one of these tokens; without any it asks for none.
    #[must_use]
    pub fn new(tokens: Option<Arc<TokenBook>>, cors_origins: CorsOrigins) -> Gate {
        Gate {
            tokens,
            cors_origins,
            hosts: None,
        }
    }

    /// The gate of a listener on this address: on a loopback address only these hosts are let in. Everywhere else nobody
    /// can know the names by which others reach it, and every host is.
    #[must_use]
    pub fn at(&self, bound: SocketAddr, hosts: &AllowedHosts) -> Gate {
        let is_loopback = bound.ip().to_canonical().is_loopback();
        Gate {
            hosts: is_loopback.then(|| hosts.clone()),
            ..self.clone()
        }
    }

    /// Refuses requests for a host that is not this machine: the page of a site whose name was pointed to a loopback
    /// address (DNS rebinding) sends no `Origin` with every request, but always that name.
    ///
    /// A request that names no host, as HTTP/1.0 allows, comes from no browser and is let in. One that names
    /// several, in its target and its headers, is let in if each of them is.
    ///
    /// # Errors
    /// [`Refusal`] when the target (`:authority` in HTTP/2) or a `Host` is not allowed.
    pub fn check_host(&self, target: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(hosts) = &self.hosts else {
            return Ok(());
        };
        let allows = |authority: &Authority| hosts.allows(authority.host());
        let is_target_allowed = target.authority().is_none_or(allows);
        let mut given = headers.get_all(header::HOST).iter();
        let are_headers_allowed = given.all(|host| {
            host.is_empty()
                || Authority::try_from(host.as_bytes()).is_ok_and(|authority| allows(&authority))
        });
        if is_target_allowed && are_headers_allowed {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::ForbiddenHost,
            "this server listens on a loopback address and takes no requests for this host; use localhost or 127.0.0.1 \
             in the client's endpoint, or start otlake with --allowed-host to allow it",
        ))
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
