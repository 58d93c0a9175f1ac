//! `otlake send FILE...`: requests as they are in files, one after the other over one connection.
//!
//! Protobuf goes by `--protocol` (as JSON for `http-json`, as Arrow for `otap`). OTLP carries JSON over HTTP only, so JSON goes to the HTTP port,
//! whatever the protocol is.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use tokio::time::Instant;

use super::client::{Client, Encoding, Outcome, Target};
use super::{guess, json, transport};
use crate::cli::args::{SendArgs, SendProtocol, SendSignal};
use crate::cli::table;
use crate::signal::{Protocol, Signal};

/// One request of a file.
#[derive(Debug, PartialEq, Eq)]
struct FileRequest {
    /// Path, and the line where there are several requests in a file.
    name: String,
    signal: Signal,
    encoding: Encoding,
    body: Bytes,
}

/// What a file's name says about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
    Ndjson,
}

/// Sends the files; says whether all was acknowledged. A file that cannot be read or sent does not keep the next from being tried.
///
/// # Errors
/// When nothing can be sent at all.
pub(super) async fn send(args: &SendArgs) -> anyhow::Result<bool> {
    let signal = match args.signal {
        None => None,
        Some(SendSignal::Logs) => Some(Signal::Logs),
        Some(SendSignal::Traces) => Some(Signal::Traces),
        Some(SendSignal::Metrics) => Some(Signal::Metrics),
        Some(SendSignal::All) => bail!(
            "--signal all is for generated telemetry: leave it out, and each file's signal is told from its content"
        ),
    };
    let mut sender = Sender {
        args,
        grpc: None,
        http: None,
    };
    let (mut tried, mut kept) = (0_u64, 0_u64);
    for path in &args.files {
        let requests = match read(path.clone(), signal).await {
            Ok(requests) => requests,
            Err(error) => {
                tried += 1;
                eprintln!("{}: {error:#}", path.display());
                continue;
            }
        };
        for request in requests {
            tried += 1;
            kept += u64::from(sender.send(request).await?);
        }
    }
    sender.close().await?;
    if tried > 1 && !args.quiet {
        table::print(&format!("{kept} of {tried} requests accepted in full"))?;
    }
    Ok(tried == kept)
}

/// The connections, each opened when it is first needed.
struct Sender<'a> {
    args: &'a SendArgs,
    grpc: Option<Client>,
    http: Option<Client>,
}

impl Sender<'_> {
    /// Sends a request, prints its line, and says whether it was accepted in full.
    async fn send(&mut self, mut request: FileRequest) -> anyhow::Result<bool> {
        if self.args.protocol == SendProtocol::HttpJson && request.encoding == Encoding::Protobuf {
            let mut document = Vec::new();
            if let Err(error) = json::write(request.signal, &request.body, &mut document) {
                eprintln!(
                    "{}: is not {} in OTLP protobuf, and cannot become JSON: {error}",
                    request.name, request.signal
                );
                return Ok(false);
            }
            (request.encoding, request.body) = (Encoding::Json, document.into());
        }
        let client = self.connect(match request.encoding {
            Encoding::Json => Protocol::Http,
            Encoding::Protobuf => transport(self.args.protocol),
        });
        let client = client.await?;
        let protocol = client.name();
        let bytes = request.body.len();
        let start = Instant::now();
        let sent = client.send(request.signal, request.encoding, request.body);
        let outcome = match sent.await {
            Ok(outcome) => outcome,
            Err(error) => {
                eprintln!("{}: {error:#}", request.name);
                return Ok(false);
            }
        };
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let (full, result) = describe(&outcome);
        if !(full && self.args.quiet) {
            table::print(&format!(
                "{}: {}, {bytes} bytes over {protocol}, {result}, {ms:.1} ms",
                request.name, request.signal
            ))?;
        }
        Ok(full)
    }

    async fn close(self) -> anyhow::Result<()> {
        for client in [self.grpc, self.http].into_iter().flatten() {
            for end in client.close().await? {
                eprintln!("the stream ended badly: {}", describe(&end).1);
            }
        }
        Ok(())
    }

    async fn connect(&mut self, protocol: Protocol) -> anyhow::Result<&mut Client> {
        let named = transport(self.args.protocol);
        ensure!(
            protocol == named || self.args.endpoint.is_none(),
            "OTLP carries JSON files over HTTP only, and --endpoint is for gRPC: \
             add --protocol http and name the HTTP port"
        );
        let client = match protocol {
            Protocol::Grpc | Protocol::Otap => &mut self.grpc,
            Protocol::Http => &mut self.http,
        };
        if client.is_none() {
            if protocol != named {
                eprintln!("OTLP carries JSON over HTTP only: JSON files go to port 4318");
            }
            *client = Some(Target::new(self.args, protocol)?.connect().await?);
        }
        client.as_mut().context("the connection was just opened")
    }
}

/// Whether a request was accepted in full, and how its line says what became of it.
fn describe(outcome: &Outcome) -> (bool, String) {
    match outcome {
        Outcome::Accepted { rejected, message } => match (rejected, message.as_str()) {
            (0, "") => (true, "accepted".to_owned()),
            (0, warning) => (true, format!("accepted with a warning: {warning}")),
            (rejected, why) => (false, format!("accepted but for {rejected} records: {why}")),
        },
        Outcome::Refused { reason, message } => (false, format!("refused, {reason}: {message}")),
        Outcome::Unanswered { reason, message } => (false, format!("{reason}: {message}")),
    }
}

async fn read(path: PathBuf, signal: Option<Signal>) -> anyhow::Result<Vec<FileRequest>> {
    tokio::task::spawn_blocking(move || {
        let format = format_of(&path)?;
        let content = std::fs::read(&path).context("cannot be read")?;
        requests(&path, format, content.into(), signal)
    })
    .await
    .context("reading failed")?
}

fn format_of(path: &Path) -> anyhow::Result<Format> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    match extension.to_lowercase().as_str() {
        "binpb" | "pb" | "bin" => Ok(Format::Protobuf),
        "json" => Ok(Format::Json),
        "ndjson" | "jsonl" => Ok(Format::Ndjson),
        _ => bail!(
            "its name does not say what it is: .binpb, .pb and .bin are protobuf, .json is one request, \
             .ndjson and .jsonl are one request a line"
        ),
    }
}

/// The requests of a file. A signal that is given goes before what content and name say, but not against a JSON document's key.
fn requests(
    path: &Path,
    format: Format,
    content: Bytes,
    signal: Option<Signal>,
) -> anyhow::Result<Vec<FileRequest>> {
    let name = path.display().to_string();
    let json = |name: String, body: Bytes| -> anyhow::Result<FileRequest> {
        let found = guess::json_signal(&body)?;
        if let Some(signal) = signal.filter(|signal| *signal != found) {
            bail!("holds {found}, but --signal says {signal}");
        }
        Ok(FileRequest {
            name,
            signal: found,
            encoding: Encoding::Json,
            body,
        })
    };
    match format {
        Format::Protobuf => Ok(vec![FileRequest {
            name,
            signal: match signal {
                Some(signal) => signal,
                None => guess::protobuf_signal(path, &content)?,
            },
            encoding: Encoding::Protobuf,
            body: content,
        }]),
        Format::Json => Ok(vec![json(name, content)?]),
        Format::Ndjson => {
            let lines = content.split(|byte| *byte == b'\n').zip(1_u64..);
            let requests: Vec<FileRequest> = lines
                .filter(|(line, _)| !line.trim_ascii().is_empty())
                .map(|(line, number)| {
                    json(
                        format!("{name}:{number}"),
                        content.slice_ref(line.trim_ascii()),
                    )
                    .with_context(|| format!("line {number}"))
                })
                .collect::<anyhow::Result<_>>()?;
            ensure!(!requests.is_empty(), "is empty");
            Ok(requests)
        }
    }
}

#[cfg(test)]
mod tests;
