//! Finds the server and speaks to its admin service.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use hyper_util::client::legacy::connect::HttpConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, TimeoutExpired};

use super::args::{ClientArgs, ClientTlsArgs};
use super::failure::UsageError;
use super::tls::{self, Above};
use crate::config::Secret;
use crate::proto::admin::admin_client::AdminClient;
use crate::server_file::{ServerFile, ServerTls};

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take that the server has at hand.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server listens when nobody says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:4317";

/// Which server a command speaks to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The address of its gRPC port, `http://...` or `https://...`.
    pub(super) url: String,
    /// How to speak TLS with it.
    pub(super) tls: ClientTlsArgs,
    /// How it was found.
    pub(super) found: Found,
    /// The data folder that was looked into.
    pub(super) data_dir: PathBuf,
}

/// How a server was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The user gave its address.
    Given,
    /// It runs in the data folder.
    Running(Box<ServerFile>),
    /// None runs in the data folder: one may listen on the usual port.
    Guessed,
    /// A client's settings name it: nothing is known of it but that.
    Stranger,
}

impl Target {
    /// Looks at `--endpoint`, then into the data folder, then takes the usual port.
    ///
    /// # Errors
    /// [`UsageError`] for an address that is none.
    pub(super) fn find(args: &ClientArgs) -> Result<Target, UsageError> {
        let (url, found) = match &args.endpoint {
            Some(given) => (url(given, args.tls.default_scheme())?, Found::Given),
            None => match ServerFile::running(&args.data_dir) {
                Some(file) => {
                    let scheme = if file.tls.is_some() { "https" } else { "http" };
                    let url = format!("{scheme}://{}", file.grpc);
                    (url, Found::Running(Box::new(file)))
                }
                None => (DEFAULT_URL.to_owned(), Found::Guessed),
            },
        };
        Ok(Target {
            url,
            tls: args.tls.clone(),
            found,
            data_dir: args.data_dir.clone(),
        })
    }

    /// The file of the server that is spoken to, if it runs in the data folder.
    pub(super) fn local_server(&self) -> Option<ServerFile> {
        match &self.found {
            Found::Running(file) => Some((**file).clone()),
            Found::Guessed | Found::Stranger => None,
            Found::Given => {
                let (_, address) = self.url.split_once("://")?;
                let address: SocketAddr = address.parse().ok()?;
                ServerFile::running(&self.data_dir).filter(|file| file.grpc == address)
            }
        }
    }

    /// What the server has written down of its certificate, where that says more than an issuer.
    pub(super) fn known(&self) -> Option<ServerTls> {
        let is_asked = self.found == Found::Given && self.tls.ca.is_some();
        self.local_server().filter(|_| !is_asked)?.tls
    }
}

/// Completes `localhost:4317` to a URL and refuses what is none.
fn url(given: &str, default_scheme: &str) -> Result<String, UsageError> {
    let given = given.trim().trim_end_matches('/');
    let url = match given.split_once("://") {
        None => format!("{default_scheme}://{given}"),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => format!("http://{rest}"),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => format!("https://{rest}"),
        Some((scheme, _)) => {
            return Err(UsageError(format!(
                "--endpoint {given}: {scheme} is not supported, write http://HOST:PORT or https://HOST:PORT"
            )));
        }
    };
    let is_address = url.parse::<http::Uri>().is_ok_and(|uri| {
        uri.port().is_some() && uri.path_and_query().is_none_or(|path| path.as_str() == "/")
    });
    if is_address {
        Ok(url)
    } else {
        Err(UsageError(format!(
            "--endpoint {given}: write http://HOST:PORT, with the port of OTLP/gRPC"
        )))
    }
}

/// Puts the token into each call.
#[derive(Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A connection to a server's admin service, with the words for what goes wrong.
pub(super) struct Client {
    /// The calls.
    pub(super) admin: AdminClient<InterceptedService<Channel, Bearer>>,
    url: String,
    has_token: bool,
}

impl Client {
    /// Connects. `timeout` is how long an answer may take.
    ///
    /// # Errors
    /// One line that says where it tried and what to check.
    pub(super) async fn connect(
        target: &Target,
        token: Option<&Secret>,
        timeout: Duration,
    ) -> anyhow::Result<Client> {
        let token = token.filter(|token| !token.expose().is_empty()); // OTLAKE_TOKEN= is none.
        let bearer = bearer(token)?;
        let channel = channel(target, timeout).await?;
        Ok(Client {
            admin: AdminClient::with_interceptor(channel, bearer),
            url: target.url.clone(),
            has_token: token.is_some(),
        })
    }

    /// What a failed call means to the user, in one line.
    pub(super) fn explain(&self, status: &Status) -> anyhow::Error {
        explain(status, &self.url, self.has_token)
    }
}

/// Connects to a server, for calls of any service. `timeout` is how long an answer may take.
///
/// # Errors
/// One line that says where it tried and what to check.
pub(super) async fn channel(target: &Target, timeout: Duration) -> anyhow::Result<Channel> {
    let user_agent = concat!("otlake/", env!("CARGO_PKG_VERSION"));
    channel_as(target, timeout, user_agent).await
}

/// The same, under another name.
///
/// # Errors
/// The same.
pub(super) async fn channel_as(
    target: &Target,
    timeout: Duration,
    user_agent: &'static str,
) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(target.url.clone())
        .map_err(|error| UsageError(format!("--endpoint {}: {error}", target.url)))?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .user_agent(user_agent)?;
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    let known = target.known();
    let config = tls::config(&target.url, &target.tls, known.as_ref(), Above::Http2)?;
    let connector = tls::connector(http, &config);
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| unreachable_server(target, &error))
}

/// What a failed call means to the user, in one line.
pub(super) fn explain(status: &Status, url: &str, has_token: bool) -> anyhow::Error {
    match status.code() {
        Code::Unauthenticated if has_token => {
            anyhow!("the server at {url} refuses the token: check --token or OTLAKE_TOKEN")
        }
        Code::Unauthenticated => {
            anyhow!("the server at {url} wants a token: --token or OTLAKE_TOKEN")
        }
        Code::Unimplemented => anyhow!(
            "what listens at {url} is not otlake's gRPC port: check --endpoint and --data-dir"
        ),
        // The client's own time limit is Cancelled, the server's DeadlineExceeded.
        Code::Cancelled if status.message() == TimeoutExpired(()).to_string() => {
            anyhow!("no answer in time from {url}")
        }
        Code::DeadlineExceeded => {
            anyhow!("no answer in time from {url}: {}", status.message())
        }
        // The server says nothing of the sort: the connection broke.
        _ if status.source().is_some() => {
            if let Some(why) = tls::explain(status) {
                return anyhow!("cannot speak with {url}: {why}");
            }
            let cause = innermost(status);
            // The server's word that it wants a certificate can come too late to be told.
            let more = match url.starts_with("https:") {
                true => ", and does it ask for a client certificate (--cert and --key)",
                false => "",
            };
            anyhow!("the connection to {url} failed ({cause}): is it otlake's gRPC port{more}?")
        }
        _ => anyhow!("the server at {url} says: {}", status.message()),
    }
}

fn bearer(token: Option<&Secret>) -> Result<Bearer, UsageError> {
    let Some(token) = token else {
        return Ok(Bearer(None));
    };
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
        .parse()
        .map_err(|_| UsageError("--token: a token has visible ASCII characters only".to_owned()))?;
    value.set_sensitive(true);
    Ok(Bearer(Some(value)))
}

fn unreachable_server(target: &Target, error: &tonic::transport::Error) -> anyhow::Error {
    let url = &target.url;
    if let Some(why) = tls::explain(error) {
        return anyhow!("cannot speak with {url}: {why}");
    }
    let cause = innermost(error);
    let data_dir = target.data_dir.display();
    match &target.found {
        Found::Given => {
            anyhow!(
                "nothing answers at {url} ({cause}): is `otlake serve` running? check --endpoint"
            )
        }
        Found::Stranger => anyhow!("nothing answers at {url} ({cause})"),
        Found::Running(file) => anyhow!(
            "the server of {data_dir} (process {}) does not answer at {url} ({cause}): is it in another container? give --endpoint",
            file.pid
        ),
        Found::Guessed => anyhow!(
            "no server runs in {data_dir}, and nothing answers at {url} ({cause}): start `otlake serve`, or give --data-dir or --endpoint"
        ),
    }
}

/// The system's words where there are some, else those of the innermost cause.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    loop {
        if let Some(error) = last.downcast_ref::<io::Error>()
            && error.raw_os_error().is_some()
        {
            return error.kind().to_string();
        }
        match last.source() {
            Some(cause) => last = cause,
            None => return last.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
