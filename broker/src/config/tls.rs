//! `[listener.tls]` tables, and the files they name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use whimbrel_transport::tls::{
    self, ClientCertificates, KeyPair, MinVersion, NameKind, Part, Settings, Tickets,
};

use super::ConfigError;
use super::listener::{At, find, text, texts};

const KEYS: &[&str] = &[
    "certificate",
    "key",
    "certificates",
    "min_version",
    "client_certificates",
    "client_ca",
    "crl",
    "allow_expired_crl",
    "identity",
];

/// TLS of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The first is for clients that name no server, or one that none covers.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Whether clients have to show a certificate.
    pub client_certificates: ClientCertificates,
    /// Authorities of clients.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists.
    pub crl: Vec<PathBuf>,
    /// Whether a revocation list counts after its next update was due.
    pub allow_expired_crl: bool,
    /// Which name of a certificate is the client's identity.
    pub identity: NameKind,
    /// Whether the exporter of RFC 9431 is computed; no key of the file.
    pub exporter: bool,
}

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Of these names.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> CertificateFiles {
        CertificateFiles { certificate: certificate.into(), key: key.into() }
    }
}

/// The words for a value, in the order of `--print-config`.
pub(super) const CLIENT_CERTIFICATES: &[(&str, ClientCertificates)] = &[
    ("off", ClientCertificates::Off),
    ("optional", ClientCertificates::Optional),
    ("required", ClientCertificates::Required),
];
pub(super) const MIN_VERSIONS: &[(&str, MinVersion)] =
    &[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
pub(super) const IDENTITIES: &[(&str, NameKind)] = &[
    ("common_name", NameKind::CommonName),
    ("dns", NameKind::Dns),
    ("uri", NameKind::Uri),
    ("email", NameKind::Email),
];

impl Tls {
    /// Whether clients are asked for a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.client_certificates != ClientCertificates::Off
    }
}

/// Reads `[listener.tls]`.
pub(super) fn read(table: &Spanned<DeValue<'_>>) -> Result<Tls, At> {
    let at = table.span().start;
    let DeValue::Table(keys) = table.get_ref() else {
        return Err((at, "key `listener.tls` must be a table: write [listener.tls]".into()));
    };
    for key in keys.keys() {
        let name = key.get_ref().as_ref();
        if !KEYS.contains(&name) {
            let what = format!("unknown key `listener.tls.{name}`; there are {}", KEYS.join(", "));
            return Err((key.span().start, what));
        }
    }
    let tls = Tls {
        certificates: certificates(keys, at)?,
        min_version: word(keys, "min_version", MIN_VERSIONS)?,
        client_certificates: word(keys, "client_certificates", CLIENT_CERTIFICATES)?,
        client_ca: text(keys, "tls.client_ca")?.map(|(_, path)| path.into()),
        crl: texts(keys, "tls.crl")?.unwrap_or_default().iter().map(PathBuf::from).collect(),
        allow_expired_crl: switch(keys, "allow_expired_crl")?,
        identity: word(keys, "identity", IDENTITIES)?,
        exporter: false,
    };
    let wants_clients = tls.client_certificates != ClientCertificates::Off;
    if wants_clients && tls.client_ca.is_none() {
        let what = "client certificates need `client_ca`, a file with the authorities that issue \
                    them";
        return Err((at, what.into()));
    }
    if !wants_clients && (tls.client_ca.is_some() || !tls.crl.is_empty()) {
        let what = "`client_ca` and `crl` do nothing unless `client_certificates` is \"optional\" \
                    or \"required\"";
        return Err((at, what.into()));
    }
    Ok(tls)
}

fn certificates(keys: &DeTable<'_>, at: usize) -> Result<Vec<CertificateFiles>, At> {
    let mut all = Vec::new();
    match (text(keys, "tls.certificate")?, text(keys, "tls.key")?) {
        (Some((_, certificate)), Some((_, key))) => {
            all.push(CertificateFiles::new(certificate, key));
        }
        (None, None) => {}
        _ => return Err((at, "`certificate` and `key` go together".into())),
    }
    if let Some(list) = find(keys, "certificates") {
        const SHAPE: &str = "key `listener.tls.certificates` must be a list such as [{ certificate \
                             = \"server.pem\", key = \"server.key\" }]";
        let shape = |value: &Spanned<DeValue<'_>>| (value.span().start, SHAPE.to_owned());
        let DeValue::Array(pairs) = list.get_ref() else { return Err(shape(list)) };
        for pair in pairs.iter() {
            let DeValue::Table(keys) = pair.get_ref() else { return Err(shape(pair)) };
            match (text(keys, "tls.certificate")?, text(keys, "tls.key")?) {
                (Some((_, certificate)), Some((_, key))) if keys.len() == 2 => {
                    all.push(CertificateFiles::new(certificate, key));
                }
                _ => return Err(shape(pair)),
            }
        }
    }
    if all.is_empty() {
        return Err((at, "[listener.tls] needs `certificate` and `key`, two PEM files".into()));
    }
    Ok(all)
}

fn word<T: Copy + Default>(keys: &DeTable<'_>, name: &str, words: &[(&str, T)]) -> Result<T, At> {
    let Some((at, text)) = text(keys, &format!("tls.{name}"))? else { return Ok(T::default()) };
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let all = all.join(", ");
        (at, format!("key `listener.tls.{name}` must be one of {all}, not \"{text}\""))
    })
}

fn switch(keys: &DeTable<'_>, name: &str) -> Result<bool, At> {
    match find(keys, name).map(|value| (value.span().start, value.get_ref())) {
        None => Ok(false),
        Some((_, DeValue::Boolean(value))) => Ok(*value),
        Some((at, _)) => Err((at, format!("key `listener.tls.{name}` must be true or false"))),
    }
}

/// What the files hold now, and what is odd about them.
pub(crate) struct LoadedTls {
    pub(crate) config: tls::Config,
    pub(crate) warnings: Vec<String>,
}

impl Tls {
    /// Reads all files; `alpn` is the protocol of the listener, `place` where it was configured.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub(crate) fn load(
        &self,
        alpn: &'static str,
        place: &str,
        tickets: &Tickets,
    ) -> Result<LoadedTls, ConfigError> {
        let error = |what: String| ConfigError { place: place.to_owned(), what };
        let read = |path: &Path| {
            fs::read(path)
                .map_err(|fault| error(format!("cannot read {}: {fault}", path.display())))
        };
        let mut certificates = Vec::new();
        for files in &self.certificates {
            let certificate = read(&files.certificate)?;
            certificates.push(KeyPair { certificate, key: read(&files.key)? });
        }
        let settings = Settings {
            certificates,
            min_version: self.min_version,
            client_certificates: self.client_certificates,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
            crls: self.crl.iter().map(|path| read(path)).collect::<Result<_, _>>()?,
            allow_expired_crl: self.allow_expired_crl,
            identity: self.identity,
            exporter: self.exporter,
            alpn,
        };
        let config = tls::Config::new(&settings, tickets).map_err(|invalid| {
            let what = invalid.what;
            error(match self.path(invalid.part) {
                Some(path) => format!("{}: {what}", path.display()),
                None => what,
            })
        })?;
        let mut warnings = Vec::new();
        let now_s = i64::try_from(crate::process::wall_ms() / 1000).unwrap_or(i64::MAX);
        for (at, what) in config.invalid_at(now_s) {
            if let Some(path) = self.path(Part::Certificate(at)) {
                warnings.push(format!("{place}: the certificate {} {what}", path.display()));
            }
        }
        for CertificateFiles { key, .. } in &self.certificates {
            if fs::metadata(key).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0) {
                let key = key.display();
                warnings.push(format!("{place}: everybody may read the key {key}; chmod 600 it"));
            }
        }
        Ok(LoadedTls { config, warnings })
    }

    fn path(&self, part: Part) -> Option<&Path> {
        match part {
            Part::Certificate(at) => self.certificates.get(at).map(|pair| &*pair.certificate),
            Part::Key(at) => self.certificates.get(at).map(|pair| &*pair.key),
            Part::ClientCa => self.client_ca.as_deref(),
            Part::Crl(at) => self.crl.get(at).map(|path| &**path),
            Part::Settings => None,
        }
    }

    /// Every file that is read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let keys = self.certificates.iter().flat_map(|pair| [&*pair.certificate, &*pair.key]);
        keys.chain(self.client_ca.as_deref()).chain(self.crl.iter().map(|path| &**path))
    }
}
