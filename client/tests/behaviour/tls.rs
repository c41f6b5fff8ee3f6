//! TLS: whom the client trusts, and what it shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use whimbrel_client::{Builder, Client, Error, Status, Tls, TlsOptions, TlsVersion};

use crate::peer::{Peer, place_of};
use crate::sockets::{greet, listener, serve};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A folder of certificates, removed in the end.
struct Certs {
    folder: PathBuf,
    authority: Authority,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
}

impl Certs {
    fn new() -> Certs {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("whimbrel-client-tls-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let authority = authority();
        std::fs::write(folder.join("ca.pem"), authority.pem()).expect("a file");
        Certs { folder, authority }
    }

    /// A certificate for this name, and its key: paths.
    fn make(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        let paths = ["pem", "key"].map(|kind| self.folder.join(format!("{name}.{kind}")));
        std::fs::write(&paths[0], certificate.pem()).expect("a file");
        std::fs::write(&paths[1], key.serialize_pem()).expect("a file");
        paths.into()
    }

    /// A server that shows this certificate.
    fn server(&self, shown: &(PathBuf, PathBuf), wants_client: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).expect("an authority");
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(&shown.0).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(&shown.1).expect("PEM");
        let mut config = builder.with_single_cert(chain, key).expect("they match");
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        Arc::new(config)
    }

    fn options(&self) -> TlsOptions {
        TlsOptions { ca_file: Some(self.folder.join("ca.pem")), ..TlsOptions::default() }
    }
}

impl Drop for Certs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn client(host: &str, port: u16, options: &TlsOptions) -> Builder {
    let builder = Client::builder(&format!("mqtts://{host}:{port}")).expect("a URL");
    builder.tls(Tls::new(options).expect("usable files"))
}

async fn accept(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let (stream, _) = listener.accept().await.expect("a connection");
    TlsAcceptor::from(config.clone()).accept(stream).await
}

#[tokio::test]
async fn the_server_is_told_its_name_and_the_protocol() {
    let certs = Certs::new();
    let config = certs.server(&certs.make("localhost", |_| ()), false);
    for version in [None, Some(TlsVersion::V1_2), Some(TlsVersion::V1_3)] {
        let (listener, port) = listener().await;
        let alpn = Some("mqtt".into());
        let options = TlsOptions { version, alpn, ..certs.options() };
        let client = client("localhost", port, &options).start().expect("valid settings");
        greet(&client).await;
        let stream = accept(&listener, &config).await.expect("TLS");
        assert_eq!(stream.get_ref().1.server_name(), Some("localhost"));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"mqtt"[..]));
        serve(&mut Peer::on(stream)).await;
    }
}

#[tokio::test]
async fn a_server_at_an_address_has_it_in_its_certificate() {
    let certs = Certs::new();
    let config = certs.server(&certs.make("127.0.0.1", |_| ()), false);
    let (listener, port) = listener().await;
    let client = client("127.0.0.1", port, &certs.options()).start().expect("valid settings");
    greet(&client).await;
    let stream = accept(&listener, &config).await.expect("TLS");
    assert_eq!(stream.get_ref().1.server_name(), None);
    serve(&mut Peer::on(stream)).await;
}

/// The error of a client that does not trust the server.
async fn distrust(certs: &Certs, shown: &(PathBuf, PathBuf), options: &TlsOptions) -> Error {
    let config = certs.server(shown, false);
    let (listener, port) = listener().await;
    let connecting = client("localhost", port, options).connect();
    let (client, stream) = tokio::join!(connecting, accept(&listener, &config));
    assert!(stream.is_err(), "the client goes on");
    let error = client.err().expect("no trust");
    assert!(matches!(error, Error::Tls(_)), "{error}");
    error
}

#[tokio::test]
async fn who_is_not_to_be_trusted_is_told_from_the_server() {
    let certs = Certs::new();
    let good = certs.make("localhost", |_| ());
    std::fs::write(certs.folder.join("other.pem"), authority().pem()).expect("a file");
    let other = TlsOptions { ca_file: Some(certs.folder.join("other.pem")), ..certs.options() };
    let error = distrust(&certs, &good, &other).await;
    assert!(error.to_string().contains("not trusted"), "{error}");
    assert!(error.tls_hint().is_some());

    let elsewhere = certs.make("elsewhere.example", |_| ());
    let error = distrust(&certs, &elsewhere, &certs.options()).await;
    assert!(error.to_string().contains("another name"), "{error}");

    let expired = certs.make("localhost", |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let error = distrust(&certs, &expired, &certs.options()).await;
    assert!(error.to_string().contains("expired"), "{error}");
    // Whoever takes any name takes no certificate that has expired.
    let insecure = TlsOptions { insecure: true, ..certs.options() };
    distrust(&certs, &expired, &insecure).await;
}

#[tokio::test]
async fn any_name_is_taken_if_asked() {
    let certs = Certs::new();
    let config = certs.server(&certs.make("elsewhere.example", |_| ()), false);
    let (listener, port) = listener().await;
    let insecure = TlsOptions { insecure: true, ..certs.options() };
    let client = client("localhost", port, &insecure).start().expect("valid settings");
    greet(&client).await;
    serve(&mut Peer::on(accept(&listener, &config).await.expect("TLS"))).await;
}

#[tokio::test]
async fn the_client_shows_its_certificate() {
    let certs = Certs::new();
    let config = certs.server(&certs.make("localhost", |_| ()), true);
    let own = certs.make("boiler", |_| ());
    let (listener, port) = listener().await;
    let options = TlsOptions { certificate: Some(own), ..certs.options() };
    let client = client("localhost", port, &options).start().expect("valid settings");
    greet(&client).await;
    let stream = accept(&listener, &config).await.expect("TLS");
    assert_eq!(stream.get_ref().1.peer_certificates().map(<[_]>::len), Some(1));
    serve(&mut Peer::on(stream)).await;
}

#[tokio::test]
async fn a_certificate_that_is_missing_is_said() {
    let certs = Certs::new();
    let config = certs.server(&certs.make("localhost", |_| ()), true);
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let (listener, port) = listener().await;
        let options = TlsOptions { version: Some(version), ..certs.options() };
        let connecting = client("localhost", port, &options).connect();
        let (client, stream) = tokio::join!(connecting, accept(&listener, &config));
        assert!(stream.is_err());
        let error = client.err().expect("refused").to_string();
        assert!(error.contains("wants a certificate"), "{version:?}: {error}");
    }
}

#[tokio::test]
async fn a_connection_that_is_made_again_resumes_tls() {
    let certs = Certs::new();
    let config = certs.server(&certs.make("localhost", |_| ()), false);
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let (listener, port) = listener().await;
        let options = TlsOptions { version: Some(version), ..certs.options() };
        let client = client("localhost", port, &options).start().expect("valid settings");
        greet(&client).await;
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let stream = accept(&listener, &config).await.expect("TLS");
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
            serve(&mut Peer::on(stream)).await;
        }
    }
}

#[tokio::test]
async fn a_port_without_tls_is_said() {
    let certs = Certs::new();
    let (listener, port) = listener().await;
    let connecting = client("localhost", port, &certs.options()).connect();
    let (client, ()) = tokio::join!(connecting, async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(&[0x20, 2, 0, 0]).await.expect("it listens");
    });
    let error = client.err().expect("no TLS").to_string();
    assert!(error.contains("does not speak TLS"), "{error}");
}

/// The URL of a client with a connector says what is spoken on its streams.
#[tokio::test]
async fn tls_on_streams_of_the_application() {
    let certs = Certs::new();
    let config = certs.server(&certs.make("localhost", |_| ()), false);
    let mut options = TlsOptions { alpn: Some("mqtt".into()), ..certs.options() };
    options.version = Some(TlsVersion::V1_3);
    let (builder, mut place) = place_of("mqtts://localhost");
    let client = builder.tls(Tls::new(&options).expect("files")).start().expect("settings");
    let mut events = client.events();
    let stream = place.stream().await;
    let mut peer = Peer::on(TlsAcceptor::from(config).accept(stream).await.expect("TLS"));
    peer.recv_connect().await;
    peer.send_connack(false).await;
    assert!(matches!(events.next().await, Some(Status::Connected(_))));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let certs = Certs::new();
    let (certificate, _) = certs.make("one", |_| ());
    let (_, key) = certs.make("two", |_| ());
    let mixed = TlsOptions { certificate: Some((certificate, key)), ..certs.options() };
    let error = Tls::new(&mixed).expect_err("they do not match").to_string();
    assert!(error.contains("two.key") && error.contains("one.pem"), "{error}");
    let missing = TlsOptions { ca_file: Some("/nowhere/ca.pem".into()), ..certs.options() };
    let error = Tls::new(&missing).expect_err("not there").to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}
