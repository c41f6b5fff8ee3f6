//! Flags that say who the client is, beyond user name and password.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use whimbrel_client::{
    BoxError, Carrier, ClientAuthentication, ClientCredentials, Login, ScramMechanism, Secret,
    Token,
};

use crate::failure::Failure;

/// Passwords from files, SCRAM, and tokens.
#[derive(Args, Debug)]
pub struct LoginArgs {
    /// Password in the first line of a file.
    #[arg(long, value_name = "FILE", conflicts_with = "password", help_heading = "Login")]
    password_file: Option<PathBuf>,
    /// How to show it: SCRAM with user name and password (5.0), a token by the authentication
    /// method OAUTH2-JWT (5.0), or a token in the request of a WebSocket; a password if not given.
    #[arg(long, value_enum, value_name = "METHOD", help_heading = "Login")]
    auth: Option<Auth>,
    /// Token in a file, shown as the password if --auth says nothing else. The file is read for
    /// each connection, and before a JWT expires.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password", "password_file"])]
    #[arg(help_heading = "Login")]
    token_file: Option<PathBuf>,
    /// Token endpoint of an authorization server, to get tokens by client credentials (OAuth) and
    /// new ones in time.
    #[arg(long, value_name = "URL", help_heading = "Login")]
    #[arg(requires_all = ["oauth_client_id", "oauth_client_secret_file"])]
    #[arg(conflicts_with_all = ["token_file", "password", "password_file"])]
    oauth_token_url: Option<String>,
    /// Client identifier at the authorization server.
    #[arg(long, value_name = "ID", requires = "oauth_token_url", help_heading = "Login")]
    oauth_client_id: Option<String>,
    /// Its secret, in the first line of a file.
    #[arg(long, value_name = "FILE", requires = "oauth_token_url", help_heading = "Login")]
    oauth_client_secret_file: Option<PathBuf>,
    /// Scope to ask for; may be repeated.
    #[arg(long, value_name = "SCOPE", requires = "oauth_token_url", help_heading = "Login")]
    oauth_scope: Vec<String>,
    /// Trust the authorities in this file (PEM) for the token endpoint, not the system's.
    #[arg(long, value_name = "FILE", requires = "oauth_token_url", help_heading = "Login")]
    oauth_cafile: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Auth {
    #[value(name = "scram-sha-256")]
    ScramSha256,
    #[value(name = "scram-sha-512")]
    ScramSha512,
    Oauth2Jwt,
    Bearer,
}

impl LoginArgs {
    /// Whether it needs 5.0.
    pub fn is_enhanced(&self) -> bool {
        self.auth.is_some_and(|auth| auth != Auth::Bearer)
    }

    /// With the user name and the password of other flags.
    pub fn login(&self, user: Option<&str>, password: Option<&str>) -> Result<Login, Failure> {
        let password = match &self.password_file {
            Some(file) => Some(Secret::file(file)),
            None => password.map(Secret::from),
        };
        let user_name = user.map(String::from);
        match self.auth {
            Some(Auth::ScramSha256) => scram(ScramMechanism::Sha256, user_name, password),
            Some(Auth::ScramSha512) => scram(ScramMechanism::Sha512, user_name, password),
            Some(Auth::Oauth2Jwt) => self.token(Carrier::default()),
            Some(Auth::Bearer) => self.token(Carrier::WebSocket),
            None if self.token_file.is_some() || self.oauth_token_url.is_some() => {
                self.token(Carrier::Password { user_name })
            }
            None => Ok(match password {
                Some(password) => Login::password_from(user_name, password),
                None => Login::password(user_name, None),
            }),
        }
    }

    fn token(&self, carrier: Carrier) -> Result<Login, Failure> {
        if let Some(file) = &self.token_file {
            let file = Arc::new(file.clone());
            return Ok(Login::token(
                move || {
                    let file = file.clone();
                    async move { read_token(&file) }
                },
                carrier,
            ));
        }
        Ok(Login::token(self.credentials()?, carrier))
    }

    fn credentials(&self) -> Result<ClientCredentials, Failure> {
        let (Some(url), Some(id), Some(secret)) =
            (&self.oauth_token_url, &self.oauth_client_id, &self.oauth_client_secret_file)
        else {
            let what = "--auth needs a token: add --token-file, or --oauth-token-url and its flags";
            return Err(Failure::usage(what));
        };
        let secret = ClientAuthentication::SecretBasic(Secret::file(secret));
        let wrong = |error| Failure::usage(format!("--oauth-token-url {url}: {error}"));
        let mut credentials = ClientCredentials::new(url, id, secret).map_err(wrong)?;
        for scope in &self.oauth_scope {
            credentials = credentials.scope(scope);
        }
        let Some(file) = &self.oauth_cafile else { return Ok(credentials) };
        let named = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("--oauth-cafile {}: {error}", file.display()))
        };
        let pem = std::fs::read(file).map_err(|error| named(&error))?;
        credentials.authorities(&pem).map_err(|error| named(&error))
    }
}

fn scram(
    mechanism: ScramMechanism,
    user_name: Option<String>,
    password: Option<Secret>,
) -> Result<Login, Failure> {
    match (user_name, password) {
        (Some(user_name), Some(password)) => Ok(Login::scram(mechanism, user_name, password)),
        _ => Err(Failure::usage("SCRAM needs -u, and -P or --password-file")),
    }
}

/// A file is small and near: reading it holds nobody up.
fn read_token(file: &std::path::Path) -> Result<Token, BoxError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("--token-file {}: {error}", file.display()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("--token-file {}: it is empty", file.display()).into());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(match expires_at(text) {
        Some(at) => Token::new(text).expires_in(at.saturating_sub(now)),
        None => Token::new(text),
    })
}

/// When a token ends, since 1970, if it is a JWT that says so (RFC 7519, section 4.1.4).
fn expires_at(token: &str) -> Option<Duration> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Duration::try_from_secs_f64(claims.get("exp")?.as_f64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_jwt_is_known() {
        let jwt = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expires_at(&jwt("{\"exp\":1.5}")), Some(Duration::from_millis(1500)));
        for none in ["opaque", "a.b.c", &jwt("{}"), &jwt("{\"exp\":-1}"), &jwt("{\"exp\":\"1\"}")] {
            assert_eq!(expires_at(none), None, "{none}");
        }
    }
}
