//! TLS of the listeners: certificate, key and the clients' issuers from files that may change while the server runs.
//!
//! Invariants:
//! - New files serve new connections only; those that stand keep what they began with.
//! - Files that are no good change nothing.

mod files;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig};

use self::files::{certificates, private_key};
use crate::config::{ClientAuth, ClientCa, TlsConfig, secret_file};

/// What both listeners speak above TLS.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why the files of TLS are refused; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {} ({flag}): {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} ({flag}) {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        flag: &'static str,
        /// What is wrong and what to give.
        reason: String,
    },
    /// Certificate and key are not of one pair.
    #[error(
        "the key {} (--tls-key) does not match the certificate {} (--tls-cert): give the key that the certificate was requested with; where the file holds several certificates, the server's own comes first",
        key.display(), cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls has other objections.
    #[error("cannot use the certificate {} (--tls-cert) with its key: {reason}", cert.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// rustls's words.
        reason: Error,
    },
}

/// The files' content, checked and ready to serve.
#[derive(Clone)]
pub struct Loaded {
    server: Arc<ServerConfig>,
    own: CertificateDer<'static>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loaded({})", self.fingerprint())
    }
}

impl Loaded {
    /// Reads the files and checks that they fit together. Warns of a key that others can read, and of a certificate that
    /// no client would take now.
    ///
    /// # Errors
    /// [`TlsError`] for the first file that is no good.
    pub fn read(files: &TlsConfig) -> Result<Loaded, TlsError> {
        let chain = certificates(&files.cert, "--tls-cert")?;
        let key = private_key(&files.key)?;
        let provider = Arc::new(ring::default_provider());
        let unusable = |reason| match reason {
            Error::InconsistentKeys(_) => TlsError::Mismatch {
                cert: files.cert.clone(),
                key: files.key.clone(),
            },
            Error::InvalidCertificate(wrong) => TlsError::Content {
                path: files.cert.clone(),
                flag: "--tls-cert",
                reason: format!(
                    "holds a certificate that cannot be read, damaged or cut off perhaps ({wrong:?}): take a new copy of it"
                ),
            },
            reason => TlsError::Unusable {
                cert: files.cert.clone(),
                reason,
            },
        };
        let Some(own) = chain.first().cloned() else {
            return Err(unusable(Error::NoCertificatesPresented));
        };
        let clients = match &files.client_ca {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(ca) => client_verifier(ca, &provider)?,
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        secret_file::warn_if_open(&files.key, "the private key");
        let server = Arc::new(server);
        let loaded = Loaded { server, own };
        if let Some(trouble) = loaded.trouble() {
            let file = files.cert.display();
            tracing::warn!(%file, "the certificate {trouble}: clients will refuse it");
        } else if let Some(doubt) = loaded.doubt() {
            let file = files.cert.display();
            tracing::warn!(%file, "the certificate {doubt}");
        }
        Ok(loaded)
    }

    /// SHA-256 of the server's certificate, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.own)
    }

    /// Why no client would take the certificate now, if so: its time is over or has not come. Asks rustls's own verifier,
    /// which looks at the time before it looks for an issuer.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        untimely(&self.objection()?)
    }

    /// Why some clients will not take the certificate, and what to do.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        if let Some(flaw) = self.objection().and_then(|objection| flaw(&objection)) {
            return Some(format!(
                "{flaw}: some clients refuse it, among them those that are built on rustls, as otlake's own commands are"
            ));
        }
        let parsed = ParsedCertificate::try_from(&self.own).ok()?;
        let name = ServerName::try_from("localhost").ok()?;
        match verify_server_name(&parsed, &name).err()? {
            Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented, ..
            }) if presented.is_empty() => Some(
                "names no host in its subjectAltName, and its common name is not looked at: clients will refuse it. \
                 Make one with `-addext subjectAltName=DNS:HOST`"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// What rustls's own verifier objects to, were the certificate to be trusted.
    fn objection(&self) -> Option<CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.clone()).ok()?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from("localhost").ok()?;
        let verified =
            verifier
                .build()
                .ok()?
                .verify_server_cert(&self.own, &[], &name, &[], UnixTime::now());
        match verified.err()? {
            Error::InvalidCertificate(error) => Some(error),
            _ => None,
        }
    }
}

/// What new connections are served with. Shared by the listeners and by whoever looks after the files.
#[derive(Debug)]
pub struct Tls {
    files: TlsConfig,
    current: RwLock<Loaded>,
}

impl Tls {
    /// Serves with these files, which were read before.
    #[must_use]
    pub fn new(files: TlsConfig, loaded: Loaded) -> Tls {
        Tls {
            files,
            current: RwLock::new(loaded),
        }
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &TlsConfig {
        &self.files
    }

    /// What new connections are served with now.
    #[must_use]
    pub fn current(&self) -> Loaded {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves new connections with what was read anew.
    pub fn replace(&self, loaded: Loaded) {
        let current = self.current.write();
        *current.unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    pub(super) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.current().server.into()
    }
}

/// SHA-256 of a certificate, in hexadecimal.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(certificate) {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
    }
    text
}

fn client_verifier(
    ca: &ClientCa,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const FLAG: &str = "--tls-client-ca";
    let content = |reason| TlsError::Content {
        path: ca.path.clone(),
        flag: FLAG,
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&ca.path, FLAG)? {
        roots.add(certificate).map_err(|error| {
            let flaw = match &error {
                Error::InvalidCertificate(wrong) => flaw(wrong),
                _ => None,
            };
            content(match flaw {
                Some(flaw) => format!("holds a certificate that {flaw}"),
                None => format!("holds a certificate that cannot be an issuer: {error}"),
            })
        })?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match ca.auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map_err(|error| content(format!("cannot be used: {error}")))
}

/// What is wrong with a certificate's time, if that is what is wrong.
fn untimely(error: &CertificateError) -> Option<&'static str> {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some("has expired"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("is not valid yet (is the clock right?)")
        }
        _ => None,
    }
}

/// What is wrong with a certificate that stands at the end of a chain, in plain words, and what to do.
#[must_use]
pub fn flaw(error: &CertificateError) -> Option<&'static str> {
    match error {
        CertificateError::BadEncoding => Some("is damaged: take a new copy of it"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Some(
            "is for another purpose: a server's extendedKeyUsage is serverAuth, a client's is clientAuth, or there is none",
        ),
        // rustls has no variant of its own for it, and shows that of its library.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            Some(
                "is an authority's own (CA:TRUE, as `openssl req -x509` makes it by itself): let it issue a certificate, \
             or make a self-signed one with `-addext basicConstraints=critical,CA:FALSE`",
            )
        }
        _ => None,
    }
}

/// What a failed handshake means, for the log: what happened and what to change.
pub(super) fn explain(error: &io::Error) -> String {
    use tokio_rustls::rustls::AlertDescription as Alert;
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    let Some(error) = inner else {
        return format!("the connection ended inside the TLS handshake: {error}");
    };
    match error {
        Error::NoCertificatesPresented => {
            "the client showed no certificate, which --tls-client-ca asks for: give it one".to_owned()
        }
        Error::InvalidCertificate(wrong) => match (untimely(wrong), wrong) {
            (Some(why), _) => format!("the client's certificate {why}"),
            (None, CertificateError::UnknownIssuer) => {
                "the client's certificate was not issued by one of --tls-client-ca".to_owned()
            }
            (None, wrong) => match flaw(wrong) {
                Some(flaw) => format!("the client's certificate {flaw}"),
                None => format!("the client's certificate is no good: {wrong}"),
            },
        },
        Error::AlertReceived(
            Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown,
        ) => {
            "the client does not trust the server's certificate: give it the issuer's, and call the server by a name that is in its certificate".to_owned()
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the client says that the server's certificate has expired".to_owned()
        }
        Error::AlertReceived(alert) => format!("the client ended the TLS handshake: {alert:?}"),
        error => format!("the TLS handshake failed: {error}"),
    }
}
