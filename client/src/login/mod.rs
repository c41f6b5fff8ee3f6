//! How the client shows who it is.

#[cfg(feature = "oauth")]
mod oauth;
#[cfg(feature = "scram")]
mod scram;
mod secret;
mod token;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

#[cfg(feature = "oauth")]
pub use oauth::{ClientAuthentication, ClientCredentials, InvalidOAuth, SigningKey};
pub use secret::Secret;
pub use token::{BoxError, Carrier, Fetching, OAUTH2_JWT, Token, TokenProvider};
#[cfg(feature = "scram")]
pub use whimbrel_scram::Mechanism as ScramMechanism;

use crate::Error;
pub(crate) use token::Life;
use token::TokenLogin;

/// How the client shows who it is, anew for every connection.
///
/// ```
/// use whimbrel_client::{Login, Secret};
///
/// // Asked for at each connection, so a password may change while the client runs.
/// let login = Login::password_from(Some("boiler".into()), Secret::file("/etc/boiler/password"));
/// ```
#[derive(Clone, Default)]
pub struct Login {
    method: Method,
}

#[derive(Clone, Default)]
enum Method {
    #[default]
    Nothing,
    Password {
        user_name: Option<String>,
        password: Option<Secret>,
    },
    Token(Arc<TokenLogin>),
    #[cfg(feature = "scram")]
    Scram(Arc<scram::ScramLogin>),
}

impl Login {
    /// Nothing is shown.
    pub const fn none() -> Login {
        Login { method: Method::Nothing }
    }

    /// A user name, a password, or both.
    pub fn password(user_name: Option<String>, password: Option<Vec<u8>>) -> Login {
        Login { method: Method::Password { user_name, password: password.map(Secret::from) } }
    }

    /// A password that is asked for at each connection, perhaps with a user name.
    pub fn password_from(user_name: Option<String>, password: impl Into<Secret>) -> Login {
        Login { method: Method::Password { user_name, password: Some(password.into()) } }
    }

    /// Tokens of `provider`, shown by way of `carrier`.
    ///
    /// A token whose end is known serves for several connections and is renewed before it ends: on
    /// the same connection if the carrier is an authentication method, and otherwise by a new
    /// connection that goes on with the session. Clones share their token.
    pub fn token(provider: impl TokenProvider + 'static, carrier: Carrier) -> Login {
        Login { method: Method::Token(Arc::new(TokenLogin::new(Box::new(provider), carrier))) }
    }

    /// SCRAM (5.0): the broker learns that the client knows the password, without learning it, and
    /// must show that it knows the user too before anything else happens.
    #[cfg(feature = "scram")]
    pub fn scram(
        mechanism: ScramMechanism,
        user_name: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Login {
        let login = scram::ScramLogin::new(mechanism, user_name.into(), password.into());
        Login { method: Method::Scram(Arc::new(login)) }
    }

    /// What to show for the next connection, or next on the same connection.
    pub(crate) async fn begin(&self) -> Result<Attempt, Error> {
        match &self.method {
            Method::Nothing => Ok(Attempt::default()),
            Method::Password { user_name, password } => {
                let password = match password {
                    Some(password) => Some(password.get().await.map_err(Error::Login)?),
                    None => None,
                };
                let user_name = user_name.clone();
                let shown = Shown { user_name, password, ..Shown::default() };
                Ok(Attempt { shown, ..Attempt::default() })
            }
            Method::Token(login) => login.begin().await.map_err(Error::Login),
            #[cfg(feature = "scram")]
            Method::Scram(login) => login.begin().await.map_err(Error::Login),
        }
    }

    /// The broker did not take what was shown.
    pub(crate) fn handle_refused(&self) {
        if let Method::Token(login) = &self.method {
            login.forget();
        }
    }

    /// Whether it needs an authentication method, which only 5.0 has.
    pub(crate) fn is_enhanced(&self) -> bool {
        match &self.method {
            Method::Nothing | Method::Password { .. } => false,
            Method::Token(login) => matches!(login.carrier(), Carrier::Method(_)),
            #[cfg(feature = "scram")]
            Method::Scram(_) => true,
        }
    }

    /// Whether it needs the request of a WebSocket.
    pub(crate) fn needs_websocket(&self) -> bool {
        matches!(&self.method, Method::Token(login) if *login.carrier() == Carrier::WebSocket)
    }
}

/// Without what is secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// One authentication.
#[derive(Default)]
pub(crate) struct Attempt {
    pub(crate) shown: Shown,
    /// For methods of more than one step.
    pub(crate) conversation: Option<Box<dyn Conversation>>,
    /// How long what is shown holds.
    pub(crate) life: Option<Life>,
}

/// What stands in CONNECT, or in the first AUTH.
#[derive(Clone, Default)]
pub(crate) struct Shown {
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    /// Authentication method and its data (5.0).
    pub(crate) method: Option<(String, Vec<u8>)>,
    /// For the request of a WebSocket.
    pub(crate) bearer: Option<String>,
}

/// An answer to the server's data, and how the conversation goes on.
pub(crate) type Answering =
    Pin<Box<dyn Future<Output = Result<(Vec<u8>, Box<dyn Conversation>), String>> + Send>>;

/// The client's part in enhanced authentication (section 4.12).
pub(crate) trait Conversation: Send {
    /// The answer to the server's data.
    fn answer(self: Box<Self>, data: Vec<u8>) -> Answering;

    /// Checks what came with the server's consent.
    fn finish(self: Box<Self>, data: &[u8]) -> Result<(), String>;
}
