//! Certificates and keys as people have them in files: what a file holds instead, and what makes the right one of it.

use std::path::Path;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ParsedCertificate;

use super::TlsError;
use crate::config::secret_file;

/// The object identifier that a PKCS#12 file has near its beginning (1.2.840.113549.1.7.1, in DER).
const PKCS12: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];

/// How far from its beginning that is looked for, bytes.
const PKCS12_WITHIN: usize = 64;

/// What a text file may begin with that PEM must not.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn read(path: &Path, flag: &'static str) -> Result<Vec<u8>, TlsError> {
    secret_file::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        flag,
        source,
    })
}

/// All certificates of a PEM file; at least one.
///
/// # Errors
/// [`TlsError::Read`] and [`TlsError::Content`].
pub(super) fn certificates(
    path: &Path,
    flag: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = read(path, flag)?;
    let wrong = |reason: String| TlsError::Content {
        path: path.to_owned(),
        flag,
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| wrong(format!("is not well-formed PEM, cut off perhaps: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(no_certificate(&content)));
    }
    Ok(chain)
}

/// The first private key of a PEM file, of a kind that can be used.
///
/// # Errors
/// [`TlsError::Read`] and [`TlsError::Content`].
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const FLAG: &str = "--tls-key";
    let content = read(path, FLAG)?;
    let wrong = |reason: String| TlsError::Content {
        path: path.to_owned(),
        flag: FLAG,
        reason,
    };
    let key = PrivateKeyDer::from_pem_slice(&content).map_err(|error| {
        wrong(match error {
            _ if has(&content, "ENCRYPTED") => "is encrypted with a passphrase: decrypt it with `openssl pkey -in FILE -out NEW_FILE`, readable by the server's user alone".to_owned(),
            pem::Error::NoItemsFound => no_private_key(&content),
            error => format!("is not well-formed PEM, cut off perhaps: {error}"),
        })
    })?;
    match ring::sign::any_supported_type(&key) {
        Ok(_) => Ok(key),
        Err(_) => Err(wrong(
            "holds a key of a kind that is not supported, or a damaged one: RSA of 2048 bits and more, ECDSA with P-256 or P-384, and Ed25519 are supported; `openssl pkey -in FILE -noout -text` tells its kind"
                .to_owned(),
        )),
    }
}

fn has(content: &[u8], text: &str) -> bool {
    let mut parts = content.windows(text.len());
    parts.any(|part| part == text.as_bytes())
}

/// What a file without a certificate holds.
fn no_certificate(content: &[u8]) -> String {
    let der = CertificateDer::from(content);
    if PrivateKeyDer::from_pem_slice(content).is_ok() {
        "holds a private key and no certificate: are the two files exchanged?".to_owned()
    } else if has(content, "BEGIN CERTIFICATE REQUEST")
        || has(content, "BEGIN NEW CERTIFICATE REQUEST")
    {
        "holds the request for a certificate (CSR): give the certificate that the authority has made of it".to_owned()
    } else if ParsedCertificate::try_from(&der).is_ok() {
        "holds a certificate in DER: make PEM of it with `openssl x509 -inform DER -in FILE -out NEW_FILE`".to_owned()
    } else if let Some(form) = other_form(content) {
        format!("{form}, for the certificate with `-clcerts -nokeys`")
    } else {
        form_of_text(content).unwrap_or_else(|| {
            "holds no certificate: give a PEM file with -----BEGIN CERTIFICATE-----".to_owned()
        })
    }
}

/// What a file without a private key holds.
fn no_private_key(content: &[u8]) -> String {
    if has(content, "BEGIN CERTIFICATE-----") {
        "holds a certificate and no private key: are the two files exchanged?".to_owned()
    } else if has(content, "CERTIFICATE REQUEST") {
        "holds the request for a certificate (CSR): give the key that the request was made with"
            .to_owned()
    } else if has(content, "PUBLIC KEY-----") {
        "holds a public key: give the private one".to_owned()
    } else if let Some(form) = other_form(content) {
        format!("{form}, for the key with `-nocerts -noenc`")
    } else if PrivateKeyDer::try_from(content).is_ok() {
        "holds a private key in DER: make PEM of it with `openssl pkey -inform DER -in FILE -out NEW_FILE`".to_owned()
    } else {
        form_of_text(content).unwrap_or_else(|| {
            "holds no private key: give a PEM file with -----BEGIN PRIVATE KEY-----".to_owned()
        })
    }
}

fn other_form(content: &[u8]) -> Option<&'static str> {
    let beginning = content.get(..PKCS12_WITHIN).unwrap_or(content);
    let mut parts = beginning.windows(PKCS12.len());
    parts.any(|part| part == PKCS12).then_some(
        "is in PKCS#12 (.p12, .pfx): make PEM of it with `openssl pkcs12 -in FILE -out NEW_FILE`",
    )
}

fn form_of_text(content: &[u8]) -> Option<String> {
    let text = content.strip_prefix(BYTE_ORDER_MARK);
    if content.trim_ascii().is_empty() {
        Some("is empty: was it written in full, and is it the right file?".to_owned())
    } else if text.is_some_and(|text| text.starts_with(b"-----BEGIN")) {
        Some("begins with a byte order mark, which PEM has not: save it as plain text, in UTF-8 without one".to_owned())
    } else {
        None
    }
}
