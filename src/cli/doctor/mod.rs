//! `otlake doctor`: looks at a server and at the settings of this machine's clients, and says what to change.
//!
//! ```text
//! server: reached? TLS? token? quack? health, disk, last seen, refusals -> facts
//! settings: OTEL_* variables, agents' files -> exporters -> scheme, path, port, headers -> an empty request, as they would send it
//! ```

mod agents;
mod environment;
mod exporter;
mod probe;
mod quack;
mod refusals;
mod report;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http::Uri;
use tokio::net::TcpStream;

use self::agents::Places;
use self::environment::Variables;
use self::exporter::{Exporter, Facts, Whose};
use self::report::Section;
use super::args::DoctorArgs;
use super::client::Target;
use super::table;

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs `otlake doctor`.
///
/// # Errors
/// One line for flags that cannot be meant.
pub(super) async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.client)?;
    let (mut sections, facts) = server::look(&args.client, &target).await;
    sections.extend(settings(facts.as_ref()).await);
    let text = match args.json {
        true => report::json(&sections).to_string(),
        false => report::text(&sections),
    };
    table::print(&text)?;
    let is_well = sections.iter().all(|section| section.changes() == 0);
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Looks at the settings of the clients on this machine.
async fn settings(facts: Option<&Facts>) -> Vec<Section> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let variables = Variables(std::env::vars_os().filter_map(text).collect());
    let mut found = vec![shell(&variables)];
    let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("/"));
    let places = Places {
        home: &home,
        variables: &variables,
    };
    found.extend(agents::codex(&places));
    found.extend(agents::claude(&places));
    found.extend(agents::gemini(&places));
    let mut sections = Vec::new();
    for (mut section, exporters) in found {
        for exporter in &exporters {
            check(exporter, facts, &mut section).await;
        }
        sections.push(section);
    }
    sections
}

/// The variables of the shell that this is run in.
fn shell(variables: &Variables) -> (Section, Vec<Exporter>) {
    let mut section = Section::new("OTEL_* variables of this shell");
    let signals = environment::switched_on(variables, &mut section);
    let exporters = environment::exporters(variables, &signals, &mut section);
    if section.findings.is_empty() && exporters.is_empty() {
        section.note("none that names an endpoint: SDKs that are started here send to localhost, by their defaults");
    }
    (section, exporters)
}

/// Looks at one exporter, then sends an empty request as it would.
async fn check(exporter: &Exporter, facts: Option<&Facts>, section: &mut Section) {
    // In the order in which a request meets them: where the endpoint is wrong, the headers are not what is wrong first.
    let url = exporter.check_endpoint(section);
    let whose = match (&url, facts) {
        (Some(url), Some(facts)) => exporter.check_port(url, facts, section),
        _ => None,
    };
    let has_good_headers = exporter.check_headers(facts, section);
    let Some(url) = url else {
        return;
    };
    let Some(facts) = facts else {
        section.note(format!(
            "{}: {} for {}, not tried: it is not known what the server listens on",
            exporter.place,
            exporter.endpoint,
            exporter.signal_names()
        ));
        return;
    };
    let Some(whose) = whose else {
        return;
    };
    match whose {
        Whose::Foreign => section.note(format!(
            "{}: {} for {} is not the server that was looked at; `otlake doctor --endpoint` looks at another",
            exporter.place,
            exporter.endpoint,
            exporter.signal_names()
        )),
        Whose::OtherPort => other_port(exporter, &url, facts, section).await,
        Whose::Ours => {
            if has_good_headers {
                try_it(exporter, &url, section).await;
            }
        }
    }
}

/// An endpoint at a port that is none of the server's.
async fn other_port(exporter: &Exporter, url: &Uri, facts: &Facts, section: &mut Section) {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let connecting = TcpStream::connect((host, exporter::port(url)));
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    let place = &exporter.place;
    if matches!(connected, Ok(Ok(_))) {
        section.note(format!(
            "{place}: something else than this server listens at {}",
            exporter.endpoint
        ));
        return;
    }
    let port = match exporter.speaks {
        exporter::Speaks::Grpc => facts.grpc_port,
        exporter::Speaks::Http | exporter::Speaks::HttpJson => facts.http_port,
    };
    section.change(
        format!("{place}: nothing listens at {}", exporter.endpoint),
        format!("set the port to {port}"),
    );
}

async fn try_it(exporter: &Exporter, url: &Uri, section: &mut Section) {
    let place = &exporter.place;
    for signal in &exporter.signals {
        match probe::probe(exporter, url, *signal).await {
            Ok(()) => section.fine(format!(
                "{place}: {signal} are taken at {}",
                exporter.endpoint
            )),
            Err(error) => {
                section.change(
                    format!("{place}: an empty request with {signal} is not taken"),
                    error.to_string(),
                );
                // The others would fail alike.
                return;
            }
        }
    }
}
