//! TLS of the client commands: whom they trust, and who they say they are.
//!
//! | server | trusted when |
//! |---|---|
//! | found in the data folder | it shows the certificate that `server.json` names, whatever names are in that |
//! | `--endpoint https://...` with `--ca` | one of the file has issued its certificate, for the host's name |
//! | `--endpoint https://...` | an authority that this machine trusts has |

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::args::ClientTlsArgs;
use super::failure::UsageError;
use crate::config::secret_file;
use crate::receive::tls::{fingerprint, flaw};
use crate::server_file::ServerTls;

/// Makes connections, with or without TLS as the URL's scheme says.
pub(super) type Connector = HttpsConnector<HttpConnector>;

/// What is spoken above TLS.
#[derive(Clone, Copy, Debug)]
pub(super) enum Above {
    /// gRPC.
    Http2,
    /// OTLP/HTTP as `otlake send` has it.
    Http1,
}

/// How to speak TLS with a server of which `known` says, if it is one of this machine, which certificate it shows.
///
/// # Errors
/// [`UsageError`] for files that are no good.
pub(super) fn config(
    url: &str,
    args: &ClientTlsArgs,
    known: Option<&ServerTls>,
    above: Above,
) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match known {
        Some(known) => {
            let verifier = KnownServer {
                certificates: known.certificates.clone(),
                provider,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        }
        // Without TLS nobody is to be trusted, and what this machine trusts need not be read.
        None if !url.starts_with("https:") => {
            builder.with_root_certificates(RootCertStore::empty())
        }
        None => builder.with_root_certificates(roots(args.ca.as_deref())?),
    };
    let mut config = match identity(args)? {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| match error {
                    Error::InconsistentKeys(_) => {
                        UsageError("--key does not match the certificate of --cert".to_owned())
                    }
                    error => UsageError(format!("--cert and --key cannot be used: {error}")),
                })?
        }
    };
    let protocol: &[u8] = match above {
        Above::Http2 => b"h2",
        Above::Http1 => b"http/1.1",
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// A connector that speaks TLS so, where a URL asks for TLS.
pub(super) fn connector(mut http: HttpConnector, config: &Arc<ClientConfig>) -> Connector {
    http.enforce_http(false);
    HttpsConnector::from((http, Arc::clone(config)))
}

/// Whom to trust: those of a file, else those that this machine trusts.
fn roots(ca: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path, "--ca")? {
                let wrong = |error| UsageError(format!("--ca {}: {error}", path.display()));
                roots.add(certificate).map_err(wrong)?;
            }
        }
        None => {
            // What cannot be read of them trusts nobody: a server that needs it is refused, with a hint of --ca.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What the client shows of itself.
fn identity(args: &ClientTlsArgs) -> anyhow::Result<Option<Identity>> {
    let (cert, key) = match (&args.cert, &args.key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => return Err(UsageError("--cert needs --key too".to_owned()).into()),
        (None, Some(_)) => return Err(UsageError("--key needs --cert too".to_owned()).into()),
    };
    let chain = certificates(cert, "--cert")?;
    let content = read(key, "--key")?;
    let key = PrivateKeyDer::from_pem_slice(&content).map_err(|error| {
        UsageError(format!(
            "--key {} holds no private key that can be read, in PEM and without a passphrase: {error}",
            key.display()
        ))
    })?;
    Ok(Some((chain, key)))
}

fn certificates(path: &Path, flag: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let content = read(path, flag)?;
    let read = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(UsageError(format!(
            "{flag} {} holds no certificate in PEM: it has a line -----BEGIN CERTIFICATE-----",
            path.display()
        ))
        .into()),
    }
}

fn read(path: &Path, flag: &str) -> anyhow::Result<Vec<u8>> {
    let read = secret_file::read(path);
    read.map_err(|error| {
        UsageError(format!("cannot read {flag} {}: {error}", path.display())).into()
    })
}

/// What a failed connection means, where TLS failed it; `None` where something else did.
pub(super) fn explain(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match tls_error(error) {
        Some(error) => Some(words(error)),
        None => alert(error).map(|alert| words(&Error::AlertReceived(alert))),
    }
}

fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired".to_owned()
            }
            CertificateError::UnknownIssuer => {
                "the server's certificate is from an issuer that is not trusted: name the issuer's certificate with --ca"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the server's certificate is for another name: {wrong}")
            }
            CertificateError::ApplicationVerificationFailure => {
                "the server shows another certificate than server.json names: is it another server that listens there?"
                    .to_owned()
            }
            wrong => match flaw(wrong) {
                Some(flaw) => format!("the server's certificate {flaw}"),
                None => format!("the server's certificate is no good: {wrong}"),
            },
        },
        Error::InvalidMessage(_) => "the server does not speak TLS there: write http://".to_owned(),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server asks for a client certificate: --cert and --key".to_owned()
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError
            | AlertDescription::CertificateExpired,
        ) => "the server refuses the client certificate: check --cert and --key".to_owned(),
        error => format!("TLS failed: {error}"),
    }
}

/// The alert that a broken connection tells of: HTTP/2 keeps the words of a cause, and not the cause.
fn alert(error: &(dyn std::error::Error + 'static)) -> Option<AlertDescription> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let last = chain.last()?.to_string();
    [
        AlertDescription::CertificateRequired,
        AlertDescription::UnknownCA,
        AlertDescription::BadCertificate,
        AlertDescription::DecryptError,
        AlertDescription::CertificateExpired,
    ]
    .into_iter()
    .find(|alert| last.contains(&Error::AlertReceived(*alert).to_string()))
}

/// The error of TLS among the causes. An I/O error hides the one that it carries from `source`.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        let carried = error.downcast_ref::<std::io::Error>();
        if let Some(carried) = carried.and_then(std::io::Error::get_ref) {
            if let Some(found) = carried.downcast_ref::<Error>() {
                return Some(found);
            }
            if let Some(found) = tls_error(carried) {
                return Some(found);
            }
        }
        next = error.source();
    }
    None
}

/// Trusts the certificates that the server of this machine has written down itself, and nothing else: neither names
/// nor issuers say anything about a loopback address.
#[derive(Debug)]
struct KnownServer {
    certificates: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for KnownServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.certificates.contains(&fingerprint(end_entity)) {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = CertificateError::ApplicationVerificationFailure;
        Err(Error::InvalidCertificate(wrong))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
