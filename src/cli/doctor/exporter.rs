//! One exporter's settings, wherever they stand, and what can be told of them without sending anything.

use std::path::PathBuf;

use http::Uri;

use super::report::Section;
use crate::signal::Signal;

/// How an exporter speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf.
    Http,
    /// OTLP/HTTP with JSON.
    HttpJson,
}

/// Where and how one or more signals are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exporter {
    /// The setting that names the endpoint, as its user knows it.
    pub(super) place: String,
    pub(super) signals: Vec<Signal>,
    pub(super) speaks: Speaks,
    /// The protocol is not set: it is the client's default.
    pub(super) is_protocol_guessed: bool,
    pub(super) endpoint: String,
    /// Over HTTP the client adds `/v1/logs` and so on itself.
    pub(super) appends_path: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// What is known of the server that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// How it was reached.
    pub(super) host: String,
    pub(super) grpc_port: u16,
    pub(super) http_port: u16,
    pub(super) wants_token: bool,
    pub(super) speaks_tls: bool,
}

/// Whose endpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// That of the server that was looked at.
    Ours,
    /// On this machine or that of the server, at a port that is none of its.
    OtherPort,
    /// Somebody else's.
    Foreign,
}

impl Facts {
    fn whose(&self, url: &Uri) -> Whose {
        let host = url.host().unwrap_or_default();
        let is_near = is_loopback(host) && is_loopback(&self.host);
        if !is_near && !host.eq_ignore_ascii_case(&self.host) {
            return Whose::Foreign;
        }
        match [self.grpc_port, self.http_port].contains(&port(url)) {
            true => Whose::Ours,
            false => Whose::OtherPort,
        }
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    let address = bare.parse::<std::net::IpAddr>();
    address.is_ok_and(|address| address.is_loopback()) || bare.eq_ignore_ascii_case("localhost")
}

pub(super) fn port(url: &Uri) -> u16 {
    let of_scheme = if url.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    url.port_u16().unwrap_or(of_scheme)
}

impl Exporter {
    /// The names of its signals.
    pub(super) fn signal_names(&self) -> String {
        let names: Vec<&str> = self.signals.iter().map(|signal| signal.name()).collect();
        names.join(", ")
    }

    /// What is wrong with the endpoint by itself; its URL when nothing is.
    pub(super) fn check_endpoint(&self, section: &mut Section) -> Option<Uri> {
        let Exporter {
            place, endpoint, ..
        } = self;
        let is_url = |text: &str| text.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        if let Some(variable) = literal_variable(endpoint) {
            section.change(
                format!("{place}: {endpoint} holds {variable} as it is written: the client does not expand it"),
                "write the address itself, such as http://HOST:PORT",
            );
            return None;
        }
        let Some((scheme, _)) = endpoint.split_once("://") else {
            section.change(
                format!("{place}: {endpoint} has no scheme, and many clients then export nothing, without a word"),
                format!("write http://{endpoint} (or https:// where the server speaks TLS)"),
            );
            return None;
        };
        if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            section.change(
                format!("{place}: {scheme}:// is none that OTLP is spoken over"),
                "write http://HOST:PORT or https://HOST:PORT",
            );
            return None;
        }
        let Some(url) = is_url(endpoint) else {
            section.change(
                format!("{place}: {endpoint} is not a URL"),
                "write http://HOST:PORT",
            );
            return None;
        };
        self.check_path(&url, section).then_some(url)
    }

    fn check_path(&self, url: &Uri, section: &mut Section) -> bool {
        let Exporter {
            place, endpoint, ..
        } = self;
        let path = url.path().trim_end_matches('/');
        let of_signal = |path: &str| {
            Signal::ALL
                .iter()
                .any(|signal| path.ends_with(&signal_path(*signal)))
        };
        let base = format!(
            "{}://{}",
            url.scheme_str().unwrap_or("http"),
            url.authority().map_or("", |authority| authority.as_str())
        );
        if self.speaks == Speaks::Grpc {
            if path.is_empty() {
                return true;
            }
            section.change(
                format!("{place}: {endpoint} has a path, and gRPC takes none"),
                format!("write {base}"),
            );
            return false;
        }
        if self.appends_path {
            if !of_signal(path) {
                return true;
            }
            section.change(
                format!(
                    "{place}: {endpoint} has the path of a signal, and the client adds it again"
                ),
                format!("write {base}"),
            );
            return false;
        }
        let [signal] = self.signals[..] else {
            return true;
        };
        let wanted = signal_path(signal);
        if path.ends_with(&wanted) {
            return true;
        }
        section.change(
            format!("{place}: {endpoint} lacks the path of its signal, and the client adds none"),
            format!("write {base}{wanted}"),
        );
        false
    }

    /// What is wrong with the headers.
    pub(super) fn check_headers(&self, facts: Option<&Facts>, section: &mut Section) -> bool {
        let place = &self.place;
        let mut is_good = true;
        for (name, value) in &self.headers {
            if let Some(variable) = literal_variable(value) {
                section.change(
                    format!("{place}: the header {name} holds {variable} as it is written: the client sends it so"),
                    format!(
                        "write the value itself ({name} = {}): settings are taken as they are, and in a shell {variable} is expanded between double quotes alone",
                        match name.eq_ignore_ascii_case("authorization") {
                            true => "Bearer TOKEN",
                            false => "TOKEN",
                        }
                    ),
                );
                is_good = false;
            } else if name.eq_ignore_ascii_case("authorization")
                && !value.to_ascii_lowercase().starts_with("bearer ")
            {
                section.change(
                    format!("{place}: the header authorization does not begin with Bearer"),
                    "write authorization = Bearer TOKEN, or x-api-key = TOKEN",
                );
                is_good = false;
            }
        }
        let has_token = self.headers.iter().any(|(name, _)| {
            ["authorization", "x-api-key"].contains(&name.to_ascii_lowercase().as_str())
        });
        // Others may want none.
        let is_ours = |facts: &Facts| {
            let url = self.endpoint.parse::<Uri>();
            url.is_ok_and(|url| facts.whose(&url) != Whose::Foreign)
        };
        if facts.is_some_and(|facts| facts.wants_token && is_ours(facts)) && !has_token {
            section.change(
                format!("{place}: no token is sent, and the server wants one"),
                "add the header authorization with Bearer TOKEN",
            );
            is_good = false;
        }
        is_good
    }

    /// Whether the port, and what is spoken there, is the right one of the server's; and whose endpoint it is.
    pub(super) fn check_port(
        &self,
        url: &Uri,
        facts: &Facts,
        section: &mut Section,
    ) -> Option<Whose> {
        let whose = facts.whose(url);
        if whose != Whose::Ours {
            return Some(whose);
        }
        let place = &self.place;
        let (own, other, name) = match self.speaks {
            Speaks::Grpc => (facts.grpc_port, facts.http_port, "gRPC"),
            Speaks::Http | Speaks::HttpJson => (facts.http_port, facts.grpc_port, "HTTP"),
        };
        if port(url) == other && own != other {
            let protocol = match self.is_protocol_guessed {
                true => format!(
                    "{place}: no protocol is set, most clients then speak OTLP/HTTP, and {other} is the port of OTLP/gRPC"
                ),
                false => format!("{place}: this is OTLP/{name}, and {other} is not its port"),
            };
            let advice = match self.is_protocol_guessed {
                true => format!("set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or the port to {own}"),
                false => format!("set the port to {own}, or the protocol to the other one"),
            };
            section.change(protocol, advice);
            return None;
        }
        let is_https = url.scheme_str() == Some("https");
        if is_https != facts.speaks_tls {
            let (what, advice) = match is_https {
                true => ("the server does not speak TLS", "write http://"),
                false => ("the server speaks TLS", "write https://"),
            };
            section.change(format!("{place}: {} and {what}", self.endpoint), advice);
            return None;
        }
        Some(whose)
    }
}

/// The path of a signal of OTLP/HTTP.
pub(super) fn signal_path(signal: Signal) -> String {
    format!("/v1/{}", signal.name())
}

/// A `${VARIABLE}` that stands in a value.
fn literal_variable(text: &str) -> Option<&str> {
    let from = text.find("${")?;
    let rest = text.get(from..)?;
    let len = rest.find('}')? + 1;
    rest.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(endpoint: &str, speaks: Speaks, appends_path: bool) -> Exporter {
        Exporter {
            place: "ENDPOINT".to_owned(),
            signals: vec![Signal::Logs],
            speaks,
            is_protocol_guessed: false,
            endpoint: endpoint.to_owned(),
            appends_path,
            headers: Vec::new(),
            ca: None,
            cert: None,
            key: None,
        }
    }

    fn advice(section: &Section) -> String {
        let [finding] = &section.findings[..] else {
            panic!("{section:?}");
        };
        finding.advice.clone().unwrap_or_default()
    }

    /// Scenario: endpoints as they should be and as they are mistaken, for each protocol.
    /// Guarantees: the good ones pass; of the others it is told what to write.
    #[test]
    fn endpoints_are_told_from_what_is_none() {
        use Speaks::{Grpc, Http};
        for (endpoint, speaks, appends) in [
            ("http://127.0.0.1:4317", Grpc, true),
            ("https://otlake.example.com:4317/", Grpc, false),
            ("http://localhost:4318", Http, true),
            ("http://localhost:4318/prefix/", Http, true),
            ("http://localhost:4318/v1/logs", Http, false),
            ("http://[::1]:4318/behind/proxy/v1/logs", Http, false),
        ] {
            let mut section = Section::new("");
            let url = exporter(endpoint, speaks, appends).check_endpoint(&mut section);
            assert!(url.is_some() && section.findings.is_empty(), "{section:?}");
        }
        for (endpoint, speaks, appends, wanted) in [
            ("127.0.0.1:4317", Grpc, true, "write http://127.0.0.1:4317"),
            ("localhost", Grpc, true, "write http://localhost"),
            ("grpc://localhost:4317", Grpc, true, "http://HOST:PORT"),
            ("http://", Grpc, true, "http://HOST:PORT"),
            ("http://${HOST}:4317", Grpc, true, "the address itself"),
            (
                "http://localhost:4317/v1/logs",
                Grpc,
                true,
                "write http://localhost:4317",
            ),
            (
                "http://localhost:4318/v1/traces",
                Http,
                true,
                "write http://localhost:4318",
            ),
            (
                "http://localhost:4318",
                Http,
                false,
                "write http://localhost:4318/v1/logs",
            ),
            ("http://localhost:4318/v1/traces", Http, false, "/v1/logs"),
        ] {
            let mut section = Section::new("");
            let url = exporter(endpoint, speaks, appends).check_endpoint(&mut section);
            assert!(
                url.is_none() && advice(&section).contains(wanted),
                "{section:?}"
            );
        }
    }

    /// Scenario: the right port, the other one, with and without a protocol that is set, the wrong scheme; another port, another
    /// machine.
    /// Guarantees: what is the server's is told from what is not; of mistakes it is told what to write.
    #[test]
    fn ports_are_told_apart() {
        let facts = Facts {
            host: "127.0.0.1".to_owned(),
            grpc_port: 4317,
            http_port: 4318,
            ..Facts::default()
        };
        let check = |endpoint: &str, speaks, is_protocol_guessed| {
            let mut section = Section::new("");
            let exporter = Exporter {
                is_protocol_guessed,
                ..exporter(endpoint, speaks, true)
            };
            let whose = exporter.check_port(&endpoint.parse().unwrap(), &facts, &mut section);
            (whose, section)
        };
        use Speaks::{Grpc, Http};
        for (endpoint, speaks, whose) in [
            ("http://localhost:4317", Grpc, Whose::Ours),
            ("http://[::1]:4318", Http, Whose::Ours),
            ("http://127.0.0.1:9999", Grpc, Whose::OtherPort),
            ("http://localhost", Grpc, Whose::OtherPort),
            ("http://other.example:4317", Grpc, Whose::Foreign),
        ] {
            assert_eq!(check(endpoint, speaks, false).0, Some(whose), "{endpoint}");
        }
        for (endpoint, speaks, is_guessed, wanted) in [
            ("http://localhost:4318", Grpc, false, "the port to 4317"),
            ("http://localhost:4317", Http, false, "the port to 4318"),
            (
                "http://localhost:4317",
                Http,
                true,
                "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
            ),
            ("https://localhost:4317", Grpc, false, "write http://"),
        ] {
            let (whose, section) = check(endpoint, speaks, is_guessed);
            assert!(
                whose.is_none() && advice(&section).contains(wanted),
                "{section:?}"
            );
        }
    }

    /// Scenario: headers with a token, a literal variable, without Bearer, and none where the server wants a token.
    /// Guarantees: the first pass; of the others it is told what to do, and the value of none is shown.
    #[test]
    fn headers_are_looked_at() {
        let facts = Facts {
            host: "127.0.0.1".to_owned(),
            wants_token: true,
            ..Facts::default()
        };
        let check = |headers: &[(&str, &str)]| {
            let pairs = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let exporter = Exporter {
                headers: pairs.collect(),
                ..exporter("http://localhost:4317", Speaks::Grpc, true)
            };
            let mut section = Section::new("");
            let is_good = exporter.check_headers(Some(&facts), &mut section);
            assert_eq!(is_good, section.findings.is_empty());
            format!("{section:?}")
        };
        assert!(!check(&[("Authorization", "Bearer abc")]).contains("Finding"));
        assert!(!check(&[("x-api-key", "abc")]).contains("Finding"));
        assert!(
            check(&[("authorization", "Bearer ${OTLAKE_TOKEN}")])
                .contains("holds ${OTLAKE_TOKEN} as it is")
        );
        let bare = check(&[("authorization", "secret-token")]);
        assert!(bare.contains("does not begin with Bearer") && !bare.contains("secret"));
        assert!(check(&[]).contains("the server wants one"));
    }
}
