//! The settings of the SQL surface: where other DuckDBs reach it, and with which token.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::duckdb_otlp;
use super::error::ConfigError;
use super::lake::check_schema;
use super::origin::{Origin, Origins};
use super::sources::Sources;
use super::validate::{check_token, same_port};
use super::value::Secret;
use super::{Auth, Tokens};

/// The port of quack where an address names none; the extension's own default.
pub const QUACK_PORT: u16 = 9494;

/// What the lake is called in SQL unless the user says otherwise.
pub const LAKE_NAME: &str = "lake";

/// Names that DuckDB has for databases of its own.
const OWN_NAMES: [&str; 4] = ["memory", "main", "system", "temp"];

/// Where and how other DuckDBs query the lake.
#[derive(Clone, Debug)]
pub struct QuackConfig {
    /// Where quack listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What whoever queries must show.
    pub token: Secret,
    /// What the lake is called there.
    pub lake_name: String,
}

/// An address for quack, written as others are, or without a port: `127.0.0.1`, `localhost`, `[::1]`, `0.0.0.0:9494`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuackAddress(pub SocketAddr);

impl FromStr for QuackAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<QuackAddress, String> {
        let text = text.trim();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !text.ends_with(']') => {
                (host, port.parse().ok())
            }
            _ => (text, Some(QUACK_PORT)),
        };
        let ip = if host.eq_ignore_ascii_case("localhost") {
            Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        } else {
            let bare = host
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            match bare {
                Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
                None => host.parse().ok().filter(IpAddr::is_ipv4),
            }
        };
        match (ip, port) {
            (Some(ip), Some(port)) => Ok(QuackAddress(SocketAddr::new(ip, port))),
            _ => Err(format!(
                "`{text}` is not an address to listen on: write 127.0.0.1, 127.0.0.1:{QUACK_PORT}, localhost, [::1] or 0.0.0.0:{QUACK_PORT}"
            )),
        }
    }
}

impl fmt::Display for QuackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Picks the settings and holds them together: an address needs a token, a token an address.
pub(super) fn validate(
    sources: &mut Sources,
    auth: &Auth,
    taken: [(&str, SocketAddr); 2],
) -> Result<Option<QuackConfig>, ConfigError> {
    let listen = sources.pick("quack-listen", |raw| raw.quack_listen.take());
    let token = sources.pick("quack-token", |raw| raw.quack_token.take());
    let lake_name = sources
        .pick("lake-name", |raw| raw.lake_name.take())
        .unwrap_or_else(|| LAKE_NAME.to_owned());
    check_lake_name(&lake_name).map_err(|reason| sources.bad_value("lake-name", reason))?;
    let Some(QuackAddress(listen)) = listen else {
        return match token {
            None => Ok(None),
            Some(_) => Err(ConfigError::Conflict(format!(
                "{} does nothing without --quack-listen: add it, or remove the token",
                sources.origins.place("quack-token")
            ))),
        };
    };
    let Some(token) = token else {
        return Err(ConfigError::Conflict(format!(
            "{} needs a token of its own: set {}; `openssl rand -hex 16` makes one",
            sources.origins.place("quack-listen"),
            token_place(&sources.origins)
        )));
    };
    check_token(&token).map_err(|reason| sources.bad_value("quack-token", reason))?;
    if let Auth::Token(Tokens {
        token: Some(ingest),
        ..
    }) = auth
        && ingest.expose() == token.expose()
    {
        return Err(ConfigError::Conflict(format!(
            "{} and {} are the same: who sends telemetry could read the lake and stop the server; make another token",
            sources.origins.place("quack-token"),
            sources.origins.place("token")
        )));
    }
    if let Some((key, _)) = taken
        .into_iter()
        .find(|(_, other)| same_port(listen, *other))
    {
        return Err(ConfigError::Conflict(format!(
            "{} {listen} and {} have the same port: each needs one of its own",
            sources.origins.place("quack-listen"),
            sources.origins.place(key)
        )));
    }
    Ok(Some(QuackConfig {
        listen,
        token,
        lake_name,
    }))
}

/// Where the token belongs: beside the address. A flag is seen by other users of the machine, so not there.
fn token_place(origins: &Origins) -> String {
    match origins.of("quack-listen") {
        Origin::Foreign(_) => duckdb_otlp::QUACK_TOKEN.to_owned(),
        Origin::File(path) => format!("`quack-token` in {} or OTLAKE_QUACK_TOKEN", path.display()),
        _ => "OTLAKE_QUACK_TOKEN".to_owned(),
    }
}

fn check_lake_name(name: &str) -> Result<(), String> {
    if OWN_NAMES.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Err(format!("`{name}` is a name DuckDB keeps for itself"));
    }
    check_schema(name).map_err(|_| {
        format!("`{name}` is not a name for the lake: write a letter or `_`, then letters, digits or `_`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RawSettings};

    const TOKEN: &str = "correct-horse-quack";

    fn load(settings: &[(&str, &str)]) -> Result<Config, String> {
        let variables = settings
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        Config::load(RawSettings::default(), None, variables).map_err(|error| error.to_string())
    }

    /// Scenario: addresses with and without a port, and texts that are none.
    /// Guarantees: 9494 is the port where none is named; each address is read in one way.
    #[test]
    fn addresses_need_no_port() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:9494"),
            ("localhost", "127.0.0.1:9494"),
            ("localhost:1", "127.0.0.1:1"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]", "[::1]:9494"),
            ("[::]:77", "[::]:77"),
        ] {
            let read: QuackAddress = text.parse().unwrap();
            assert_eq!(read.to_string(), address);
        }
        for text in [
            "",
            ":9494",
            "9494",
            "::1",
            "host",
            "127.0.0.1:x",
            "[::1",
            "[127.0.0.1]:1",
        ] {
            assert!(text.parse::<QuackAddress>().is_err(), "{text}");
        }
    }

    /// Scenario: an address without a token, a token without an address, one that is `--token`'s too, and a port that is taken.
    /// Guarantees: each is refused and says what to do, without the token.
    #[test]
    fn address_and_token_come_together() {
        let listen = ("OTLAKE_QUACK_LISTEN", "127.0.0.1");
        let token = ("OTLAKE_QUACK_TOKEN", TOKEN);
        let config = load(&[listen, token, ("OTLAKE_LAKE_NAME", "otel")]).unwrap();
        let quack = config.quack.as_ref().unwrap();
        assert_eq!(
            (quack.lake_name.as_str(), quack.token.expose()),
            ("otel", TOKEN)
        );
        let effective = config.effective();
        assert!(
            effective.contains("quack-listen = \"127.0.0.1:9494\""),
            "{effective}"
        );
        assert!(
            effective.contains("# quack-token: ******** (environment OTLAKE_QUACK_TOKEN; masked)")
        );
        assert!(!effective.contains("horse"));
        for (settings, why) in [
            (vec![listen], "OTLAKE_QUACK_LISTEN needs a token of its own"),
            (
                vec![token],
                "OTLAKE_QUACK_TOKEN does nothing without --quack-listen",
            ),
            (
                vec![listen, ("OTLAKE_QUACK_TOKEN", "short-horse")],
                "OTLAKE_QUACK_TOKEN: the token has 11",
            ),
            (
                vec![listen, token, ("OTLAKE_TOKEN", TOKEN)],
                "OTLAKE_QUACK_TOKEN and OTLAKE_TOKEN are the same",
            ),
            (
                vec![("OTLAKE_QUACK_LISTEN", "0.0.0.0:4318"), token],
                "have the same port",
            ),
            (
                vec![listen, token, ("OTLAKE_LAKE_NAME", "temp")],
                "a name DuckDB keeps for itself",
            ),
            (
                vec![listen, token, ("OTLAKE_LAKE_NAME", "a-b")],
                "is not a name for the lake",
            ),
        ] {
            let error = load(&settings).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("horse"), "{error}");
        }
    }

    /// Scenario: an address without a token, from each source.
    /// Guarantees: the token is asked for where the address stands.
    #[test]
    fn a_missing_token_is_asked_for_where_the_address_stands() {
        let by_variable = load(&[("OTLAKE_QUACK_LISTEN", "127.0.0.1")]).unwrap_err();
        assert!(
            by_variable.contains("set OTLAKE_QUACK_TOKEN;"),
            "{by_variable}"
        );
        let foreign = [
            ("DUCKDB_MODE", "local-ducklake"),
            ("DUCKDB_QUACK_ENABLED", "1"),
        ];
        let theirs = load(&foreign).unwrap_err();
        assert!(
            theirs.starts_with("DUCKDB_QUACK_ENABLED needs a token"),
            "{theirs}"
        );
        assert!(theirs.contains("set DUCKDB_QUACK_TOKEN;"), "{theirs}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("otlake.toml");
        std::fs::write(&path, "quack-listen = \"127.0.0.1\"\n").unwrap();
        let file = Config::load(RawSettings::default(), Some(path), []).unwrap_err();
        assert!(file.to_string().contains("set `quack-token` in "), "{file}");
    }
}
