//! `whimbrel certs`: a certificate authority for tests, and what it issues.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::failure::Failure;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the authority is valid.
const AUTHORITY_DAYS: u32 = 3650;
/// What the authority and the server are called; no client may be.
const AUTHORITY: &str = "ca";
const SERVER: &str = "server";

/// Make certificates for tests: an authority, a server, clients. What exists is kept.
#[derive(clap::Args, Debug)]
pub struct Certs {
    /// Folder of the files.
    #[arg(long, default_value = "certs", global = true)]
    dir: PathBuf,
    /// Name or address of the server; may be repeated. Without any: localhost, 127.0.0.1 and ::1.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Name of a client that gets a certificate; may be repeated.
    #[arg(long, value_name = "NAME")]
    client: Vec<String>,
    /// Days that certificates and revocation lists are valid.
    #[arg(long, default_value_t = 365, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Revoke a client's certificate: write the revocation list `ca.crl` anew.
    Revoke {
        /// Name of the client.
        name: String,
    },
}

/// Runs the command.
pub fn run(args: &Certs) -> Result<(), Failure> {
    let folder = Folder { dir: &args.dir, days: args.days };
    match &args.command {
        None => folder.make(&args.host, &args.client),
        Some(Command::Revoke { name }) => folder.revoke(name),
    }
}

struct Folder<'a> {
    dir: &'a Path,
    days: u32,
}

impl Folder<'_> {
    fn make(&self, hosts: &[String], clients: &[String]) -> Result<(), Failure> {
        clients.iter().try_for_each(|name| check_name(name))?;
        fs::create_dir_all(self.dir).map_err(|error| failed(self.dir, &error))?;
        let authority = self.authority()?;
        let defaults = ["localhost", "127.0.0.1", "::1"].map(String::from);
        let hosts = if hosts.is_empty() { &defaults } else { hosts };
        self.issue(&authority, SERVER, || {
            let mut params = CertificateParams::new(hosts).map_err(|error| {
                Failure::new(2, format!("--host: not a name or an address: {error}"))
            })?;
            let first = hosts.first().map(String::as_str).unwrap_or_default();
            params.distinguished_name.push(DnType::CommonName, first);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            Ok(params)
        })?;
        for name in clients {
            self.issue(&authority, name, || {
                // A DNS name as well, for brokers that take the identity from there.
                let names: Vec<String> = dns_name(name).into_iter().collect();
                let mut params = CertificateParams::new(names).map_err(unexpected)?;
                params.distinguished_name.push(DnType::CommonName, name.as_str());
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                Ok(params)
            })?;
        }
        if !self.path(AUTHORITY, "crl").exists() {
            self.write_crl(&authority, Vec::new(), 1)?;
        }
        self.advise(hosts, clients)
    }

    /// The authority that is there, or a new one.
    fn authority(&self) -> Result<Issuer<'static, KeyPair>, Failure> {
        let (certificate, key) = (self.path(AUTHORITY, "pem"), self.path(AUTHORITY, "key"));
        if certificate.exists() && key.exists() {
            let text = |path: &Path| fs::read_to_string(path).map_err(|error| failed(path, &error));
            let bad = |path: &Path| {
                let what = "not an authority made by this command; remove it or take another --dir";
                failed(path, &what)
            };
            let pair = KeyPair::from_pem(&text(&key)?).map_err(|_| bad(&key))?;
            let issuer = Issuer::from_ca_cert_pem(&text(&certificate)?, pair);
            say(&format!("kept {}", certificate.display()));
            return issuer.map_err(|_| bad(&certificate));
        }
        let mut params = CertificateParams::new(Vec::new()).map_err(unexpected)?;
        params.distinguished_name.push(DnType::CommonName, "whimbrel test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, AUTHORITY_DAYS);
        let pair = KeyPair::generate().map_err(unexpected)?;
        let issuer = CertifiedIssuer::self_signed(params.clone(), &pair).map_err(unexpected)?;
        write_new(&key, pair.serialize_pem().as_bytes(), 0o600)?;
        write_new(&certificate, issuer.pem().as_bytes(), 0o644)?;
        drop(issuer);
        Ok(Issuer::new(params, pair))
    }

    /// Makes the certificate and key of `name`, unless they are there.
    fn issue(
        &self,
        authority: &Issuer<'_, KeyPair>,
        name: &str,
        params: impl FnOnce() -> Result<CertificateParams, Failure>,
    ) -> Result<(), Failure> {
        let (certificate, key) = (self.path(name, "pem"), self.path(name, "key"));
        if certificate.exists() && key.exists() {
            say(&format!("kept {}", certificate.display()));
            return Ok(());
        }
        let mut params = params()?;
        set_validity(&mut params, self.days);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let pair = KeyPair::generate().map_err(unexpected)?;
        let issued = params.signed_by(&pair, authority).map_err(unexpected)?;
        write_new(&key, pair.serialize_pem().as_bytes(), 0o600)?;
        write_new(&certificate, issued.pem().as_bytes(), 0o644)
    }

    fn revoke(&self, name: &str) -> Result<(), Failure> {
        check_name(name)?;
        let path = self.path(name, "pem");
        let serial = {
            let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
            let (_, pem) =
                parse_x509_pem(&bytes).map_err(|_| failed(&path, &"not a certificate in PEM"))?;
            let (_, parsed) = X509Certificate::from_der(&pem.contents)
                .map_err(|_| failed(&path, &"not a certificate"))?;
            SerialNumber::from_slice(parsed.raw_serial())
        };
        let authority = self.authority()?;
        let (mut revoked, number) = self.revoked()?;
        if revoked.iter().any(|one| one.serial_number == serial) {
            say(&format!("{name} was revoked before; the list is renewed"));
        } else {
            revoked.push(RevokedCertParams {
                serial_number: serial,
                revocation_time: date_time_ymd(1970, 1, 1) + since_1970(),
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            });
        }
        self.write_crl(&authority, revoked, number + 1)
    }

    /// What the list holds, and its number.
    fn revoked(&self) -> Result<(Vec<RevokedCertParams>, u64), Failure> {
        let path = self.path(AUTHORITY, "crl");
        if !path.exists() {
            return Ok((Vec::new(), 0));
        }
        let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
        let bad = || failed(&path, &"not a revocation list in PEM");
        let (_, pem) = parse_x509_pem(&bytes).map_err(|_| bad())?;
        let (_, list) = CertificateRevocationList::from_der(&pem.contents).map_err(|_| bad())?;
        let revoked = list.iter_revoked_certificates().map(|one| RevokedCertParams {
            serial_number: SerialNumber::from_slice(one.raw_serial()),
            revocation_time: one.revocation_date.to_datetime(),
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        });
        let number = list.crl_number().and_then(|number| u64::try_from(number.clone()).ok());
        Ok((revoked.collect(), number.unwrap_or(0)))
    }

    fn write_crl(
        &self,
        authority: &Issuer<'_, KeyPair>,
        revoked_certs: Vec<RevokedCertParams>,
        number: u64,
    ) -> Result<(), Failure> {
        let now = date_time_ymd(1970, 1, 1) + since_1970();
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + DAY * self.days,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(authority).and_then(|list| list.pem()).map_err(unexpected)?;
        let path = self.path(AUTHORITY, "crl");
        // A broker that reads it meanwhile gets the old one or the new one, whole.
        let new = self.path(AUTHORITY, "crl.new");
        fs::write(&new, list).map_err(|error| failed(&new, &error))?;
        fs::rename(&new, &path).map_err(|error| failed(&path, &error))?;
        say(&format!("wrote {}", path.display()));
        Ok(())
    }

    /// What to do with the files.
    fn advise(&self, hosts: &[String], clients: &[String]) -> Result<(), Failure> {
        let path = |name, extension| self.path(name, extension).display().to_string();
        let (certificate, key) = (path(SERVER, "pem"), path(SERVER, "key"));
        let ca = path(AUTHORITY, "pem");
        let host = hosts.first().map(String::as_str).unwrap_or("localhost");
        say(&format!(
            "\nStart a broker, and listen to it:\n  whimbrel broker --tls-port 8883 --certificate \
             {certificate} --key {key}\n  whimbrel sub -h {host} -p 8883 --cafile {ca} -t '#'"
        ));
        if let Some(name) = clients.first() {
            let crl = path(AUTHORITY, "crl");
            let (shown, shown_key) = (path(name, "pem"), path(name, "key"));
            say(&format!(
                "\nWith certificates of clients, in the configuration file:\n  [[listener]]\n  \
                 type = \"tcp\"\n  bind = \"127.0.0.1:8883\"\n  [listener.tls]\n  certificate = \
                 \"{certificate}\"\n  key = \"{key}\"\n  client_certificates = \"required\"\n  \
                 client_ca = \"{ca}\"\n  crl = [\"{crl}\"]\nand\n  whimbrel sub -h {host} -p 8883 \
                 --cafile {ca} --cert {shown} --key {shown_key} -t '#'"
            ));
        }
        Ok(())
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    let is_file_name = !name.is_empty()
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '/' || c.is_control());
    if !is_file_name || name == AUTHORITY || name == SERVER {
        let what = format!("\"{name}\" cannot be the name of a client: it names its files");
        return Err(Failure::new(2, what));
    }
    Ok(())
}

/// The name as a DNS name, if it can be one.
fn dns_name(name: &str) -> Option<String> {
    let is_dns = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (is_dns && name.parse::<IpAddr>().is_err()).then(|| name.to_owned())
}

fn set_validity(params: &mut CertificateParams, days: u32) {
    let now = date_time_ymd(1970, 1, 1) + since_1970();
    // Clocks differ.
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    // One that is there without its other half is of no use.
    let _ = fs::remove_file(path);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| failed(path, &error))?;
    say(&format!("wrote {}", path.display()));
    Ok(())
}

/// A line on stdout; whoever does not read it does not want it.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn failed(path: &Path, what: &dyn std::fmt::Display) -> Failure {
    Failure::new(1, format!("{}: {what}", path.display()))
}

fn unexpected(error: rcgen::Error) -> Failure {
    Failure::new(1, format!("cannot make a certificate: {error}"))
}
