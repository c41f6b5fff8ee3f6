//! The flags of TLS that all tools share.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use whimbrel_client::{Address, Tls, TlsOptions, TlsVersion};

use crate::failure::Failure;

/// Each of them asks for TLS.
#[derive(Args, Debug)]
pub struct TlsArgs {
    /// Trust the authorities in this file (PEM).
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    cafile: Option<PathBuf>,
    /// Trust the authorities in the files of this folder.
    #[arg(long, value_name = "DIR", help_heading = "TLS")]
    capath: Option<PathBuf>,
    /// Trust the authorities of the system, as without --cafile and --capath.
    #[arg(long, help_heading = "TLS")]
    tls_use_os_certs: bool,
    /// Show this certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "TLS")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "TLS")]
    key: Option<PathBuf>,
    /// Take a certificate for another name than the broker's: anybody with one can be in between.
    #[arg(long, help_heading = "TLS")]
    insecure: bool,
    /// The only version to speak: tlsv1.3 or tlsv1.2.
    #[arg(long, value_name = "VERSION", help_heading = "TLS")]
    tls_version: Option<Version>,
    /// Offer this protocol (ALPN), as mqtt.
    #[arg(long, value_name = "PROTOCOL", help_heading = "TLS")]
    tls_alpn: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Version(TlsVersion);

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Version, &'static str> {
        match text {
            "tlsv1.3" => Ok(Version(TlsVersion::V1_3)),
            "tlsv1.2" => Ok(Version(TlsVersion::V1_2)),
            _ => Err("expected tlsv1.3 or tlsv1.2"),
        }
    }
}

impl TlsArgs {
    /// Whether there is a flag of TLS.
    pub fn is_asked_for(&self) -> bool {
        self.cafile.is_some()
            || self.capath.is_some()
            || self.cert.is_some()
            || self.tls_use_os_certs
            || self.insecure
            || self.tls_version.is_some()
            || self.tls_alpn.is_some()
    }

    /// `address` with TLS below, if a flag or the URL asks for it.
    pub fn below(&self, address: Address, by_url: bool) -> Result<Address, Failure> {
        if !by_url && !self.is_asked_for() {
            return Ok(address);
        }
        let tls = Tls::new(&TlsOptions {
            ca_file: self.cafile.clone(),
            ca_path: self.capath.clone(),
            system_authorities: self.tls_use_os_certs,
            certificate: self.cert.clone().zip(self.key.clone()),
            insecure: self.insecure,
            version: self.tls_version.map(|Version(version)| version),
            alpn: self.tls_alpn.clone(),
        });
        let tls = tls.map_err(|invalid| Failure::usage(invalid.to_string()))?;
        Ok(Address::Tls { inner: Box::new(address), tls })
    }
}
