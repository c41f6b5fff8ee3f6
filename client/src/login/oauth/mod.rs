//! Tokens by OAuth's client credentials grant (RFC 6749, section 4.4).

mod http;
mod key;

use std::fmt;
use std::sync::Arc;

use oauth2::basic::{BasicClient, BasicErrorResponse, BasicTokenResponse, BasicTokenType};
use oauth2::{AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, RequestTokenError};
use oauth2::{Scope, TokenResponse, TokenUrl};
use tokio::time::Instant;

pub use key::SigningKey;

use super::secret::blocking;
use super::token::{Fetching, Token, TokenProvider};
use super::{BoxError, Secret};
use http::Http;

/// The type of an assertion that is a JWT (RFC 7523, section 2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How the client authenticates at the authorization server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// `client_secret_basic`: a secret in the header.
    SecretBasic(Secret),
    /// `client_secret_post`: a secret in the body.
    SecretPost(Secret),
    /// `private_key_jwt`: an assertion that is signed with this key (RFC 7523).
    PrivateKey(SigningKey),
}

/// Gets tokens by the client credentials grant.
///
/// ```
/// use whimbrel_client::{Carrier, Client, ClientAuthentication, ClientCredentials, Login, Secret};
///
/// # fn settings() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = ClientAuthentication::SecretBasic(Secret::file("/etc/boiler/secret"));
/// let tokens = ClientCredentials::new("https://as.example/token", "boiler", secret)?
///     .scope("mqtt:pub:boiler/#");
/// let login = Login::token(tokens, Carrier::default());
/// let builder = Client::builder("mqtts://broker.example")?.login(login);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientCredentials {
    client: Endpoint,
    authentication: ClientAuthentication,
    scopes: Vec<String>,
    parameters: Vec<(&'static str, String)>,
    assertion_audience: String,
    http: Arc<Http>,
}

type Endpoint =
    BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// What is wrong with settings of OAuth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOAuth(String);

impl fmt::Display for InvalidOAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidOAuth {}

impl ClientCredentials {
    /// Tokens of the token endpoint at `token_url`, for the client `client_id`.
    ///
    /// # Errors
    /// The URL is none, or not of https: secrets would go over the network as they are. Plain http
    /// is accepted to this machine.
    pub fn new(
        token_url: &str,
        client_id: &str,
        authentication: ClientAuthentication,
    ) -> Result<ClientCredentials, InvalidOAuth> {
        let url = TokenUrl::new(token_url.into())
            .map_err(|error| InvalidOAuth(format!("{token_url}: {error}")))?;
        let is_safe = match url.url().scheme() {
            "https" => true,
            "http" => url.url().host_str().is_some_and(is_loopback),
            _ => false,
        };
        if !is_safe {
            return Err(InvalidOAuth(format!("{token_url}: a token endpoint needs https://")));
        }
        Ok(ClientCredentials {
            client: BasicClient::new(ClientId::new(client_id.into())).set_token_uri(url),
            authentication,
            scopes: Vec::new(),
            parameters: Vec::new(),
            assertion_audience: token_url.into(),
            http: Arc::new(Http::new(None)),
        })
    }

    /// Adds a scope to ask for, or several with spaces between them.
    pub fn scope(mut self, scope: &str) -> ClientCredentials {
        self.scopes.extend(scope.split_ascii_whitespace().map(String::from));
        self
    }

    /// Adds a resource that the token is for (RFC 8707), as a URI.
    pub fn resource(mut self, uri: &str) -> ClientCredentials {
        self.parameters.push(("resource", uri.into()));
        self
    }

    /// Adds the parameter `audience`, which some authorization servers want in place of a
    /// resource.
    pub fn audience(mut self, audience: &str) -> ClientCredentials {
        self.parameters.push(("audience", audience.into()));
        self
    }

    /// Whom an assertion of [`ClientAuthentication::PrivateKey`] is for; without it the token
    /// endpoint. Some authorization servers want their issuer there.
    pub fn assertion_audience(mut self, audience: &str) -> ClientCredentials {
        self.assertion_audience = audience.into();
        self
    }

    /// Authorities for https, in PEM, in place of the system's.
    ///
    /// # Errors
    /// There is no certificate.
    pub fn authorities(mut self, pem: &[u8]) -> Result<ClientCredentials, InvalidOAuth> {
        self.http = Arc::new(Http::new(Some(http::certificates(pem)?)));
        Ok(self)
    }

    /// The client and further parameters, with what shows that it is the client.
    async fn authenticated(&self) -> Result<(Endpoint, Vec<(&'static str, String)>), String> {
        let mut parameters = self.parameters.clone();
        let client = self.client.clone().set_auth_type(match self.authentication {
            ClientAuthentication::SecretBasic(_) => AuthType::BasicAuth,
            _ => AuthType::RequestBody,
        });
        let client = match &self.authentication {
            ClientAuthentication::SecretBasic(secret)
            | ClientAuthentication::SecretPost(secret) => {
                let secret = String::from_utf8(secret.get().await?);
                let secret = secret.map_err(|_| "the client's secret is not UTF-8")?;
                client.set_client_secret(ClientSecret::new(secret))
            }
            ClientAuthentication::PrivateKey(key) => {
                let assertion = key.assertion(client.client_id(), &self.assertion_audience)?;
                parameters.push(("client_assertion_type", JWT_BEARER.into()));
                parameters.push(("client_assertion", assertion));
                client
            }
        };
        Ok((client, parameters))
    }

    async fn fetch(&self) -> Result<Token, String> {
        let (client, parameters) = self.authenticated().await?;
        let scopes: Vec<_> = self.scopes.iter().cloned().map(Scope::new).collect();
        let http = self.http.clone();
        let begun = Instant::now();
        let answer = blocking(move || {
            let request = client.exchange_client_credentials().add_scopes(scopes);
            let request = parameters
                .into_iter()
                .fold(request, |request, (name, value)| request.add_extra_param(name, value));
            request.request(&*http).map_err(|error| told(&error))
        });
        token(&answer.await?, begun)
    }
}

impl TokenProvider for ClientCredentials {
    fn token(&self) -> Fetching<'_> {
        Box::pin(async {
            let url = self.client.token_uri().as_str();
            let fetched = self.fetch().await;
            fetched.map_err(|error| BoxError::from(format!("{url}: {error}")))
        })
    }
}

/// Without what is secret.
impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("token_url", &self.client.token_uri().as_str())
            .field("client_id", &self.client.client_id().as_str())
            .finish_non_exhaustive()
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn token(answer: &BasicTokenResponse, begun: Instant) -> Result<Token, String> {
    // A token of another type cannot be shown without more.
    if *answer.token_type() != BasicTokenType::Bearer {
        return Err("the token is not one of type Bearer".into());
    }
    let token = Token::new(answer.access_token().secret().as_str());
    Ok(match answer.expires_in() {
        Some(life) => token.since(begun, life),
        None => token,
    })
}

/// What went wrong, without what the server sent in place of an error: it may be a token.
fn told(error: &RequestTokenError<ureq::Error, BasicErrorResponse>) -> String {
    match error {
        RequestTokenError::ServerResponse(answer) => {
            let text: String = answer.to_string();
            let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
            format!("the authorization server refuses: {text}")
        }
        RequestTokenError::Request(error) => error.to_string(),
        RequestTokenError::Parse(error, _) => {
            format!("not an answer of a token endpoint, at `{}`", error.path())
        }
        RequestTokenError::Other(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> ClientAuthentication {
        ClientAuthentication::SecretBasic("s3cret".into())
    }

    #[test]
    fn secrets_go_over_https_or_stay_on_this_machine() {
        for good in ["https://as.example/token", "http://127.0.0.1:1/t", "http://[::1]/t"] {
            assert!(ClientCredentials::new(good, "c", secret()).is_ok(), "{good}");
        }
        for bad in ["http://as.example/token", "ftp://127.0.0.1/t", "token", "http://127.evil/"] {
            assert!(ClientCredentials::new(bad, "c", secret()).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_secret_is_shown_in_debug() {
        let tokens = ClientCredentials::new("https://as.example/token", "c", secret()).unwrap();
        let text = format!("{tokens:?} {:?}", secret());
        assert!(text.contains("as.example") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn an_answer_that_is_none_is_not_repeated() {
        let answer = |body: &str| {
            let response = ureq::http::Response::builder().status(200).body(body.into());
            let response: oauth2::HttpResponse = response.unwrap();
            let tokens = ClientCredentials::new("https://as.example/t", "c", secret()).unwrap();
            let client = move |_| Ok::<_, ureq::Error>(response.clone());
            let request = tokens.client.exchange_client_credentials();
            let answer = request.request(&client).map_err(|error| told(&error));
            answer.and_then(|answer| token(&answer, Instant::now()))
        };
        for bad in [
            r#"{"access_token": "s3cret"}"#,
            r#"{"access_token": ["s3cret"], "token_type": "Bearer"}"#,
            r#"{"access_token": "x", "token_type": "Bearer", "expires_in": "s3cret"}"#,
            r#"{"access_token": "s3cret", "token_type": "DPoP"}"#,
            "s3cret",
            "",
        ] {
            let error = answer(bad).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert!(answer(r#"{"access_token": "x", "token_type": "bearer"}"#).is_ok());
    }
}
