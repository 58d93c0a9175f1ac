//! Certificates as the `openssl` command makes them, and what connects with them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Endpoint};

/// Time of a certificate that is good today, and of one that is not any more.
pub const GOOD: [&str; 2] = ["20200101000000Z", "20991231000000Z"];
pub const EXPIRED: [&str; 2] = ["20200101000000Z", "20200102000000Z"];

/// A folder of authorities and what they have issued: `NAME.pem` and `NAME.key`.
pub struct Certs {
    dir: TempDir,
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").current_dir(dir).args(args).output();
    let output = output.expect("the openssl command is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {said}");
}

impl Certs {
    /// An authority `ca`, and a certificate `server` of it for `localhost` and its addresses.
    pub fn new() -> Certs {
        let certs = Certs {
            dir: TempDir::new().unwrap(),
        };
        certs.authority("ca");
        certs.issue("ca", "server", GOOD);
        certs
    }

    pub fn authority(&self, name: &str) {
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN=otlake test {name}");
        let new = ["req", "-x509", "-nodes", "-days", "30", "-newkey", "ec"];
        let curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let names = ["-keyout", &key, "-out", &cert, "-subj", &subject];
        openssl(self.dir.path(), &[&new[..], &curve, &names].concat());
    }

    /// Issues a certificate for `localhost`, good from the first time to the second.
    pub fn issue(&self, authority: &str, name: &str, [from, to]: [&str; 2]) {
        let dir = self.dir.path();
        fs::write(dir.join("index.txt"), "").unwrap();
        fs::write(
            dir.join("ca.cnf"),
            "[ca]\ndefault_ca = one\n[one]\ndatabase = index.txt\nnew_certs_dir = .\ndefault_md = sha256\n\
             policy = any\nrand_serial = yes\nunique_subject = no\n[any]\ncommonName = supplied\n[leaf]\n\
             basicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost,IP:127.0.0.1,IP:::1\n",
        )
        .unwrap();
        let [key, request, cert] = ["key", "csr", "pem"].map(|end| format!("{name}.{end}"));
        let subject = format!("/CN=otlake test {name}");
        let new = ["req", "-new", "-nodes", "-newkey", "ec"];
        let curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let names = ["-keyout", &key, "-out", &request, "-subj", &subject];
        openssl(dir, &[&new[..], &curve, &names].concat());
        let [ca_key, ca_cert] = ["key", "pem"].map(|end| format!("{authority}.{end}"));
        let sign = ["ca", "-batch", "-notext", "-config", "ca.cnf"];
        let by = ["-cert", &ca_cert, "-keyfile", &ca_key];
        let time = ["-startdate", from, "-enddate", to];
        let what = ["-extensions", "leaf", "-in", &request, "-out", &cert];
        openssl(dir, &[&sign[..], &by, &time, &what].concat());
    }

    /// Runs any other `openssl` command in the folder.
    pub fn openssl(&self, args: &[&str]) {
        openssl(self.dir.path(), args);
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The path, for a command line.
    pub fn text(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    /// Copies a certificate and its key over those of another name, as renewing does: each by a rename.
    pub fn install(&self, cert: &str, key: &str, name: &str) {
        for (from, to) in [(cert, format!("{name}.pem")), (key, format!("{name}.key"))] {
            let new = self.path("new");
            fs::copy(self.path(from), &new).unwrap();
            fs::rename(new, self.path(&to)).unwrap();
        }
    }

    /// The flags of a server with the certificate of this name.
    pub fn flags(&self, name: &str) -> [String; 4] {
        let file = |end| self.text(&format!("{name}.{end}"));
        let [cert, key] = [file("pem"), file("key")];
        ["--tls-cert".to_owned(), cert, "--tls-key".to_owned(), key]
    }

    /// Trusts one authority.
    pub fn client(&self, authority: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let path = self.path(&format!("{authority}.pem"));
        roots
            .add(CertificateDer::from_pem_file(path).unwrap())
            .unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }

    /// Connects for HTTP/2, trusting one authority.
    pub fn connector(&self, authority: &str) -> HttpsConnector<HttpConnector> {
        let mut config = (*self.client(authority)).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        HttpsConnector::from((http, Arc::new(config)))
    }

    /// tonic's channel to a server that shows a certificate of this authority.
    pub async fn channel(
        &self,
        authority: &str,
        address: SocketAddr,
    ) -> Result<Channel, tonic::transport::Error> {
        let connector = self.connector(authority);
        let url = format!("https://localhost:{}", address.port());
        let endpoint = Endpoint::from_shared(url).unwrap();
        endpoint.connect_with_connector(connector).await
    }

    /// Runs curl, trusting `ca`, towards `https://localhost`; prints the body and, in a last line, status and HTTP version.
    pub fn curl(&self, address: SocketAddr, path: &str, args: &[&str]) -> Output {
        let url = format!("https://localhost:{}{path}", address.port());
        let mut command = Command::new("curl");
        command
            .env_clear()
            .args(["--silent", "--show-error", "--max-time", "20"])
            .args(["--cacert", &self.text("ca.pem")])
            .args(["--write-out", "\n%{http_code} %{http_version}"])
            .args(args)
            .arg(url);
        command.output().expect("curl is installed")
    }
}

/// The last line of what [`Certs::curl`] printed.
pub fn status_and_version(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    assert!(output.status.success(), "{said}{error}");
    last.to_owned()
}
