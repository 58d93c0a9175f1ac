//! Where other DuckDBs query: whether quack listens, answers, and is out of strangers' reach.

use std::net::{IpAddr, SocketAddr};

use super::exporter::is_loopback;
use super::probe;
use super::report::Section;
use crate::cli::table::counted;
use crate::proto::admin::{Quack, QuackRefusal};

/// Looks at quack; `host` is how the server was reached.
pub(super) async fn look(quack: Option<&Quack>, host: &str, section: &mut Section) {
    let Some(quack) = quack else {
        section.fine("no queries of other DuckDBs (--quack-listen is not set)");
        return;
    };
    let Ok(bound) = quack.address.parse::<SocketAddr>() else {
        return;
    };
    if !bound.ip().to_canonical().is_loopback() {
        section.change(
            format!("quack listens at {bound}, which others can reach, and speaks plain HTTP: its token and what it answers can be read on the way"),
            "--quack-listen 127.0.0.1 and a tunnel, or a proxy that speaks TLS before it (docs/SECURITY.md)",
        );
    }
    for refusal in &quack.refusals {
        section.note(refused(refusal));
    }
    let Some(place) = reachable_at(bound, host) else {
        section.note(format!(
            "quack listens at {bound} on the server's machine: it can be tried there alone"
        ));
        return;
    };
    match probe::quack(&place).await {
        Ok(()) => section.fine(format!(
            "quack answers at quack:{place}; the lake is `{}` there",
            quack.lake_name
        )),
        Err(error) => section.change(
            format!("quack does not answer at {place}"),
            format!("{error}: is port {} let through?", bound.port()),
        ),
    }
    section.note(format!(
        "quack's token is not tried here; from DuckDB: FROM quack_query('quack:{place}', 'FROM otlp_server_list()', token = '...')"
    ));
}

/// Where this machine reaches it, as `HOST:PORT`; `None` where only the server's own machine does.
fn reachable_at(bound: SocketAddr, host: &str) -> Option<String> {
    let (ip, port) = (bound.ip(), bound.port());
    if ip.is_unspecified() {
        return Some(format!("{host}:{port}"));
    }
    let is_far = IpAddr::is_loopback(&ip.to_canonical()) && !is_loopback(host);
    (!is_far).then(|| bound.to_string())
}

fn refused(refusal: &QuackRefusal) -> String {
    let times = counted(refusal.count, "time");
    let why = match refusal.reason.as_str() {
        "unauthenticated" => {
            "the token was wrong -- give DuckDB that of the server's OTLAKE_QUACK_TOKEN, which is not the one for sending"
        }
        "not_permitted" => {
            "the statement is not one that is run -- queries and otlp_ functions are, the log says what was wrong"
        }
        "catalog" => "the lake's catalog could not be read -- see the log",
        "stopping" => "the server was stopping",
        other => other,
    };
    format!("refused over quack, {times} since the start: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: quack on every kind of address, of a server that is near and one that is far.
    /// Guarantees: it is tried where this machine reaches it, and not where only the server's does.
    #[test]
    fn it_is_tried_where_it_can_be_reached() {
        for (bound, host, place) in [
            ("127.0.0.1:9494", "localhost", Some("127.0.0.1:9494")),
            ("127.0.0.1:9494", "otlake.example", None),
            ("[::1]:9494", "[::1]", Some("[::1]:9494")),
            (
                "0.0.0.0:9494",
                "otlake.example",
                Some("otlake.example:9494"),
            ),
            ("192.0.2.7:9494", "otlake.example", Some("192.0.2.7:9494")),
        ] {
            let found = reachable_at(bound.parse().unwrap(), host);
            assert_eq!(found.as_deref(), place, "{bound} {host}");
        }
    }
}
