//! Flags of mosquitto's tools that are understood and refused, each with what to do instead.

use clap::Args;

use crate::failure::Failure;

/// What is refused, for `--help`.
pub const HELP: &str = "\
Not supported, unlike in mosquitto's tools: --psk, --psk-identity, --ciphers, --tls-engine and \
--keyform engine (TLS is that of rustls: certificates, and ciphers that are all safe), and -S \
(look the SRV record up, and give its host and port).";

/// They are hidden, as they do nothing.
#[derive(Args, Debug)]
pub struct Unsupported {
    #[arg(short = 'S', hide = true)]
    srv: bool,
    #[arg(long, hide = true)]
    psk: Option<String>,
    #[arg(long, hide = true)]
    psk_identity: Option<String>,
    #[arg(long, hide = true)]
    ciphers: Option<String>,
    #[arg(long, hide = true)]
    tls_engine: Option<String>,
    #[arg(long, hide = true)]
    tls_engine_kpass_sha1: Option<String>,
    #[arg(long, hide = true)]
    keyform: Option<String>,
}

impl Unsupported {
    /// Fails if one of them is given.
    pub fn check(&self) -> Result<(), Failure> {
        let why = if self.srv {
            "-S: SRV records are not looked up; give host and port with -h and -p"
        } else if self.psk.is_some() || self.psk_identity.is_some() {
            "--psk: TLS with a pre-shared key is not supported; use certificates or -u and -P"
        } else if self.ciphers.is_some() {
            "--ciphers: the ciphers cannot be chosen, only the version, with --tls-version"
        } else if self.tls_engine.is_some() || self.tls_engine_kpass_sha1.is_some() {
            "--tls-engine: engines are not supported; give the key in a file, with --key"
        } else if self.keyform.as_deref().is_some_and(|form| form != "pem") {
            "--keyform: keys must be files in PEM"
        } else {
            return Ok(());
        };
        Err(Failure::usage(why))
    }
}
