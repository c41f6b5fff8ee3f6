//! Tokens that are bound to a certificate or a key (`cnf`).

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use whimbrel_codec::{Connect, Packet, ReasonCode, Version};

use super::issuer::{Carrier, all_keys, claims, encode, header, token, with};
use super::link::{Got, Link, refused, tcp, welcome};
use super::server::{LISTENER, Server};
use super::support::new_folder;

/// A broker with TLS that asks for certificates, and the folder of all certificates.
pub struct Place {
    pub server: Server,
    certificates: std::path::PathBuf,
}

impl Place {
    pub fn new() -> Place {
        let certificates = new_folder();
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        command.arg("certs").arg("--dir").arg(&certificates);
        let made = command.args(["--client", "ann", "--client", "eve"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let dir = certificates.display();
        let tls = format!(
            "authentication = [\"token\", \"ace\"]\n[listener.tls]\ncertificate = \"{dir}/server.pem\"\n\
             key = \"{dir}/server.key\"\nclient_certificates = \"optional\"\n\
             client_ca = \"{dir}/ca.pem\"\n"
        );
        let issuer = super::issuer::config("jwks_file = \"{folder}/jwks.json\"");
        let config = format!("{issuer}\n{LISTENER}{tls}");
        let server = Server::start(&config, &[("jwks.json", &all_keys())]);
        Place { server, certificates }
    }

    /// CONNACK for this token as the password, with this certificate.
    fn connect(&self, name: Option<&str>, token: &str) -> (Link, Got) {
        let mut link = Link::over(self.tls(name));
        let password = Some(token.as_bytes());
        link.send(&Packet::Connect(Connect { password, ..Connect::new(Version::V5, "c") }));
        let got = link.next();
        (link, got)
    }

    /// A connection that shows the certificate of this name.
    pub fn tls(&self, name: Option<&str>) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.certificates.join("ca.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let path = self.certificates.join(format!("{name}.key"));
                let key = PrivateKeyDer::from_pem_file(path).unwrap();
                builder.with_client_auth_cert(vec![self.certificate(name)], key).unwrap()
            }
        };
        let to = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), to).unwrap();
        StreamOwned::new(connection, tcp(&self.server.broker.address("tls")))
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        certificate(&self.certificates.join(format!("{name}.pem")))
    }

    /// The `cnf` of a token for this certificate (RFC 8705).
    fn thumbprint(&self, name: &str) -> Value {
        let hash = digest(&SHA256, &self.certificate(name));
        json!({"x5t#S256": encode(hash.as_ref())})
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.certificates);
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn bound(cnf: Value) -> String {
    token(&header(), &with(claims(), "cnf", cnf))
}

#[test]
fn a_token_for_a_certificate_comes_in_with_that_certificate_alone() {
    let place = Place::new();
    let token = bound(place.thumbprint("ann"));
    let (mut link, got) = place.connect(Some("ann"), &token);
    assert_eq!(got, welcome(false), "{}", place.server.log());
    assert!(link.is_quiet());
    for name in [None, Some("eve")] {
        let (_, got) = place.connect(name, &token);
        assert_eq!(got, refused(ReasonCode::NotAuthorized), "{name:?}");
    }
    for carrier in Carrier::ALL {
        let (_, got) = carrier.present(&place.server, &token, "c");
        assert_eq!(got, refused(ReasonCode::NotAuthorized), "without TLS, {carrier:?}");
    }
    assert!(!place.server.log().contains(&token), "the token is in the log");
}

#[test]
fn a_binding_that_is_not_checked_refuses() {
    let place = Place::new();
    let right = place.thumbprint("ann");
    let upper = right["x5t#S256"].as_str().unwrap().to_ascii_uppercase();
    let jwk = super::issuer::ec_jwk(&super::issuer::EC, "ec");
    for cnf in [
        json!({"jkt": right["x5t#S256"]}),
        json!({"jwk": jwk}),
        json!({"kid": "ec"}),
        json!({"x5t": right["x5t#S256"]}),
        json!({"x5t#S256": upper}),
        json!({"x5t#S256": ""}),
        json!({"x5t#S256": [right["x5t#S256"]]}),
        json!({}),
        json!("ann"),
        with(right.clone(), "jkt", json!("x")),
    ] {
        let (_, got) = place.connect(Some("ann"), &bound(cnf.clone()));
        assert_eq!(got, refused(ReasonCode::NotAuthorized), "{cnf}");
    }
}

#[test]
fn a_token_without_binding_needs_no_certificate() {
    let place = Place::new();
    let token = token(&header(), &claims());
    for name in [None, Some("eve")] {
        assert_eq!(place.connect(name, &token).1, welcome(false), "{name:?}");
    }
}
