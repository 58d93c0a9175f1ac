//! Where to send: what `--endpoint` says.

use anyhow::{Context, bail, ensure};
use http::Uri;

use crate::signal::Protocol;

/// A server's address, without the path of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Whether TLS is spoken.
    pub(super) is_tls: bool,
    /// Name or address, IPv6 without brackets.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// What goes before `/v1/logs`: empty, or a slash and more; never ends with a slash.
    pub(super) path: String,
}

impl Endpoint {
    /// Reads the address; without one it is the protocol's port on this machine.
    ///
    /// `host`, `host:port` and `http://host:port/path/` are understood. Without a scheme the port defaults to the
    /// protocol's own, with one it is 80 or, of https, 443, as everywhere.
    ///
    /// # Errors
    /// A text that is no URL, and schemes other than `http` and `https`.
    pub(super) fn parse(text: Option<&str>, protocol: Protocol) -> anyhow::Result<Endpoint> {
        let default_port = default_port(protocol);
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(Endpoint {
                is_tls: false,
                host: "127.0.0.1".to_owned(),
                port: default_port,
                path: String::new(),
            });
        };
        let (url, port, is_tls) = match text.split_once("://") {
            Some(("http", _)) => (text.to_owned(), 80, false),
            Some(("https", _)) => (text.to_owned(), 443, true),
            Some((scheme, _)) => {
                bail!(
                    "--endpoint {text}: {scheme}:// is not understood, write http://HOST:PORT or https://HOST:PORT"
                )
            }
            None => (format!("http://{text}"), default_port, false),
        };
        let uri: Uri = url
            .parse()
            .with_context(|| format!("--endpoint {text} is not a URL, write http://HOST:PORT"))?;
        let host = uri.host().unwrap_or_default();
        ensure!(
            !host.is_empty(),
            "--endpoint {text} names no host, write http://HOST:PORT"
        );
        let mut path = uri.path().trim_end_matches('/');
        // Someone who copied the address of one signal means the server.
        for signal in ["/v1/logs", "/v1/traces", "/v1/metrics"] {
            path = path.strip_suffix(signal).unwrap_or(path);
        }
        Ok(Endpoint {
            is_tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(port),
            path: path.to_owned(),
        })
    }

    /// `host:port`, IPv6 in brackets.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The address as a URL.
    pub(super) fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }
}

/// The port that OTLP gives the protocol.
pub(super) fn default_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Grpc | Protocol::Otap => 4317,
        Protocol::Http => 4318,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the ways people write an address.
    /// Guarantees: with or without scheme, port, slash and signal path they mean the same server.
    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, host, port, path) in [
            ("localhost", "localhost", 4318, ""),
            ("localhost:9000", "localhost", 9000, ""),
            ("http://localhost:9000/", "localhost", 9000, ""),
            ("http://collector", "collector", 80, ""),
            ("https://collector", "collector", 443, ""),
            (" http://c:1/otlp/ ", "c", 1, "/otlp"),
            ("http://c:1/v1/traces", "c", 1, ""),
            ("[::1]:4318", "::1", 4318, ""),
            ("", "127.0.0.1", 4318, ""),
        ] {
            let endpoint = Endpoint::parse(Some(text), Protocol::Http).unwrap();
            assert_eq!(
                (
                    endpoint.host.as_str(),
                    endpoint.port,
                    endpoint.path.as_str()
                ),
                (host, port, path),
                "{text}"
            );
        }
        let default = Endpoint::parse(None, Protocol::Grpc).unwrap();
        assert_eq!(default.url(), "http://127.0.0.1:4317");
        let v6 = Endpoint::parse(Some("[::1]"), Protocol::Grpc).unwrap();
        assert_eq!(v6.authority(), "[::1]:4317");
    }

    /// Scenario: addresses that cannot work.
    /// Guarantees: the message says why, and what to write.
    #[test]
    fn unusable_addresses_say_why() {
        let secure = Endpoint::parse(Some("https://c:1/otlp"), Protocol::Http).unwrap();
        assert_eq!(secure.url(), "https://c:1/otlp");
        for (text, part) in [
            ("grpc://localhost:4317", "grpc:// is not understood"),
            ("http://", "write http://HOST:PORT"),
            ("local host", "is not a URL"),
        ] {
            let error = Endpoint::parse(Some(text), Protocol::Grpc).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }
}
