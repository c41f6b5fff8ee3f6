//! `[[token]]` tables: issuers of OAuth tokens.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;
use whimbrel_auth::Secret;
use whimbrel_auth::token::{Algorithm, Introspection, IssuerConfig, Keys, Silent};

use super::ConfigError;
use super::fields::Fields;
use super::listener::At;

/// Longest time that may be configured, in seconds.
const YEAR_S: u64 = 366 * 86_400;

const KEYS: &[&str] = &[
    "issuer",
    "audience",
    "jwks_file",
    "jwks_url",
    "secret_file",
    "only_opaque",
    "algorithms",
    "types",
    "leeway_s",
    "max_token_bytes",
    "name_claims",
    "name_prefix",
    "groups_claim",
    "permissions_claim",
    "without_permissions",
    "refresh_s",
    "retry_s",
    "stale_s",
    "introspection",
];

const INTROSPECTION: &[&str] = &[
    "url",
    "client_id",
    "client_secret_file",
    "cache_s",
    "negative_cache_s",
    "cache_entries",
    "without_audience",
];

/// An issuer of tokens, and the files that belong to it.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    /// Without what stands in files.
    issuer: IssuerConfig,
    jwks_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    client_secret_file: Option<PathBuf>,
    origin: String,
}

impl TokenIssuer {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        let all = [&self.jwks_file, &self.secret_file, &self.client_secret_file];
        all.into_iter().flatten().map(PathBuf::as_path)
    }

    /// With what stands in its files.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn load(&self) -> Result<IssuerConfig, ConfigError> {
        let mut issuer = self.issuer.clone();
        if let Some(path) = &self.jwks_file {
            issuer.keys = Keys::Text(self.read(path)?.into());
        }
        if let Some(path) = &self.secret_file {
            issuer.keys = Keys::Secret(Secret(trimmed(self.read(path)?)));
        }
        if let (Some(path), Some(asked)) = (&self.client_secret_file, &mut issuer.introspection) {
            asked.client_secret = Secret(trimmed(self.read(path)?));
        }
        Ok(issuer)
    }

    /// Where it stands in the configuration.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn read(&self, path: &PathBuf) -> Result<Vec<u8>, ConfigError> {
        std::fs::read(path).map_err(|error| ConfigError {
            place: self.origin.clone(),
            what: format!("cannot read {}: {error}", path.display()),
        })
    }
}

/// A secret without the end of its line.
fn trimmed(mut bytes: Vec<u8>) -> Box<[u8]> {
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    bytes.into()
}

/// Reads one `[[token]]` that stands at `origin`.
pub(super) fn read(value: &Spanned<DeValue<'_>>, origin: String) -> Result<TokenIssuer, At> {
    let fields = Fields::of("token", value, KEYS)?;
    let name = fields.need_text("issuer")?;
    let audience = fields.texts("audience")?.unwrap_or_default();
    let mut issuer = IssuerConfig::new(&name, "");
    issuer.audience = audience.iter().map(|one| one.as_str().into()).collect();
    if let Some(names) = fields.texts("algorithms")? {
        issuer.algorithms =
            names.iter().map(|one| algorithm(&fields, one)).collect::<Result<_, _>>()?;
    }
    if let Some(types) = fields.texts("types")? {
        issuer.types = types.iter().map(|one| one.to_lowercase().into()).collect();
    }
    let number = |key: &str, most, default| Ok(fields.number(key, most)?.unwrap_or(default));
    issuer.leeway_s = number("leeway_s", 3600, issuer.leeway_s)?;
    let bytes = number("max_token_bytes", 65_535, issuer.max_token_bytes as u64)?;
    issuer.max_token_bytes = bytes as usize;
    issuer.refresh_s = number("refresh_s", YEAR_S, issuer.refresh_s)?;
    issuer.retry_s = number("retry_s", YEAR_S, issuer.retry_s)?;
    issuer.stale_s = number("stale_s", YEAR_S, issuer.stale_s)?;
    if let Some(names) = fields.texts("name_claims")? {
        issuer.profile.names = names.iter().map(|one| one.as_str().into()).collect();
    }
    issuer.profile.prefix = fields.text("name_prefix")?.unwrap_or_default().into();
    issuer.profile.groups = fields.text("groups_claim")?.map(Into::into);
    issuer.profile.permissions = fields.text("permissions_claim")?.map(Into::into);
    issuer.profile.silent = match fields.text("without_permissions")?.as_deref() {
        None | Some("nothing") => Silent::PermitsNothing,
        Some("rules") => Silent::LeavesItToRules,
        Some(_) => {
            return Err(fields.wrong("without_permissions", "must be \"nothing\" or \"rules\""));
        }
    };
    let path = |key| Ok::<_, At>(fields.text(key)?.map(PathBuf::from));
    let (jwks_file, secret_file) = (path("jwks_file")?, path("secret_file")?);
    issuer.keys = keys(&fields, jwks_file.is_some(), secret_file.is_some())?;
    let mut client_secret_file = None;
    if let Some(table) = fields.get("introspection") {
        let asked = Fields::of("token.introspection", table, INTROSPECTION)?;
        client_secret_file = Some(PathBuf::from(asked.need_text("client_secret_file")?));
        issuer.introspection = Some(introspection(&asked)?);
    }
    Ok(TokenIssuer { issuer, jwks_file, secret_file, client_secret_file, origin })
}

fn keys(fields: &Fields<'_, '_>, file: bool, secret: bool) -> Result<Keys, At> {
    let url = fields.text("jwks_url")?;
    let only_opaque = fields.flag("only_opaque")?;
    let named = [file, secret, url.is_some(), only_opaque];
    if named.into_iter().filter(|named| *named).count() > 1 {
        let what = "this token has several of `jwks_file`, `jwks_url`, `secret_file` and \
                    `only_opaque`; keep one of them";
        return Err((fields.at, what.into()));
    }
    Ok(match url {
        Some(url) => Keys::Url(url.into()),
        None if only_opaque => Keys::None,
        None => Keys::Discovered,
    })
}

fn algorithm(fields: &Fields<'_, '_>, name: &str) -> Result<Algorithm, At> {
    let what = "must be a list of JWS algorithms, such as [\"RS256\", \"ES256\", \"EdDSA\"]";
    Algorithm::from_name(name).ok_or_else(|| fields.wrong("algorithms", what))
}

fn introspection(fields: &Fields<'_, '_>) -> Result<Introspection, At> {
    let number = |key: &str, most, default| Ok(fields.number(key, most)?.unwrap_or(default));
    Ok(Introspection {
        url: fields.text("url")?.map(Into::into),
        client_id: fields.need_text("client_id")?.into(),
        client_secret: Secret(Box::default()),
        cache_s: number("cache_s", YEAR_S, 60)?,
        negative_cache_s: number("negative_cache_s", YEAR_S, 10)?,
        cache_entries: number("cache_entries", 10_000_000, 100_000)? as usize,
        without_audience: fields.flag("without_audience")?,
    })
}
