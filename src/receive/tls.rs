//! TLS of the listeners: certificate, key and the clients' issuers from files that may change while the server runs.
//!
//! Invariants:
//! - New files serve new connections only; those that stand keep what they began with.
//! - Files that are no good change nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig};

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
            Error::InvalidCertificate(error) => untimely(&error),
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

fn read(path: &Path, flag: &'static str) -> Result<Vec<u8>, TlsError> {
    secret_file::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        flag,
        source,
    })
}

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path, flag: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = read(path, flag)?;
    let wrong = |reason: String| TlsError::Content {
        path: path.to_owned(),
        flag,
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| wrong(format!("is not well-formed PEM: {error}")))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    Err(wrong(match PrivateKeyDer::from_pem_slice(&content) {
        Ok(_) => "holds a private key and no certificate: are the two files exchanged?".to_owned(),
        Err(_) => "holds no certificate: give a PEM file with -----BEGIN CERTIFICATE-----, which `openssl x509 -in FILE -inform DER` makes of other forms".to_owned(),
    }))
}

/// The first private key of a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const FLAG: &str = "--tls-key";
    let content = read(path, FLAG)?;
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| {
        let has = |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
        let reason = match error {
            _ if has("ENCRYPTED") => "is encrypted with a passphrase: decrypt it with `openssl pkey -in FILE -out NEW_FILE`, readable by the server's user alone".to_owned(),
            pem::Error::NoItemsFound if has("BEGIN CERTIFICATE") => {
                "holds a certificate and no private key: are the two files exchanged?".to_owned()
            }
            pem::Error::NoItemsFound => "holds no private key: give a PEM file with -----BEGIN PRIVATE KEY-----".to_owned(),
            error => format!("is not well-formed PEM: {error}"),
        };
        TlsError::Content {
            path: path.to_owned(),
            flag: FLAG,
            reason,
        }
    })
}

fn client_verifier(
    ca: &ClientCa,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const FLAG: &str = "--tls-client-ca";
    let unusable = |reason: &dyn fmt::Display| TlsError::Content {
        path: ca.path.clone(),
        flag: FLAG,
        reason: format!("holds a certificate that cannot be an issuer: {reason}"),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&ca.path, FLAG)? {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match ca.auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| unusable(&error))
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
            (None, wrong) => format!("the client's certificate is no good: {wrong}"),
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
