//! The URIs by which SQL names a listener, as duckdb-otlp writes them.
//!
//! | form | means |
//! |---|---|
//! | `otlp:host:port`, `otlp://host:port` | a listener of OTLP |
//! | `otap:host:port`, `otap://host:port` | a listener of OTAP's streams, which here is that of OTLP/gRPC |
//! | `otlp:[::1]:4318` | IPv6 |
//! | `otlp:host`, `otlp:` | port 4318 (`otap:` 4317), host `localhost` |

use std::fmt;
use std::net::{IpAddr, SocketAddr};

const HTTP_PORT: u16 = 4318;
const GRPC_PORT: u16 = 4317;

/// What speaks at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// OTLP/HTTP.
    Http,
    /// OTLP/gRPC and OTAP.
    Grpc,
}

impl Transport {
    /// The word that duckdb-otlp has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Transport::Http => "http",
            Transport::Grpc => "grpc",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Otlp,
    Otap,
}

/// A parsed URI. Prints in the first of its forms, with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUri {
    scheme: Scheme,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
    /// Whether the host is written as an IPv6 address.
    pub is_ipv6: bool,
}

/// Why a text is no such URI; the words are duckdb-otlp's, for those who look for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme, or none.
    #[error("Invalid OTLP listen URI, needs to start with 'otlp:' (such as otlp:localhost:4318)")]
    Scheme,
    /// A port that is none.
    #[error("Invalid OTLP listen port: it is a number from 1 to 65535")]
    Port,
    /// A bracket that does not end.
    #[error("Invalid IPv6 OTLP URI, missing ']'")]
    Bracket,
    /// Brackets with nothing in them.
    #[error("Missing IPv6 address")]
    NoAddress,
    /// Letters that no host has.
    #[error("Invalid character in OTLP hostname")]
    Host,
}

impl ListenUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// [`UriError`].
    pub fn parse(text: &str) -> Result<ListenUri, UriError> {
        let text = text.trim();
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("otlp:") {
            (Scheme::Otlp, rest)
        } else if let Some(rest) = text.strip_prefix("otap:") {
            (Scheme::Otap, rest)
        } else {
            return Err(UriError::Scheme);
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let default_port = match scheme {
            Scheme::Otlp => HTTP_PORT,
            Scheme::Otap => GRPC_PORT,
        };
        let (host, port, is_ipv6) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(UriError::Bracket)?;
                if host.is_empty() {
                    return Err(UriError::NoAddress);
                }
                let port = match rest {
                    "" => None,
                    _ => Some(rest.strip_prefix(':').ok_or(UriError::Port)?),
                };
                (host, port, true)
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port), false),
                None if rest.is_empty() => ("localhost", None, false),
                None => (rest, None, false),
            },
        };
        let port = match port {
            None => default_port,
            Some(text) => parse_port(text)?,
        };
        let is_host_char = |c: char| match is_ipv6 {
            true => c.is_ascii_hexdigit() || ":.%".contains(c),
            false => c.is_ascii_alphanumeric() || "-._".contains(c),
        };
        if host.is_empty() || !host.chars().all(is_host_char) {
            return Err(UriError::Host);
        }
        Ok(ListenUri {
            scheme,
            host: host.to_owned(),
            port,
            is_ipv6,
        })
    }

    /// The URI of a listener, as bound.
    #[must_use]
    pub fn of(address: SocketAddr) -> ListenUri {
        ListenUri {
            scheme: Scheme::Otlp,
            host: address.ip().to_string(),
            port: address.port(),
            is_ipv6: address.is_ipv6(),
        }
    }

    /// Where HTTP finds it.
    #[must_use]
    pub fn url(&self, is_tls: bool) -> String {
        let scheme = if is_tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.written_host(), self.port)
    }

    /// Whether this names a listener that is bound to `address`.
    ///
    /// The port must be the listener's, and `otap:` names one of gRPC only. The host may be the listener's own; any that
    /// means this machine whatever it is bound to, so that a URI need not change with `--http-listen`: a wildcard
    /// (`0.0.0.0`, `[::]`), and `localhost` or a loopback address where the listener is on loopback or on every address. A
    /// listener on every address has every name.
    #[must_use]
    pub fn names(&self, address: SocketAddr, transport: Transport) -> bool {
        if self.port != address.port()
            || (self.scheme == Scheme::Otap && transport != Transport::Grpc)
        {
            return false;
        }
        let bound = address.ip().to_canonical();
        if bound.is_unspecified() {
            return true;
        }
        if self.host.eq_ignore_ascii_case("localhost") {
            return bound.is_loopback();
        }
        match self.host.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                ip == bound || ip.is_unspecified() || (ip.is_loopback() && bound.is_loopback())
            }
            Err(_) => false,
        }
    }

    fn written_host(&self) -> String {
        match self.is_ipv6 {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, UriError> {
    // `parse` would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UriError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(UriError::Port),
        Ok(port) => Ok(port),
    }
}

impl fmt::Display for ListenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Otlp => "otlp",
            Scheme::Otap => "otap",
        };
        write!(f, "{scheme}:{}:{}", self.written_host(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: each form that duckdb-otlp takes.
    /// Guarantees: host, port and address family are as there, and printing gives the full form.
    #[test]
    fn every_form_is_read() {
        for (text, host, port, is_ipv6, url) in [
            (
                "otlp:localhost",
                "localhost",
                4318,
                false,
                "http://localhost:4318",
            ),
            (
                "otlp://localhost",
                "localhost",
                4318,
                false,
                "http://localhost:4318",
            ),
            (
                "otlp:localhost:1234",
                "localhost",
                1234,
                false,
                "http://localhost:1234",
            ),
            (
                "otlp:127.0.0.1",
                "127.0.0.1",
                4318,
                false,
                "http://127.0.0.1:4318",
            ),
            ("otlp:[::1]", "::1", 4318, true, "http://[::1]:4318"),
            (" otlp:[::1]:1234 ", "::1", 1234, true, "http://[::1]:1234"),
            ("otlp:", "localhost", 4318, false, "http://localhost:4318"),
            ("otap:", "localhost", 4317, false, "http://localhost:4317"),
            (
                "otlp://my-otlp-host:4318",
                "my-otlp-host",
                4318,
                false,
                "http://my-otlp-host:4318",
            ),
        ] {
            let uri = ListenUri::parse(text).unwrap();
            assert_eq!(
                (uri.host.as_str(), uri.port, uri.is_ipv6),
                (host, port, is_ipv6)
            );
            assert_eq!(uri.url(false), url);
            assert_eq!(ListenUri::parse(&uri.to_string()), Ok(uri));
        }
    }

    /// Scenario: texts that are no URI of a listener.
    /// Guarantees: each is refused for its reason.
    #[test]
    fn other_texts_are_refused() {
        for (text, why) in [
            ("", UriError::Scheme),
            ("asdf", UriError::Scheme),
            ("http://localhost:4318", UriError::Scheme),
            ("otlp::", UriError::Port),
            ("otlp:localhost:", UriError::Port),
            ("otlp:localhost:asdf", UriError::Port),
            ("otlp:localhost:123abc", UriError::Port),
            ("otlp:localhost:+80", UriError::Port),
            ("otlp:localhost:12:34", UriError::Port),
            ("otlp:localhost:0", UriError::Port),
            ("otlp:localhost:65536", UriError::Port),
            ("otlp:[::1]:123abc", UriError::Port),
            ("otlp:[::1]80", UriError::Port),
            ("otlp:[::1", UriError::Bracket),
            ("otlp:[]", UriError::NoAddress),
            ("otlp:ho st:80", UriError::Host),
            ("otlp::80", UriError::Host),
        ] {
            assert_eq!(ListenUri::parse(text), Err(why), "{text}");
        }
    }

    /// Scenario: names of listeners on loopback, on one address and on all.
    /// Guarantees: what means this machine matches whatever the listener is bound to; another port or host does not.
    #[test]
    fn a_listener_is_known_by_its_port_and_what_means_this_machine() {
        for (bound, named, others) in [
            (
                "127.0.0.1:4318",
                "otlp:127.0.0.1 otlp:localhost otlp:0.0.0.0:4318 otlp:[::]:4318 otlp:[::1]:4318",
                "otlp:127.0.0.1:4317 otlp:10.0.0.1:4318 otlp:example.org otap:localhost:4318",
            ),
            (
                "0.0.0.0:4318",
                "otlp:0.0.0.0:4318 otlp:localhost otlp:10.0.0.1:4318 otlp:example.org",
                "otlp:0.0.0.0:4317",
            ),
            (
                "10.0.0.1:4318",
                "otlp:10.0.0.1 otlp:0.0.0.0",
                "otlp:localhost otlp:127.0.0.1 otlp:10.0.0.2",
            ),
            (
                "[::1]:4318",
                "otlp:[::1] otlp:127.0.0.1 otlp:0.0.0.0",
                "otlp:[::2]",
            ),
        ] {
            let bound = bound.parse().unwrap();
            let names = |uri: &str| ListenUri::parse(uri).unwrap().names(bound, Transport::Http);
            assert!(named.split(' ').all(names), "{bound}");
            assert!(!others.split(' ').any(names), "{bound}");
        }
        let bound = "127.0.0.1:4317".parse().unwrap();
        let otap = ListenUri::parse("otap:localhost").unwrap();
        assert!(otap.names(bound, Transport::Grpc) && !otap.names(bound, Transport::Http));
    }
}
