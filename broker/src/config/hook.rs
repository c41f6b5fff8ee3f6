//! The `[http]` table: somebody else's service that knows clients.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;
use whimbrel_auth::hook::HookConfig;
use whimbrel_auth::{Secret, token::check_url};

use super::ConfigError;
use super::fields::Fields;
use super::listener::At;

const KEYS: &[&str] = &[
    "url",
    "authorization_file",
    "timeout_ms",
    "cache_s",
    "cache_entries",
    "max_failures",
    "pause_s",
];

/// The service, and the file that belongs to it.
#[derive(Clone, Debug)]
pub struct Hook {
    hook: HookConfig,
    authorization_file: Option<PathBuf>,
    origin: String,
}

impl Hook {
    /// The file that it names.
    pub fn file(&self) -> Option<&Path> {
        self.authorization_file.as_deref()
    }

    /// With what stands in its file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn load(&self) -> Result<HookConfig, ConfigError> {
        let mut hook = self.hook.clone();
        if let Some(path) = &self.authorization_file {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
                place: self.origin.clone(),
                what: format!("cannot read {}: {error}", path.display()),
            })?;
            hook.authorization = Some(Secret(text.trim_end().as_bytes().into()));
        }
        Ok(hook)
    }
}

/// Reads `[http]` that stands at `origin`.
pub(super) fn read(value: &Spanned<DeValue<'_>>, origin: String) -> Result<Hook, At> {
    let fields = Fields::of("http", value, KEYS)?;
    let url = fields.need_text("url")?;
    check_url(&url).map_err(|why| fields.wrong("url", &format!("cannot be used: {why}")))?;
    let number = |key: &str, most, default| Ok(fields.number(key, most)?.unwrap_or(default));
    let hook = HookConfig {
        url: url.into(),
        authorization: None,
        timeout_ms: number("timeout_ms", 60_000, 2000)?,
        cache_s: number("cache_s", 86_400, 0)?,
        cache_entries: number("cache_entries", 10_000_000, 100_000)? as usize,
        max_failures: number("max_failures", 1_000_000, 5)? as u32,
        pause_s: number("pause_s", 86_400, 10)?,
    };
    let authorization_file = fields.text("authorization_file")?.map(PathBuf::from);
    Ok(Hook { hook, authorization_file, origin })
}
