//! A folder of certificates, a broker that shows them, and rustls's client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version,
};

use crate::support::{Broker, Client, PATIENCE, new_folder, whimbrel};

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// A folder, removed in the end.
pub struct Certs(pub PathBuf);

impl Certs {
    /// With an authority, a server, and these clients.
    pub fn new(clients: &[&str]) -> Certs {
        let certs = Certs(new_folder());
        certs.make(&clients.iter().flat_map(|name| ["--client", name]).collect::<Vec<_>>());
        certs
    }

    /// Runs `whimbrel certs`.
    pub fn make(&self, words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        let output = command.arg("certs").args(words).arg("--dir").arg(&self.0).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// The table of a listener that shows the server's certificate.
    pub fn table(&self, more: &str) -> String {
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        format!("[listener.tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n{more}\n")
    }

    /// The same for clients with certificates.
    pub fn mutual(&self, wanted: &str) -> String {
        let (ca, crl) = (self.path("ca.pem"), self.path("ca.crl"));
        self.table(&format!(
            "client_certificates = \"{wanted}\"\nclient_ca = \"{ca}\"\ncrl = [\"{crl}\"]"
        ))
    }

    pub fn client_config(
        &self,
        version: &'static SupportedProtocolVersion,
        name: Option<&str>,
    ) -> ClientConfig {
        let read = |file: String| CertificateDer::from_pem_file(self.path(&file)).expect("PEM");
        let mut roots = RootCertStore::empty();
        roots.add(read("ca.pem".into())).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        let Some(name) = name else { return builder.with_no_client_auth() };
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).expect("PEM");
        let chain = vec![read(format!("{name}.pem"))];
        builder.with_client_auth_cert(chain, key).expect("they match")
    }
}

impl Drop for Certs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker of one listener of type tcp with this table.
pub fn broker(table: &str) -> Broker {
    Broker::with_file(&listener(table))
}

/// The configuration of one listener of type tcp with this table.
pub fn listener(table: &str) -> String {
    format!("[[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n{table}")
}

/// A broker whose log goes to a file, which it gives.
pub fn logged_broker(text: &str) -> (Broker, PathBuf) {
    let folder = new_folder();
    let (file, log) = (folder.join("whimbrel.toml"), folder.join("log"));
    std::fs::write(&file, text).expect("a file");
    let mut command = whimbrel(&["--config", &file.display().to_string()]);
    command.env("RUST_LOG", "info").stderr(std::fs::File::create(&log).expect("a file"));
    (Broker::start(folder, &mut command), log)
}

/// Waits until the log has a line with all these words.
pub fn expect_line(log: &PathBuf, words: &[&str]) {
    let begin = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(log).expect("a log");
        if text.lines().any(|line| words.iter().all(|word| line.contains(word))) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "no line with {words:?} in:\n{text}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

pub type TlsClient = Client<StreamOwned<ClientConnection, Trickle>>;

/// A socket that is written to in pieces of this many bytes.
pub struct Trickle(pub TcpStream, pub usize);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(self.1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn socket(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// TLS on this socket; nothing is sent yet.
pub fn tls_on(stream: Trickle, config: &Arc<ClientConfig>) -> TlsClient {
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = ClientConnection::new(config.clone(), name).expect("a client");
    Client(StreamOwned::new(tls, stream))
}

pub fn tls(broker: &Broker, config: ClientConfig) -> TlsClient {
    tls_on(Trickle(socket(&broker.address("tls")), usize::MAX), &Arc::new(config))
}
